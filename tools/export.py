#!/usr/bin/env python3
"""Write a trained model as ONNX and prove that every head computes the same as in torch.

    python tools/export.py runs/tcdcn/model.safetensors                 # model.onnx beside it
    python tools/export.py runs/tcdcn/model.safetensors --out tcdcn.onnx

Exit status: 0 written, 2 something is wrong with the model or the place to write to.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .safetensors file of tools/train.py")
    parser.add_argument("--out", type=Path, help="the ONNX file; default beside the model")
    args = parser.parse_args()

    from facemtl.training.export import export_onnx  # --help must not wait for torch

    target = args.out or args.model.with_suffix(".onnx")
    try:
        for task, difference in export_onnx(args.model, target).items():
            print(f"{task}: largest difference to torch {difference:.2g}")
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
