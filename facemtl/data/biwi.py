"""BIWI: head angles from a depth camera, frame by frame; no points.

Fanelli, Dantone, Gall, Fossati and Van Gool, "Random Forests for Real Time 3D Face Analysis" (IJCV 2013), the BIWI
Kinect Head Pose Database, https://data.vision.ee.ethz.ch/cvl/gfanelli/head_pose/head_forest.html. ``hpdb/`` has a
folder for each of 24 recordings of 20 people, and in it ``frame_00003_rgb.png`` and ``frame_00003_pose.txt``: three
lines of a rotation matrix, a blank line, and the middle of the head in millimetres, which is not read.

The matrix takes the head to the depth camera, whose x points to the right of the picture, y down and z away from the
camera; so does the head's that looks at it. Here z points to the viewer (:mod:`facemtl.head_pose`), so the matrix is
turned into that frame and taken apart.

The set gives no face box that fits this package. ``python datasets/biwi/prepare.py --detect`` writes those of the
default detector to ``boxes.txt``; frames in which it finds no face are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from facemtl.data.named import box_of
from facemtl.data.rows import finite_numbers, image_of, parse_files, parse_rows, read_lines
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split
from facemtl.errors import DataError
from facemtl.files import write_beside
from facemtl.head_pose import angles_of_rotation
from facemtl.image import read_image

SPLITS = ("test",)
BOXES = "boxes.txt"
PICTURE, POSE = "_rgb.png", "_pose.txt"
_AWAY_TO_VIEWER = np.diag([1.0, 1.0, -1.0])
ORTHONORMAL = 1e-2  # by how much a published matrix may miss being a rotation


def read_biwi(root: str | Path, split: str) -> list[FaceSample]:
    """The frames with a box, recording by recording: schema ``mtfl5``, no point known, a box and angles.

    Args:
        root: the published ``hpdb/``, and ``boxes.txt``, made by ``datasets/biwi/prepare.py --detect``: a frame a line,
            ``01/frame_00003_rgb.png x1 y1 x2 y2``.
        split: ``test``, the only one.

    Raises:
        DataError: an unknown split, no frames, a missing file, bad boxes, or bad poses: each with its reason.
    """
    root = Path(root)
    check_split("BIWI", split, SPLITS)
    _frames(root)

    def parse(line: str, _: int) -> tuple[Path, np.ndarray]:
        name, *corners = line.split()
        if len(corners) != 4 or not name.endswith(PICTURE):
            raise ValueError(f"expected a frame *{PICTURE} and x1 y1 x2 y2, found {line[:80]!r}")
        return image_of(root / "hpdb", name), box_of(*finite_numbers(corners).tolist())

    lines = read_lines(root / BOXES, "the boxes that python datasets/biwi/prepare.py --detect writes")
    boxes = dict(parse_rows(root / BOXES, lines, parse))
    if not boxes:
        raise DataError(f"{root / BOXES} holds no rows")

    def sample(image: Path) -> FaceSample:
        return FaceSample(
            image=image,
            points=np.full((5, 2), np.nan, dtype=np.float32),
            schema="mtfl5",
            labels={},
            box=boxes[image],
            source=image.relative_to(root).as_posix(),
            group=image.parent.name,
            angles=np.float32(angles_of_pose(read_rotation(_pose_of(image)))),
        )

    return parse_files(sorted(boxes), sample)


def detect_boxes(root: str | Path, detect: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
    """Write ``boxes.txt``; returns how many frames there are, and how many of them have a box.

    Args:
        root: holds ``hpdb/``.
        detect: picture -> (N, 4) boxes, the surest first.

    Raises:
        DataError: no frames.
        ImageError: a picture that cannot be read.
    """
    root = Path(root)
    frames, lines = _frames(root), []
    for frame in frames:
        boxes = detect(read_image(frame))
        if len(boxes):
            name = frame.relative_to(root / "hpdb").as_posix()
            lines.append(" ".join([name, *(f"{v:.2f}" for v in boxes[0])]) + "\n")
    write_beside(root / BOXES, lambda path: path.write_text("".join(lines), encoding="utf-8"))
    return len(frames), len(lines)


def read_rotation(path: Path) -> np.ndarray:
    """(3, 3) float64 rotation of a pose file, as published.

    Raises:
        DataError: a file that is missing, no text, or of another layout.
        ValueError: numbers that are none, or no rotation.
    """
    rows = [line.split() for line in read_lines(path, "a pose file of BIWI") if line.strip()]
    if [len(row) for row in rows] != [3, 3, 3, 3]:
        found = ", ".join(str(len(row)) for row in rows[:6])
        raise DataError(f"{path}: expected three lines of a matrix and one of a place, 3 numbers each; found {found}")
    numbers = np.stack([finite_numbers(row) for row in rows]).astype(np.float64)[:3]
    if np.abs(numbers @ numbers.T - np.eye(3)).max() > ORTHONORMAL or np.linalg.det(numbers) < 0:
        raise ValueError(f"expected a rotation matrix, found {numbers.round(3).tolist()}")
    return numbers


def angles_of_pose(matrix: np.ndarray) -> np.ndarray:
    """(3,) float64 yaw, pitch, roll in degrees, in the signs of this package, from a published matrix."""
    return angles_of_rotation(_AWAY_TO_VIEWER @ matrix @ _AWAY_TO_VIEWER)


def _frames(root: Path) -> list[Path]:
    frames = sorted((root / "hpdb").glob(f"*/*{PICTURE}"))
    if not frames:
        raise DataError(f"{root / 'hpdb'} holds no frames *{PICTURE}: expected BIWI, see datasets/biwi/README.md")
    return frames


def _pose_of(image: Path) -> Path:
    return image.with_name(image.name.removesuffix(PICTURE) + POSE)
