#!/usr/bin/env python3
"""Find BIWI's faces, validate every frame, and print the counts.

python datasets/biwi/prepare.py --detect      # writes boxes.txt; half an hour on a CPU for the whole set
python datasets/biwi/prepare.py --check       # validates what is there
"""

from __future__ import annotations

import sys
from pathlib import Path

from facemtl.data.biwi import SPLITS, detect_boxes, read_biwi
from facemtl.data.prepare import describe_splits, run_prepare
from facemtl.detect import MtcnnDetector

describe = describe_splits(read_biwi, SPLITS)


def detect(root: Path) -> str:
    detector = MtcnnDetector()
    frames, faces = detect_boxes(root, lambda image: detector.detect(image).boxes)
    return f"{frames} frames, {faces} with a face\n{describe(root)}"


def main() -> int:
    more = {"--detect": ("find the face in every frame, then validate", detect)}
    print(run_prepare(__doc__, "biwi", None, None, describe, more))
    return 0


if __name__ == "__main__":
    sys.exit(main())
