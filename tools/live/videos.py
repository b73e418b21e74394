"""Videos made by moving real stills: where every face is in every frame is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from facemtl.data.sample import FaceSample
from facemtl.geometry import box_from_five
from facemtl.image import read_image

FPS = 30.0
HEIGHT, WIDTH = 480, 640
NOISE = 5.0  # grey levels, standard deviation: the sensor of a cheap webcam indoors
JPEG = 90  # quality at which each frame is encoded again
Place = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Head:
    """A face cut out of a photo: picture (h, w, 3), soft mask (h, w, 1) in 0..1, and its points (5, 2) in it."""

    picture: np.ndarray
    mask: np.ndarray
    points: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        x1, y1, x2, y2 = box_from_five(self.points)
        return np.array([(x1 + x2) / 2, (y1 + y2) / 2])


def sensor(frame: np.ndarray, rng: np.random.Generator, noise: float = NOISE) -> np.ndarray:
    """The frame with the noise of a sensor, encoded and decoded as a webcam does."""
    noisy = cv2.add(frame, rng.normal(0, noise, frame.shape).astype(np.int16), dtype=cv2.CV_8U)
    return cv2.imdecode(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, JPEG])[1], cv2.IMREAD_COLOR)


def cut_out(sample: FaceSample, side: float) -> Head:
    """The head of a labelled face, its face box ``side`` pixels wide, with a soft elliptic border."""
    image = read_image(sample.image)
    x1, y1, x2, y2 = box_from_five(sample.points)
    scale = side / (x2 - x1)
    width, height = round(1.3 * side), round(1.7 * side)
    corner = np.array([(x1 + x2) / 2 - 0.65 * (x2 - x1), (y1 + y2) / 2 - 0.9 * (y2 - y1)])
    into = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = cv2.warpAffine(image, into, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((height, width), np.float32)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 2 - 4, height // 2 - 4), 0, 0, 360, 1.0, cv2.FILLED)
    return Head(picture, cv2.GaussianBlur(mask, (0, 0), 2)[..., None], (sample.points - corner) * scale)


def paste(frame: np.ndarray, head: Head, place: Place) -> np.ndarray:
    """Put a head into the frame, the middle of its face box at ``place`` to the hundredth of a pixel; its points."""
    shift = np.array(place) - head.middle
    left, top = np.floor(shift).astype(int).tolist()
    height, width = head.mask.shape[0] + 1, head.mask.shape[1] + 1
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, frame.shape[1]), min(top + height, frame.shape[0])
    if x1 < x2 and y1 < y2:
        into = np.array([[1, 0, shift[0] - left], [0, 1, shift[1] - top]])
        mask = cv2.warpAffine(head.mask, into, (width, height))[..., None]
        picture = cv2.warpAffine(head.picture, into, (width, height), borderMode=cv2.BORDER_REPLICATE)
        seen = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
        under = frame[y1:y2, x1:x2]
        under[:] = np.round(under * (1 - mask[seen]) + picture[seen] * mask[seen]).astype(np.uint8)
    return head.points + shift


def backdrop(sample: FaceSample, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A room without people: a photo enlarged and blurred until no detector finds its face, with fine texture on it."""
    image = cv2.resize(read_image(sample.image), (width, height), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 60, image.shape).astype(np.float32), (0, 0), 3)
    return np.clip(cv2.GaussianBlur(image, (0, 0), width / 16) + texture, 0, 255).astype(np.uint8)


def hand_held(sample: FaceSample, frames: int, seed: int = 0, noise: float = NOISE) -> np.ndarray:
    """(N, 480, 640, 3): one still that covers the whole frame, as a camera in a restless hand sees it."""
    rng, image = np.random.default_rng(seed), read_image(sample.image)
    (height, width), middle = image.shape[:2], box_from_five(sample.points)
    zoom = max(WIDTH / width, HEIGHT / height)
    centre = np.array([(middle[0] + middle[2]) / 2, (middle[1] + middle[3]) / 2])
    video = []
    for i in range(frames):
        time = i / FPS
        turn = math.radians(4 * math.sin(2.1 * time))
        scale = zoom * (1 + 0.08 * math.sin(0.9 * time))
        cos, sin = scale * math.cos(turn), scale * math.sin(turn)
        there = np.array([WIDTH / 2 + 60 * math.sin(1.3 * time), HEIGHT / 2 + 35 * math.sin(1.9 * time)])
        linear = np.array([[cos, -sin], [sin, cos]])
        into = np.column_stack([linear, there - linear @ centre])
        video.append(sensor(cv2.warpAffine(image, into, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT), rng, noise))
    return np.stack(video)


def crowd(
    heads: Sequence[Head],
    paths: Sequence[Callable[[float], Place]],
    room: np.ndarray,
    frames: int,
    seed: int = 0,
    noise: float = NOISE,
) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) frames of heads on their paths, the last one nearest, and (N, heads, 5, 2) their points."""
    rng = np.random.default_rng(seed)
    video, points = [], []
    for i in range(frames):
        frame = room.copy()
        points.append([paste(frame, head, path(i / FPS)) for head, path in zip(heads, paths, strict=True)])
        video.append(sensor(frame, rng, noise))
    return np.stack(video), np.array(points)


def straight(start: Place, velocity: Place) -> Callable[[float], Place]:
    """Constant velocity in pixels a second."""
    return lambda time: (start[0] + velocity[0] * time, start[1] + velocity[1] * time)


def swaying(middle: Place, reach: float, phase: float) -> Callable[[float], Place]:
    """To and fro around a place."""
    return lambda time: (
        middle[0] + reach * math.sin(1.5 * time + phase),
        middle[1] + reach * math.sin(1.1 * time + 2 * phase) / 2,
    )
