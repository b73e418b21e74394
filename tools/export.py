#!/usr/bin/env python3
"""Write a trained model as ONNX and prove that every head computes the same as in torch.

    python tools/export.py runs/tcdcn/model.safetensors                 # model.onnx beside it
    python tools/export.py runs/tcdcn/model.safetensors --out tcdcn.onnx
    python tools/export.py runs/tcdcn/model.safetensors --eight-bit     # in whole numbers, for CPUs: smaller and faster

In whole numbers of 8 bits a network computes nearly the same: printed is the root mean square difference over training
faces, as a share of the spread between them.

Exit status: 0 written, 2 something is wrong with the model or the place to write to.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.data.sets import DATA_SETS
from facemtl.errors import FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .safetensors file of tools/train.py")
    parser.add_argument("--out", type=Path, help="the ONNX file; default beside the model")
    parser.add_argument("--eight-bit", action="store_true", help="in whole numbers, by training faces of --data")
    parser.add_argument("--data", choices=DATA_SETS, default="mtfl", help="which set's (default: mtfl)")
    args = parser.parse_args()

    from facemtl.training.eight_bit import training_crops  # --help must not wait for torch
    from facemtl.training.export import export_onnx

    target = args.out or args.model.with_suffix(".onnx")
    try:
        crops = training_crops(args.model, args.data) if args.eight_bit else None
        kind = "root mean square" if args.eight_bit else "largest"
        for task, difference in export_onnx(args.model, target, crops).items():
            print(f"{task}: {kind} difference to torch {difference:.2g}")
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
