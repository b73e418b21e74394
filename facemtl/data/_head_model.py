"""The 3-D head behind the synthetic faces: who it is, its shape, and its five points.

Head coordinates are millimetres with the origin between the eyes: x to the viewer's right, y down, z out of the face
towards the viewer. Camera coordinates are the same axes after rotation. The camera is orthographic: a point of the
image is the camera's x and y times a scale, plus a shift. A head is a union of ellipsoids, mirror-symmetric in x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from facemtl.head_pose import rotation

NOTHING, SKIN, NECK, HAIR, CLOTH = range(5)  # materials; the neck's skin carries no features
PIVOT = np.array([0.0, 60.0, -20.0])  # the head turns about the top of the neck

_SKINS = np.array([[0.74, 0.80, 0.95], [0.58, 0.69, 0.90], [0.44, 0.57, 0.79], [0.28, 0.40, 0.60], [0.17, 0.25, 0.41]])
_HAIRS = np.array([[0.07, 0.07, 0.08], [0.10, 0.15, 0.24], [0.18, 0.28, 0.42], [0.38, 0.58, 0.76], [0.62, 0.63, 0.65]])
_IRISES = np.array([[0.08, 0.14, 0.24], [0.14, 0.26, 0.36], [0.52, 0.42, 0.30], [0.30, 0.42, 0.28]])


class Ellipsoid(NamedTuple):
    """One part. ``tilt`` degrees tips its top back."""

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    material: int = SKIN
    tilt: float = 0.0
    hairline: bool = False  # only what lies above and behind the hairline is there

    @property
    def body(self) -> bool:
        """Neck and shoulders follow the turn of the head only partly."""
        return self.material in (NECK, CLOTH)


@dataclass(frozen=True, slots=True)
class Head:
    """One person with one expression. Lengths in mm; colours (3,) blue green red in 0..1."""

    male: bool
    smiling: bool
    glasses: bool
    dark_lenses: bool
    width: float  # of the skull; 1 is average
    length: float  # of the lower face; 1 is average
    jaw: float  # half width of the jaw
    eye_x: float  # half the distance between the eyes
    eye_open: float  # half the height of the eye's opening
    gaze: tuple[float, float]  # of the iris from the middle of the eye
    brow_y: float
    brow_thick: float
    nose_y: float
    nose_depth: float
    mouth_y: float
    mouth_x: float  # half the width of the mouth at rest
    lip: float  # thickness
    lift: float  # strength of a smile, 0.6..1; counts only if smiling
    gap: float  # opening of the mouth
    long_hair: bool
    bald: bool
    hair_volume: float
    hairline: float  # larger is lower
    beard: float  # 0 none .. 1 full
    lens: tuple[float, float, float]  # half width, half height, exponent of the outline
    rim: float  # half the thickness of the frame
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    cloth: np.ndarray
    frame: np.ndarray

    @property
    def smile(self) -> float:
        """Strength of the smile, 0 without one."""
        return self.lift if self.smiling else 0.0

    @property
    def corner(self) -> tuple[float, float]:
        """x and y of the corner of the mouth on the side x > 0; a smile moves it outward and up."""
        return self.mouth_x + 7.0 * self.smile, self.mouth_y - 6.0 * self.smile


def draw_head(rng: np.random.Generator, *, male: bool, smiling: bool, glasses: bool, dark_lenses: bool) -> Head:
    """A random person. The same draws are made whatever the attributes, so that changing one keeps the rest.

    ``male`` is a class signal for tests (longer hair, redder lips or a beard are likelier in one class than in the
    other); it says nothing about people.
    """
    wide, long, chance = rng.normal(1, 0.03), rng.normal(1, 0.035), rng.random(5)
    tone, shade = rng.random(), rng.random()
    skin = _mix(_SKINS, tone) * rng.uniform(0.95, 1.05, 3)
    hair = _mix(_HAIRS, shade * (0.2 + 0.8 * (1 - tone))) * rng.uniform(0.93, 1.07, 3)
    red = rng.uniform(0.1, 0.3) + (0.0 if male else 0.3 * chance[0])
    beard = rng.uniform(0.3, 1.0)
    return Head(
        male=male,
        smiling=smiling,
        glasses=glasses,
        dark_lenses=dark_lenses,
        width=wide,
        length=long,
        jaw=rng.normal(50, 1.5) + (5 if male else 0),
        eye_x=31 * rng.normal(1, 0.03),
        eye_open=rng.uniform(4.0, 6.0) - (0.8 if smiling else 0.0),
        gaze=(rng.normal(0, 1.5), rng.normal(0, 0.5)),
        brow_y=rng.uniform(-20, -16) + (1.0 if male else -1.0),
        brow_thick=rng.uniform(1.5, 2.5) + (1.2 if male else 0.0),
        nose_y=rng.normal(38, 2) * long,
        nose_depth=rng.normal(27, 2),
        mouth_y=rng.normal(66, 1.5) * long,
        mouth_x=rng.normal(24, 1.2),
        lip=rng.uniform(4.0, 7.0) + (0.0 if male else 1.5),
        lift=rng.uniform(0.6, 1.0),
        gap=_gap(smiling, chance[1], rng.random()),
        long_hair=bool(chance[2] < (0.08 if male else 0.85)),
        bald=bool(male and chance[3] < 0.1),
        hair_volume=rng.uniform(3, 12) + (0.0 if male else 4.0),
        hairline=rng.uniform(-12, 10),
        beard=beard if male and chance[4] < 0.45 else 0.0,
        lens=(rng.uniform(22, 27), rng.uniform(15, 22), rng.uniform(2, 5)),
        rim=rng.uniform(0.9, 2.2),
        skin=skin,
        hair=hair,
        iris=_IRISES[rng.integers(len(_IRISES))] * rng.uniform(0.8, 1.2),
        lips=skin * (1 - red) + red * np.array([0.30, 0.22, 0.75]) * (0.5 + 0.5 * skin[2]),
        cloth=rng.uniform(0.05, 0.95, 3),
        frame=rng.uniform(0.02, 0.35, 3),
    )


def _mix(palette: np.ndarray, place: float) -> np.ndarray:
    """The colour at ``place`` 0..1 along a palette."""
    first = min(int(place * (len(palette) - 1)), len(palette) - 2)
    part = place * (len(palette) - 1) - first
    return (1 - part) * palette[first] + part * palette[first + 1]


def _gap(smiling: bool, chance: float, amount: float) -> float:
    """Most smiles show teeth; a mouth at rest is shut, or open to speak, so that an open mouth is not yet a smile."""
    if smiling:
        return 4 + 7 * amount if chance < 0.75 else 0.0
    return 3 + 9 * amount if chance < 0.2 else 0.0


def to_camera(turn: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(..., 3) head coordinates -> (..., 3) camera coordinates."""
    return (points - PIVOT) @ turn.T + PIVOT


def five_points(head: Head) -> np.ndarray:
    """(5, 3) float64 head coordinates of the points of ``mtfl5``, all on the surface of the face."""
    x, y = head.corner
    return on_face(head, [(-head.eye_x, 0.0), (head.eye_x, 0.0), (0.0, head.nose_y), (-x, y), (x, y)])


def on_face(head: Head, places: list[tuple[float, float]]) -> np.ndarray:
    """(N, 3) head coordinates: the front of the face at N places ``x y``, seen along the head's own z axis."""
    x, y = np.array(places).T
    z = np.full(len(places), -np.inf)
    for part in shape(head):
        if part.material == SKIN:
            inside, depth = meet(part, np.eye(3), x, y)
            z = np.where(np.diag(inside), np.maximum(z, np.diag(depth)), z)
    return np.column_stack([x, y, z])


def shape(head: Head) -> list[Ellipsoid]:
    """The ellipsoids of head, hair, neck and shoulders."""
    w, low, volume = head.width, head.length, head.hair_volume
    puff = 5 * head.smile  # a smile lifts and fills the cheeks
    parts = [
        Ellipsoid((0, -35, -20), (73 * w, 82, 92)),  # skull
        Ellipsoid((0, 20 * low, 4), (64 * w, 89 * low, 73)),  # face
        Ellipsoid((0, 60 * low, 12), (head.jaw, 42 * low, 54)),  # jaw
        Ellipsoid((0, 88 * low, 42), (27, 21, 28)),  # chin
        Ellipsoid((0, head.mouth_y, 47), (40, 30, 31)),  # around the mouth
        Ellipsoid((0, head.nose_y / 2, 76), (8.5, head.nose_y * 0.75, 11), tilt=22),  # bridge of the nose
        Ellipsoid((0, head.nose_y, 72), (12, 11, head.nose_depth)),  # tip of the nose
        Ellipsoid((0, 140, -34), (60 if head.male else 50, 110, 52), NECK),
        Ellipsoid((0, 265, -55), (225 if head.male else 195, 125, 80), CLOTH),
    ]
    for side in (-1, 1):
        parts += [
            Ellipsoid((side * 12, head.nose_y + 4, 72), (7.5, 8, head.nose_depth * 0.55)),  # wing of the nose
            Ellipsoid((side * 27 * w, 32 - puff, 30), (26, 20, 38 + 0.7 * puff)),  # cheek
            Ellipsoid((side * 26, head.brow_y + 1, 56), (32, 11, 18 if head.male else 15)),  # ridge of the brow
            Ellipsoid((side * head.eye_x, 0, 54), (16, 11, 14)),  # eye
            Ellipsoid((side * 73 * w, 20, -22), (9, 31, 17), tilt=10),  # ear
        ]
        if head.long_hair:
            parts.append(Ellipsoid((side * 68 * w, 50, -16), (24 + volume, 130, 42), HAIR))
    if head.long_hair:
        parts.append(Ellipsoid((0, 40, -62), (84 * w + volume, 150, 58), HAIR))
    if not head.bald:
        parts.append(Ellipsoid((0, -34, -24), (76 * w + volume, 85 + volume, 93 + volume), HAIR, hairline=True))
    return parts


def meet(part: Ellipsoid, turn: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The camera's rays at columns ``x`` (W,) and rows ``y`` (H,), in mm, against one ellipsoid.

    With Q the ellipsoid's matrix and p = (x, y, z) from its centre, p' Q p = 1 is a quadratic in z; its larger root is
    the front.

    Returns:
        (H, W) bool, whether the ray meets it, and (H, W) the camera's z of the front where it does.
    """
    axes = turn @ rotation(0, part.tilt, 0)
    (q00, q01, q02), (_, q11, q12), (_, _, q22) = ((axes / np.square(part.axes)) @ axes.T).tolist()
    cx, cy, cz = to_camera(turn, np.array(part.centre)).tolist()
    dx, dy = (x - cx)[None, :], (y - cy)[:, None]
    square = (2 * (q02 * q12 - q01 * q22) * dy) * dx
    square += q22 + (q02 * q02 - q00 * q22) * dx * dx
    square += (q12 * q12 - q11 * q22) * dy * dy
    inside = square > 0
    depth = np.sqrt(np.maximum(square, 0, out=square), out=square)
    depth /= q22
    depth += cz - (q02 / q22) * dx
    depth -= (q12 / q22) * dy
    return inside, depth


def reach(part: Ellipsoid, turn: np.ndarray) -> np.ndarray:
    """(4,) ``x1 y1 x2 y2``: the rectangle, in camera mm, around an ellipsoid."""
    half = np.sqrt((np.square(turn @ rotation(0, part.tilt, 0) * part.axes)).sum(axis=1))
    centre = to_camera(turn, np.array(part.centre))
    return np.concatenate([(centre - half)[:2], (centre + half)[:2]])
