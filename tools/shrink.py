#!/usr/bin/env python3
"""Leave out the last blocks of the stages of a trained GridNet, to train a smaller network from what is left.

python tools/shrink.py runs/facemtl-s-third/model.safetensors --depths 1 2 1 --out runs/facemtl-s-small.safetensors
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from facemtl.errors import FaceMTLError, ModelError
from facemtl.models.files import load_model, load_parameters, model_from_spec, save_model
from facemtl.models.gridnet import shallower


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .safetensors file of backbone gridnet")
    parser.add_argument("--depths", type=int, nargs="+", required=True, help="further blocks that each stage keeps")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    args = parser.parse_args()
    try:
        model, spec = load_model(args.model)
        if spec.backbone != "gridnet":
            raise ModelError(f"{args.model} is a {spec.backbone}, and only a gridnet has blocks to leave out")
        spec = replace(spec, backbone_options={**spec.backbone_options, "depths": args.depths})
        smaller = model_from_spec(spec)
        load_parameters(smaller, shallower(model, args.depths), args.model)
        save_model(args.out, smaller, spec)
    except FaceMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {sum(p.numel() for p in smaller.parameters()):,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
