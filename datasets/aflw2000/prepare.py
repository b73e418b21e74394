#!/usr/bin/env python3
"""Validate every row and picture of AFLW2000-3D, laid out as README.md says, and print the counts.

python datasets/aflw2000/prepare.py --check
"""

from __future__ import annotations

import sys

from facemtl.data.prepare import describe_splits, run_prepare
from facemtl.data.w300lp import TEST_SPLITS, read_aflw2000


def main() -> int:
    print(run_prepare(__doc__, "aflw2000", None, None, describe_splits(read_aflw2000, TEST_SPLITS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
