"""Two annotations of the same pictures -> the faces on which they agree, as a table to train on.

The two should look differently: other passes, mirrored and not, or two models. What one model says twice the same way
is no agreement.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.annotate.plan import Plan
from facemtl.annotate.rows import read_rows
from facemtl.data.table import COLUMNS
from facemtl.errors import DataError
from facemtl.face import ANGLES, ATTRIBUTES, Face
from facemtl.files import write_beside
from facemtl.formats.plain import face_from_dict
from facemtl.landmarks import SCHEMAS

PICTURES = "pictures"  # link to what the paths of the annotation are relative to
SAME_BOX = 0.5  # intersection over union from which two boxes are one face


@dataclass(frozen=True, slots=True)
class Limits:
    """What a face must reach to be kept, and a label to be kept with it.

    Attributes:
        score: least of the detector.
        quality: least of :attr:`facemtl.face.Face.quality`; faces without one pass.
        sigma: most of the mean standard deviation of its points, as a share of the distance of the eyes; faces without
            one pass.
        disagreement: most of the mean distance between the two annotations' points, as a share of that of the eyes.
        confidence: least of a label in both annotations, which must be the same; otherwise it is missing.
    """

    score: float = 0.9
    quality: float = 0.5
    sigma: float = 0.06
    disagreement: float = 0.03
    confidence: float = 0.9


def agreed_faces(
    first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]], limits: Limits, counts: Counter[str]
) -> Iterator[tuple[str, Face, dict[str, str]]]:
    """Picture, face of the first annotation, and its labels, task -> class, of what both say.

    Args:
        first: rows of :func:`facemtl.annotate.read_rows`.
        second: rows of another annotation of the same inputs.
        limits: what to keep.
        counts: is added to: ``kept``, why others were not, and ``label <task>``.

    Raises:
        DataError: the rows are not those of the same inputs.
    """
    for one, other in zip(first, second, strict=True):
        if any(one[key] != other[key] for key in ("index", "source", "member", "frame")):
            raise DataError(
                f"input {one['index']} is {one['source']} in one annotation and {other['source']} in the other"
            )
        if one["member"] is not None or one["frame"] is not None:
            counts["in an archive or a video, which a table cannot name"] += len(one["faces"])
            continue
        others = [face_from_dict(face) for face in other["faces"]]
        for face in map(face_from_dict, one["faces"]):
            partner = next((o for o in others if _overlap(face.box, o.box) >= SAME_BOX), None)
            reason = "found by one annotation only" if partner is None else _reason(face, partner, limits)
            counts[reason or "kept"] += 1
            if reason is None:
                others.remove(partner)
                labels = {
                    task: attribute.label
                    for task, attribute in face.attributes.items()
                    if _is_sure(attribute, partner.attributes.get(task), limits.confidence)
                }
                counts.update(f"label {task}" for task in labels)
                yield one["source"], face, labels


def _reason(face: Face, other: Face, limits: Limits) -> str | None:
    """Why the face is not kept."""
    schema = SCHEMAS[face.schema]
    if face.schema != other.schema or not len(face.landmarks):
        raise DataError(f"pseudo labels need points of one schema, found {face.schema} and {other.schema}")
    left, right = schema.eye_pair
    eyes = min(float(np.linalg.norm(f.landmarks[left] - f.landmarks[right])) for f in (face, other))
    if eyes < 1:
        return "eyes in one place"
    checks = {
        "a low score": face.score < limits.score,
        "a low quality": any(f.quality is not None and f.quality < limits.quality for f in (face, other)),
        "uncertain points": any(
            f.landmark_sigma is not None and f.landmark_sigma.mean() > limits.sigma * eyes for f in (face, other)
        ),
        "points that disagree": np.linalg.norm(face.landmarks - other.landmarks, axis=1).mean()
        > limits.disagreement * eyes,
    }
    return next((reason for reason, fails in checks.items() if fails), None)


def _is_sure(one: Any, other: Any, confidence: float) -> bool:
    return (
        other is not None
        and one.label == other.label
        and one.certain
        and other.certain
        and min(one.confidence, other.confidence) >= confidence
    )


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def write_pseudo_labels(first: Path, second: Path, out: Path, limits: Limits) -> Counter[str]:
    """Write the faces on which two annotations agree as a set ``table`` (:mod:`facemtl.data.table`).

    Args:
        first, second: folders of :func:`facemtl.annotate.annotate`, of the same inputs.
        out: ``train.csv``, ``columns.toml`` and ``pictures``, a link to what the annotations were relative to; a tenth
            of the pictures is only looked at, by the hash of their paths, as in every table.
        limits: what to keep.

    Returns:
        How many were kept, and why the others were not.

    Raises:
        DataError: the annotations are not of the same inputs, lie outside of the folder they were relative to, or agree
            on no face.
    """
    plans = Plan.open(first), Plan.open(second)
    bases = {plan.settings["base"] for plan in plans}
    if len(bases) > 1 or len({plan.inputs for plan in plans}) > 1:
        raise DataError(f"{first} and {second} do not annotate the same inputs")
    (base,) = bases
    counts: Counter[str] = Counter()
    rows = []
    schema = None
    for source, face, labels in agreed_faces(read_rows(first), read_rows(second), limits, counts):
        inside = Path(os.path.normpath(Path(base) / source))  # a link stays what it is
        if not inside.is_relative_to(base):
            raise DataError(f"{source} lies outside of {base}: annotate from a folder that all pictures are in")
        if schema not in (None, face.schema):
            raise DataError(f"the faces have points of {schema} and of {face.schema}")
        schema = face.schema
        rows.append(_row(inside.relative_to(base).as_posix(), face, labels))
    if schema is None:
        raise DataError(f"no face was kept: {dict(counts)}")
    text = io.StringIO()
    names = _columns(schema)
    writer = csv.DictWriter(text, [*names["image"], *names["points"], *names["box"], *ANGLES, *ATTRIBUTES])
    writer.writeheader()
    writer.writerows(rows)
    out.mkdir(parents=True, exist_ok=True)
    (out / PICTURES).unlink(missing_ok=True)
    (out / PICTURES).symlink_to(base, target_is_directory=True)
    write_beside(out / "train.csv", lambda partial: partial.write_text(text.getvalue(), encoding="utf-8"))
    lines = [f'image = "image"\nschema = "{schema}"']
    lines += [f"{key} = {json.dumps(names[key])}" for key in ("points", "box")]
    lines += [f"angles = {json.dumps(ANGLES)}"] if any(row["yaw"] for row in rows) else []
    lines += [f'\n[labels.{task}]\ncolumn = "{task}"' for task in ATTRIBUTES if any(row.get(task) for row in rows)]
    write_beside(out / COLUMNS, lambda partial: partial.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    return counts


def _columns(schema: str) -> dict[str, list[str]]:
    points = [f"{name}_{axis}" for name in SCHEMAS[schema].names for axis in "xy"]
    return {"image": ["image"], "points": points, "box": ["x1", "y1", "x2", "y2"]}


def _row(image: str, face: Face, labels: Mapping[str, str]) -> dict[str, Any]:
    names = _columns(face.schema)
    return {
        "image": f"{PICTURES}/{image}",
        **dict(zip(names["points"], (f"{v:.3f}" for v in face.landmarks.reshape(-1)), strict=True)),
        **dict(zip(names["box"], (f"{v:.3f}" for v in face.box), strict=True)),
        **{angle: "" if face.pose is None else f"{getattr(face.pose, angle):.3f}" for angle in ANGLES},
        **labels,
    }
