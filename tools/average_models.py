#!/usr/bin/env python3
"""One model of several that were trained from each other: the mean of their parameters.

    python tools/average_models.py runs/facemtl-s/trained.safetensors runs/facemtl-s-eighth/model.safetensors \
        --out runs/facemtl-s/model.safetensors

It costs a prediction nothing, and is often better than each of them; where the trainings had different fresh starts it
is worthless. The description, and the locator if there is one, are those of the first. Probabilities have to be
calibrated again (tools/calibrate.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError
from facemtl.models.averaging import average
from facemtl.models.files import save_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help=".safetensors files of the same network, two or more")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    args = parser.parse_args()
    try:
        save_model(args.out, *average(args.models))
    except FaceMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: the mean of {len(args.models)} models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
