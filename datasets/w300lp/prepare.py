#!/usr/bin/env python3
"""Validate every row and picture of 300W-LP, laid out as README.md says, and print the counts.

python datasets/w300lp/prepare.py --check
"""

from __future__ import annotations

import sys

from facemtl.data.prepare import describe_splits, run_prepare
from facemtl.data.w300lp import SPLITS, read_w300lp


def main() -> int:
    print(run_prepare(__doc__, "w300lp", None, None, describe_splits(read_w300lp, SPLITS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
