#!/usr/bin/env python3
"""Make a training set of the faces on which two annotations agree.

    python tools/annotate.py photos --out twice --passes 2 --flip
    python tools/annotate.py photos --out once --passes 1 --no-flip
    python tools/pseudo_labels.py twice once --out table

The set is a `table` for recipes (--data-root table, or a folder table under $FACEMTL_DATA). docs/pseudo_labels.md goes
through all of it. Exit status: 0 written, 2 something is wrong with the input.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from facemtl.data.pseudo_labels import Limits, write_pseudo_labels
from facemtl.errors import FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="the annotation whose points and labels are kept")
    parser.add_argument("second", type=Path, help="the annotation that must agree")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table; made if missing")
    helps = {
        "score": "least detector score",
        "quality": "least quality of a face",
        "sigma": "most mean sigma of the points, in distances of the eyes",
        "disagreement": "most mean distance of the points, in distances of the eyes",
        "confidence": "least confidence of a label",
    }
    for name, value in asdict(Limits()).items():
        parser.add_argument(f"--{name}", type=float, default=value, help=f"{helps[name]} (default: %(default)s)")
    args = parser.parse_args()
    try:
        limits = Limits(**{name: getattr(args, name) for name in helps})
        counts = write_pseudo_labels(args.first, args.second, args.out, limits)
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for reason, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        print(f"{count:8d}  {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
