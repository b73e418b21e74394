"""Faces drawn on a picture: box, points, edges of the schema, axes of the head, and a caption that stays inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from facemtl.face import Attribute, Face, Pose
from facemtl.head_pose import rotation
from facemtl.landmarks import SCHEMAS

# Blue, green, red. Every bright stroke lies on a wider dark one, so that it shows on light and dark pictures.
BOX_COLOUR = (110, 220, 70)
EDGE_COLOUR = (235, 225, 190)
POINT_COLOUR = (40, 215, 255)
# Of the head: to the viewer's right, down, and out of the face, as far as they are seen from the front.
AXIS_COLOURS = ((60, 60, 240), (80, 200, 80), (255, 150, 50))
TEXT_COLOUR = (255, 255, 255)
BAR_COLOUR = (120, 110, 40)
DARK = (28, 22, 18)

SMALLEST_CAPTIONED = 32  # pixels; the caption of a smaller face would hide its neighbours
CAPTION_WORDS = {"left": "looks left", "right": "looks right"}  # labels that say too little on their own
_SHIFT = 4  # cv2 takes coordinates with this many fractional bits
_MIRRORED_POSE = {"left_profile": "right_profile", "left": "right", "right": "left", "right_profile": "left_profile"}


@dataclass(frozen=True, slots=True)
class Overlay:
    """Which parts of a face are drawn: its box, its points with edges and deviations, its track's number, the axes of
    its head, and its attributes and angles, each attribute on a bar as long as its confidence."""

    box: bool = True
    points: bool = True
    ids: bool = True
    axes: bool = True
    attributes: bool = True


ALL = Overlay()


def draw_faces(image: np.ndarray, faces: Sequence[Face], overlay: Overlay = ALL) -> np.ndarray:
    """Draw ``faces`` on a copy of ``image``.

    Args:
        image: (H, W, 3) uint8 BGR; it is left as it was.
        faces: in the pixels of ``image``; they may reach past its border.
        overlay: what of them.

    Returns:
        (H, W, 3) uint8 BGR. Strokes and text grow with the face; faces under 32 pixels get no caption. A circle
        around a point is one standard deviation, where the face has them; the axes start at the tip of the nose.
    """
    canvas = image.copy()
    for face in faces:
        _draw_shapes(canvas, face, overlay)
    # Captions come last: no stroke of another face crosses a text.
    taken = [face.box for face in faces]
    for face in faces:
        lines = caption(face, overlay)
        if lines and _side(face) >= SMALLEST_CAPTIONED:
            _draw_caption(canvas, face, lines, _bars(face, overlay), taken)
    return canvas


def caption(face: Face, overlay: Overlay = ALL) -> list[str]:
    """What is written beside a face, one line each: track, attributes with their confidence, head angles in degrees.

    A question mark stands behind an attribute that is not certain.
    """
    lines = [f"#{face.track_id}"] if overlay.ids and face.track_id is not None else []
    if not overlay.attributes:
        return lines
    for attribute in face.attributes.values():
        words = CAPTION_WORDS.get(attribute.label, attribute.label.replace("_", " "))
        lines.append(f"{words} {attribute.confidence:.0%}{'' if attribute.certain else '?'}")
    if face.pose is not None:
        lines.append(f"yaw {face.pose.yaw:+.0f} pitch {face.pose.pitch:+.0f} roll {face.pose.roll:+.0f}")
    return lines


def _bars(face: Face, overlay: Overlay) -> list[float]:
    """For each line of the caption the share of its width that is a bar: an attribute's confidence, else 0."""
    lines = len(caption(face, overlay))
    if not overlay.attributes:
        return [0.0] * lines
    before = int(overlay.ids and face.track_id is not None)
    bars = [0.0] * before + [attribute.confidence for attribute in face.attributes.values()]
    return bars + [0.0] * (lines - len(bars))


def draw_status(image: np.ndarray, text: str) -> np.ndarray:
    """Write lines into the upper left corner of a copy of ``image`` (H, W, 3) uint8, if they fit."""
    canvas, lines = image.copy(), text.splitlines()
    size = _panel_size(lines, 12)
    if size[0] <= image.shape[1] and size[1] <= image.shape[0]:
        _draw_panel(canvas, lines, [0.0] * len(lines), (0, 0), 12)
    return canvas


def mirror_face(face: Face, width: int) -> Face:
    """The face as it stands in the mirrored picture of ``width`` pixels; to be shown, never to be stored.

    Left and right swap in the points, the pose class and the signs of yaw and roll, so that all conventions of
    :mod:`facemtl.face` hold for what the viewer sees.
    """
    flip = list(SCHEMAS[face.schema].flip_order) if len(face.landmarks) else []
    x1, y1, x2, y2 = face.box
    points = face.landmarks[flip] * np.float32([-1, 1]) + np.float32([width - 1, 0])
    attributes = dict(face.attributes)
    if "pose" in attributes:
        attributes["pose"] = _mirror_pose(attributes["pose"])
    return replace(
        face,
        box=np.float32([width - 1 - x2, y1, width - 1 - x1, y2]),
        landmarks=points,
        attributes=attributes,
        landmark_sigma=None if face.landmark_sigma is None else face.landmark_sigma[flip],
        pose=None if face.pose is None else Pose(-face.pose.yaw, face.pose.pitch, -face.pose.roll),
    )


def _mirror_pose(pose: Attribute) -> Attribute:
    swapped = {_MIRRORED_POSE.get(name, name): share for name, share in pose.probabilities.items()}
    return replace(pose, label=_MIRRORED_POSE.get(pose.label, pose.label), probabilities=swapped)


def _side(face: Face) -> float:
    x1, y1, x2, y2 = (float(v) for v in face.box)
    return (x2 - x1 + y2 - y1) / 2


def _fixed(point: Sequence[float]) -> tuple[int, int]:
    """Sub-pixel ``x y`` as the fixed-point integers that cv2 expects."""
    return round(float(point[0]) * 2**_SHIFT), round(float(point[1]) * 2**_SHIFT)


def _draw_shapes(canvas: np.ndarray, face: Face, overlay: Overlay) -> None:
    side = _side(face)
    stroke = max(1, round(side / 160))
    halo = stroke + 2 * max(1, round(side / 400))
    schema = SCHEMAS[face.schema]
    radius = max(1.0, side * (0.016 if len(schema) <= 10 else 0.009))
    corners = _fixed(face.box[:2]), _fixed(face.box[2:])
    points = [_fixed(point) for point in face.landmarks] if overlay.points else []

    for colour, width in ((DARK, halo), (BOX_COLOUR, stroke)) if overlay.box else ():
        cv2.rectangle(canvas, *corners, colour, width, cv2.LINE_AA, _SHIFT)
    for colour, width in ((DARK, halo), (EDGE_COLOUR, stroke)):
        for i, j in schema.edges if points else ():
            cv2.line(canvas, points[i], points[j], colour, width, cv2.LINE_AA, _SHIFT)
    if face.pose is not None and overlay.axes:
        _draw_axes(canvas, face, stroke, halo)
    if points and face.landmark_sigma is not None:
        for point, sigma in zip(points, face.landmark_sigma, strict=True):
            reach = round(min(float(sigma), side) * 2**_SHIFT)
            cv2.circle(canvas, point, reach, DARK, halo, cv2.LINE_AA, _SHIFT)
            cv2.circle(canvas, point, reach, POINT_COLOUR, stroke, cv2.LINE_AA, _SHIFT)
    for colour, reach in ((DARK, radius + (halo - stroke) / 2), (POINT_COLOUR, radius)):
        for point in points:
            cv2.circle(canvas, point, round(reach * 2**_SHIFT), colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_axes(canvas: np.ndarray, face: Face, stroke: int, halo: int) -> None:
    five = SCHEMAS[face.schema].to_five(face.landmarks) if len(face.landmarks) else None
    origin = (face.box[:2] + face.box[2:]) / 2 if five is None else five[2]
    ends = origin + 0.3 * _side(face) * rotation(face.pose.yaw, face.pose.pitch, face.pose.roll)[:2].T
    for width, colours in ((halo + stroke, [DARK] * 3), (2 * stroke, AXIS_COLOURS)):
        for end, colour in zip(ends, colours, strict=True):
            cv2.line(canvas, _fixed(origin), _fixed(end), colour, width, cv2.LINE_AA, _SHIFT)


def _font(height: float) -> tuple[float, int]:
    """Scale and stroke of the font for capitals of about ``height`` pixels."""
    scale = height / 24
    return scale, max(1, round(scale * 1.2))


def _panel_size(lines: Sequence[str], height: float) -> tuple[int, int]:
    """Width and height in pixels of a panel of text."""
    scale, stroke = _font(height)
    widths = [cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)[0][0] for line in lines]
    return round(max(widths) + height), round(height * (1.6 * len(lines) + 0.6))


def _draw_panel(
    canvas: np.ndarray, lines: Sequence[str], bars: Sequence[float], corner: tuple[int, int], height: float
) -> None:
    """Text and bars, shares of the width, on a dark see-through panel whose upper left pixel is ``corner``."""
    scale, stroke = _font(height)
    x, y = corner
    width, total = _panel_size(lines, height)
    part = canvas[y : y + total, x : x + width]
    part[:] = cv2.addWeighted(part, 0.3, np.full_like(part, DARK), 0.7, 0)
    for i, line in enumerate(lines):
        foot = (x + round(height / 2), y + round(height * (1.6 * i + 1.5)))
        if bars[i] > 0:
            top, bottom = round(height * (1.6 * i + 0.35)), round(height * (1.6 * i + 1.75))
            canvas[y + top : y + bottom, x : x + round(width * bars[i])] = BAR_COLOUR
        cv2.putText(canvas, line, foot, cv2.FONT_HERSHEY_SIMPLEX, scale, TEXT_COLOUR, stroke, cv2.LINE_AA)


def _draw_caption(
    canvas: np.ndarray, face: Face, lines: Sequence[str], bars: Sequence[float], taken: list[np.ndarray]
) -> None:
    """Write ``lines`` where they hide least of what is ``taken`` (boxes ``x1 y1 x2 y2``), and add their panel to it."""
    rows, columns = canvas.shape[:2]
    height = max(9.0, min(0.07 * _side(face), 0.035 * min(rows, columns)))
    width, total = _panel_size(lines, height)
    if width > columns or total > rows:
        return
    x1, y1, x2, y2 = (float(v) for v in face.box)
    gap = height / 2
    places = [
        (x1, y2 + gap),  # below
        (x1, y1 - gap - total),  # above
        (x2 + gap, y1),  # to the right
        (x1 - gap - width, y1),  # to the left
        (x1, y2 - total),  # inside, over the chin
    ]
    panels = []
    for x, y in places:
        left, top = round(min(max(x, 0), columns - width)), round(min(max(y, 0), rows - total))
        panels.append(np.array([left, top, left + width, top + total]))
    best = min(panels, key=lambda panel: _overlap(panel, np.array(taken)))
    taken.append(best)
    _draw_panel(canvas, lines, bars, (int(best[0]), int(best[1])), height)


def _overlap(panel: np.ndarray, boxes: np.ndarray) -> float:
    """Pixels that ``panel`` (4,) shares with ``boxes`` (N, 4), summed."""
    sides = np.minimum(panel[2:], boxes[:, 2:]) - np.maximum(panel[:2], boxes[:, :2])
    return float(np.clip(sides, 0, None).prod(axis=1).sum())
