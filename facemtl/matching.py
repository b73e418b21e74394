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
    # Plain floats, here and below: this runs for every pair of faces in every frame.
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.tolist(), b.tolist()
    shared = max(min(ax2, bx2) - max(ax1, bx1), 0.0) * max(min(ay2, by2) - max(ay1, by1), 0.0)
    return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared)


def box_cost(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two square boxes (4,) in sides of the smaller, plus the natural logarithm of their ratio of sides."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.tolist(), b.tolist()
    first, second = ax2 - ax1, bx2 - bx1
    apart = math.hypot(ax1 + ax2 - bx1 - bx2, ay1 + ay2 - by1 - by2) / 2
    return apart / min(first, second) + abs(math.log(first / second))


def same_place(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two square boxes (4,) are on one face."""
    return box_cost(a, b) < SAME_PLACE
