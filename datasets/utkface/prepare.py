#!/usr/bin/env python3
"""Check and unpack utkface.zip, validate every picture, print the counts.

python datasets/utkface/prepare.py utkface.zip      # unpacks into $FACEMTL_DATA/utkface
python datasets/utkface/prepare.py --check          # validates what is there
python datasets/utkface/prepare.py --measure-box    # estimates FACE_BOX of facemtl/data/utkface.py anew
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from facemtl.data.archives import unpack_zip
from facemtl.data.prepare import box_line, check_pictures, count_labels, measure_box, run_prepare
from facemtl.data.sample import MISSING
from facemtl.data.utkface import ETHNICITIES, SIDE, SPLITS, read_utkface
from facemtl.errors import DataError

MAX_UNPACKED = 1 << 30  # bytes; the set is far smaller


def unpack(archive: Path, root: Path) -> None:
    """Make ``root`` of the one folder of pictures in the archive; see :func:`facemtl.data.archives.unpack_zip`."""

    def pictures(content: Path) -> Path:
        folders = {path.parent for path in content.rglob("*.jpg")}
        if len(folders) != 1:
            raise DataError(f"{archive} holds {len(folders)} folders of .jpg pictures, expected one")
        return folders.pop()

    unpack_zip(archive, root, "utkface.zip", pictures, MAX_UNPACKED)


def describe(root: Path) -> str:
    """Counts per split and label, and the names that lack a label, as a table to print."""
    splits = {split: read_utkface(root, split) for split in SPLITS}
    check_pictures([sample for samples in splits.values() for sample in samples], SIDE)
    lines = []
    for split, samples in splits.items():
        lines.append(f"{split}: {len(samples)} faces")
        for task in ("gender", "age"):
            lines.append(count_labels(samples, task))
            lines += [f"  {task} missing: {s.source}" for s in samples if s.labels[task] == MISSING]
        parts = Counter(sample.strata.get("ethnicity", "missing") for sample in samples)
        lines.append("  ethnicity: " + ", ".join(f"{part} {parts[part]}" for part in (*ETHNICITIES, "missing")))
    return "\n".join(lines)


def measured_box(root: Path) -> str:
    return box_line(measure_box(read_utkface(root, "train")))


def main() -> int:
    more = {
        "--measure-box": (
            "estimate where the face is",
            measured_box,
        )
    }
    print(run_prepare(__doc__, "utkface", "utkface.zip", unpack, describe, more))
    return 0


if __name__ == "__main__":
    sys.exit(main())
