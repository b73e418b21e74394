"""A bright square on dark that stands for a face: its pictures, its videos, and a predictor that finds it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from facemtl.face import Face

REAL_CAPTURE = cv2.VideoCapture  # tests put a camera of their own in its place


def square(x: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A bright square of 20 pixels at ``x``, 40 on a dark picture, BGR."""
    image = np.full((height, width, 3), 20, np.uint8)
    image[40:60, x : x + 20] = 230
    return image


def find_square(image: np.ndarray) -> list[Face]:
    """Stands for a Predictor: the bright square is the face, its corners and centre are the points."""
    ys, xs = np.nonzero(image[..., 0] > 125)
    if not len(xs):
        return []
    x1, y1, x2, y2 = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
    points = [[x1, y1], [x2, y1], [(x1 + x2) / 2, (y1 + y2) / 2], [x1, y2], [x2, y2]]
    return [Face(np.float32([x1, y1, x2, y2]), 1.0, np.float32(points), "mtfl5")]


def make_video(path: Path, frames: int = 12, fps: float = 12.5, codec: str = "mp4v") -> Path:
    """The square moves 4 pixels a frame, from the left edge on, on 128 x 96 pixels."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (128, 96))
    assert writer.isOpened()
    for i in range(frames):
        writer.write(square(4 * i))
    writer.release()
    return path


def read_lines(path: Path) -> list[dict]:
    """The objects of a file with one in each line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_video(path: Path) -> tuple[float, list[np.ndarray]]:
    """Frames a second, and the frames."""
    capture = REAL_CAPTURE(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return capture.get(cv2.CAP_PROP_FPS), frames
