#!/usr/bin/env python3
"""Check and unpack udacity68.zip, validate every row and picture, print the counts.

python datasets/udacity68/prepare.py udacity68.zip     # unpacks into $FACEMTL_DATA/udacity68
python datasets/udacity68/prepare.py --check           # validates what is there
python datasets/udacity68/prepare.py --measure-offset  # holds the points against those that a model finds
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from facemtl import Predictor
from facemtl.data.archives import folder_of_file, unpack_zip
from facemtl.data.prepare import check_pictures, run_prepare
from facemtl.data.sample import FaceSample, face_box
from facemtl.data.udacity68 import LABELS, SPLITS, person_of, read_udacity68
from facemtl.image import read_image
from facemtl.landmarks import SCHEMAS

MAX_UNPACKED = 1 << 30  # bytes; the set is far smaller
WEIGHTS = "tcdcn"  # trained on MTFL alone, so it knows nothing of these labels
MEASURED = 600  # pictures


def unpack(archive: Path, root: Path) -> None:
    """Make ``root`` of the folder of the CSV file in the archive; see :func:`facemtl.data.archives.unpack_zip`."""
    unpack_zip(archive, root, "udacity68.zip", folder_of_file(archive, LABELS), MAX_UNPACKED)


def describe(root: Path) -> str:
    """Counts per split, and the points that are off their picture, as a table to print."""
    lines = []
    for split in SPLITS:
        samples = read_udacity68(root, split)
        sizes = check_pictures(samples)
        people = {person_of(sample.image.name) for sample in samples}
        lines.append(f"{split}: {len(samples)} faces of {len(people)} people")
        for sample, size in zip(samples, sizes, strict=True):
            outside = int(points_outside(sample, size).sum())
            if outside:
                lines.append(f"  {outside} points outside {sample.image.name} ({sample.source})")
    return "\n".join(lines)


def points_outside(sample: FaceSample, size: tuple[int, int]) -> np.ndarray:
    """(68,) bool: which points lie off a picture of this (height, width), index coordinates."""
    height, width = size
    return ((sample.points < -0.5) | (sample.points > (width - 0.5, height - 0.5))).any(axis=1)


def describe_offset(root: Path) -> str:
    """By how much predictions, averaged over a picture and its mirror, lie right of and under the points.

    A mirror turns round a constant shift of the labels in x, so that the average shows it, whatever the model's own.
    """
    samples = read_udacity68(root, "train")
    samples = [samples[i] for i in np.linspace(0, len(samples) - 1, MEASURED).round().astype(int)]
    five = SCHEMAS["mtfl5"]
    predict = Predictor(WEIGHTS, tasks=["landmarks"])
    offsets = []
    for sample in samples:
        image, box = read_image(sample.image), face_box(sample)
        last = image.shape[1] - 1
        (face,) = predict(image, boxes=[box])
        (mirrored,) = predict(
            np.ascontiguousarray(image[:, ::-1]), boxes=[(last - box[2], box[1], last - box[0], box[3])]
        )
        back = mirrored.landmarks[list(five.flip_order)] * (-1, 1) + (last, 0)
        offsets.append(((face.landmarks + back) / 2 - SCHEMAS["ibug68"].to_five(sample.points)).mean(axis=0))
    x, y = np.median(offsets, axis=0)
    return f"median offset of predictions, pixels: x {x:.2f}, y {y:.2f}"


def main() -> int:
    more = {"--measure-offset": ("hold the points against predicted ones", describe_offset)}
    print(run_prepare(__doc__, "udacity68", "udacity68.zip", unpack, describe, more))
    return 0


if __name__ == "__main__":
    sys.exit(main())
