"""Steady numbers from a stream of noisy ones, without lag where something moves: One-Euro filters and hysteresis.

The filter is that of Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems" (CHI 2012), Algorithm 1: exponential smoothing whose cutoff rises with the speed, so that what
rests is steady and what moves does not trail behind. Speeds of points count in face sizes a second, so that the same
numbers fit a face at any distance. Times are seconds and may come at any spacing, but must grow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from facemtl.decode import relative_shares
from facemtl.face import Attribute, Face, Pose
from facemtl.geometry import box_from_five
from facemtl.landmarks import SCHEMAS

SPEED_CUTOFF = 1.0  # Hz, of the filter of the speed: the value of the paper

# Cutoff at rest in Hz, and how many Hz more for each unit of speed. Those of points are chosen on eight still faces of
# MTFL's held-out rows with noise (5 grey levels) and JPEG, followed by facemtl-s at 30 frames a second: the standard
# deviation of a point, over the distance of the eyes, falls from 0.33 % (worst face 0.56 %) to 0.13 % (0.23 %). At
# 0.05, 0.1, 0.3 and 1 face sizes a second they trail by 0.8, 0.5, 0.2 and 0.1 frames. (1.0, 20.0) would give 0.11 %,
# and up to 1.4 frames.
POINTS = (0.5, 60.0)  # speed in face sizes a second
ANGLES = (0.7, 0.05)  # in degrees a second
SHARES = (0.7, 1.0)  # probabilities, in their change a second

LABEL_MARGIN = 0.2  # of probability by which another label must lead
LABEL_HOLD = 0.3  # seconds for which it must


class OneEuro:
    """One filter for an array of values (..., D): the D numbers of the last axis move together and share their speed.

    Args:
        min_cutoff: Hz at rest, over 0; lower is steadier.
        beta: Hz for each unit of speed, not negative; higher trails less.
    """

    def __init__(self, min_cutoff: float, beta: float) -> None:
        self._min_cutoff, self._beta = min_cutoff, beta
        self._time = 0.0
        self._value: np.ndarray | None = None
        self._speed = np.zeros(1)

    def __call__(self, value: np.ndarray, time: float, scale: float = 1.0) -> np.ndarray:
        """The filtered value, float64 of the same shape; the first one is the value itself.

        Args:
            value: (..., D), of the same shape every time, finite.
            time: seconds, later than the last.
            scale: what counts as 1 in the speed, in the units of ``value``: the size of the face for points.
        """
        value = np.asarray(value, dtype=np.float64)
        if self._value is None:
            self._speed = np.zeros_like(value)
        else:
            step = time - self._time
            speed = (value - self._value) / (step * scale)
            self._speed = self._speed + _share(SPEED_CUTOFF, step) * (speed - self._speed)
            fast = np.sqrt((self._speed**2).sum(axis=-1, keepdims=True))
            value = self._value + _share(self._min_cutoff + self._beta * fast, step) * (value - self._value)
        self._value, self._time = value, time
        return value.copy()


def _share(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
    """Weight of a new value after ``step`` seconds in exponential smoothing with a cutoff in Hz."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * step))


class Hysteresis:
    """A label that changes only after the same other one has led by ``margin`` for ``hold`` seconds."""

    def __init__(self, margin: float = LABEL_MARGIN, hold: float = LABEL_HOLD) -> None:
        self._margin, self._hold = margin, hold
        self._label: str | None = None
        self._rival: str | None = None
        self._since = 0.0

    def __call__(self, probabilities: Mapping[str, float], time: float) -> str:
        """The label to show at ``time`` seconds; at first the likeliest."""
        best = max(probabilities, key=probabilities.__getitem__)
        if self._label is None:
            self._label = best
        elif best == self._label or probabilities[best] - probabilities[self._label] < self._margin:
            self._rival = None
        elif best != self._rival:
            self._rival, self._since = best, time
        # A nanosecond: the sum of frame times that should reach the hold must not miss it by rounding.
        if self._rival is not None and time - self._since >= self._hold - 1e-9:
            self._label, self._rival = best, None
        return self._label


class FaceSmoother:
    """Everything that is smoothed of one face in a video: points, head angles, probabilities, and steady labels.

    Args:
        thresholds: attribute -> least confidence that counts as certain (``ModelSpec.thresholds``); 0 where it is not
            named.
        priors: attribute -> how common its classes are, relative to which labels are chosen (``ModelSpec.priors``).
    """

    def __init__(self, thresholds: Mapping[str, float], priors: Mapping[str, Sequence[float]] | None = None) -> None:
        self._thresholds = thresholds
        self._priors = priors or {}
        self._points = OneEuro(*POINTS)
        self._angles = OneEuro(*ANGLES)
        self._last_angles: np.ndarray | None = None
        self._shares = OneEuro(*SHARES)
        self._labels: dict[str, Hysteresis] = {}

    def __call__(self, face: Face, time: float) -> Face:
        """The face as it is shown at ``time`` seconds, later than the last; the box is that of the smoothed points.

        Args:
            face: with points; schema, attributes and pose are there or not alike in every frame.
        """
        five = SCHEMAS[face.schema].to_five
        x1, _, x2, _ = box_from_five(five(face.landmarks)).tolist()
        points = self._points(face.landmarks, time, x2 - x1)
        return replace(
            face,
            box=box_from_five(five(points)).astype(np.float32),
            landmarks=points.astype(np.float32),
            pose=None if face.pose is None else self._smooth_pose(face.pose, time),
            attributes=self._smooth_attributes(face.attributes, time) if face.attributes else {},
        )

    def _smooth_pose(self, pose: Pose, time: float) -> Pose:
        angles = np.array([pose.yaw, pose.pitch, pose.roll])
        if self._last_angles is not None:  # 179 and -179 degrees are neighbours
            angles = self._last_angles + (angles - self._last_angles + 180) % 360 - 180
        self._last_angles = angles
        yaw, pitch, roll = (math.remainder(v, 360) for v in self._angles(angles[:, None], time)[:, 0].tolist())
        return Pose(yaw, pitch, roll)

    def _smooth_attributes(self, attributes: Mapping[str, Attribute], time: float) -> dict[str, Attribute]:
        classes = max(len(a.probabilities) for a in attributes.values())
        # One row an attribute, filled up with zeros, which have no speed: one filter is faster than one for each.
        rows = [[*a.probabilities.values(), *[0.0] * (classes - len(a.probabilities))] for a in attributes.values()]
        smooth = self._shares(np.array(rows), time).tolist()
        return {n: self._label(n, a, row, time) for (n, a), row in zip(attributes.items(), smooth, strict=True)}

    def _label(self, name: str, attribute: Attribute, shares: list[float], time: float) -> Attribute:
        probabilities = dict(zip(attribute.probabilities, shares, strict=False))  # without what was filled up
        classes = list(probabilities)
        relative = relative_shares(list(probabilities.values()), self._priors.get(name))
        label = self._labels.setdefault(name, Hysteresis())(dict(zip(classes, relative, strict=True)), time)
        confidence = probabilities[label]
        return Attribute(label, confidence, probabilities, confidence >= self._thresholds.get(name, 0.0))
