#!/usr/bin/env python3
"""Check and unpack utkface.zip, validate every picture, print the counts.

python datasets/utkface/prepare.py utkface.zip      # unpacks into $FACEMTL_DATA/utkface
python datasets/utkface/prepare.py --check          # validates what is there
python datasets/utkface/prepare.py --measure-box    # estimates FACE_BOX of facemtl/data/utkface.py anew
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from facemtl.data.archives import unpack_zip
from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.utkface import SIDE, SPLITS, read_utkface
from facemtl.detect import MtcnnDetector
from facemtl.errors import DataError, FaceMTLError, ImageError
from facemtl.face import ATTRIBUTES
from facemtl.image import read_image

MAX_UNPACKED = 1 << 30  # bytes; the set is far smaller
MEASURED = 200  # pictures


def unpack(archive: Path, root: Path) -> None:
    """Make ``root`` of the one folder of pictures in the archive; see :func:`facemtl.data.archives.unpack_zip`."""

    def pictures(content: Path) -> Path:
        folders = {path.parent for path in content.rglob("*.jpg")}
        if len(folders) != 1:
            raise DataError(f"{archive} holds {len(folders)} folders of .jpg pictures, expected one")
        return folders.pop()

    unpack_zip(archive, root, "utkface.zip", pictures, MAX_UNPACKED)


def validate(samples: list[FaceSample]) -> None:
    """Raise DataError unless every picture can be read and has the size for which the face box is measured."""
    bad = []
    for sample in samples:
        try:
            height, width = read_image(sample.image).shape[:2]
        except ImageError as error:
            bad.append(str(error))
        else:
            if (height, width) != (SIDE, SIDE):
                bad.append(f"{sample.image} has {width} x {height} pixels, expected {SIDE} x {SIDE}")
    if bad:
        more = f"\n... and {len(bad) - 20} more" if len(bad) > 20 else ""
        raise DataError(f"{len(bad)} bad pictures:\n" + "\n".join(bad[:20]) + more)


def describe(splits: dict[str, list[FaceSample]]) -> str:
    """Counts per split and label, and the names that lack a label, as a table to print."""
    lines = []
    for split, samples in splits.items():
        lines.append(f"{split}: {len(samples)} faces")
        for task in ("gender", "age"):
            counts = Counter(s.labels[task] for s in samples)
            lines.append(f"  {task}: " + ", ".join(f"{label} {counts[i]}" for i, label in enumerate(ATTRIBUTES[task])))
            lines += [f"  {task} missing: {s.source}" for s in samples if s.labels[task] == MISSING]
    return "\n".join(lines)


def measure_box(samples: list[FaceSample]) -> np.ndarray:
    """(4,) median of the default detector's surest box over evenly spaced pictures, ``x1 y1 x2 y2`` in pixels."""
    detector = MtcnnDetector()
    chosen = np.linspace(0, len(samples) - 1, MEASURED).round().astype(int)
    found = [detector.detect(read_image(samples[i].image)).boxes[:1] for i in chosen]
    return np.median(np.concatenate(found), axis=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("archive", nargs="?", type=Path, help="utkface.zip, to unpack and validate")
    action.add_argument("--check", action="store_true", help="validate the unpacked set")
    action.add_argument("--measure-box", action="store_true", help="estimate where the face is")
    parser.add_argument("--root", type=Path, help="folder of the unpacked set; default $FACEMTL_DATA/utkface")
    args = parser.parse_args()
    if args.root is None:
        if not os.environ.get("FACEMTL_DATA"):
            parser.error("set FACEMTL_DATA to the folder of the data sets, or pass --root")
        args.root = Path(os.environ["FACEMTL_DATA"]) / "utkface"
    try:
        if args.archive is not None:
            unpack(args.archive, args.root)
        splits = {split: read_utkface(args.root, split) for split in SPLITS}
        if args.measure_box:
            print("median box:", " ".join(f"{v:.1f}" for v in measure_box(splits["train"])))
            return 0
        validate([sample for samples in splits.values() for sample in samples])
        print(describe(splits))
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
