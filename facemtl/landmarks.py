"""Landmark schemas: what each point is called, which points swap in a mirror, which eyes set the scale.

A schema is the annotation scheme of a data set. Two sets that both mark "the nose tip" do not mark the same place, so
going from one schema to another (:func:`conversion`) is exact only where one is published as a subset of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facemtl.errors import ConfigError

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

        The points themselves for ``mtfl5``, approximate for every other: another set's annotators put their eye
        centres, or the outline whose mean stands for one, not exactly where MTFL's did.
        """
        return points if len(self) == 5 else _means(points, self.five)


def _means(points: np.ndarray, groups: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """(..., K, 2) points -> (..., len(groups), 2), the mean of each group of indices."""
    if all(len(indices) == 1 for indices in groups):  # nothing to average, and this runs for every face
        return points[..., [index for (index,) in groups], :]
    return np.stack([points[..., list(indices), :].mean(axis=-2) for indices in groups], axis=-2)


def _chain(first: int, last: int, closed: bool = False) -> tuple[tuple[int, int], ...]:
    edges = tuple((i, i + 1) for i in range(first, last))
    return (*edges, (last, first)) if closed else edges


def _numbered(*parts: tuple[str, int]) -> tuple[str, ...]:
    """``a_0 a_1 b_0`` of ``("a", 2), ("b", 1)``."""
    return tuple(f"{part}_{i}" for part, count in parts for i in range(count))


def _flip_by_name(names: tuple[str, ...]) -> tuple[int, ...]:
    """The flip order of points of which every one says in words whether it is left or right."""
    swap = {"left": "right", "right": "left"}
    return tuple(names.index("_".join(swap.get(word, word) for word in name.split("_"))) for name in names)


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
        names=_numbered(*parts),
        flip_order=flip,
        eye_pair=(36, 45),
        five=(tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,)),
        edges=edges,
    )


def _aflw(ears: bool) -> LandmarkSchema:
    """The 21 points of AFLW (Koestinger et al., 2011) in the order of its feature ids, or the 19 without ears.

    The 19 are those of Zhu et al. (CVPR 2016), on which most figures of AFLW are given.
    """
    eyes_and_brows = tuple(
        f"{side}_{part}_{place}"
        for part in ("brow", "eye")
        for side in ("left", "right")
        for place in ("left_corner", "center", "right_corner")
    )
    nose = ("nose_left", "nose_center", "nose_right")
    names = (
        *eyes_and_brows,
        *(("left_ear", *nose, "right_ear") if ears else nose),
        *("mouth_left_corner", "mouth_center", "mouth_right_corner", "chin_center"),
    )
    left, tip, right, mouth = (names.index(n) for n in (*nose, "mouth_left_corner"))
    lines = (*_chain(0, 2), *_chain(3, 5), *_chain(6, 8), *_chain(9, 11))
    return LandmarkSchema(
        name="aflw21" if ears else "aflw19",
        names=names,
        flip_order=_flip_by_name(names),
        eye_pair=(6, 11),
        five=((7,), (10,), (tip,), (mouth,), (mouth + 2,)),
        edges=(*lines, (left, tip), (tip, right), *_chain(mouth, mouth + 2)),
    )


def _cofw29() -> LandmarkSchema:
    """The 29 points of COFW (Burgos-Artizzu et al., 2013), which are those of LFPW (Belhumeur et al., 2011)."""
    names = (
        *("left_brow_outer", "right_brow_outer", "left_brow_inner", "right_brow_inner"),
        *("left_brow_top", "left_brow_bottom", "right_brow_top", "right_brow_bottom"),
        *("left_eye_outer", "right_eye_outer", "left_eye_inner", "right_eye_inner"),
        *("left_eye_top", "left_eye_bottom", "right_eye_top", "right_eye_bottom"),
        *("left_pupil", "right_pupil", "nose_left", "nose_right", "nose_tip", "nose_bottom"),
        *("mouth_left_corner", "mouth_right_corner"),
        *("upper_lip_top", "upper_lip_bottom", "lower_lip_top", "lower_lip_bottom", "chin"),
    )
    rings = (  # outlines, each closed
        *((0, 4, 2, 5), (1, 6, 3, 7), (8, 12, 10, 13), (9, 14, 11, 15)),
        *((22, 24, 23, 27), (22, 25, 23, 26)),
    )
    around = tuple((ring[i - 1], ring[i]) for ring in rings for i in range(4))
    return LandmarkSchema(
        name="cofw29",
        names=names,
        flip_order=_flip_by_name(names),
        eye_pair=(8, 9),
        five=((16,), (17,), (20,), (22,), (23,)),
        edges=(*around, (18, 21), (21, 19), (20, 21)),
    )


# WFLW and LaPa begin alike: the jaw, and brows of an upper and a lower line.
_JAW_AND_BROWS = (("jaw", 33), ("left_brow", 9), ("right_brow", 9))
_JAW_AND_BROWS_FLIP = (
    *range(32, -1, -1),  # jaw
    *range(46, 41, -1),  # left brow, upper line from outside <- right brow
    *range(50, 46, -1),  # left brow, lower line from inside
    *range(37, 32, -1),
    *range(41, 37, -1),
)
_JAW_AND_BROWS_EDGES = (*_chain(0, 32), *_chain(33, 41, closed=True), *_chain(42, 50, closed=True))


def _wflw98() -> LandmarkSchema:
    """The 98 points of WFLW (Wu et al., 2018)."""
    parts = (
        *_JAW_AND_BROWS,
        *(("nose_bridge", 4), ("nose_base", 5), ("left_eye", 8), ("right_eye", 8)),
        *(("outer_lip", 12), ("inner_lip", 8)),
    )
    flip = (
        *_JAW_AND_BROWS_FLIP,
        *range(51, 55),  # bridge of the nose
        *range(59, 54, -1),  # base of the nose
        *(72, 71, 70, 69, 68, 75, 74, 73),  # left eye <- right eye
        *(64, 63, 62, 61, 60, 67, 66, 65),
        *range(82, 75, -1),  # upper outer lip
        *range(87, 82, -1),  # lower outer lip
        *range(92, 87, -1),  # upper inner lip
        *range(95, 92, -1),  # lower inner lip
        *(97, 96),  # pupils
    )
    edges = (
        *_JAW_AND_BROWS_EDGES,
        *_chain(51, 54),
        *_chain(55, 59),
        *_chain(60, 67, closed=True),
        *_chain(68, 75, closed=True),
        *_chain(76, 87, closed=True),
        *_chain(88, 95, closed=True),
    )
    return LandmarkSchema(
        name="wflw98",
        names=(*_numbered(*parts), "left_pupil", "right_pupil"),
        flip_order=flip,
        eye_pair=(60, 72),
        five=((96,), (97,), (54,), (76,), (82,)),
        edges=edges,
    )


def _lapa106() -> LandmarkSchema:
    """The 106 points of LaPa and JD-landmark (Liu et al., 2019 and 2020).

    Other programs number 106 points differently (pupils beside the eyes, for one): only the order of these two sets
    is meant.
    """
    parts = (
        *_JAW_AND_BROWS,
        *(("nose_bridge", 4), ("nose_side", 11), ("left_eye", 8), ("left_eye_center", 1)),
        *(("right_eye", 8), ("right_eye_center", 1), ("outer_lip", 12), ("inner_lip", 8)),
    )
    flip = (
        *_JAW_AND_BROWS_FLIP,
        *range(51, 55),  # bridge of the nose
        *range(65, 54, -1),  # down the left side of the nose, along its base, up the right side
        *(79, 78, 77, 76, 75, 82, 81, 80, 83),  # left eye <- right eye
        *(70, 69, 68, 67, 66, 73, 72, 71, 74),
        *range(90, 83, -1),  # upper outer lip
        *range(95, 90, -1),  # lower outer lip
        *range(100, 95, -1),  # upper inner lip
        *range(103, 100, -1),  # lower inner lip
        *(105, 104),  # pupils
    )
    edges = (
        *_JAW_AND_BROWS_EDGES,
        *_chain(51, 54),
        *_chain(55, 65),
        *_chain(66, 73, closed=True),
        *_chain(75, 82, closed=True),
        *_chain(84, 95, closed=True),
        *_chain(96, 103, closed=True),
    )
    return LandmarkSchema(
        name="lapa106",
        names=(*_numbered(*parts), "left_pupil", "right_pupil"),
        flip_order=flip,
        eye_pair=(66, 79),
        five=((104,), (105,), (54,), (84,), (90,)),
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
    "aflw19": _aflw(ears=False),
    "aflw21": _aflw(ears=True),
    "cofw29": _cofw29(),
    "wflw98": _wflw98(),
    "lapa106": _lapa106(),
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """How points of one schema stand for those of another.

    Attributes:
        groups: for each point of the target, the indices of the source whose mean stands for it.
        exact: the target is a published subset of the source, so that no point moves. Otherwise the conversion is
            approximate: the two sets mark places of the same name a little differently.
        offset: where an approximate conversion has been measured, by how much each point of the target lies right of
            and under the converted one in the median, over the distance of the eye centres, in the frame of the eye
            line. Not added by a call: it is what a comparison across the two schemas cannot resolve.
    """

    groups: tuple[tuple[int, ...], ...]
    exact: bool
    offset: tuple[tuple[float, float], ...] | None = None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(..., K, 2) points of the source -> (..., L, 2) of the target, NaN where one of a group is."""
        return _means(points, self.groups)


def _single(*indices: int) -> tuple[tuple[int, ...], ...]:
    return tuple((i,) for i in indices)


def _eye68(first: int) -> tuple[int, ...]:
    """Six points of an eye of eight: the corners, and on each lid the outer two of three."""
    return tuple(first + i for i in (0, 1, 3, 4, 5, 7))


_JAW_AND_BROWS_68 = (*range(0, 33, 2), *range(33, 38), *range(42, 47))  # every other point, and the brows' upper lines
# Measured on every other held-out face of udacity68 against the points of `weights/tcdcn`, which was trained on MTFL
# alone; averaged over each picture and its mirror, so that the model's own shift in x is in it but no shift of labels.
_OFFSETS_OF_FIVE = {
    "ibug68": ((0.010, -0.002), (-0.017, -0.010), (-0.017, -0.031), (0.006, -0.014), (-0.006, -0.017)),
}
_CONVERSIONS: dict[tuple[str, str], Conversion] = {
    ("aflw21", "aflw19"): Conversion(_single(*range(12), *range(13, 16), *range(17, 21)), exact=True),
    ("wflw98", "ibug68"): Conversion(
        _single(*_JAW_AND_BROWS_68, *range(51, 60), *_eye68(60), *_eye68(68), *range(76, 96)), exact=False
    ),
    ("lapa106", "ibug68"): Conversion(
        _single(*_JAW_AND_BROWS_68, *range(51, 55), *range(58, 63), *_eye68(66), *_eye68(75), *range(84, 104)),
        exact=False,
    ),
}


def conversion(source: str, target: str) -> Conversion:
    """How to get points of the schema ``target`` from those of ``source``: the same, a subset, or five of any.

    Raises:
        ConfigError: there is none, or a schema is unknown; lists what there is.
    """
    if source in SCHEMAS and source == target:
        return Conversion(_single(*range(len(SCHEMAS[source]))), exact=True)
    if source in SCHEMAS and target == "mtfl5":
        return Conversion(SCHEMAS[source].five, exact=False, offset=_OFFSETS_OF_FIVE.get(source))
    if (source, target) not in _CONVERSIONS:
        known = ", ".join([*(f"{a} to {b}" for a, b in _CONVERSIONS), f"any of {', '.join(SCHEMAS)} to mtfl5"])
        raise ConfigError(f"points of {source!r} give no {target!r}; known: {known}")
    return _CONVERSIONS[source, target]


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
