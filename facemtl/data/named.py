"""What annotation tools share: points that go by their names, labels that go by the names of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from facemtl.data.rows import LARGEST, decimal
from facemtl.data.sample import MISSING, FaceSample
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import SCHEMAS


def check_names(names: Iterable[str], schema: str) -> None:
    """Raise ValueError unless these are the names of the schema's points, in any order."""
    found, expected = list(names), SCHEMAS[schema].names
    if sorted(found) != sorted(expected):
        lacking = [name for name in expected if name not in found]
        unknown = [name for name in found if name not in expected]
        raise ValueError(
            f"expected the {len(expected)} points of {schema}, found {len(found)}"
            + (f", without {', '.join(lacking[:3])}" if lacking else "")
            + (f", with {', '.join(unknown[:3])}" if unknown else "")
        )


def points_by_name(points: Mapping[str, tuple[float, float]], schema: str) -> np.ndarray:
    """(K, 2) float32 in the order of the schema, NaN for points that are not there.

    Raises:
        ValueError: a name that the schema does not have, or a coordinate that is no finite number.
    """
    placed = np.full((len(SCHEMAS[schema]), 2), np.nan, dtype=np.float32)
    for name, point in points.items():
        if name not in SCHEMAS[schema].names:
            raise ValueError(f"{schema} has no point {name!r}; known: {', '.join(SCHEMAS[schema].names[:6])} ...")
        placed[SCHEMAS[schema].names.index(name)] = finite_pair(point)
    return placed


def finite_pair(point: tuple[float, float]) -> np.ndarray:
    """(2,) float32; raises ValueError for what is no pair of finite numbers."""
    try:
        pair = np.array([decimal(v) if isinstance(v, str) else v for v in point], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected x and y, found {point!r}") from None
    if pair.shape != (2,) or not (np.abs(pair) <= LARGEST).all():  # NaN is not
        raise ValueError(f"expected finite x and y, found {point!r}")
    return pair.astype(np.float32)


def box_of(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """(4,) float32; raises ValueError for a box that is not finite or has no area."""
    box = np.concatenate([finite_pair((x1, y1)), finite_pair((x2, y2))])
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(f"expected a box with an area, found x1 y1 x2 y2 of {box.tolist()}")
    return box


def labels_by_name(attributes: Mapping[str, object]) -> dict[str, int]:
    """Task -> class index of every attribute of the package, -1 for those not given; others are passed over.

    Raises:
        ValueError: a value that is no class of its attribute.
    """
    labels = dict.fromkeys(ATTRIBUTES, MISSING)
    for task, classes in ATTRIBUTES.items():
        value = attributes.get(task)
        if value is None or value == "":
            continue
        if value not in classes:
            raise ValueError(f"{task} must be one of {', '.join(classes)}, found {value!r}")
        labels[task] = classes.index(value)
    return labels


def with_labelled_tasks(samples: Sequence[FaceSample]) -> list[FaceSample]:
    """The samples with the tasks that any of them labels, and no other: all of one file have the same ones."""
    tasks = [task for task in ATTRIBUTES if any(s.labels.get(task, MISSING) != MISSING for s in samples)]
    return [replace(s, labels={task: s.labels.get(task, MISSING) for task in tasks}) for s in samples]
