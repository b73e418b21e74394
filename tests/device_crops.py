"""A face in a patch, places to cut it from, and one crop cut by torch."""

from __future__ import annotations

import math

import numpy as np
import torch

from facemtl.data.device_transforms import cut_crops
from facemtl.geometry import BOX_SIDE, crop_matrix

CPU = torch.device("cpu")
P, SIZE, CROP_SCALE = 96, 40, 1.2
# A face in the middle half of a patch, as a cache holds it.
SHAPE = np.array([[-20.0, -20], [20, -20], [0, 2], [-15, 20], [15, 18]])
SHAPE -= SHAPE.mean(axis=0)
FIVE = SHAPE / np.hypot(*SHAPE.T).mean() * (P / 2 / BOX_SIDE) + (P - 1) / 2
BOX = np.array([23.5, 23.5, 71.5, 71.5])
PLACES = {
    "plain": crop_matrix(BOX, SIZE, CROP_SCALE),
    "rotated": crop_matrix(BOX + 1.3, SIZE, CROP_SCALE, roll=math.radians(17)),
    "mirrored": crop_matrix(BOX - 2.4, SIZE, 1.05, roll=-0.2, mirror=True),
    "over the edge": crop_matrix(BOX + 40, SIZE, 1.3, roll=0.1),
}


def smooth_picture(size: int = P) -> np.ndarray:
    """(size, size, 3) uint8: waves, of another direction in every channel."""
    y, x = np.mgrid[:size, :size] * (2 * math.pi / 24)
    waves = np.stack([np.sin(x + 0.4 * y), np.sin(y - 0.3 * x), np.sin(0.5 * x + y)], axis=2)
    return np.round(127 + 100 * waves).astype(np.uint8)


def cut(patch: np.ndarray, matrix: np.ndarray, size: int = SIZE, samples: int = 1) -> np.ndarray:
    """One crop by torch, (S, S[, 3]) float."""
    (crop,) = cut_crops(torch.from_numpy(patch)[None], torch.from_numpy(matrix)[None].float(), size, samples)
    return crop.permute(1, 2, 0).numpy() if patch.ndim == 3 else crop[0].numpy()
