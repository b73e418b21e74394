"""Label Studio: faces of one's own from its JSON export, points and boxes in percent of the picture.

Format (https://labelstud.io/guide/task_format, https://labelstud.io/tags/keypointlabels): a list of tasks, each with
``data`` (the picture's place) and ``annotations``, each of these with ``result``. Of the results are read

* ``keypointlabels``: ``value`` has ``x`` and ``y`` in percent and the name of the point in ``keypointlabels``;
* ``rectanglelabels``: ``value`` has ``x y width height`` in percent; the face box, whatever its label;
* ``choices``: ``from_name`` is the task and ``value`` has the class in ``choices``.

``original_width`` and ``original_height`` turn percent into pixels, measured from the picture's corner, so that half a
pixel is subtracted: the centre of the first pixel is 0 here. One face a picture; a skipped task (``was_cancelled``) is
passed over.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from facemtl.data.coco import read_json
from facemtl.data.named import box_of, labels_by_name, points_by_name, with_labelled_tasks
from facemtl.data.rows import image_of, listed
from facemtl.data.sample import FaceSample
from facemtl.data.splits import read_own_split
from facemtl.errors import DataError

PICTURES = "images"


def read_label_studio(root: str | Path, split: str, schema: str = "ibug68", key: str = "image") -> list[FaceSample]:
    """The faces of one split in file order, with what is labelled of them.

    Args:
        root: ``train.json``, ``test.json`` and, if wanted, ``heldout.json`` (without it a tenth of the training
            pictures is held out by the hash of their paths); pictures in ``images/``, under the last part of their
            address.
        split: ``train``, ``heldout`` or ``test``.
        schema: of the points, a key of :data:`facemtl.landmarks.SCHEMAS`; labels are named like its points.
        key: under which ``data`` has the picture.

    Raises:
        DataError: an unknown split, a missing file, another layout, or bad tasks: each with its number and reason.
    """
    root = Path(root)
    return read_own_split(root, split, "{}.json", lambda path: _read(root, path, schema, key))


def _read(root: Path, path: Path, schema: str, key: str) -> list[FaceSample]:
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(t, dict) and isinstance(t.get("data"), dict) for t in tasks):
        raise DataError(f"{path}: expected a list of tasks with data, as Label Studio exports JSON (not JSON-MIN)")
    samples, bad = [], []
    for i, task in enumerate(tasks):
        where = f"{path.name}:task {task.get('id', i)}"
        try:
            sample = _sample(root, task, schema, key, where)
        except (ValueError, OSError) as error:
            bad.append(f"{where}: {error}")
            continue
        samples += [sample] if sample else []
    if bad:
        raise DataError(f"{len(bad)} bad tasks in {path}:\n{listed(bad)}")
    if not samples:
        raise DataError(f"{path} holds no annotated tasks")
    return with_labelled_tasks(samples)


def _sample(root: Path, task: dict, schema: str, key: str, where: str) -> FaceSample | None:
    done = [a for a in _dicts(task, "annotations") if not a.get("was_cancelled")]
    if not done:
        return None
    if len(done) > 1:
        raise ValueError(f"expected one annotation, found {len(done)}")
    address = task["data"].get(key)
    if not isinstance(address, str):
        raise ValueError(f"expected the picture under data.{key}, found {', '.join(task['data']) or 'nothing'}")
    points: dict[str, tuple[float, float]] = {}
    boxes: list[np.ndarray] = []
    choices: dict[str, object] = {}
    for result in _dicts(done[0], "result"):
        kind, value = result.get("type"), result.get("value")
        if kind in ("keypointlabels", "rectanglelabels"):
            if result.get("image_rotation"):
                raise ValueError("results of a turned picture are not read")
            width, height = _size(result)
            x, y = _percent(value, "x") * width - 0.5, _percent(value, "y") * height - 0.5
        if kind == "keypointlabels":
            name = _only(value, kind)
            if name in points:
                raise ValueError(f"a second point {name}")
            points[name] = (x, y)
        elif kind == "rectanglelabels":
            if value.get("rotation"):
                raise ValueError("a turned box is not read")
            boxes.append(box_of(x, y, x + _percent(value, "width") * width, y + _percent(value, "height") * height))
        elif kind == "choices":
            choices[str(result.get("from_name"))] = _only(value, kind)
    if len(boxes) > 1:
        raise ValueError(f"expected one box, found {len(boxes)}")
    name = PurePosixPath(unquote(urlsplit(address).path)).name
    return FaceSample(
        image=image_of(root / PICTURES, name),
        points=points_by_name(points, schema),
        schema=schema,
        labels=labels_by_name(choices),
        box=boxes[0] if boxes else None,
        source=where,
    )


def _dicts(holder: dict, name: str) -> list[dict]:
    rows = holder.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"expected a list of objects in {name}, found {str(rows)[:60]}")
    return rows


def _size(result: dict) -> tuple[float, float]:
    width, height = result.get("original_width"), result.get("original_height")
    if not all(isinstance(v, int) and v > 0 for v in (width, height)):
        raise ValueError(f"expected original_width and original_height, found {width!r} and {height!r}")
    return width, height


def _percent(value: Any, name: str) -> float:
    """As a share; the tool lets points lie a little off the picture."""
    number = value.get(name) if isinstance(value, dict) else None
    if not isinstance(number, int | float) or not np.isfinite(number):
        raise ValueError(f"expected a number of percent in value.{name}, found {number!r}")
    return number / 100


def _only(value: Any, kind: str) -> str:
    names = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise ValueError(f"expected one name in value.{kind}, found {names!r}")
    return names[0]
