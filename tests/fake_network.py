"""Networks and a detector whose answers are known, for tests of the predictor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from facemtl.detect import Detections
from facemtl.face import ATTRIBUTES
from facemtl.geometry import BOX_SIDE, points_from_crop
from facemtl.weights import ModelSpec

SIZE = 40
BOX = [[30.0, 20.0, 90.0, 80.0]]
TASKS = ("landmarks", "glasses", "smile", "gender", "pose")
SCALE = 1.2
# Points in network coordinates whose face box is the box of their crop: a crop that shows them is not laid again.
UPRIGHT = np.array([[-0.15, -0.15], [0.15, -0.15], [0, 0], [-0.12, 0.15], [0.12, 0.15]])
UPRIGHT *= 1 / (SCALE * BOX_SIDE * np.hypot(*UPRIGHT.T).mean())


def spec(tasks: Sequence[str] = ("landmarks",), **changes) -> ModelSpec:
    values = {
        "name": "fake",
        "backbone": "none",
        "schema": "mtfl5",
        "tasks": tuple(tasks),
        "attributes": {task: ATTRIBUTES[task] for task in tasks if task in ATTRIBUTES},
        "input_size": SIZE,
        "channels": 1,
        "crop_scale": SCALE,
    }
    return ModelSpec(**{**values, **changes})


class FakeSession:
    """A network that is a function of one crop (C, S, S) for each output; it keeps what it was given."""

    def __init__(self, spec: ModelSpec, **answers: Callable[[np.ndarray], object]) -> None:
        self.spec = spec
        self.answers = answers
        self.calls: list[tuple[np.ndarray, tuple[str, ...]]] = []
        self.located: list[bool] = []

    def run(self, crops: np.ndarray, names: Sequence[str], locate: bool = False) -> dict[str, np.ndarray]:
        assert crops.dtype == np.uint8
        assert crops.shape[1:] == (self.spec.channels, self.spec.input_size, self.spec.input_size)
        self.calls.append((crops, tuple(names)))
        self.located.append(locate)
        return {name: np.float32([self.answers[name](crop) for crop in crops]) for name in names}


class FakeDetector:
    def __init__(self, boxes: Sequence[Sequence[float]], scores: Sequence[float]) -> None:
        self.found = Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores))

    def detect(self, image: np.ndarray) -> Detections:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        return self.found


def dot(crop: np.ndarray) -> np.ndarray:
    """Every point at the centre of mass of what is bright."""
    weight = crop.astype(np.float64).mean(axis=0)
    ys, xs = np.mgrid[: weight.shape[0], : weight.shape[1]]
    place = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
    return np.tile(points_from_crop(place, weight.shape[0]), (5, 1))


def rolled(degrees: float) -> np.ndarray:
    """Five points of a face that is turned clockwise as seen."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return UPRIGHT @ np.array([[cos, sin], [-sin, cos]])


def noise(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mean_and_corner(crop: np.ndarray) -> np.ndarray:
    """Points that depend on all of the crop."""
    return UPRIGHT + np.array([crop.mean(), crop[..., : SIZE // 2, : SIZE // 2].mean()]) / 2550


def rich_spec(**changes) -> ModelSpec:
    """A model of everything: two schemas, standard deviations, an attribute, angles."""
    return spec(("landmarks", "landmarks_ibug68", "smile", "angles"), **{"uncertainty": True, **changes})


def rich_session(**changes) -> FakeSession:
    """The same answers for every crop, and no two numbers alike where left and right swap."""
    outline = np.stack([np.linspace(-0.4, 0.4, 68), np.linspace(-0.3, 0.2, 68)], axis=1)
    return FakeSession(
        rich_spec(**changes),
        landmarks=lambda crop: UPRIGHT,
        landmark_sigma=lambda crop: [0.01, 0.02, 0.03, 0.04, 0.05],
        landmarks_ibug68=lambda crop: outline,
        smile=lambda crop: [2.0, 0.0],
        angles=lambda crop: [30.0, -10.0, 5.0],
    )


def full_session(**changes) -> FakeSession:
    """Five tasks, and answers that differ from crop to crop."""
    return FakeSession(
        spec(TASKS, **changes),
        landmarks=mean_and_corner,
        glasses=lambda crop: np.arange(2) * crop.mean() / 100,
        smile=lambda crop: np.arange(2) * crop.std() / 100,
        gender=lambda crop: np.arange(2) * crop[0, 0, 0] / 100,
        pose=lambda crop: crop[0, 20, ::8] / 100,
    )
