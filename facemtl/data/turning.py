"""Faces turned aside: patches of faces that look at the viewer, painted as if their heads had been turned.

Zhu et al., "Face Alignment Across Large Poses" (CVPR 2016), do so with a 3-D model fitted to every picture. Here every
head has the relief of an average one, laid through its five points. A turn about the upright axis moves what is seen
along rows alone, so that one table an angle says where each row's pixels come from; points move by the same relief,
and cannot disagree with their picture. Nothing is known of what was hidden before: it is drawn out of what is beside.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from facemtl.data.cache import PATCH_SCALE, CropCache
from facemtl.data.sample import MISSING
from facemtl.face import ANGLES, ANGLES_TASK
from facemtl.geometry import apply_affine, box_from_five, crop_matrix, invert_affine
from facemtl.head_pose import MEAN_FACE, angles_from_five
from facemtl.landmarks import POINTS, SCHEMAS, schema_of

FRONTAL = 12.0  # degrees of yaw by geometry, up to which a face looks at the viewer
TURNS = (-50, -40, -30, -20, 20, 30, 40, 50)  # degrees: beyond, an eye is hidden that nobody labels
PIVOT = -60.0  # depth of the axis in mm
# In mm as MEAN_FACE has them, x to the viewer's right, y down, z to the viewer.
SKULL_CENTRE, SKULL_AXES = (0.0, 20.0, -85.5), (78.0, 115.0, 95.0)
NOSE_ROOT, NOSE_TIP, NOSE_END, NOSE_HEIGHT = 0.0, 39.5, 52.0, 22.0
REACH, STEP, FINE = 240, 1.0, 0.25  # of the tables, of their cells and of the relief that fills them, mm


def relief(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of an average head at (x, y), mm: the front of an ellipsoid with a nose, and a plane behind."""
    (cx, cy, cz), (rx, ry, rz) = SKULL_CENTRE, SKULL_AXES
    skull = cz + rz * np.sqrt(np.clip(1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2, 0, None))
    ridge = np.interp(y, (NOSE_ROOT, NOSE_TIP, NOSE_END), (0.0, NOSE_HEIGHT, 0.0))
    half_width = np.interp(y, (NOSE_ROOT, NOSE_TIP), (9.0, 19.0))
    return skull + ridge * np.cos(np.pi / 2 * np.clip(x / half_width, -1, 1)) ** 2


def turned_points(points: np.ndarray, degrees: float) -> np.ndarray:
    """(..., 2) places on the head, mm, where they are seen after a turn by ``degrees`` of yaw."""
    x, y = points[..., 0], points[..., 1]
    return np.stack([_turned(x, relief(x, y), degrees), y], axis=-1)


def _turned(x: np.ndarray, z: np.ndarray, degrees: float) -> np.ndarray:
    turn = np.radians(degrees)
    return x * np.cos(turn) + (z - PIVOT) * np.sin(turn)


@lru_cache(maxsize=len(TURNS))
def _sources(degrees: int) -> np.ndarray:
    """(2 REACH + 1, 2 REACH + 1) float32, by y and x of the turned head: the x whose skin is seen there, mm."""
    y = np.arange(-REACH, REACH + STEP, STEP)[:, None]
    x = np.broadcast_to(np.arange(-2 * REACH, 2 * REACH, FINE), (len(y), round(4 * REACH / FINE)))
    z = relief(x, y)
    moved = _turned(x, z, degrees)
    cells = np.rint((moved + REACH) / STEP)
    slope = np.gradient(moved, FINE, axis=1)
    # What lands a little beside the middle of a cell stands for what lands on it.
    beside = np.clip((cells * STEP - REACH - moved) / np.where(np.abs(slope) < 0.1, np.inf, slope), -STEP, STEP)
    nearness = z * np.cos(np.radians(degrees)) - x * np.sin(np.radians(degrees))
    columns = np.arange(2 * REACH + 1)
    table = np.empty((len(y), len(columns)), dtype=np.float32)
    for row, order in enumerate(np.argsort(nearness, axis=1, kind="stable")):
        inside = order[(cells[row, order] >= 0) & (cells[row, order] <= columns[-1])]
        seen = np.full(len(columns), np.nan)
        seen[cells[row, inside].astype(int)] = (x[row] + beside[row])[inside]  # the nearest comes last, and stays
        known = np.isfinite(seen)
        table[row] = np.interp(columns, columns[known], seen[known])
    return table


def with_turned(cache: CropCache, share: float, schema: str, seed: int) -> CropCache:
    """The cache and, after its patches, turned copies of some. What was said of them is turned too; which class their
    pose then has, nobody knows.

    Args:
        cache: with labelled points, or with points of ``schema`` that a teacher found.
        share: of the patches, or of those that look at the viewer if they are fewer, each once.
        schema: of the main points.
        seed: of which and how far.
    """
    rng = np.random.default_rng(seed)
    five = _five(cache, schema)
    frontal = np.flatnonzero(np.abs(angles_from_five(five)[:, 0]) <= FRONTAL)  # NaN is not
    rows = np.sort(rng.permutation(frontal)[: round(share * len(cache))])
    if not len(rows):
        return cache
    degrees = rng.choice(TURNS, size=len(rows))
    old, size = cache.subset(rows), cache.patches.shape[1]
    faces = [TurnedFace(own, turn, size) for own, turn in zip(five[rows], degrees.tolist(), strict=True)]
    yaw = np.column_stack([degrees, np.zeros((len(rows), len(ANGLES) - 1))])

    def moved(points: np.ndarray) -> np.ndarray:
        return np.float32([face.points(own) for face, own in zip(faces, points, strict=True)])

    def retold(task: str, said: np.ndarray) -> np.ndarray:
        if schema_of(task, schema):
            return moved(said)
        if task == ANGLES_TASK:
            return np.float32(said + yaw)
        return np.full_like(said, np.nan) if task == "pose" else said

    turned = replace(
        old,
        patches=np.stack([face.picture(patch) for face, patch in zip(faces, old.patches, strict=True)]),
        points=moved(old.points),
        labels={task: np.full_like(v, MISSING) if task == "pose" else v for task, v in old.labels.items()},
        angles=None if old.angles is None else np.float32(old.angles + yaw),
        taught={task: retold(task, said) for task, said in old.taught.items()},
        sides=None if old.sides is None else np.float32(old.sides * [face.zoom for face in faces]),
    )
    return cache.joined(turned)


def _five(cache: CropCache, schema: str) -> np.ndarray:
    """(N, 5, 2) float64 in patch coordinates: of the labels, of the teacher where there are none, else NaN."""
    five = SCHEMAS[cache.schema].to_five(cache.points).astype(np.float64)
    if POINTS not in cache.taught:
        return five
    labelled = np.isfinite(five).all(axis=(1, 2), keepdims=True)
    return np.where(labelled, five, SCHEMAS[schema].to_five(cache.taught[POINTS]))


class TurnedFace:
    """One face of a patch, turned.

    Args:
        five: (5, 2) its points in patch index coordinates.
        degrees: one of :data:`TURNS`.
        size: side of the patch.
    """

    def __init__(self, five: np.ndarray, degrees: int, size: int) -> None:
        self.degrees, self.size = degrees, size
        # Three anchors and no nose, whose length is a person's own.
        anchors = [np.stack([p[0], p[1], p[3:].mean(axis=0)]) for p in (MEAN_FACE[:, :2], five)]
        self.to_patch = cv2.getAffineTransform(*np.float32(anchors)).astype(np.float64)
        self.to_head = invert_affine(self.to_patch)
        box = box_from_five(self._in_place(five))
        self.crop = crop_matrix(box, size, PATCH_SCALE)
        self.zoom = (box[2] - box[0]) * PATCH_SCALE / size

    def points(self, points: np.ndarray) -> np.ndarray:
        """(K, 2) points of the old patch -> of the new one, cut around the turned face."""
        return apply_affine(invert_affine(self.crop), self._in_place(points))

    def picture(self, patch: np.ndarray) -> np.ndarray:
        """The new patch."""
        ys, xs = np.mgrid[: self.size, : self.size]
        seen = apply_affine(self.to_head, apply_affine(self.crop, np.stack([xs, ys], axis=-1).astype(np.float64)))
        into_table = np.float32((seen + REACH) / STEP)
        sources = cv2.remap(
            _sources(self.degrees), *cv2.split(into_table), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        found = np.float32(apply_affine(self.to_patch, np.stack([sources, seen[..., 1]], axis=-1)))
        return cv2.remap(patch, *cv2.split(found), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def _in_place(self, points: np.ndarray) -> np.ndarray:
        """Where (K, 2) points of the patch are after the turn, before it is cut anew."""
        return apply_affine(self.to_patch, turned_points(apply_affine(self.to_head, points), self.degrees))
