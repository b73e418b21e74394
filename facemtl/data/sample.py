"""One labelled face of a data set, with what is missing made explicit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    """

    image: Path
    points: np.ndarray
    schema: str
    labels: Mapping[str, int]
    box: np.ndarray | None = None
    source: str = ""
    group: str = ""
