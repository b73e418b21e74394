"""GENKI-4K: small face crops with smile and the angles of the head.

The MPLab GENKI-4K Dataset, http://mplab.ucsd.edu. ``labels.txt`` holds one face a line, ``smile yaw pitch roll``, in
either of two forms:

* published: nothing else; line ``n`` is the picture ``files/file%04d.jpg`` of number ``n``;
* named: a file name before the four, ``file0002.jpg 1 yaw pitch roll``, so that pictures may be left out.

Smile is 1 for a smiling face and 0 for another. Angles are radians in the signs of this package, so that they are only
turned into degrees; the evidence is in ``datasets/genki4k/README.md``. There are no points.

Some pictures are there under two or three names with the angles of different faces: the photo shows several, and the
same one was cut out for each. Whose angles are whose cannot be told, so they are missing.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from facemtl.data.rows import decimal, image_of, parse_rows, read_lines
from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.splits import check_split
from facemtl.errors import DataError
from facemtl.face import ANGLES, ATTRIBUTES

SPLITS = ("train", "heldout")
SIDE = 64  # of every picture, in pixels
# Where the face is: the same place in all crops, as nothing better is known. Median of the default detector's boxes
# over 200 training pictures; `python datasets/genki4k/prepare.py --measure-box` prints it.
FACE_BOX = (7.3, 12.3, 55.6, 60.6)
LABELS = "labels.txt"
SMILE = {"1": ATTRIBUTES["smile"].index("smiling"), "0": ATTRIBUTES["smile"].index("not_smiling")}
PUBLISHED, NAMED = 1 + len(ANGLES), 2 + len(ANGLES)  # fields of a row in either form


def read_genki4k(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split in file order, with schema ``mtfl5``, no point known, a box, ``smile`` and angles.

    Args:
        root: the unpacked folder, which holds ``labels.txt`` and ``files/``, pictures of 64 x 64 pixels.
        split: ``heldout`` is a fifth of the faces, ``train`` the rest; see :func:`split_of`. Pictures that are there
            more than once are all in ``train``, and a label in which they differ is missing. There is no ``test``.

    Raises:
        DataError: an unknown split, a missing file, a form that is neither of the two, or bad rows: each with its
            file, line and reason.
    """
    root = Path(root)
    check_split("GENKI-4K", split, SPLITS)
    path = root / LABELS
    lines = read_lines(path, "the unpacked GENKI-4K archive, see datasets/genki4k/README.md")
    while lines and not lines[-1].strip():
        lines.pop()
    number, first = next(((i, line) for i, line in enumerate(lines, start=1) if line.strip()), (0, ""))
    if not first:
        raise DataError(f"{path} holds no rows")
    fields = len(first.split())
    if fields not in (PUBLISHED, NAMED):
        raise DataError(
            f"{path}:{number}: expected 4 fields (smile, yaw, pitch, roll) as published, or 5 with a file name before "
            f"them; found {fields}: {first[:80]!r}"
        )
    if fields == PUBLISHED:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                raise DataError(f"{path}:{number}: a blank line; rows without names are counted, so none may be blank")
    seen: set[str] = set()

    def parse(line: str, number: int) -> FaceSample:
        row = line.split()
        if len(row) != fields:
            raise ValueError(f"expected {fields} fields as in the first row, found {len(row)}")
        name = row.pop(0) if fields == NAMED else f"file{number:04d}.jpg"
        if name in seen:
            raise ValueError(f"a second row for {name}")
        seen.add(name)
        return _sample(image_of(root / "files", name), row, f"{LABELS}:{number}")

    samples = parse_rows(path, lines, parse)
    groups: dict[bytes, list[FaceSample]] = defaultdict(list)
    for sample in samples:
        groups[hashlib.sha256(sample.image.read_bytes()).digest()].append(sample)
    copies = {s.image: _agreed(s, group) for group in groups.values() if len(group) > 1 for s in group}
    if split == "heldout":
        return [s for s in samples if s.image not in copies and split_of(s.image.name) == split]
    return [copies.get(s.image, s) for s in samples if s.image in copies or split_of(s.image.name) == split]


def _agreed(sample: FaceSample, copies: list[FaceSample]) -> FaceSample:
    """A sample without the labels in which the samples of the same picture differ."""
    smile = sample.labels["smile"]
    return replace(
        sample,
        labels={"smile": smile if all(s.labels["smile"] == smile for s in copies) else MISSING},
        angles=np.where(np.all([s.angles == sample.angles for s in copies], axis=0), sample.angles, np.float32(np.nan)),
    )


def split_of(name: str) -> str:
    """The split of a picture follows from its name alone: the SHA-256 of the name, as a number, modulo five.

    0 is ``heldout``. Pictures that are added or removed move no other.
    """
    return "heldout" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 5 == 0 else "train"


def _sample(image: Path, row: list[str], source: str) -> FaceSample:
    smile, *radians = row
    if smile not in SMILE:
        raise ValueError(f"smile must be 0 or 1, found {smile!r}")
    angles = np.array([decimal(v) for v in radians])
    if not (np.abs(angles) <= math.pi).all():  # NaN is not
        raise ValueError(f"angles must be radians within -pi to pi, found {' '.join(radians)}")
    return FaceSample(
        image=image,
        points=np.full((5, 2), np.nan, dtype=np.float32),
        schema="mtfl5",
        labels={"smile": SMILE[smile]},
        box=np.float32(FACE_BOX),
        source=source,
        angles=np.float32(np.degrees(angles)),
    )
