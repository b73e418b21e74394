"""Udacity's facial keypoints: frames of videos of public figures, with 68 points a face.

The set of Udacity's computer vision course (https://github.com/udacity/P1_Facial_Keypoints), chosen from YouTube Faces
(Wolf, Hassner and Maoz, CVPR 2011). ``training_frames_keypoints.csv`` has a header ``,0,1,...,135`` and one face a row,
``name.jpg,x0,y0,...,x67,y67``; the pictures are in ``training/``. The points are those of 300-W, schema ``ibug68``.

Coordinates are 1-based (MATLAB); this adapter subtracts 1, so that 0 is the centre of the first pixel. The evidence
is in ``datasets/udacity68/README.md``.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from facemtl.data.rows import finite_numbers, image_of, parse_rows, read_lines
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split
from facemtl.errors import DataError

SPLITS = ("train", "heldout")
LABELS = "training_frames_keypoints.csv"
PICTURES = "training"
POINTS = 68
HEADER = ["", *(str(i) for i in range(2 * POINTS))]


def read_udacity68(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split in file order, with schema ``ibug68``, all points known and no other label.

    Args:
        root: the unpacked folder, which holds ``training_frames_keypoints.csv`` and ``training/``.
        split: ``heldout`` is about a fifth of the people, ``train`` the others; see :func:`split_of`. There is no
            ``test``.

    Raises:
        DataError: an unknown split, a missing file, another header, or bad rows: each with its file, line and reason.
    """
    root = Path(root)
    check_split("udacity68", split, SPLITS)
    path = root / LABELS
    lines = read_lines(path, "the unpacked archive of Udacity's facial keypoints, see datasets/udacity68/README.md")
    if not lines or [field.strip() for field in lines[0].split(",")] != HEADER:
        raise DataError(f"{path}:1: expected the header ',0,1,...,135', found {lines[0][:80] if lines else ''!r}")
    seen: set[str] = set()

    def parse(line: str, number: int) -> FaceSample:
        name, *texts = line.split(",")
        if len(texts) != 2 * POINTS:
            raise ValueError(f"expected 137 columns (name, 68 times x and y), found {1 + len(texts)}")
        if name in seen:
            raise ValueError(f"a second row for {name}")
        seen.add(name)
        coordinates = finite_numbers(texts)
        return FaceSample(
            image=image_of(root / PICTURES, name),
            points=coordinates.reshape(POINTS, 2) - 1,
            schema="ibug68",
            labels={},
            source=f"{LABELS}:{number}",
        )

    samples = parse_rows(path, lines[1:], parse, first=2)
    if not samples:
        raise DataError(f"{path} holds no rows")
    return [s for s in samples if split_of(s.image.name) == split]


def person_of(name: str) -> str:
    """Who is in a picture: its name before the trailing ``_digits``, ``T_Boone_Pickens`` of ``T_Boone_Pickens_10.jpg``.

    The first digit counts the video, the second the frame.
    """
    return re.sub(r"_\d+$", "", Path(name).stem)


def split_of(name: str) -> str:
    """The split of a picture follows from its person: the SHA-256 of the person's name, as a number, modulo five.

    0 is ``heldout``. So nobody is in both splits.
    """
    return "heldout" if int(hashlib.sha256(person_of(name).encode()).hexdigest(), 16) % 5 == 0 else "train"
