"""How steady points are on a still face, and how far they trail behind a moving one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from live.videos import FPS, HEIGHT, WIDTH, backdrop, crowd, cut_out, sensor, straight

from facemtl.data.sample import FaceSample
from facemtl.geometry import box_from_five
from facemtl.image import read_image
from facemtl.predictor import Predictor
from facemtl.smoothing import POINTS, OneEuro
from facemtl.track import Tracker

SETTLED = 15  # frames after which a filter has forgotten where it began
STILL_FRAMES = 75
SPEEDS = (0.1, 0.3, 1.0)  # face sizes a second
MOVING_SIDE, MOVING_SECONDS = 110.0, 1.6
# Cutoff at rest (Hz) and how much it grows with speed: what the curve shows. None: as the network gives them.
SETTINGS = (None, (0.2, 20.0), (0.5, 20.0), (0.5, 60.0), (1.0, 20.0), (1.0, 60.0), (2.0, 60.0), (0.5, 150.0))


@dataclass(frozen=True, eq=False)
class Followed:
    """Points (N, 5, 2) that were found of one face in N frames, the true ones, and the side of the face box."""

    found: np.ndarray
    truth: np.ndarray
    side: float

    @property
    def between_eyes(self) -> float:
        return float(np.hypot(*(self.truth[0, 1] - self.truth[0, 0])))

    def filtered(self, setting: tuple[float, float] | None) -> np.ndarray:
        """The points as a One-Euro filter of this setting shows them."""
        if setting is None:
            return self.found
        smooth = OneEuro(*setting)
        return np.stack([smooth(points, i / FPS, self.side) for i, points in enumerate(self.found)])


def follow(predict: Predictor, frames: np.ndarray, truth: np.ndarray) -> Followed | None:
    """Track one face, unsmoothed; None where it is not found in every frame."""
    tracker, found = Tracker(predict, smooth=False), []
    for i, frame in enumerate(frames):
        faces = tracker(frame, i / FPS)
        if not faces:
            return None
        points = [face.landmarks for face in faces]
        found.append(min(points, key=lambda p: float(np.hypot(*(p - truth[i]).T).mean())))
    x1, _, x2, _ = box_from_five(truth[0])
    return Followed(np.array(found), truth, float(x2 - x1))


def still(predict: Predictor, sample: FaceSample, seed: int) -> Followed | None:
    """A photo of its own size in the middle of a frame, its border drawn out, which does not move; the noise of a
    sensor, encoded again for each frame."""
    image, rng = read_image(sample.image), np.random.default_rng(seed)
    top, left = (HEIGHT - image.shape[0]) // 2, (WIDTH - image.shape[1]) // 2
    below, right = HEIGHT - image.shape[0] - top, WIDTH - image.shape[1] - left
    frame = cv2.copyMakeBorder(image, top, below, left, right, cv2.BORDER_REPLICATE)
    points = sample.points + np.array([left, top])
    frames = np.stack([sensor(frame, rng) for _ in range(STILL_FRAMES)])
    return follow(predict, frames, np.repeat(points[None], STILL_FRAMES, axis=0))


def moving(predict: Predictor, sample: FaceSample, speed: float, seed: int) -> Followed | None:
    """A head that crosses the frame at a constant speed in face sizes a second."""
    length = speed * MOVING_SIDE * MOVING_SECONDS
    path = straight(((WIDTH - length) / 2, HEIGHT / 2), (speed * MOVING_SIDE, 0))
    frames, truth = crowd(
        [cut_out(sample, MOVING_SIDE)], [path], backdrop(sample), round(MOVING_SECONDS * FPS), seed=seed
    )
    return follow(predict, frames, truth[:, 0])


def jitter(followed: Followed, setting: tuple[float, float] | None) -> float:
    """Standard deviation of a point over the distance of the eyes, in percent, mean over the points."""
    points = followed.filtered(setting)[SETTLED:]
    return 100 * float(np.sqrt(points.var(axis=0).sum(axis=-1)).mean()) / followed.between_eyes


def lag(followed: Followed, setting: tuple[float, float] | None, speed: float) -> float:
    """Frames by which filtered points trail behind those that were found in the same frames."""
    behind = (followed.found - followed.filtered(setting))[SETTLED:, :, 0].mean()
    return float(behind) / (speed * followed.side / FPS)


def measure(predict: Predictor, samples: Sequence[FaceSample]) -> dict[str, Any]:
    """``jitter``: percent, mean and worst face, by setting; ``lag``: frames, by setting and speed; ``chosen``."""
    at_rest = [f for i, sample in enumerate(samples) if (f := still(predict, sample, i)) is not None]
    on_the_way = {
        speed: [f for i, sample in enumerate(samples[:4]) if (f := moving(predict, sample, speed, i)) is not None]
        for speed in SPEEDS
    }
    rows = []
    for setting in dict.fromkeys((*SETTINGS, POINTS)):
        values = [jitter(f, setting) for f in at_rest]
        lags = {str(v): float(np.mean([lag(f, setting, v) for f in fs])) for v, fs in on_the_way.items()}
        rows.append(
            {"setting": setting, "jitter": float(np.mean(values)), "worst_jitter": float(np.max(values)), "lag": lags}
        )
    return {
        "chosen": POINTS,
        "rows": rows,
        "still_faces": len(at_rest),
        "moving_faces": {str(v): len(fs) for v, fs in on_the_way.items()},
    }
