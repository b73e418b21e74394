"""The shapes of a set's faces: their mean, how they vary, which of them are none, whether the mean is its mirror image.

Points are complex here, x + iy, so that a number turns and scales a whole face. Shapes are compared after Procrustes
alignment (Gower, "Generalized Procrustes analysis", 1975): place, size and turn are taken out. The unit is the mean
distance of the mean shape's points from their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from facemtl.landmarks import LandmarkSchema

FEWEST = 30  # faces from which on there is a shape model
KNOWN = 3  # points a face must have to be placed
_TRIMMED = 0.95  # share of the faces, those nearest the mean, that say how faces vary
_EXPLAINED = 0.95  # share of their variance that directions of variation are kept for
_NOISE = 0.01  # what points vary at least, in units of the shape


@dataclass(frozen=True, slots=True, eq=False)
class ShapeModel:
    """How the faces of a set look: complex (K,) ``mean``, real (Q, 2K) ``directions`` of (Q,) ``variances``, and the
    variance ``rest`` of each of the other dimensions."""

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    rest: float

    def distances(self, points: np.ndarray) -> np.ndarray:
        """(N, K, 2) points -> (N,) Mahalanobis distance from the mean, over the square root of the dimensions; NaN for
        a face with fewer than three points. Points that are missing count as the mean's."""
        offsets = _offsets(points, self.mean)
        along = offsets @ self.directions.T
        left = offsets - along @ self.directions
        dimensions = max(2 * len(self.mean) - 4, 1)
        squares = (along**2 / self.variances).sum(axis=1) + (left**2).sum(axis=1) / self.rest
        return np.sqrt(squares / dimensions)


def as_complex(points: np.ndarray) -> np.ndarray:
    """(..., 2) -> complex (...); NaN where either is."""
    return points[..., 0].astype(np.float64) + 1j * points[..., 1]


def aligned(points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(N, K, 2) points -> complex (N, K), each face laid onto ``mean`` by its known points; NaN where too few are."""
    shapes = as_complex(points)
    known = np.isfinite(shapes)
    count = known.sum(axis=1, keepdims=True)
    target = np.where(known, mean, 0)
    shapes = np.where(known, shapes, 0)
    middle, centre = (values.sum(axis=1, keepdims=True) / np.maximum(count, 1) for values in (shapes, target))
    shapes, target = (np.where(known, values - at, 0) for values, at in ((shapes, middle), (target, centre)))
    size = (np.abs(shapes) ** 2).sum(axis=1, keepdims=True)
    usable = (count >= KNOWN) & (size > 0)
    turn = (shapes.conj() * target).sum(axis=1, keepdims=True) / np.where(usable, size, 1)
    return np.where(known & usable, turn * shapes + centre, np.nan)


def fit_shapes(points: np.ndarray, rounds: int = 5) -> ShapeModel | None:
    """The shape model of (N, K, 2) points, which a few wrong faces do not move; None for too few faces."""
    shapes = as_complex(points)
    whole = np.flatnonzero(np.isfinite(shapes).all(axis=1) & (np.abs(shapes - shapes[:, :1]).max(axis=1) > 0))
    if len(whole) < FEWEST:
        return None
    drawn = whole[:: max(1, len(whole) // 15)]
    spread = [np.nanmedian(_norms(_offsets(points[drawn], _unit(shapes[i])))) for i in drawn]
    mean = _unit(shapes[drawn[int(np.argmin(spread))]])
    for _ in range(rounds):
        laid = aligned(points[whole], mean)
        mean = _unit(np.median(laid.real, axis=0) + 1j * np.median(laid.imag, axis=0))
    offsets = _offsets(points[whole], mean)
    norms = _norms(offsets)
    offsets = offsets[norms <= np.quantile(norms, _TRIMMED)]
    values, vectors = np.linalg.eigh(offsets.T @ offsets / len(offsets))
    values, vectors = values[::-1], vectors[:, ::-1].T
    kept = 1 + int(np.searchsorted(np.cumsum(values), _EXPLAINED * values.sum()))
    kept = min(kept, len(values) - 4)
    rest = max(values[kept:].sum() / max(len(values) - 4 - kept, 1), _NOISE**2)
    return ShapeModel(mean, vectors[:kept], np.maximum(values[:kept], rest), rest)


def misfits(mean: np.ndarray, schema: LandmarkSchema, least: float = 0.15) -> list[tuple[int, int, int]]:
    """Where the flip order of a schema does not turn the mean shape (K,) of a set into its mirror image.

    Returns:
        (point, its partner by the flip order, the partner that would fit) of each point that the flip order puts
        ``least`` units or more away from the mean, and at least twice as far as the better partner.
    """
    best = _partners(mean, -mean.conj())
    (laid,) = aligned(_real(-mean.conj()[best])[None], mean)
    moved = np.empty_like(laid)
    moved[best] = laid  # every point of the mirror image, where it lies on the mean
    apart = np.abs(moved[:, None] - mean[None])  # [partner, point]
    found = []
    for point, partner in enumerate(schema.flip_order):
        far, near = apart[partner, point], apart[best[point], point]
        if best[point] != partner and far >= least and far >= 2 * near:
            found.append((point, partner, int(best[point])))
    return found


def _partners(mean: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """(K,) for each point of the mean the one of its mirror image that falls on it, when this is turned to fit best."""
    mean, mirrored = mean - mean.mean(), mirrored - mirrored.mean()
    turns = np.exp(2j * np.pi * np.arange(36) / 36)
    costs = [np.abs((turn * mirrored)[:, None] - mean[None]) for turn in turns]
    least = min(costs, key=lambda cost: cost[linear_sum_assignment(cost)].sum())
    partners, points = linear_sum_assignment(least)
    return partners[np.argsort(points)]


def _offsets(points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(N, 2K) aligned points minus the mean, x then y; 0 for single missing points, NaN for faces with too few."""
    laid = aligned(points, mean)
    placed = np.isfinite(laid).any(axis=1, keepdims=True)
    offsets = np.where(np.isfinite(laid), laid - mean, 0)
    return np.where(placed, np.concatenate([offsets.real, offsets.imag], axis=1), np.nan)


def _norms(offsets: np.ndarray) -> np.ndarray:
    return np.linalg.norm(offsets, axis=1)


def _unit(shape: np.ndarray) -> np.ndarray:
    centred = shape - shape.mean()
    return centred / np.abs(centred).mean()


def _real(shape: np.ndarray) -> np.ndarray:
    return np.stack([shape.real, shape.imag], axis=-1)
