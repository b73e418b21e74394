"""Which box belongs to which: costs of pairs of face boxes, and the choice of pairs."""

from __future__ import annotations

import math

import numpy as np

SAME_PLACE = 0.4  # cost of two boxes under which the points of two tracks are on one face


def assign(costs: np.ndarray, limit: float) -> dict[int, int]:
    """Row -> column, each once, the cheapest pair first, of costs (N, M) under ``limit``.

    Greedy: with faces that do not overlap it gives what the Hungarian method gives, and where they do the nearest pair
    is the one to be sure of.
    """
    pairs: dict[int, int] = {}
    for flat in np.argsort(costs, axis=None, kind="stable").tolist():
        i, j = divmod(flat, costs.shape[1])
        if costs[i, j] < limit and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def centre_of(box: np.ndarray) -> np.ndarray:
    """(2,) the middle of a box (4,)."""
    return (box[:2] + box[2:]) / 2


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Shared area of two boxes (4,) over that of their union."""
    width, height = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).tolist()
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared)


def box_cost(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two square boxes (4,) in sides of the smaller, plus the natural logarithm of their ratio of sides."""
    first, second = float(a[2] - a[0]), float(b[2] - b[0])
    return float(np.hypot(*(centre_of(a) - centre_of(b)))) / min(first, second) + abs(math.log(first / second))


def same_place(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two square boxes (4,) are on one face."""
    return box_cost(a, b) < SAME_PLACE
