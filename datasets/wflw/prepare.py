#!/usr/bin/env python3
"""Validate every row and picture of WFLW, laid out as README.md says, and print the counts.

python datasets/wflw/prepare.py --check
"""

from __future__ import annotations

import sys

from facemtl.data.prepare import describe_splits, run_prepare
from facemtl.data.wflw import SPLITS, read_wflw


def main() -> int:
    print(run_prepare(__doc__, "wflw", None, None, describe_splits(read_wflw, SPLITS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
