#!/usr/bin/env python3
"""Validate every row and picture of LFW, laid out as README.md says, and print the counts.

python datasets/lfw/prepare.py --check
"""

from __future__ import annotations

import sys

from facemtl.data.lfw import SPLITS, read_lfw
from facemtl.data.prepare import describe_splits, run_prepare


def main() -> int:
    print(run_prepare(__doc__, "lfw", None, None, describe_splits(read_lfw, SPLITS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
