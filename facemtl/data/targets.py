"""What a network should say of one crop, task by task: from the labels of a patch, moved and mirrored with the crop.

A target is an array: points (K, 2) and angles (3,) are float32 with NaN where missing, a class is an int64 with -1
where missing. A teacher's targets (:mod:`facemtl.training.distillation`) have the same shapes, but for attributes, of
which they are the probabilities of all classes, NaN where missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from facemtl.data.cache import CropCache
from facemtl.data.sample import MISSING
from facemtl.face import ANGLES, ANGLES_TASK, ATTRIBUTES
from facemtl.geometry import apply_affine, invert_affine, points_from_crop
from facemtl.landmarks import POINTS, SCHEMAS, points_task, schema_of

Targets = dict[str, np.ndarray]


def blank_target(task: str, schema: str, taught: bool = False) -> np.ndarray:
    """The target of a face without any label for ``task``; ``schema`` is that of the main points."""
    points = schema_of(task, schema)
    if points:
        return np.full((len(SCHEMAS[points]), 2), np.nan, dtype=np.float32)
    if task == ANGLES_TASK:
        return np.full(len(ANGLES), np.nan, dtype=np.float32)
    return np.full(len(ATTRIBUTES[task]), np.nan, dtype=np.float32) if taught else np.int64(MISSING)


def labelled_targets(cache: CropCache, row: int, schema: str) -> Targets:
    """What the data set says of one patch: points in patch index coordinates, angles in the patch's frame, classes."""
    task = POINTS if cache.schema == schema else points_task(cache.schema)
    targets: Targets = {task: cache.points[row], **{name: values[row] for name, values in cache.labels.items()}}
    return targets if cache.angles is None else targets | {ANGLES_TASK: cache.angles[row]}


def moved_targets(targets: Mapping[str, np.ndarray], matrix: np.ndarray, size: int, schema: str) -> Targets:
    """The targets of the crop that ``matrix`` (crop -> patch, :func:`facemtl.geometry.crop_matrix`) cuts from a patch.

    Points come out in network coordinates; a crop that is turned sees the head turned the other way; a mirrored one
    (a matrix with negative determinant) swaps left and right.
    """
    (a, b), (d, e) = matrix[:, :2].tolist()
    mirrored = a * e - b * d < 0
    inverse = invert_affine(matrix)
    roll = math.degrees(math.atan2(-b, e))  # of the crop's downward axis
    return {task: _moved(task, value, inverse, size, roll, mirrored, schema) for task, value in targets.items()}


def _moved(
    task: str, value: np.ndarray, inverse: np.ndarray, size: int, roll: float, mirrored: bool, schema: str
) -> np.ndarray:
    points = schema_of(task, schema)
    if points:
        moved = points_from_crop(apply_affine(inverse, value), size).astype(np.float32)
        return moved[list(SCHEMAS[points].flip_order)] if mirrored else moved
    if task == ANGLES_TASK:
        yaw, pitch, tilt = value
        upright = math.remainder(tilt - roll, 360)
        return np.float32([-yaw, pitch, -upright] if mirrored else [yaw, pitch, upright])
    return mirrored_class(task, value) if mirrored else value


def mirrored_class(task: str, value: np.ndarray) -> np.ndarray:
    """The class, or the probabilities of the classes, of the mirrored face: pose runs the other way, the rest stays."""
    if task != "pose":
        return value
    if value.ndim:
        return value[::-1]
    return value if value == MISSING else np.int64(len(ATTRIBUTES[task]) - 1 - value)
