#!/usr/bin/env python3
"""Validate every face and picture of AFLW, laid out as README.md says, and print the counts.

python datasets/aflw/prepare.py --check
"""

from __future__ import annotations

import sys
from pathlib import Path

from facemtl.data.aflw import SPLITS, count_unusable, read_aflw
from facemtl.data.prepare import describe_splits, run_prepare


def describe(root: Path) -> str:
    unusable = count_unusable(root)
    counts = describe_splits(read_aflw, SPLITS)(root)
    return f"{unusable} faces have neither a box nor the five points and are left out\n{counts}"


def main() -> int:
    print(run_prepare(__doc__, "aflw", None, None, describe))
    return 0


if __name__ == "__main__":
    sys.exit(main())
