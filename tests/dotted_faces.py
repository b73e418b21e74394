"""Faces that are five dots of their own brightness, for tests of what augmentation does to points and pictures."""

from __future__ import annotations

import math

import numpy as np

from facemtl.data.cache import CropCache
from facemtl.data.transforms import Augmentation, to_nchw
from facemtl.geometry import BOX_SIDE
from facemtl.landmarks import SCHEMAS

P, SIZE, CROP_SCALE = 96, 40, 1.2
BRIGHTNESS = (39, 62, 98, 155, 245)  # of the dots at the five points
# A face in the middle half of a patch, as a cache holds it.
_SHAPE = np.array([[-20.0, -20], [20, -20], [0, 2], [-15, 20], [15, 18]])
_SHAPE -= _SHAPE.mean(axis=0)
FIVE = _SHAPE / np.hypot(*_SHAPE.T).mean() * (P / 2 / BOX_SIDE) + (P - 1) / 2


def dotted_patch(points: np.ndarray, channels: int = 1) -> np.ndarray:
    """Black, with a soft dot of its own brightness at each of the five points."""
    y, x = np.mgrid[:P, :P]
    patch = np.zeros((P, P))
    for (px, py), value in zip(points, BRIGHTNESS, strict=True):
        patch += value * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.0**2))
    patch = np.round(patch).astype(np.uint8)
    return patch if channels == 1 else np.repeat(patch[..., None], 3, axis=2)


def cache_of(points: np.ndarray, patches: np.ndarray | None = None, pose: int = 0, channels: int = 1) -> CropCache:
    """(N, K, 2) points with dots under them, pose as given and one other label."""
    count = len(points)
    if patches is None:
        patches = np.stack([dotted_patch(p, channels) for p in points])
    labels = {"pose": np.full(count, pose), "smile": np.arange(count) % 3 - 1}
    (schema,) = (name for name, schema in SCHEMAS.items() if len(schema) == points.shape[1])
    return CropCache(patches, points.astype(np.float32), labels, schema)


def rolled(points: np.ndarray, degrees: float) -> np.ndarray:
    """Clockwise as seen, about the middle of the patch."""
    turn = np.exp(1j * math.radians(degrees))
    turned = (points - (P - 1) / 2) @ np.array([1, 1j]) * turn
    return np.stack([turned.real, turned.imag], axis=-1) + (P - 1) / 2


def augment(cache: CropCache, rows: int | np.ndarray, seed: int = 0, **options):
    """Crops (N, C, S, S), points (N, K, 2) and labels of these rows, or of so many crops of the first."""
    settings = {"refined": 0.5, "mirror": 0.5, "pixels": 0.0, "schema": cache.schema} | options
    channels = 3 if cache.patches.ndim == 4 else 1
    rows = [0] * rows if isinstance(rows, int) else rows.tolist()
    return crops_of(Augmentation(SIZE, channels, CROP_SCALE, **settings), cache, rows, seed)


def crops_of(augmentation: Augmentation, cache: CropCache, rows: list[int], seed: int):
    rng = np.random.default_rng(seed)
    images, targets, taught = zip(*(augmentation(cache, row, rng) for row in rows), strict=True)
    assert taught == ({},) * len(rows)
    labels = {task: np.array([t[task] for t in targets]) for task in cache.labels}
    return to_nchw(np.stack(images)), np.stack([t["landmarks"] for t in targets]), labels
