#!/usr/bin/env python3
"""Give a trained network a locator: a far smaller one that lays the crop through what it finds in the face box.

    python tools/add_locator.py runs/facemtl-s/model.safetensors runs/facemtl-s-locator/model.safetensors

The locator is a training of its own, with fewer pixels and the same main points; both are one file from then on, and
what the network says of a crop stays as it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError
from facemtl.models.files import load_model, save_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .safetensors file with five points or more")
    parser.add_argument("locator", type=Path, help="a .safetensors file of the same main points, on smaller crops")
    parser.add_argument("--out", type=Path, help="the .safetensors file to write; default MODEL itself")
    args = parser.parse_args()
    try:
        model, spec = load_model(args.model)
        model.locator, located = load_model(args.locator)
        save_model(args.out or args.model, model, spec.with_locator(located))
    except FaceMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    own, more = (sum(p.numel() for p in part.parameters()) for part in (model, model.locator))
    print(f"{args.out or args.model}: {own:,} parameters, {more:,} of them the locator's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
