"""Points that another program found on training faces, brought into a data set's conventions: one more teacher.

``tools/peer_points.py`` writes them, one file a data set: ``sources``, the :attr:`FaceSample.source` of each face, and
points by schema, (N, K, 2) float32 in image index coordinates, NaN where the program found no face.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facemtl.data.cache import PATCH_SCALE, CropCache
from facemtl.data.sample import FaceSample, face_box
from facemtl.errors import ConfigError, OutputError
from facemtl.files import write_beside
from facemtl.geometry import apply_affine, crop_matrix, invert_affine
from facemtl.landmarks import POINTS, SCHEMAS, points_task

SOURCES = "sources"


def write_peer_points(path: Path, samples: Sequence[FaceSample], points: dict[str, np.ndarray]) -> None:
    """Write what was found on these faces; ``points`` is schema -> (N, K, 2) in image index coordinates."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **{SOURCES: np.array([s.source for s in samples])}, **points)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(path, write)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None


def with_peer_points(
    cache: CropCache, samples: Sequence[FaceSample], path: Path, tasks: Collection[str], schema: str
) -> CropCache:
    """The cache, taught what the file says of its faces.

    Args:
        cache: of these samples.
        tasks: that are taught; points of others are left out.
        schema: of the main points.

    Raises:
        ConfigError: the file is missing or damaged, or of other faces.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = dict(stored)
    except (OSError, ValueError) as error:
        raise ConfigError(f"peer_points: {path} cannot be read ({error}): tools/peer_points.py writes it") from None
    if found.pop(SOURCES, np.array([])).tolist() != [sample.source for sample in samples]:
        raise ConfigError(f"peer_points: {path} is of other faces than the recipe's: run tools/peer_points.py again")
    size = cache.patches.shape[1]
    inverses = [invert_affine(crop_matrix(face_box(sample), size, scale=PATCH_SCALE)) for sample in samples]
    taught = {}
    for name, points in found.items():
        task = POINTS if name == schema else points_task(name)
        if name not in SCHEMAS or points.shape != (len(samples), len(SCHEMAS[name]), 2):
            raise ConfigError(f"peer_points: {path} holds {name} of shape {points.shape}: run tools/peer_points.py")
        if task in tasks:
            moved = [apply_affine(m, p) for m, p in zip(inverses, points, strict=True)]
            taught[task] = np.float32(moved)
    return replace(cache, taught=taught)
