"""The ``.pts`` files of 300-W and Menpo: the points of one face, counted from 1; and folders of pictures beside them.

Format (https://ibug.doc.ic.ac.uk/resources/300-W/, https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/)::

    version: 1
    n_points:  68
    {
    446.000 91.000
    ...
    }

Coordinates are those of MATLAB, where the centre of the first pixel is (1, 1); the readers here subtract 1.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from facemtl.data.rows import finite_numbers, parse_files, read_lines
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split, in_training_split
from facemtl.errors import DataError
from facemtl.landmarks import SCHEMAS

PICTURES = (".jpg", ".png", ".jpeg", ".bmp", ".JPG", ".PNG")


def read_pts(path: Path, count: int) -> np.ndarray:
    """(count, 2) float32 points of one file, index coordinates (1 is subtracted).

    Raises:
        DataError: a file that is missing, no text, of another layout or of another number of points; says what was
            expected and what was found.
    """
    lines = [(i, line.strip()) for i, line in enumerate(read_lines(path, "a .pts file"), start=1) if line.strip()]
    expected = ["version: 1", f"n_points: {count}", "{"]
    for (number, line), text in zip(lines, expected, strict=False):
        if "".join(line.split()) != "".join(text.split()):
            raise DataError(f"{path}:{number}: expected {text!r}, found {line[:80]!r}")
    rows = lines[len(expected) :]
    if len(lines) < len(expected) or not rows or rows[-1][1] != "}":
        raise DataError(f"{path}: expected a last line '}}', found {lines[-1][1][:80] if lines else ''!r}")
    if len(rows) - 1 != count:
        raise DataError(f"{path}: expected {count} lines of points as n_points says, found {len(rows) - 1}")
    points = np.empty((count, 2), dtype=np.float32)
    for i, (number, line) in enumerate(rows[:-1]):
        try:
            points[i] = _point(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}") from None
    return points - 1


def _point(line: str) -> np.ndarray:
    numbers = finite_numbers(line.split())
    if len(numbers) != 2:
        raise ValueError(f"expected x and y, found {line[:80]!r}")
    return numbers


def picture_of(path: Path) -> Path:
    """The picture of the same name beside a label file.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = {p.resolve(): p for suffix in PICTURES if (p := path.with_suffix(suffix)).is_file()}
    if len(found) != 1:
        raise ValueError(f"expected one picture {path.stem} ({', '.join(PICTURES[:4])}) beside it, found {len(found)}")
    return next(iter(found.values()))


def photo_of(name: str) -> str:
    """What the faces of one photo share of their names: AFW and HELEN number them, ``134212_1`` and ``134212_2``.

    LFPW's numbers count photos and have four digits: ``image_0001``.
    """
    return re.sub(r"_\d{1,2}$", "", name)


def read_pts_files(root: Path, folder: str, schema: str) -> list[FaceSample]:
    """The faces of the ``.pts`` files right in ``root / folder``, in the order of their names; ``group`` is the folder.

    Raises:
        DataError: no such files, or bad ones, all at once.
    """
    paths = sorted((root / folder).glob("*.pts"))
    if not paths:
        raise DataError(f"{root / folder} holds no .pts files")

    def parse(path: Path) -> FaceSample:
        points = read_pts(path, len(SCHEMAS[schema]))
        source = path.relative_to(root).as_posix()
        return FaceSample(picture_of(path), points, schema, labels={}, source=source, group=folder)

    return parse_files(paths, parse)


def read_pts_folder(root: str | Path, split: str, schema: str = "ibug68") -> list[FaceSample]:
    """A set of one's own: pictures with a ``.pts`` file of the same name beside each.

    Args:
        root: holds ``test/`` and ``train/`` with the files. ``heldout/`` may be a third folder; without it, a tenth of
            the photos of ``train/`` is held out by the hash of its name.
        split: ``train``, ``heldout`` or ``test``.
        schema: of the points, a key of :data:`facemtl.landmarks.SCHEMAS`.

    Raises:
        DataError: an unknown split, a folder without ``.pts`` files, or bad files.
    """
    root = Path(root)
    check_split("a folder of .pts files", split, ("train", "heldout", "test"))
    if split == "test" or (root / "heldout").is_dir():
        return read_pts_files(root, split, schema)
    samples = read_pts_files(root, "train", schema)
    return [s for s in samples if in_training_split(photo_of(s.image.stem), split)]
