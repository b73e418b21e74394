#!/usr/bin/env python3
"""Validate every row and picture of MAFL, laid out as README.md says, and print the counts.

python datasets/mafl/prepare.py --check
"""

from __future__ import annotations

import sys

from facemtl.data.celeba import SPLITS, read_mafl
from facemtl.data.prepare import describe_splits, run_prepare


def main() -> int:
    print(run_prepare(__doc__, "mafl", None, None, describe_splits(read_mafl, SPLITS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
