"""Landmark schemas: what each point is called, which points swap in a mirror, which eyes set the scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FIVE_NAMES = ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner")


@dataclass(frozen=True, slots=True)
class LandmarkSchema:
    """An ordered set of K named points; left and right are the viewer's.

    Attributes:
        name: key in :data:`SCHEMAS`.
        names: K names.
        flip_order: K indices; point ``i`` of a mirrored face is point ``flip_order[i]`` of the original.
        eye_pair: the two points whose distance normalises errors (NME).
        five: for each of MTFL's five points, the indices whose mean stands for it.
        edges: pairs of indices to join when drawing.
    """

    name: str
    names: tuple[str, ...]
    flip_order: tuple[int, ...]
    eye_pair: tuple[int, int]
    five: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def to_five(self, points: np.ndarray) -> np.ndarray:
        """(..., K, 2) points of this schema -> (..., 5, 2): eye centres, nose tip, mouth corners.

        Exact for ``mtfl5``. For schemas that outline the eyes it is approximate: the mean of an eye's
        outline is not exactly where MTFL's annotators put the eye centre.
        """
        if all(len(indices) == 1 for indices in self.five):  # nothing to average, and this runs for every face
            return points[..., [index for (index,) in self.five], :]
        return np.stack([points[..., list(indices), :].mean(axis=-2) for indices in self.five], axis=-2)


def _chain(first: int, last: int, closed: bool = False) -> tuple[tuple[int, int], ...]:
    edges = tuple((i, i + 1) for i in range(first, last))
    return (*edges, (last, first)) if closed else edges


def _ibug68() -> LandmarkSchema:
    """The 68 points of 300-W (Sagonas et al., 2013), counted from 0."""
    parts = (
        ("jaw", 17),
        ("left_brow", 5),
        ("right_brow", 5),
        ("nose_bridge", 4),
        ("nose_base", 5),
        ("left_eye", 6),
        ("right_eye", 6),
        ("outer_lip", 12),
        ("inner_lip", 8),
    )
    flip = (
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *range(27, 31),  # bridge of the nose
        *range(35, 30, -1),  # base of the nose
        *(45, 44, 43, 42, 47, 46),  # left eye <- right eye
        *(39, 38, 37, 36, 41, 40),
        *range(54, 47, -1),  # upper outer lip
        *range(59, 54, -1),  # lower outer lip
        *range(64, 59, -1),  # upper inner lip
        *range(67, 64, -1),  # lower inner lip
    )
    edges = (
        *_chain(0, 16),
        *_chain(17, 21),
        *_chain(22, 26),
        *_chain(27, 30),
        *_chain(31, 35),
        *_chain(36, 41, closed=True),
        *_chain(42, 47, closed=True),
        *_chain(48, 59, closed=True),
        *_chain(60, 67, closed=True),
    )
    return LandmarkSchema(
        name="ibug68",
        names=tuple(f"{part}_{i}" for part, count in parts for i in range(count)),
        flip_order=flip,
        eye_pair=(36, 45),
        five=(tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,)),
        edges=edges,
    )


SCHEMAS: dict[str, LandmarkSchema] = {
    "mtfl5": LandmarkSchema(
        name="mtfl5",
        names=_FIVE_NAMES,
        flip_order=(1, 0, 2, 4, 3),
        eye_pair=(0, 1),
        five=((0,), (1,), (2,), (3,), (4,)),
    ),
    "ibug68": _ibug68(),
}

POINTS = "landmarks"  # the task of a model's main points


def points_task(schema: str) -> str:
    """The task that gives a model's points of a further schema, beside its main ones: ``landmarks_ibug68``."""
    return f"{POINTS}_{schema}"


def schema_of(task: str, main: str) -> str | None:
    """The landmark schema of a task's points, ``main`` being that of ``landmarks``; None for a task of another kind."""
    if task == POINTS:
        return main
    prefix, _, schema = task.partition("_")
    return schema if prefix == POINTS and schema in SCHEMAS else None
