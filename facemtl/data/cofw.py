"""COFW: 29 points of which each is visible or occluded, in two MATLAB files that also hold the pictures.

Burgos-Artizzu, Perona and Dollar, "Robust face landmark estimation under occlusion" (ICCV 2013),
http://www.vision.caltech.edu/xpburgos/ICCV13/, files of https://data.caltech.edu/records/20099.
``COFW_train_color.mat`` holds ``IsTr``, ``phisTr`` and ``bboxesTr``, ``COFW_test_color.mat`` holds ``IsT``, ``phisT``
and ``bboxesT``. They are files of format 7.3, that is HDF5, in which every matrix stands transposed:

* ``Is``, a cell (N, 1): (1, N) references, each to a picture, (3, W, H) RGB or (W, H) grey, uint8;
* ``phis`` (N, 87): 29 x, 29 y, and 29 times 1 for an occluded point, 0 for a visible one;
* ``bboxes`` (N, 4): ``x y width height``.

Coordinates count from 1 (MATLAB); the reader subtracts 1. Pictures must be files here:
``python datasets/cofw/prepare.py --extract`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.data.rows import LARGEST, listed
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split, in_training_split
from facemtl.errors import DataError
from facemtl.image import write_image

SPLITS = ("train", "heldout", "test")
POINTS = 29
PICTURES = "pictures"
FILES = {"train": ("COFW_train_color.mat", "Tr"), "test": ("COFW_test_color.mat", "T")}
LFPW_ROWS = 845  # the first training rows are LFPW's, whose faces are hardly occluded
HEAVY = 0.3  # share of the points from which a face counts as heavily occluded


def read_cofw(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split in file order, with schema ``cofw29``, all points (occluded ones too) and a box.

    ``group`` is ``lfpw`` or ``cofw``; the stratum ``occlusion`` is ``none``, ``some`` or, from 30 % of the points,
    ``heavy``. :func:`occluded_points` tells point from point.

    Args:
        root: the two ``.mat`` files, and ``pictures/`` made by ``datasets/cofw/prepare.py --extract``.
        split: ``test`` is the published one; ``train`` and ``heldout`` (a tenth, by the hash of the pictures' names)
            part the published training rows.

    Raises:
        DataError: an unknown split, h5py or a file missing, a file of another layout, or pictures not extracted.
    """
    root = Path(root)
    check_split("COFW", split, SPLITS)
    name = FILES[_published(split)][0]
    points, occluded, boxes = _labels(root, split)
    samples, lacking = [], []
    for row in _rows(split, len(points)):
        image = root / PICTURES / _picture(split, row)
        if not image.is_file():
            lacking.append(f"the image {image} is missing")
        share = occluded[row].mean()
        samples.append(
            FaceSample(
                image=image,
                points=points[row],
                schema="cofw29",
                labels={},
                box=boxes[row],
                source=f"{name}:{row + 1}",
                group="lfpw" if split != "test" and row < LFPW_ROWS else "cofw",
                strata={"occlusion": "none" if share == 0 else "some" if share < HEAVY else "heavy"},
            )
        )
    if lacking:
        raise DataError(
            f"{len(lacking)} pictures are missing, run python datasets/cofw/prepare.py --extract:\n{listed(lacking)}"
        )
    return samples


def occluded_points(root: str | Path, split: str) -> np.ndarray:
    """(N, 29) bool in the order of :func:`read_cofw`: which points are occluded. Raises DataError like it."""
    check_split("COFW", split, SPLITS)
    occluded = _labels(Path(root), split)[1]
    return occluded[_rows(split, len(occluded))]


def extract_pictures(root: str | Path) -> int:
    """Write the pictures of both files to ``root / "pictures"`` as PNG; returns how many are there.

    Raises:
        DataError: h5py or a file missing, or a file of another layout.
    """
    root, count = Path(root), 0
    (root / PICTURES).mkdir(parents=True, exist_ok=True)
    for part, (name, suffix) in FILES.items():
        with _opened(root / name) as (file, h5py):
            cells = _matrix(file, root / name, f"Is{suffix}")
            if cells.ndim != 2 or cells.shape[0] != 1 or h5py.check_ref_dtype(cells.dtype) is not h5py.Reference:
                raise DataError(
                    f"{root / name}: expected a cell Is{suffix} of N x 1 pictures, found {_shape(cells)} {cells.dtype}"
                )
            for row, reference in enumerate(cells[0]):
                pixels = np.asarray(file[reference]).T  # (H, W, 3) RGB or (H, W)
                if pixels.dtype != np.uint8 or (pixels.ndim != 2 and pixels.shape[2:] != (3,)):
                    raise DataError(
                        f"{root / name}: expected picture {row + 1} as uint8 H x W or H x W x 3, "
                        f"found {' x '.join(map(str, pixels.shape))} {pixels.dtype}"
                    )
                image = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
                write_image(root / PICTURES / _picture(part, row), image)
                count += 1
    return count


def _published(split: str) -> str:
    return "test" if split == "test" else "train"


def _picture(split: str, row: int) -> str:
    return f"{_published(split)}_{row + 1:04d}.png"


def _rows(split: str, count: int) -> list[int]:
    return [row for row in range(count) if split == "test" or in_training_split(_picture(split, row), split)]


def _labels(root: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 29, 2) float32 points, (N, 29) bool occluded, (N, 4) float32 boxes of the file of a split."""
    name, suffix = FILES[_published(split)]
    path = root / name
    with _opened(path) as (file, _):
        phis, boxes = (_matrix(file, path, f"{matrix}{suffix}") for matrix in ("phis", "bboxes"))
        for matrix, width, title in ((phis, 3 * POINTS, "phis"), (boxes, 4, "bboxes")):
            if matrix.ndim != 2 or matrix.shape[0] != width or matrix.dtype.kind not in "fiu":
                raise DataError(
                    f"{path}: expected a matrix {title}{suffix} of N x {width} numbers, "
                    f"found {_shape(matrix)} {matrix.dtype}"
                )
        phis, boxes = (np.asarray(matrix).T.astype(np.float64) for matrix in (phis, boxes))
    if len(phis) != len(boxes) or not len(phis):
        raise DataError(f"{path}: expected as many boxes as faces, found {len(boxes)} and {len(phis)}")
    x, y, occluded = np.split(phis, 3, axis=1)
    bad = np.flatnonzero(
        ~(np.abs(phis) < LARGEST).all(axis=1)
        | ~np.isin(occluded, (0, 1)).all(axis=1)
        | ~((boxes[:, 2:] > 0) & (np.abs(boxes) < LARGEST / 4).all(axis=1, keepdims=True)).all(axis=1)
    )
    if len(bad):
        raise DataError(
            f"{len(bad)} bad rows in {path}: expected finite points, occlusion of 0 or 1 and boxes with an area:\n"
            + listed([f"{path}:{row + 1}" for row in bad])
        )
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) - 1
    return np.float32(np.stack([x, y], axis=2) - 1), occluded == 1, np.float32(corners)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The HDF5 file, and the module h5py; whatever a damaged file makes it raise becomes a DataError."""
    try:
        import h5py
    except ImportError:
        raise DataError("reading COFW's files needs h5py: pip install h5py") from None
    if not path.is_file():
        raise DataError(f"{path} is missing: expected the published file, see datasets/cofw/README.md")
    try:
        with h5py.File(path, "r") as file:
            yield file, h5py
    except DataError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a MATLAB file of format 7.3: {error}") from None


def _matrix(file: Any, path: Path, name: str) -> Any:
    found = file.get(name)
    if found is None or not hasattr(found, "shape"):
        raise DataError(f"{path}: expected a matrix {name}, found {', '.join(sorted(file)) or 'nothing'}")
    return found


def _shape(matrix: Any) -> str:
    """As MATLAB says it: the file has it transposed."""
    return " x ".join(str(side) for side in reversed(matrix.shape))
