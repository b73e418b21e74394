"""Videos of rendered faces that move, and a predictor that knows where they are; for tests of the tracker.

What hides what, and what a network makes of it, is simulated: a face that is covered by more than half is seen by
nobody; a crop gives the points of the visible face nearest to its middle, each point a little off; a crop without a
face gives the points of an average face, shrunken, and large standard deviations. That is how the shipped networks
behave, see :mod:`facemtl.presence`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import cv2
import numpy as np

from facemtl.data.synthetic import render_face
from facemtl.detect import Detections
from facemtl.face import Face
from facemtl.geometry import box_from_five
from facemtl.track import Tracker

HEIGHT, WIDTH = 240, 320
MIDDLE = (WIDTH / 2, HEIGHT / 2)
FPS = 25.0
AVERAGE = np.array([[-0.17, -0.16], [0.17, -0.16], [0, 0.02], [-0.13, 0.16], [0.13, 0.16]])  # in sides of the face box
Path = Callable[[float], tuple[float, float] | None]


@dataclass(eq=False)
class Person:
    """One face: where its middle is at a time in seconds (None: not there), its size in pixels, and how near it is."""

    path: Path
    side: float = 50.0
    depth: float = 1.0
    seed: int = 0
    shape: np.ndarray = field(init=False)
    picture: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rendered = render_face(self.seed, 64, yaw=0.0, pitch=0.0, roll=0.0, occlusion=0.0)
        box = box_from_five(rendered.points)
        self.shape = (rendered.points - (box[:2] + box[2:]) / 2) / (box[2] - box[0])
        x1, y1, x2, y2 = np.clip(np.round(box), 0, 64).astype(int).tolist()
        self.picture = cv2.resize(rendered.image[y1:y2, x1:x2], (round(self.side), round(self.side)))

    def points(self, time: float) -> np.ndarray | None:
        """(5, 2) image pixels, or None while it is not there."""
        place = self.path(time)
        return None if place is None else np.array(place) + self.side * self.shape

    def box(self, time: float) -> np.ndarray | None:
        points = self.points(time)
        return None if points is None else box_from_five(points)


class World:
    """People in front of a still background. It is the predictor, and ``detector``, of its own frames.

    ``noise`` and ``sigma`` (None: the network gives none) are standard deviations of a face's points, in its sides.
    """

    def __init__(self, *people: Person, noise: float = 0.005, sigma: float | None = 0.011, seed: int = 0) -> None:
        self.people = people
        self.detector = SimpleNamespace(detect=self._detect)
        self.spec = SimpleNamespace(thresholds={}, priors={})
        self.blind = False  # the detector finds nothing
        self.time = 0.0
        self.visible: list[Person] = []
        self.given: list[list[np.ndarray]] = []  # the boxes of each call
        self._noise, self._sigma = noise, sigma
        self._rng = np.random.default_rng(seed)
        self._background = cv2.resize(self._rng.integers(60, 120, (12, 16, 3), dtype=np.uint8), (WIDTH, HEIGHT))

    def frame(self, time: float) -> np.ndarray:
        """(HEIGHT, WIDTH, 3) uint8 BGR; what the predictor finds is from now on that of this time."""
        self.time = time
        self.visible = self._visible()
        image = self._background.copy()
        for person in sorted(self.people, key=lambda person: -person.depth):
            box = person.box(time)
            if box is None:
                continue
            x, y = np.round(box[:2]).astype(int).tolist()
            side = len(person.picture)
            left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, WIDTH), min(y + side, HEIGHT)
            if left < right and top < bottom:
                image[top:bottom, left:right] = person.picture[top - y : bottom - y, left - x : right - x]
        return image

    def _visible(self) -> list[Person]:
        """Those that are in the picture and that nobody nearer covers by half."""
        boxes = {person: person.box(self.time) for person in self.people if person.path(self.time) is not None}
        picture = np.array([0, 0, WIDTH, HEIGHT])
        return [
            person
            for person, box in boxes.items()
            if _share(box, picture) > 0.5
            and all(_share(box, near) < 0.5 for other, near in boxes.items() if other.depth < person.depth)
        ]

    def nearest(self, box: np.ndarray) -> Person | None:
        """The person whose face a box is on: the visible one nearest to its middle, if any is near."""
        middle, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
        distances = [
            (float(np.hypot(*(middle - person.path(self.time)))) / side, i) for i, person in enumerate(self.visible)
        ]
        best = min(distances, default=(np.inf, 0))
        return self.visible[best[1]] if best[0] < 0.6 else None

    def _detect(self, image: np.ndarray) -> Detections:
        boxes = [] if self.blind else [person.box(self.time) for person in self.visible]
        scores = np.linspace(0.99, 0.9, len(boxes))
        return Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores))

    def __call__(self, image: np.ndarray, boxes: Sequence[np.ndarray] | None = None) -> list[Face]:
        assert boxes is not None, "a tracker asks the detector itself"
        self.given.append([np.asarray(box) for box in boxes])
        return [self._look(box) for box in self.given[-1]]

    def follow(self, image: np.ndarray, boxes: np.ndarray, rolls: Sequence[float]) -> list[Face]:
        assert len(rolls) == len(boxes)
        return self(image, boxes=boxes)

    def _look(self, box: np.ndarray) -> Face:
        side, person = float(box[2] - box[0]), self.nearest(box)
        if person is None:
            points, relative = (box[:2] + box[2:]) / 2 + 0.9 * side * AVERAGE, 0.04
        else:
            side = person.side
            points, relative = person.points(self.time) + self._rng.normal(0, self._noise * side, (5, 2)), self._sigma
        sigma = None if self._sigma is None else np.full(5, relative * side, np.float32)
        return Face(np.float32(box), 1.0, np.float32(points), "mtfl5", landmark_sigma=sigma)


def times(seconds: float, start: float = 0.0, fps: float = FPS) -> list[float]:
    return [start + i / fps for i in range(round(seconds * fps))]


def straight(start: tuple[float, float], velocity: tuple[float, float]) -> Path:
    """Constant velocity in pixels a second."""
    return lambda time: (start[0] + velocity[0] * time, start[1] + velocity[1] * time)


def away(path: Path, start: float, stop: float) -> Path:
    """Not there between two times."""
    return lambda time: None if start <= time < stop else path(time)


def _share(box: np.ndarray, other: np.ndarray) -> float:
    """Part of ``box`` that ``other`` covers."""
    sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    return float(sides.prod() / (box[2:] - box[:2]).prod())


def play(world: World, moments: Sequence[float], tracker: Tracker | None = None) -> list[dict[int, int | None]]:
    """For each frame track id -> the person (index) whose face that is, None for background."""
    tracker = Tracker(world) if tracker is None else tracker
    seen = []
    for time in moments:
        faces = tracker(world.frame(time), time)
        people = [world.nearest(face.box) for face in faces]
        seen.append({f.track_id: p and world.people.index(p) for f, p in zip(faces, people, strict=True)})
    return seen


def switches(seen: list[dict[int, int | None]]) -> int:
    """How often a person is seen under another id than before."""
    ids: dict[int | None, int] = {}
    count = 0
    for frame in seen:
        for number, person in frame.items():
            count += person is not None and ids.get(person, number) != number
            ids[person] = number
    return count
