"""One labelled face of a data set, with what is missing made explicit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facemtl.errors import BoxError, DataError
from facemtl.geometry import box_from_five
from facemtl.landmarks import SCHEMAS

MISSING = -1  # class index of a label that the data set does not give


@dataclass(frozen=True, slots=True, eq=False)
class FaceSample:
    """One face in one image file.

    Attributes:
        image: path of the file.
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

    image: Path
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
