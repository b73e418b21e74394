"""From the points that a peer finds to those that a data set's annotators would mark: a linear map, learned from faces
that have both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIDGE = 0.03  # 2.93 % on MTFL's held-out faces, 2.96 with ten times as much
TURNS = 4  # of reweighting: faces that fit badly count less, as with a sum of distances instead of squares
NEAR = 0.02  # of a face's size: errors under it count alike
ELSEWHERE = 4  # in a face's size: marks so far from its middle are another face's
FOLDS = 5
# a face's frame: its outer eye corners, nose tip and corners of the mouth in MediaPipe's mesh (peers/methods.py)
ANCHORS = (33, 263, 1, 61, 291)


@dataclass(frozen=True)
class Habit:
    """The map, in the frame of each face: where its eyes and mouth lie is no matter of habit."""

    weights: np.ndarray  # (2 M + 1, 2 K)

    @classmethod
    def learned(cls, found: np.ndarray, marked: np.ndarray) -> Habit:
        """From (N, M, 2) points of a peer and (N, K, 2) of the set; faces that lack one of either are left out,
        and those where the peer found another face."""
        frames = Frames(found)
        features, aims = frames.features(found), frames.into(marked)
        known = np.isfinite(features).all(axis=1) & (np.abs(aims) < ELSEWHERE).all(axis=1)  # NaN is not
        features, aims = features[known], aims[known]
        penalty = RIDGE * np.eye(features.shape[1])
        penalty[-1, -1] = 0  # the constant
        counts = np.ones((len(features), 1))
        for _ in range(TURNS):
            weights = np.linalg.solve(features.T @ (features * counts) + penalty, features.T @ (aims * counts))
            errors = np.abs(aims - features @ weights).mean(axis=1, keepdims=True)
            counts = NEAR / np.maximum(errors, NEAR)
        return cls(weights)

    def __call__(self, found: np.ndarray) -> np.ndarray:
        """(N, M, 2) points of a peer -> (N, K, 2) float64, NaN where there is no face."""
        frames = Frames(found)
        return frames.out_of(frames.features(found) @ self.weights)


class Frames:
    """For each of (N, M, 2) meshes a frame that moves, turns and grows with the face."""

    def __init__(self, found: np.ndarray) -> None:
        anchors = _complex(found[:, ANCHORS])
        self.middles = anchors.mean(axis=1, keepdims=True)
        across = anchors[:, 1:2] - anchors[:, :1]
        size = np.abs(anchors - self.middles).mean(axis=1, keepdims=True)
        self.units = size * np.exp(1j * np.angle(across))

    def features(self, found: np.ndarray) -> np.ndarray:
        """(N, 2 M + 1): the mesh in its frame, and a constant."""
        return np.concatenate([self.into(found), np.ones((len(found), 1))], axis=1)

    def into(self, points: np.ndarray) -> np.ndarray:
        """(N, K, 2) -> (N, 2 K)."""
        with np.errstate(invalid="ignore"):  # NaN where there is no face
            inside = (_complex(points) - self.middles) / self.units
        return np.concatenate([inside.real, inside.imag], axis=1)

    def out_of(self, inside: np.ndarray) -> np.ndarray:
        """(N, 2 K) -> (N, K, 2)."""
        real, imaginary = np.split(inside, 2, axis=1)
        points = (real + 1j * imaginary) * self.units + self.middles
        return np.stack([points.real, points.imag], axis=-1)


def _complex(points: np.ndarray) -> np.ndarray:
    return points[..., 0].astype(np.float64) + 1j * points[..., 1]


def crossed(found: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """(N, K, 2) float64: what the map says of each face that was learned from the other folds alone."""
    said = np.full(marked.shape, np.nan)
    folds = np.random.default_rng(0).permutation(len(found)) % FOLDS
    for fold in range(FOLDS):
        inside = folds == fold
        said[inside] = Habit.learned(found[~inside], marked[~inside])(found[inside])
    return said
