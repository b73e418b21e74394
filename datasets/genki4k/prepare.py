#!/usr/bin/env python3
"""Check and unpack genki4k.zip, validate every row and picture, print the counts.

python datasets/genki4k/prepare.py genki4k.zip      # unpacks into $FACEMTL_DATA/genki4k
python datasets/genki4k/prepare.py --check          # validates what is there
python datasets/genki4k/prepare.py --measure-box    # estimates FACE_BOX of facemtl/data/genki4k.py anew
python datasets/genki4k/prepare.py --measure-signs  # holds the angles against the points that a model finds
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from facemtl import Predictor
from facemtl.data.archives import folder_of_file, unpack_zip
from facemtl.data.genki4k import LABELS, SIDE, SPLITS, read_genki4k
from facemtl.data.prepare import box_line, check_pictures, count_labels, measure_box, run_prepare
from facemtl.data.sample import FaceSample
from facemtl.face import ANGLES
from facemtl.image import read_image

MAX_UNPACKED = 1 << 30  # bytes; the set is far smaller
ZOOM = 4  # the pictures are small for a detector
WEIGHTS = "tcdcn"  # trained on MTFL alone, so it knows nothing of these labels
MEASURED = 400  # pictures


def unpack(archive: Path, root: Path) -> None:
    """Make ``root`` of the folder of labels.txt in the archive; see :func:`facemtl.data.archives.unpack_zip`."""
    unpack_zip(archive, root, "genki4k.zip", folder_of_file(archive, LABELS), MAX_UNPACKED)


def describe(root: Path) -> str:
    """Counts per split and label, and what a constant guess of the angles is off by, as a table to print."""
    splits = {split: read_genki4k(root, split) for split in SPLITS}
    check_pictures([sample for samples in splits.values() for sample in samples], SIDE)
    lines = []
    for split, samples in splits.items():
        lines += [f"{split}: {len(samples)} faces", count_labels(samples, "smile")]
        angles = [sample.angles for sample in samples if np.isfinite(sample.angles).all()]
        if angles:
            spread = np.abs(angles - np.median(angles, axis=0)).mean(axis=0)
            lines.append(f"  angles: {len(angles)} faces, mean distance from the median in degrees: {_each(spread)}")
    return "\n".join(lines)


def measured_box(root: Path) -> str:
    return box_line(measure_box(read_genki4k(root, "train"), ZOOM))


def geometry(samples: list[FaceSample]) -> np.ndarray:
    """(N, 3) float64 what five predicted points say of yaw, pitch and roll, in the frame of the eye line.

    Offset of the nose from the middle of the eyes, in eye distances, larger to the viewer's right; how high the nose
    is between mouth (0) and eyes (1); and the angle of the eye line in degrees, clockwise.
    """
    predict = Predictor(WEIGHTS, tasks=["landmarks"])
    rows = []
    for sample in samples:
        image = cv2.resize(read_image(sample.image), None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
        (face,) = predict(image, boxes=[(sample.box + 0.5) * ZOOM - 0.5])
        left, right, nose, *mouth = face.landmarks.astype(float)
        line = (right - left) / np.linalg.norm(right - left)
        down = np.array([-line[1], line[0]])
        middle = (left + right) / 2
        rows.append(
            (
                (nose - middle) @ line / np.linalg.norm(right - left),
                1 - (nose - middle) @ down / ((np.mean(mouth, axis=0) - middle) @ down),
                np.degrees(np.arctan2(line[1], line[0])),
            )
        )
    return np.array(rows)


def describe_signs(root: Path) -> str:
    """Correlation of each angle with its geometry; one and the same sign if the signs are the package's."""
    samples = [sample for sample in read_genki4k(root, "train") if np.isfinite(sample.angles).all()]
    samples = [samples[i] for i in np.linspace(0, len(samples) - 1, MEASURED).round().astype(int)]
    angles, seen = np.stack([sample.angles for sample in samples]), geometry(samples)
    return "correlation with the points: " + _each([np.corrcoef(angles[:, i], seen[:, i])[0, 1] for i in range(3)], 2)


def _each(values: np.ndarray | list[float], digits: int = 1) -> str:
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in zip(ANGLES, values, strict=True))


def main() -> int:
    more = {
        "--measure-box": (
            "estimate where the face is",
            lambda r: box_line(measure_box(read_genki4k(r, "train"), ZOOM)),
        ),
        "--measure-signs": ("hold the angles against predicted points", describe_signs),
    }
    print(run_prepare(__doc__, "genki4k", "genki4k.zip", unpack, describe, more))
    return 0


if __name__ == "__main__":
    sys.exit(main())
