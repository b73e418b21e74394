"""LFW with its attribute file: gender, smile and glasses of 13,000 photos, as classifiers saw them.

Huang, Ramesh, Berg and Learned-Miller, "Labeled Faces in the Wild" (2007), http://vis-www.cs.umass.edu/lfw/; the
attributes are those of Kumar, Berg, Belhumeur and Nayar, "Attribute and Simile Classifiers for Face Verification" (ICCV
2009), http://www.cs.columbia.edu/CAVE/databases/pubfig/download/lfw_attributes.txt. That file has two header lines: a
comment, then ``#``, ``person``, ``imagenum`` and 73 attributes. A photo a line follows, all separated by tabs: the name
with blanks, its number, and for each attribute the score of a classifier, over 0 where it is present. The picture is
``lfw/Aaron_Eckhart/Aaron_Eckhart_0001.jpg``, 250 x 250 pixels. There are no points.

LFW's pictures are the faces of a Viola-Jones detector, the box enlarged 2.2 times and scaled to 250 pixels, so the face
box is one rectangle for all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facemtl.data.rows import finite_numbers, image_of, parse_rows, read_lines
from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.splits import check_split, is_heldout
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES

SPLITS = ("train", "heldout")
LABELS = "lfw_attributes.txt"
PICTURES = "lfw"
SIDE = 250  # of every picture, in pixels
_MARGIN = (SIDE - SIDE / 2.2) / 2
FACE_BOX = (_MARGIN - 0.5, _MARGIN - 0.5, SIDE - _MARGIN - 0.5, SIDE - _MARGIN - 0.5)
HEADER = ["#", "person", "imagenum"]
ATTRIBUTE_COUNT = 73
READ = ("Male", "Smiling", "Eyeglasses", "Sunglasses")
SURE = 0.5  # scores nearer to 0 are no label


def read_lfw(root: str | Path, split: str) -> list[FaceSample]:
    """The photos of one split in file order: schema ``mtfl5``, no point known, a box, gender, smile and glasses.

    Labels are what classifiers said in 2009. A score nearer to 0 than 0.5 is no label (-1). ``glasses`` is sure if
    either kind is, and ``no_glasses`` if both are surely not there.

    Args:
        root: ``lfw_attributes.txt`` and the unpacked ``lfw/``.
        split: ``heldout`` is a tenth of the people, by the hash of their names, ``train`` the rest.

    Raises:
        DataError: an unknown split, a missing file, another header, or bad rows: each with its file, line and reason.
    """
    root = Path(root)
    check_split("LFW", split, SPLITS)
    path = root / LABELS
    lines = read_lines(path, "LFW's attribute file, see datasets/lfw/README.md")
    header = lines[1].rstrip("\t").split("\t") if len(lines) > 1 else []
    lacking = [name for name in READ if name not in header]
    if header[:3] != HEADER or len(header) != len(HEADER) + ATTRIBUTE_COUNT or lacking:
        raise DataError(
            f"{path}:2: expected '#', 'person', 'imagenum' and {ATTRIBUTE_COUNT} attributes with {', '.join(READ)}, "
            f"separated by tabs, found {len(header)} fields: {(lines[1] if len(lines) > 1 else '')[:60]!r}"
        )
    places = {name: header.index(name) - 1 for name in READ}  # rows have no '#'

    def parse(line: str, number: int) -> FaceSample:
        fields = line.rstrip("\t").split("\t")
        if len(fields) != len(header) - 1:
            raise ValueError(f"expected {len(header) - 1} fields separated by tabs, found {len(fields)}")
        if not fields[1].isdecimal():
            raise ValueError(f"expected the number of the picture, found {fields[1]!r}")
        person = fields[0].replace(" ", "_")
        scores = dict(zip(READ, finite_numbers(fields[places[name]] for name in READ).tolist(), strict=True))
        return FaceSample(
            image=image_of(root / PICTURES, f"{person}/{person}_{int(fields[1]):04d}.jpg"),
            points=np.full((5, 2), np.nan, dtype=np.float32),
            schema="mtfl5",
            labels=labels_of(**scores),
            box=np.float32(FACE_BOX),
            source=f"{LABELS}:{number}",
            group=person,
        )

    samples = parse_rows(path, lines[2:], parse, first=3)
    if not samples:
        raise DataError(f"{path} holds no rows")
    return [s for s in samples if is_heldout(s.group) == (split == "heldout")]


def labels_of(Male: float, Smiling: float, Eyeglasses: float, Sunglasses: float) -> dict[str, int]:
    """Class indices from the scores of the classifiers, -1 where they are not sure."""
    worn = max(Eyeglasses, Sunglasses)
    return {
        "gender": _index("gender", Male, "male", "female"),
        "smile": _index("smile", Smiling, "smiling", "not_smiling"),
        "glasses": _index("glasses", worn, "glasses", "no_glasses"),
    }


def _index(task: str, score: float, present: str, absent: str) -> int:
    return MISSING if abs(score) < SURE else ATTRIBUTES[task].index(present if score > 0 else absent)
