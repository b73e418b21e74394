"""Paints the head of :mod:`facemtl.data._head_model`: rays, colours of the features, light, glasses.

Every feature is a soft mask in head coordinates: a signed distance in mm, negative inside, turned into coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from facemtl.data._head_model import (
    CLOTH,
    HAIR,
    NECK,
    NOTHING,
    PIVOT,
    SKIN,
    Head,
    meet,
    on_face,
    reach,
    shape,
    to_camera,
)

FLOOR = -160.0  # depth, in mm, of the rays that meet nothing
_PIVOT_X, _PIVOT_Y, _PIVOT_Z = PIVOT.tolist()
_SOFT = 0.9  # mm over which a painted edge fades


@dataclass(frozen=True, slots=True)
class Light:
    """Directional light; colours (3,) blue green red."""

    direction: np.ndarray  # (3,) unit vector towards the light, camera axes
    colour: np.ndarray
    ambient: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """What the camera sees. ``x`` (W,) and ``y`` (H,) are the columns and rows in camera mm; the rest is (H, W)."""

    turn: np.ndarray
    x: np.ndarray
    y: np.ndarray
    depth: np.ndarray
    material: np.ndarray
    colour: np.ndarray  # (4, H, W) float32: blue, green, red, coverage; planes because numpy is fast along a row

    def around(self, margin: float, *points: Sequence[float]) -> tuple[slice, slice]:
        """Rows and columns of the rectangle around points given in head coordinates, with a margin in mm."""
        places = to_camera(self.turn, np.array(points))
        (x1, y1, _), (x2, y2, _) = places.min(axis=0) - margin, places.max(axis=0) + margin
        return _span(self.y, y1, y2), _span(self.x, x1, x2)

    def local(self, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Head coordinates x, y, z of the surface in a window."""
        return _to_head(self.turn, self.x[window[1]], self.y[window[0]], self.depth[window])

    def face(self, window: tuple[slice, slice], z: np.ndarray) -> np.ndarray:
        """1.0 where a window shows the skin of the face, given its head coordinate z."""
        return ((self.material[window] == SKIN) & (z > 15)).astype(np.float32)

    def blend(self, window: tuple[slice, slice], coverage: np.ndarray, colour: Sequence[float]) -> None:
        """Paint ``colour`` (3,) with ``coverage`` 0..1."""
        for plane, value in zip(self.colour, (*colour, 1.0), strict=True):
            view = plane[window]
            view += coverage * (float(value) - view)


def paint_head(
    head: Head, points: np.ndarray, turn: np.ndarray, body: np.ndarray, x: np.ndarray, y: np.ndarray, light: Light
) -> np.ndarray:
    """The head on nothing.

    Args:
        points: (5, 3) the head's :func:`five_points`.
        turn, body: rotations (3, 3) of head and body.
        x, y: columns (W,) and rows (H,) of the picture in camera mm.

    Returns:
        (H, W, 4) float32: blue, green, red, each times the coverage, and the coverage 0..1.
    """
    canvas = _trace(head, turn, body, x.astype(np.float32), y.astype(np.float32))
    _paint_hair(canvas)
    _paint_skin(canvas, head)
    if head.beard:
        _paint_beard(canvas, head)
    for eye in points[:2]:
        _paint_eye(canvas, head, eye)
    _paint_mouth(canvas, head)
    _shade(canvas, light)
    if head.glasses:
        _put_on_glasses(canvas, head, light)
    return cv2.merge(list(canvas.colour))


def _trace(head: Head, turn: np.ndarray, body: np.ndarray, x: np.ndarray, y: np.ndarray) -> Canvas:
    """Nearest surface on every ray, in the plain colour of its material."""
    depth = np.full((len(y), len(x)), FLOOR, np.float32)
    material = np.zeros(depth.shape, np.uint8)
    for part in shape(head):
        pose = body if part.body else turn
        x1, y1, x2, y2 = reach(part, pose)
        window = _span(y, y1, y2), _span(x, x1, x2)
        if not depth[window].size:
            continue
        here_x, here_y = x[window[1]], y[window[0]]
        seen, near = meet(part, pose, here_x, here_y)
        seen &= near > depth[window]
        if part.hairline:
            qx, qy, qz = _to_head(turn, here_x, here_y, near)
            seen &= qy + 0.95 * qz < head.hairline + 1.5 * np.sin(0.35 * qx)
            seen &= qy < 55
        np.copyto(depth[window], near, where=seen)
        material[window][seen] = part.material
    plain = np.ones((4, 5), np.float32)  # (channel, material)
    plain[:, NOTHING] = 0
    for kind, colour in ((SKIN, head.skin), (NECK, head.skin), (HAIR, head.hair), (CLOTH, head.cloth)):
        plain[:3, kind] = colour
    return Canvas(turn, x, y, depth, material, plain.take(material, axis=1))


def _to_head(turn: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    """Head coordinates x, y, z of camera columns ``x`` (W,), rows ``y`` (H,) and depths ``z`` (H, W)."""
    dx, dy, dz = (x - _PIVOT_X)[None, :], (y - _PIVOT_Y)[:, None], z - _PIVOT_Z
    return [a * dx + b * dy + c * dz + d for (a, b, c), d in zip(turn.T.tolist(), PIVOT.tolist(), strict=True)]


def _span(values: np.ndarray, low: float, high: float) -> slice:
    """The part of an increasing array between two values."""
    return slice(int(np.searchsorted(values, low)), int(np.searchsorted(values, high)))


def _cover(distance: np.ndarray, width: float = _SOFT) -> np.ndarray:
    """Signed distance in mm -> coverage 0..1; 1/2 on the edge."""
    return np.clip(0.5 - distance / width, 0, 1)


def _bump(x: np.ndarray, y: np.ndarray, radius_x: float, radius_y: float) -> np.ndarray:
    return np.exp(-0.5 * (np.square(x / radius_x) + np.square(y / radius_y)))


def _paint_hair(canvas: Canvas) -> None:
    """Strands: light and dark along the direction in which the hair falls."""
    window = canvas.around(190, (0, 20, 0))
    x, y, z = canvas.local(window)
    angle = 0.33 * x + 0.45 * z + 0.03 * y
    wave = 1 + 0.09 * (np.sin(angle) + np.sin(2.7 * angle + 0.06 * y))
    canvas.colour[:3, *window] *= np.where(canvas.material[window] == HAIR, wave, 1)


def _paint_skin(canvas: Canvas, head: Head) -> None:
    """Sockets, brows, cheeks, nostrils and the folds from the nose past the mouth."""
    for side in (-1, 1):
        window = canvas.around(26, (side * head.eye_x, -8, 62))
        x, y, z = canvas.local(window)
        face, x = canvas.face(window, z), side * x
        canvas.blend(window, 0.35 * face * _bump(x - 25, y + 3, 14, 8), head.skin * 0.55)
        along = (x - head.eye_x - 1) / 19
        arch = head.brow_y + 5 * np.square(along - 0.25) - 2
        brow = np.maximum(np.abs(y - arch) - head.brow_thick * (1.15 - 0.5 * along), 19 * (np.abs(along) - 1))
        canvas.blend(window, 0.85 * face * _cover(brow, 1.8), head.hair * 0.75)
    window = canvas.around(52, (0, 42, 80))
    x, y, z = canvas.local(window)
    face, x = canvas.face(window, z), np.abs(x)
    canvas.blend(window, 0.25 * face * _bump(x - 38, y - 30, 13, 12), head.skin * (0.75, 0.8, 1.0))
    canvas.blend(window, 0.8 * face * _bump(x - 6.5, y - head.nose_y - 8, 3.2, 2.2), head.skin * 0.2)
    fold = np.abs(x - 20 - 0.35 * (y - head.nose_y)) - 1.2
    beside = _cover(np.maximum(head.nose_y + 2 - y, y - head.mouth_y + 6), 8)
    canvas.blend(window, (0.12 + 0.3 * head.smile) * face * _cover(fold, 3) * beside, head.skin * 0.6)


def _paint_beard(canvas: Canvas, head: Head) -> None:
    window = canvas.around(75, (0, 70, 50))
    x, y, z = canvas.local(window)
    skin, x = canvas.face(window, z), np.abs(x)
    lips = 12 * (np.sqrt(np.square(x / 24) + np.square((y - head.mouth_y - 1) / 11)) - 1)
    cheek = y - head.mouth_y + 8 - 0.018 * np.square(x) + 0.12 * np.square(np.maximum(x - 40, 0))
    moustache = np.maximum(np.abs(y - head.mouth_y + 10) - 4, x - 26)
    hairy = np.maximum(_cover(-np.minimum(cheek, lips), 6), _cover(moustache, 4))
    canvas.blend(window, (0.25 + 0.65 * head.beard) * skin * hairy, head.hair * 0.9 + head.skin * 0.1)


def _paint_eye(canvas: Canvas, head: Head, centre: np.ndarray) -> None:
    window = canvas.around(20, centre)
    x, y, z = canvas.local(window)
    face, x = canvas.face(window, z), x - float(centre[0])
    bow = 1 - np.square(x / 14.5)
    lid, bag = -1.15 * head.eye_open * bow, 0.85 * head.eye_open * bow
    inside = face * _cover(np.maximum(lid - y, y - bag))
    iris = np.hypot(x - head.gaze[0], y - head.gaze[1])
    canvas.blend(window, inside, (0.86, 0.88, 0.90))
    canvas.blend(window, inside * _cover(iris - 5.9, 1.2), head.iris * 0.6)
    canvas.blend(window, inside * _cover(iris - 4.9, 1.2), head.iris)
    canvas.blend(window, inside * _cover(iris - 2.4), (0.02, 0.02, 0.02))
    canvas.blend(window, inside * _cover(np.hypot(x - 1.8, y + 2) - 1), (1, 1, 1))
    lash = np.maximum(np.abs(y - lid) - (0.9 if head.male else 1.4), np.abs(x) - 15)
    canvas.blend(window, 0.85 * face * _cover(lash), head.hair * 0.4)
    crease = np.maximum(np.abs(y - lid + 4) - 0.5, np.abs(x) - 13)
    canvas.blend(window, 0.35 * face * _cover(crease, 1.5), head.skin * 0.5)


def _paint_mouth(canvas: Canvas, head: Head) -> None:
    corner_x, corner_y = head.corner
    window = canvas.around(48, (0, head.mouth_y, 75))
    x, y, z = canvas.local(window)
    face = canvas.face(window, z)
    u = x / corner_x
    bow = np.maximum(1 - np.square(u), 0)
    upper = corner_y + (head.mouth_y - corner_y + 1.5) * bow - 0.25 * head.gap * bow  # lower edge of the upper lip
    lower = upper + head.gap * bow
    cupid = 1 - 0.25 * np.exp(-np.square(u / 0.12))
    ends = (np.abs(u) - 1) * corner_x
    top = upper - 0.6 - 0.75 * head.lip * np.power(bow, 0.8) * cupid
    bottom = lower + 0.6 + 1.05 * head.lip * np.power(bow, 0.7)
    canvas.blend(window, face * 0.9 * _cover(np.maximum.reduce([top - y, y - bottom, ends])), head.lips)
    hollow = face * _cover(np.maximum.reduce([upper - 0.5 - y, y - lower - 0.5, ends]))
    canvas.blend(window, hollow, head.lips * 0.25)
    if head.smiling and head.gap > 0:
        teeth = np.maximum.reduce([upper - y, y - upper - 0.75 * head.gap * bow, ends + 5])
        canvas.blend(window, face * _cover(teeth), (0.85, 0.90, 0.92))
    dimple = np.hypot(np.abs(x) - corner_x - 0.5, y - corner_y) - 1.2
    canvas.blend(window, face * 0.5 * _cover(dimple, 2), head.skin * 0.4)


def _shade(canvas: Canvas, light: Light) -> None:
    """Lambert's law on the normals of the smoothed depth, darker where the surface is hollow."""
    step = float(canvas.x[1] - canvas.x[0])
    smooth = cv2.GaussianBlur(canvas.depth, (0, 0), max(2.2 / step, 0.5))
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=-0.125 / step)
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=-0.125 / step)
    a, b, c = light.direction.tolist()
    lit = (a * slope_x + b * slope_y + c) / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    side = 2 * int(12 / step) + 1
    hollow = cv2.blur(canvas.depth, (side, side)) - canvas.depth
    lit = np.maximum(lit, 0)
    open_sky = np.clip(1 - hollow / 45, 0.45, 1.05)
    for plane, colour, ambient in zip(canvas.colour[:3], light.colour.tolist(), light.ambient.tolist(), strict=True):
        plane *= open_sky * (colour * lit + ambient)


def _put_on_glasses(canvas: Canvas, head: Head, light: Light) -> None:
    """Rims and lenses in a plane before the eyes, and a temple on each side back to the ear."""
    half_x, half_y, power = head.lens
    plane = float(on_face(head, [(0.0, 2.0)])[0, 2]) + 3
    hinge, ear_x, ear_z = head.eye_x + half_x, 77 * head.width, -22.0
    glow = light.ambient + 0.6 * light.colour
    lean = (ear_x - hinge) / (plane - ear_z)
    for side in (-1, 1):
        window = canvas.around(6, (side * hinge, -2, plane), (side * ear_x, -2, ear_z))
        _, y, z, near = _sheet(canvas, window, np.array([side, 0.0, lean]), hinge + lean * plane)
        bar = np.maximum.reduce([np.abs(y + 2) - head.rim - 0.4, z - plane, ear_z - z])
        canvas.blend(window, near * _cover(bar), head.frame * glow)
    window = canvas.around(5, *((x, 3 + y, plane) for x in (-hinge, hinge) for y in (-half_y, half_y)))
    x, y, _, near = _sheet(canvas, window, np.array([0.0, 0.0, 1.0]), plane)
    across = np.abs(x)
    outline = np.power(np.abs((across - head.eye_x) / half_x), power) + np.power(np.abs((y - 3) / half_y), power)
    lens = (np.power(outline, 1 / power) - 1) * min(half_x, half_y)
    if head.dark_lenses:
        canvas.blend(window, near * 0.93 * _cover(lens), 0.25 * head.frame * glow)
    shine = _cover(np.abs(x - np.sign(x) * head.eye_x + y - 8) - 3, 4)
    canvas.blend(window, near * (0.04 + 0.14 * shine) * _cover(lens), light.ambient + light.colour)
    bridge = np.maximum(np.abs(y + 3 - 0.02 * np.square(x)) - head.rim, across - head.eye_x + half_x)
    rim = np.minimum(np.abs(lens) - head.rim, bridge)
    canvas.blend(window, near * _cover(rim), head.frame * glow)


def _sheet(canvas: Canvas, window: tuple[slice, slice], normal: np.ndarray, offset: float) -> tuple[np.ndarray, ...]:
    """The rays of a window against the plane ``normal . p = offset`` of head space.

    Returns:
        Head coordinates x, y, z of the meeting points, and 1.0 where nothing of the head hides them; each (H, W).
    """
    a, b, c = (canvas.turn @ normal).tolist()
    c = c if abs(c) > 1e-3 else 1e-3  # a sheet seen edge-on
    x, y = canvas.x[window[1]], canvas.y[window[0]]
    z = (float(offset - normal @ PIVOT) - a * (x - _PIVOT_X)[None, :] - b * (y - _PIVOT_Y)[:, None]) / c + _PIVOT_Z
    return *_to_head(canvas.turn, x, y, z), (z > canvas.depth[window]).astype(np.float32)
