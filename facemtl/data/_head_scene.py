"""What stands around a synthetic head: light, background, a patch in front of it, and the camera's sensor."""

from __future__ import annotations

import math

import cv2
import numpy as np

from facemtl.data._head_paint import Light


def draw_light(rng: np.random.Generator) -> Light:
    """A slightly coloured lamp, mostly from above and in front."""
    direction = np.array([rng.normal(0, 0.6), rng.normal(-0.4, 0.3), 1.0])
    tint = rng.normal(1, 0.06, (2, 3))
    direction /= np.linalg.norm(direction)
    return Light(direction, rng.uniform(0.5, 0.85) * tint[0], rng.uniform(0.25, 0.5) * tint[1])


def _draw_colour(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.uniform(0.05, 0.95) + rng.normal(0, 0.15, 3), 0, 1)


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Clouds of colour, a few shapes, and fine texture or none: (size, size, 3) float32 0..1."""
    side = int(rng.integers(2, 8))
    clouds = rng.standard_normal((side, side, 1)) + 0.4 * rng.standard_normal((side, side, 3))
    image = _draw_colour(rng) + rng.uniform(0.03, 0.25) * clouds
    image = cv2.resize(image.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(0, 6)):
        corners = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 6)), 2)) * size
        cv2.fillConvexPoly(image, cv2.convexHull(corners.astype(np.int32)), _draw_colour(rng).tolist())
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.005, 0.04) * size)
    grain = rng.standard_normal((size // 2, size // 2)).astype(np.float32) * rng.uniform(0, 0.06)
    return np.clip(image + cv2.resize(grain, (size, size))[..., None], 0, 1)


def put_patch(image: np.ndarray, box: np.ndarray, share: float, rng: np.random.Generator) -> None:
    """Cover part of the face with a turned patch, between rectangle and ellipse, of ``share`` of the box's area."""
    if share == 0:
        return
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    power, stretch, turn = rng.uniform(0.4, 1.0), math.exp(rng.uniform(-0.7, 0.7)), rng.uniform(0, math.pi)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    outline = np.sign(circle) * np.abs(circle) ** power * (stretch, 1 / stretch)
    cos, sin = math.cos(turn), math.sin(turn)
    side = float(box[2] - box[0])
    outline *= side * math.sqrt(share / cv2.contourArea(outline.astype(np.float32)))
    place = (box[:2] + box[2:]) / 2 + rng.uniform(-0.4, 0.4, 2) * side
    outline = outline @ np.array([[cos, sin], [-sin, cos]]) + place
    colours = _draw_colour(rng) + rng.uniform(0, 0.2) * rng.standard_normal((6, 6, 3))
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.round(outline * 16).astype(np.int32), 255, cv2.LINE_AA, shift=4)
    texture = cv2.resize(colours.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    image += (mask / np.float32(255))[..., None] * (texture - image)


def expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lens blur, contrast and brightness, now and then no colour, noise; to uint8."""
    blur, contrast, level, grey, noise = rng.uniform((0, 0.8, -0.08, 0, 1), (1, 1.15, 0.08, 1, 9))
    if blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(blur) * image.shape[0] / 200)
    if grey < 0.05:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    image = (image - 0.5) * (255 * float(contrast)) + 255 * (0.5 + float(level))
    image += float(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)
