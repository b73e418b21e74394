"""What is there and what is missing, and what can be seen without a model: boxes, points outside, shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from facemtl.checking.findings import Finding
from facemtl.checking.shapes import fit_shapes, misfits
from facemtl.data.sample import MISSING, FaceSample, face_box
from facemtl.errors import DataError
from facemtl.face import ANGLES, ATTRIBUTES
from facemtl.geometry import BOX_SIDE
from facemtl.landmarks import SCHEMAS

REACH = 0.5  # beyond the picture's border, over the unit of a face, where a point is too far out
OVERLAP = 0.2  # of the set's box and that of the points (intersection over union)
SAME_BOX = 0.02  # share of a part's faces with one and the same box
# An implausible face is as much further from the median shape as this many times the upper quartile is.
FAR_OUT = 12.0


def count_part(samples: Sequence[FaceSample]) -> dict[str, Any]:
    """Faces, pictures, and how many have which label; plain values."""
    known = np.stack([np.isfinite(s.points).all(axis=1) for s in samples])
    facts: dict[str, Any] = {
        "faces": len(samples),
        "pictures": len({s.image for s in samples}),
        "schema": ", ".join(sorted({s.schema for s in samples})),
        "with all points": int(known.all(axis=1).sum()),
        "with some points": int((known.any(axis=1) & ~known.all(axis=1)).sum()),
        "with a box": sum(s.box is not None for s in samples),
        "groups": dict(sorted(Counter(s.group for s in samples if s.group).items())),
        "labels": {},
    }
    for task, classes in ATTRIBUTES.items():
        labels = Counter(s.labels.get(task, MISSING) for s in samples)
        if set(labels) != {MISSING}:
            counts = {name: labels[i] for i, name in enumerate(classes)}
            facts["labels"][task] = counts | {"missing": labels[MISSING]}
    if any(s.angles is not None for s in samples):
        angles = np.array([[np.nan] * len(ANGLES) if s.angles is None else s.angles for s in samples])
        facts["labels"] |= {
            name: {"known": int(np.isfinite(column).sum()), "missing": int(np.isnan(column).sum())}
            for name, column in zip(ANGLES, angles.T, strict=True)
        }
    return facts


def face_units(samples: Sequence[FaceSample]) -> np.ndarray:
    """(N,) the size of each face: the mean distance of its five points from their mean, or what its box says, pixels.

    NaN where neither is known.
    """
    units = np.full(len(samples), np.nan)
    for i, sample in enumerate(samples):
        try:
            box = face_box(sample)
        except DataError:
            continue
        units[i] = (box[2:] - box[:2]).mean() / BOX_SIDE
    return units


def check_unlabelled(samples: Sequence[FaceSample], part: str, first: int) -> list[Finding]:
    """Faces of which nothing is known; ``first`` is the row of the first one."""
    return [
        Finding("nothing_known", part, f"{s.source or s.image}: no point and no label", rows=(first + i,))
        for i, s in enumerate(samples)
        if not np.isfinite(s.points).any()
        and all(label == MISSING for label in s.labels.values())
        and (s.angles is None or not np.isfinite(s.angles).any())
    ]


def check_outside(samples: Sequence[FaceSample], sizes: np.ndarray, part: str, first: int) -> tuple[int, list[Finding]]:
    """How many faces have points outside their picture, and those with points further out than a face may reach.

    Args:
        sizes: (N, 2) width and height of each face's picture, 0 where it cannot be read.
    """
    units, any_outside, findings = face_units(samples), 0, []
    for i, sample in enumerate(samples):
        if not sizes[i].all() or not np.isfinite(sample.points).any():
            continue
        beyond = np.maximum(-0.5 - sample.points, sample.points - (sizes[i] - 0.5)).max(axis=1)
        any_outside += bool((beyond > 0).any())
        far = np.nan_to_num(beyond) > REACH * units[i]
        if far.any() or not np.isfinite(units[i]):
            worst = float(np.nanmax(beyond))
            text = f"{sample.source or sample.image}: {max(int(far.sum()), 1)} points, up to {worst:.0f} px outside"
            findings.append(Finding("points_outside", part, text, worst, (first + i,)))
    return any_outside, findings


def check_boxes(samples: Sequence[FaceSample], part: str, first: int) -> list[Finding]:
    """Boxes that are elsewhere than the points, and boxes that are always the same though the points are not."""
    findings, apart = [], {}
    boxed = [i for i, s in enumerate(samples) if s.box is not None and np.isfinite(s.points).all()]
    for i in boxed:
        try:
            around = face_box(samples[i])
        except DataError:
            continue
        overlap = _overlap(samples[i].box, around)
        if overlap < OVERLAP:
            apart[i] = overlap
    shared = Counter(samples[i].box.tobytes() for i in boxed)
    for box, count in shared.items():
        if count >= max(3, SAME_BOX * len(boxed)):
            corners = " ".join(f"{v:g}" for v in np.frombuffer(box, dtype=samples[boxed[0]].box.dtype))
            text = f"{count} of {len(boxed)} faces have the box {corners}"
            findings.append(Finding("same_box", part, text, count / len(boxed)))
            apart = {i: v for i, v in apart.items() if samples[i].box.tobytes() != box}
    for i, overlap in apart.items():
        text = f"{samples[i].source or samples[i].image}: overlap {overlap:.2f} of box and points"
        findings.append(Finding("box_elsewhere", part, text, 1 - overlap, (first + i,)))
    return findings


def check_shapes(samples: Sequence[FaceSample], part: str, first: int) -> list[Finding]:
    """Faces of an implausible shape, and a mean shape that is not its own mirror image; nothing for too few faces."""
    points = np.stack([s.points for s in samples])
    model = fit_shapes(points)
    if model is None:
        return []
    schema = SCHEMAS[samples[0].schema]
    findings = []
    for point, partner, better in misfits(model.mean, schema):
        text = (
            f"{schema.names[point]} mirrors {schema.names[better]}, not {schema.names[partner]} as {schema.name} says"
        )
        findings.append(Finding("unfit_flip_order", part, text))
    distances = model.distances(points)
    median, upper = np.nanpercentile(distances, [50, 75])
    for i in np.flatnonzero(distances > median + FAR_OUT * (upper - median)):
        source = samples[i].source or samples[i].image
        text = f"{source}: {distances[i] / median:.1f} times as far from the mean face as is usual"
        findings.append(Finding("implausible_face", part, text, float(distances[i] / median), (first + int(i),)))
    return findings


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    shared = float(sides.prod())
    return shared / (float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - shared)
