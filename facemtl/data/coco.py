"""COCO keypoints: faces of one's own from the JSON that many annotation tools write.

Format (https://cocodataset.org/#format-data): ``images`` with ``id`` and ``file_name``; ``categories``, one of which
has the names of its points in ``keypoints``; ``annotations`` with ``image_id``, ``category_id``, ``keypoints``
(``x y v`` for each point; ``v`` 0 is not labelled, 1 labelled but hidden, 2 visible) and ``bbox``
(``x y width height``). CVAT's export adds ``attributes``, in which labels are looked for: ``{"smile": "smiling"}``.

Points go by their names, in any order. Coordinates are 0-indexed, as here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.data.named import box_of, check_names, labels_by_name, points_by_name, with_labelled_tasks
from facemtl.data.rows import image_of, listed
from facemtl.data.sample import FaceSample
from facemtl.data.splits import read_own_split
from facemtl.errors import DataError

PICTURES = "images"


def read_coco(root: str | Path, split: str, schema: str = "ibug68") -> list[FaceSample]:
    """The faces of one split in file order, with what is labelled of them.

    Args:
        root: ``train.json``, ``test.json`` and, if wanted, ``heldout.json`` (without it a tenth of the training
            pictures is held out by the hash of their paths); pictures in ``images/``.
        split: ``train``, ``heldout`` or ``test``.
        schema: of the points, a key of :data:`facemtl.landmarks.SCHEMAS`.

    Raises:
        DataError: an unknown split, a missing file, another layout, or bad annotations: each with its number and
            reason.
    """
    root = Path(root)
    return read_own_split(root, split, "{}.json", lambda path: _read(root, path, schema))


def _read(root: Path, path: Path, schema: str) -> list[FaceSample]:
    content = read_json(path)
    parts = [content.get(name) for name in ("images", "categories", "annotations")] if isinstance(content, dict) else []
    if not parts or not all(isinstance(p, list) and all(isinstance(row, dict) for row in p) for p in parts):
        raise DataError(f"{path}: expected an object with the lists images, categories and annotations of COCO")
    images, categories, annotations = parts
    files = {str(row.get("id")): row.get("file_name") for row in images}
    names = {str(row.get("id")): list(map(str, row["keypoints"])) for row in categories if _names_points(row)}
    if not names:
        raise DataError(f"{path}: expected a category with keypoints, found {len(categories)} categories without")
    for category, points in names.items():
        try:
            check_names(points, schema)
        except ValueError as error:
            raise DataError(f"{path}: category {category}: {error}") from None
    samples, bad = [], []
    for i, row in enumerate(annotations):
        if str(row.get("category_id")) not in names:  # of something else
            continue
        where = f"{path.name}:annotation {row.get('id', i)}"
        try:
            samples.append(_sample(root, row, files, names[str(row["category_id"])], schema, where))
        except (ValueError, OSError) as error:
            bad.append(f"{where}: {error}")
    if bad:
        raise DataError(f"{len(bad)} bad annotations in {path}:\n{listed(bad)}")
    if not samples:
        raise DataError(f"{path} holds no annotations with keypoints")
    return with_labelled_tasks(samples)


def _sample(root: Path, row: dict, files: dict, names: list[str], schema: str, where: str) -> FaceSample:
    file = files.get(str(row.get("image_id")))
    if not isinstance(file, str):
        raise ValueError(f"its image {row.get('image_id')!r} is not among images")
    flat = row.get("keypoints")
    if not isinstance(flat, list) or len(flat) != 3 * len(names):
        found = len(flat) if isinstance(flat, list) else repr(flat)
        raise ValueError(f"expected {3 * len(names)} numbers in keypoints, x y v of each point, found {found}")
    points = {}
    for name, x, y, seen in zip(names, flat[::3], flat[1::3], flat[2::3], strict=True):
        if seen not in (0, 1, 2):
            raise ValueError(f"expected 0, 1 or 2 as the visibility of {name}, found {seen!r}")
        if seen:
            points[name] = (x, y)
    box = row.get("bbox")
    if box is not None and (not isinstance(box, list) or len(box) != 4 or not all(_number(v) for v in box)):
        raise ValueError(f"expected x y width height in bbox, found {box!r}")
    attributes = row.get("attributes")
    return FaceSample(
        image=image_of(root / PICTURES, file),
        points=points_by_name(points, schema),
        schema=schema,
        labels=labels_by_name(attributes if isinstance(attributes, dict) else {}),
        box=box_of(box[0], box[1], box[0] + box[2], box[1] + box[3]) if box else None,
        source=where,
    )


def _names_points(category: dict) -> bool:
    return isinstance(category.get("keypoints"), list) and bool(category["keypoints"])


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def read_json(path: Path) -> Any:
    """The content of a JSON file; DataError where it is missing or none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:  # JSON and text errors are ValueErrors
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
