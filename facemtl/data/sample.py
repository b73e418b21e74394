"""One labelled face of a data set, with what is missing made explicit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from facemtl.errors import BoxError, DataError, ImageError
from facemtl.geometry import box_from_five
from facemtl.image import read_image
from facemtl.landmarks import SCHEMAS

MISSING = -1  # class index of a label that the data set does not give


class StoredPicture(Protocol):
    """A picture file that lies in another file; its ``str`` is for messages."""

    def identity(self) -> str:
        """Says which picture this is, and changes with what it lies in."""
        ...

    def read(self) -> bytes:
        """The bytes of the picture file; DataError if they are no more there."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FaceSample:
    """One face in one image file.

    Attributes:
        image: path of the file, or a picture in a shard (:mod:`facemtl.data.shards`).
        points: (K, 2) float32 in image index coordinates, NaN where missing.
        schema: landmark schema of ``points``.
        labels: attribute name -> class index (order of :data:`facemtl.face.ATTRIBUTES`), -1 where missing.
        box: (4,) float32 ``x1 y1 x2 y2``, image pixels, or None where the set gives none.
        source: where the row stands, ``file:line``.
        group: part of the data set it belongs to, such as a folder.
        angles: (3,) float32 yaw, pitch, roll of the head in degrees (signs: :mod:`facemtl.face`), NaN where missing;
            None where the set gives none.
        strata: further parts of the set by which errors are told apart, name -> part; nothing is trained on them.
    """

    image: Path | StoredPicture
    points: np.ndarray
    schema: str
    labels: Mapping[str, int]
    box: np.ndarray | None = None
    source: str = ""
    group: str = ""
    angles: np.ndarray | None = None
    strata: Mapping[str, str] = field(default_factory=dict)


def face_box(sample: FaceSample) -> np.ndarray:
    """(4,) float64 the face box of the sample's points, or the set's own box where points are missing.

    Raises:
        DataError: a sample with neither, or with all its points in one place; names its row.
    """
    row = sample.source or sample.image
    five = SCHEMAS[sample.schema].to_five(sample.points)
    if np.isfinite(five).all():
        try:
            return box_from_five(five)
        except BoxError as error:
            raise DataError(f"{row}: {error}") from None
    if sample.box is None:
        raise DataError(f"{row}: neither points nor a box say where the face is")
    return sample.box.astype(np.float64)


def read_picture(image: Path | StoredPicture) -> np.ndarray:
    """The picture of a sample, uint8 BGR (H, W, 3).

    Raises:
        ImageError: it cannot be read.
        DataError: it is no more where it was stored.
    """
    if isinstance(image, Path):
        return read_image(image)
    try:
        return read_image(image.read())
    except ImageError as error:
        raise ImageError(str(error).replace("the image given as bytes", str(image), 1)) from None
