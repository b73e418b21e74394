"""MTFL, the Multi-Task Facial Landmark set, read exactly as published.

Format (http://mmlab.ie.cuhk.edu.hk/projects/TCDCN.html, readme of the archive): ``training.txt`` and ``testing.txt``
hold one face a line, ``path x1..x5 y1..y5 gender smile glasses pose``. In the published files the lines of
``training.txt`` start with a blank and separate folders by a backslash. Points: left eye, right eye, nose tip, left
and right mouth corner, left being the viewer's. Codes count from 1: gender male, female; smile yes, no; glasses yes,
no; pose left profile, left, frontal, right, right profile.

Coordinates are 1-based (MATLAB); this adapter subtracts 1, so that 0 is the centre of the first pixel. In ``net_7876``
only whole ones are: the others were scaled with their pictures, which moved them by a part of a pixel, and this
adapter moves them back. The evidence is in ``datasets/mtfl/README.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path, PurePath, PureWindowsPath

import numpy as np

from facemtl.data.rows import Row, finite_numbers, image_of, parse_rows, read_lines
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES

SPLITS = ("train", "heldout", "test")
LABEL_ORDER = ("gender", "smile", "glasses", "pose")
FIELDS = 1 + 10 + len(LABEL_ORDER)
TRAINING_ROWS = 10_000
HELDOUT_ROWS = "mtfl_heldout.txt"
SCALED = "net_7876"  # folder of which some pictures were reduced, and with them their points
# Pixels to the left and up; what comes of scaling 1-based coordinates by s is (1 - s) / 2. Measured: 0.35 to 0.45.
SCALING_MOVED = 0.4


def read_mtfl(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split, in file order, with schema ``mtfl5`` and every label known.

    Args:
        root: the unpacked folder, which holds ``training.txt`` and ``testing.txt``.
        split: ``train`` (9,000 rows of ``training.txt``), ``heldout`` (its other 1,000, whose numbers are committed
            in ``mtfl_heldout.txt``) or ``test`` (``testing.txt``; with the boxes of ``testing_boxes.txt`` where it is).

    Raises:
        DataError: a missing file, or bad rows: each with its file, line and reason.
    """
    root = Path(root)
    check_split("MTFL", split, SPLITS)
    if split == "test":
        return _read_rows(root, "testing.txt", _read_boxes(root / "testing_boxes.txt"))
    samples = _read_rows(root, "training.txt", {})
    heldout = heldout_rows()
    if len(samples) != TRAINING_ROWS:  # the held-out list would name other faces
        raise DataError(
            f"{root / 'training.txt'} has {len(samples)} rows: this is not the published file of {TRAINING_ROWS:,}, "
            "for which the held-out rows are chosen; read it with read_mtfl_file"
        )
    return [s for row, s in enumerate(samples, start=1) if (row in heldout) == (split == "heldout")]


def read_mtfl_file(root: str | Path, name: str) -> list[FaceSample]:
    """Every face of one label file in MTFL's layout, such as a set of one's own; as :func:`read_mtfl`."""
    return _read_rows(Path(root), name, _read_boxes(Path(root) / f"{Path(name).stem}_boxes.txt"))


def heldout_rows() -> frozenset[int]:
    """The committed row numbers of ``training.txt``, counted from 1, on which no shipped weight trains."""
    text = resources.files("facemtl.data").joinpath(HELDOUT_ROWS).read_text()
    return frozenset(int(line) for line in text.split("\n") if line and not line.startswith("#"))


def _parse_lines(path: Path, parse: Callable[[str, int], Row]) -> list[Row]:
    return parse_rows(path, read_lines(path, "the unpacked MTFL archive, see datasets/mtfl/README.md"), parse)


def _read_rows(root: Path, name: str, boxes: dict[str, np.ndarray]) -> list[FaceSample]:
    samples = _parse_lines(root / name, lambda line, number: _parse(root, line, f"{name}:{number}", boxes))
    if not samples:
        raise DataError(f"{root / name} holds no rows")
    return samples


def _parse(root: Path, line: str, source: str, boxes: dict[str, np.ndarray]) -> FaceSample:
    fields = line.split()
    if len(fields) != FIELDS:
        raise ValueError(f"expected {FIELDS} fields (path, 5 x, 5 y, 4 codes), found {len(fields)}")
    image = image_of(root, fields[0])
    path = image.relative_to(root)
    coordinates = finite_numbers(fields[1:11])
    labels: dict[str, int] = {}
    for task, text in zip(LABEL_ORDER, fields[11:], strict=True):
        count = len(ATTRIBUTES[task])
        if not text.isdecimal() or not 1 <= int(text) <= count:
            raise ValueError(f"the {task} code must be 1 to {count}, found {text!r}")
        labels[task] = int(text) - 1
    return FaceSample(
        image=image,
        points=coordinates.reshape(2, 5).T - _first_pixel(path, coordinates),
        schema="mtfl5",
        labels=labels,
        box=boxes.get(path.as_posix()),
        source=source,
        group=path.parts[0] if len(path.parts) > 1 else "",
    )


def _first_pixel(path: PurePath, coordinates: np.ndarray) -> float:
    """The coordinate that the file gives to the centre of the first pixel."""
    scaled = path.parts[0] == SCALED and (coordinates % 1 != 0).any()
    return 1.0 - SCALING_MOVED if scaled else 1.0


def _read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Image -> its box; nothing where there is no such file."""
    boxes: dict[str, np.ndarray] = {}

    def parse(line: str, _: int) -> None:
        name, *numbers = line.split()
        box = finite_numbers(numbers)
        if box.shape != (4,) or box[2] <= box[0] or box[3] <= box[1]:
            raise ValueError(f"expected `path x1 y1 x2 y2` with x2 > x1 and y2 > y1, found {line!r}")
        image = PureWindowsPath(name).as_posix()
        if image in boxes:
            raise ValueError(f"a second box for {image}")
        boxes[image] = box

    if path.is_file():
        _parse_lines(path, parse)
    return boxes
