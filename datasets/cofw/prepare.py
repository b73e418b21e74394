#!/usr/bin/env python3
"""Write COFW's pictures to files, validate every row and picture, and print the counts.

python datasets/cofw/prepare.py --extract      # into pictures/, beside the two .mat files
python datasets/cofw/prepare.py --check        # validates what is there
"""

from __future__ import annotations

import sys
from pathlib import Path

from facemtl.data.cofw import SPLITS, extract_pictures, read_cofw
from facemtl.data.prepare import describe_splits, run_prepare

describe = describe_splits(read_cofw, SPLITS)


def extract(root: Path) -> str:
    return f"extracted {extract_pictures(root)} pictures\n{describe(root)}"


def main() -> int:
    more = {"--extract": ("write the pictures to files, then validate", extract)}
    print(run_prepare(__doc__, "cofw", None, None, describe, more))
    return 0


if __name__ == "__main__":
    sys.exit(main())
