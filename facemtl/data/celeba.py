"""CelebA and MAFL: five points, glasses, smile and gender of celebrities, aligned or in the wild.

Liu, Luo, Wang and Tang, "Deep Learning Face Attributes in the Wild" (ICCV 2015),
http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html. The files of ``Anno/`` have two header lines: how many rows there are,
then the names of the columns. Then comes a picture a line:

* ``list_attr_celeba.txt``: its name and 40 attributes of 1 or -1;
* ``list_landmarks_celeba.txt`` (in the wild) and ``list_landmarks_align_celeba.txt``: its name and, x and y in turn,
  left eye, right eye, nose, left and right mouth corner, left being the viewer's;
* ``list_bbox_celeba.txt`` (in the wild): its name and ``x_1 y_1 width height``.

``Eval/list_eval_partition.txt`` has no header: a name and 0 training, 1 validation, 2 test.

MAFL (Zhang, Luo, Loy and Tang, ECCV 2014 and TPAMI 2016) is 20,000 of these pictures, ``training.txt`` and
``testing.txt`` with a name a line. Coordinates are whole pixels, read as they are; ``datasets/celeba/README.md`` says
what is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.data.rows import finite_numbers, image_of, parse_rows, read_lines
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split, in_training_split
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES

SPLITS = ("train", "heldout", "test")
PARTITION = {"0": "train", "1": "heldout", "2": "test"}
PEOPLE = "the unpacked files of CelebA, see datasets/celeba/README.md"
COLUMNS_OF_POINTS = tuple(
    f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)
COLUMNS_OF_BOX = ("image_id", "x_1", "y_1", "width", "height")
ATTRIBUTE_COUNT = 40
# our task -> the published attribute, and our classes for 1 and -1
TASKS = {
    "glasses": ("Eyeglasses", "glasses", "no_glasses"),
    "smile": ("Smiling", "smiling", "not_smiling"),
    "gender": ("Male", "male", "female"),
}


def read_celeba(root: str | Path, split: str) -> list[FaceSample]:
    """The faces in the wild of one split in file order: schema ``mtfl5``, a box, ``glasses``, ``smile``, ``gender``.

    Args:
        root: the published folders ``Anno/``, ``Eval/`` and ``Img/img_celeba/``.
        split: ``train``, ``heldout`` (published as validation) or ``test``.

    Raises:
        DataError: an unknown split, a missing file, another header, files that name different pictures, or bad rows:
            each with its file, line and reason.
    """
    return _read(Path(root), split, _partition(Path(root)), aligned=False)


def read_celeba_aligned(root: str | Path, split: str) -> list[FaceSample]:
    """As :func:`read_celeba`, the aligned pictures of 178 x 218 pixels in ``Img/img_align_celeba/``, without boxes."""
    return _read(Path(root), split, _partition(Path(root)), aligned=True)


def read_mafl(root: str | Path, split: str) -> list[FaceSample]:
    """MAFL's faces in the wild in CelebA's order, as :func:`read_celeba`.

    Args:
        root: CelebA's folder, in which ``MAFL/`` holds ``training.txt`` and ``testing.txt``.
        split: ``test`` is the published one; ``train`` and ``heldout`` (a tenth, by the hash of the names) part the
            training list.
    """
    root = Path(root)
    check_split("MAFL", split, SPLITS)
    path = root / "MAFL" / ("testing.txt" if split == "test" else "training.txt")

    def parse(line: str, _: int) -> str:
        (name,) = line.split() if len(line.split()) == 1 else ("",)
        if not name.endswith(".jpg"):
            raise ValueError(f"expected the name of a picture of CelebA, found {line[:80]!r}")
        return name

    names = parse_rows(path, read_lines(path, "the unpacked MAFL archive, see datasets/mafl/README.md"), parse)
    if not names:
        raise DataError(f"{path} holds no rows")
    wanted = [name for name in names if split == "test" or in_training_split(name, split)]
    return _read(root, split, dict.fromkeys(wanted, split), aligned=False)


def _partition(root: Path) -> dict[str, str]:
    """Picture -> its published split."""
    path = root / "Eval" / "list_eval_partition.txt"

    def parse(line: str, _: int) -> tuple[str, str]:
        fields = line.split()
        if len(fields) != 2 or fields[1] not in PARTITION:
            raise ValueError(f"expected the name of a picture and 0, 1 or 2, found {line[:80]!r}")
        return fields[0], PARTITION[fields[1]]

    return dict(parse_rows(path, read_lines(path, PEOPLE), parse))


def _read(root: Path, split: str, parts: dict[str, str], aligned: bool) -> list[FaceSample]:
    check_split("CelebA", split, SPLITS)
    name = f"list_landmarks_{'align_' if aligned else ''}celeba.txt"
    labels = _table(root / "Anno" / "list_attr_celeba.txt", ATTRIBUTE_COUNT, None, _parse_attributes)
    points = _table(root / "Anno" / name, 10, COLUMNS_OF_POINTS, lambda texts, _: finite_numbers(texts))
    tables = [labels, points]
    boxes: dict[str, tuple[int, np.ndarray | None]] = {}
    if not aligned:
        boxes = _table(root / "Anno" / "list_bbox_celeba.txt", 4, COLUMNS_OF_BOX, _parse_box)
        tables.append(boxes)
    wanted = [picture for picture in points if parts.get(picture) == split]
    lacking = sorted({p for p, part in parts.items() if part == split and any(p not in table for table in tables)})
    if lacking:
        raise DataError(
            f"{len(lacking)} pictures of the split lack a row in a file of {root / 'Anno'}: {lacking[0]} ..."
        )
    pictures = root / "Img" / ("img_align_celeba" if aligned else "img_celeba")

    def sample(picture: str, _: int) -> FaceSample:
        number, coordinates = points[picture]
        return FaceSample(
            image=image_of(pictures, picture),
            points=coordinates.reshape(5, 2),
            schema="mtfl5",
            labels=labels[picture][1],
            box=boxes[picture][1] if boxes else None,
            source=f"{name}:{number}",
        )

    return parse_rows(pictures, wanted, sample)


def _parse_attributes(texts: list[str], columns: list[str]) -> dict[str, int]:
    found = {}
    for task, (attribute, yes, no) in TASKS.items():
        text = texts[columns.index(attribute)]
        if text not in ("1", "-1"):
            raise ValueError(f"the attribute {attribute} must be 1 or -1, found {text!r}")
        found[task] = ATTRIBUTES[task].index(yes if text == "1" else no)
    return found


def _parse_box(texts: list[str], _: list[str]) -> np.ndarray | None:
    """``x1 y1 x2 y2``, or None where the published box has no area."""
    x, y, width, height = finite_numbers(texts)
    return np.float32([x, y, x + width, y + height]) if width > 0 and height > 0 else None


def _table(path: Path, count: int, columns: tuple[str, ...] | None, parse: Callable) -> dict[str, tuple[int, Any]]:
    """Picture -> (line, ``parse(fields, columns)``) of a file with two header lines."""
    lines = read_lines(path, PEOPLE)
    header = lines[1].split() if len(lines) > 1 else []
    if not lines or not lines[0].strip().isdecimal():
        raise DataError(f"{path}:1: expected the number of rows, found {lines[0][:80] if lines else ''!r}")
    if columns is not None and header != list(columns):
        raise DataError(f"{path}:2: expected the columns {' '.join(columns)}, found {' '.join(header)[:120]!r}")
    if columns is None:  # of the attributes, only those that are read must be there
        missing = [attribute for attribute, _, _ in TASKS.values() if attribute not in header]
        if missing or len(header) != count:
            raise DataError(
                f"{path}:2: expected {count} attributes with {', '.join(a for a, _, _ in TASKS.values())}, found "
                f"{len(header)}" + (f" without {', '.join(missing)}" if missing else "")
            )
    rows: dict[str, tuple[int, Any]] = {}

    def row(line: str, number: int) -> None:
        picture, *texts = line.split()
        if len(texts) != count:
            raise ValueError(f"expected {1 + count} fields, found {1 + len(texts)}")
        if picture in rows:
            raise ValueError(f"a second row for {picture}")
        rows[picture] = number, parse(texts, header)

    parse_rows(path, lines[2:], row, first=3)
    if len(rows) != int(lines[0]):
        raise DataError(f"{path}: the first line says {int(lines[0])} rows, found {len(rows)}")
    return rows
