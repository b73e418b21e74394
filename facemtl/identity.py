"""One identity in a video: where a face was, how it moved, and whether one that appears is one that was lost.

The page follows the same rule (``facemtl/serve/_static/motion.mjs``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from facemtl.face import Face
from facemtl.geometry import roll_of_five
from facemtl.landmarks import SCHEMAS
from facemtl.matching import centre_of, iou
from facemtl.smoothing import FaceSmoother

CROWDED = 0.1  # share of their union in which two boxes disturb each other's crops
NEAR = 1.5  # sides between the middles of two faces under which the head of one may cover part of the other
CLEAR = 0.9  # quality of a face of which that is not so; the points of a face that is partly covered are dragged
VELOCITY_MEMORY = 0.2  # seconds over which a velocity is averaged
ALONE_MEMORY = 2.0  # seconds after which the motion before a meeting says nothing any more
REACH, REACH_SPEED = 0.75, 1.0  # where a face may come back: in sides, and in sides a second since it was seen
STOPPED = 0.25  # what it costs a face, in sides, to have stopped where it was last seen and not moved on
SHAPE_WEIGHT = 2.0  # of the difference of two shapes, in sides, against the distance of their places, in sides


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where a face was: time in seconds, centre (2,) and side of its box in pixels, roll in radians, the five points in
    the box, and the velocity (2,) in pixels a second."""

    time: float
    centre: np.ndarray
    side: float
    roll: float
    shape: np.ndarray
    velocity: np.ndarray

    def centre_at(self, time: float) -> np.ndarray:
        return self.centre + self.velocity * (time - self.time)

    def unlike(self, other: State, centre: np.ndarray) -> float:
        """How unlike a face at ``centre`` of this size and shape is to ``other``, in sides."""
        # Plain floats are faster, and this runs for every face.
        distance = math.dist(centre.tolist(), other.centre.tolist()) / min(self.side, other.side)
        shape = math.dist(self.shape.ravel().tolist(), other.shape.ravel().tolist()) / math.sqrt(len(self.shape))
        return distance + abs(math.log(self.side / other.side)) + SHAPE_WEIGHT * shape


class Track:
    """One identity. ``state`` is now, ``alone`` when it last stood apart from all others."""

    def __init__(self, face: Face, box: np.ndarray, score: float, time: float, smooth: FaceSmoother | None) -> None:
        self.born = time
        self.number = 0  # until it is known whether it is one that came back
        self.face, self.box, self.score = face, box, score
        self.smooth = smooth
        self.state = self.alone = state_of(face, box, time, np.zeros(2))
        self.crowded = self.disturbed = False
        self.misses = 0
        self.confirmed, self.vouched = 0, 0.0  # frame in which the detector last found it, and the odds there

    def next_box(self, time: float) -> np.ndarray:
        """(4,) where its face should be: moved on at its velocity, by half a side at most."""
        x, y = (self.state.velocity * (time - self.state.time)).tolist()
        share = min(1.0, 0.5 * self.state.side / max(math.hypot(x, y), 1e-9))
        return self.box + np.array([share * x, share * y] * 2)

    def follow(self, face: Face, box: np.ndarray, time: float) -> None:
        """Go on to what was found in a later frame."""
        step = time - self.state.time
        velocity = self.alone.velocity
        if not self.disturbed:  # the points of a disturbed face are dragged, and say little about the motion
            measured = (centre_of(box) - self.state.centre) / step
            span = min(VELOCITY_MEMORY + step, time - self.born)  # at first a plain mean, or it would begin too slow
            velocity = self.state.velocity + step / span * (measured - self.state.velocity)
        self.face, self.box, self.state = face, box, state_of(face, box, time, velocity)

    def come_back(self, lost: Track, sure: bool) -> None:
        """Be the face that was lost: with its number and, where the network is sure of it, the velocity that brought it
        from there to here. Else it is half hidden still: its points say nothing against its motion before. What size
        and shape it has they say once it stands apart."""
        self.number = lost.number
        velocity = (self.state.centre - lost.alone.centre) / (self.state.time - lost.alone.time)
        self.state = replace(self.state, velocity=velocity if sure else lost.alone.velocity)
        self.alone = replace(self.state, side=lost.alone.side, shape=lost.alone.shape) if sure else lost.alone

    def look_around(self, others: Iterable[Track], lost: Iterable[Track]) -> None:
        """Note whether it stands apart in this frame: overlaps no other box, and is not partly covered by another face,
        be that one followed or lost. For who is behind somebody still covers those that are farther away."""
        self.crowded = any(iou(self.box, other.box) > CROWDED for other in others if other is not self)
        covered = not is_clear(self.face) and any(self._near(other) for other in (*others, *lost) if other is not self)
        self.disturbed = self.crowded or covered
        if not self.disturbed or self.state.time - self.alone.time > ALONE_MEMORY:
            self.alone = self.state

    def _near(self, other: Track) -> bool:
        """Whether another is within a head's reach, if it has moved on as it did when it stood apart."""
        apart = other.alone.centre_at(self.state.time) - self.state.centre
        return float(np.hypot(*apart)) < NEAR * self.state.side

    def surprise(self, state: State) -> float:
        """How far ``state`` is from what its motion, size and shape before the others came let expect."""
        return self.alone.unlike(state, self.alone.centre_at(state.time))

    def return_cost(self, state: State, size: tuple[int, int], memory: float) -> float:
        """How unlike it a face is that appears while it is lost, in sides; infinite where it cannot be the same.

        It may come back near where it was last seen, or near where it would be had it moved on, within the picture.
        """
        reach = REACH + REACH_SPEED * min(state.time - self.state.time, memory)
        coasted = np.clip(self.alone.centre_at(state.time), 0, (size[1], size[0]))
        cost = min(self.alone.unlike(state, coasted), self.alone.unlike(state, self.state.centre) + STOPPED)
        return cost if cost < reach else math.inf


def is_clear(face: Face) -> bool:
    """Whether all of a face can be seen, as far as its model can tell."""
    return face.quality is None or face.quality >= CLEAR


def state_of(face: Face, box: np.ndarray, time: float, velocity: np.ndarray) -> State:
    centre, side = centre_of(box), float(box[2] - box[0])
    five = SCHEMAS[face.schema].to_five(face.landmarks).astype(np.float64)
    return State(time, centre, side, roll_of_five(five), (five - centre) / side, velocity)
