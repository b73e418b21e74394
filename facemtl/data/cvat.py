"""CVAT: faces of one's own from "CVAT for images" XML.

Format (https://docs.cvat.ai/docs/other/xml_format, version 1.1): ``annotations`` with an ``image`` (``name``,
``width``, ``height``) for each picture, and in it

* ``skeleton``: a face, with a ``points`` for each point, ``label`` its name, ``points`` its ``x,y``; ``outside="1"``
  is missing, ``occluded="1"`` is there but hidden;
* ``points`` right in ``image``: a face, whose ``x,y;x,y;...`` are in the order of the schema;
* ``box`` (``xtl ytl xbr ybr``): of the face in the same group (``group_id``), or of the only face;
* in any of these an ``attribute`` with the ``name`` of a task and a class as its text.

Coordinates are read as they are: the format does not say where a pixel's centre is. Tracks ("CVAT for video") are
refused.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from facemtl.data.named import box_of, finite_pair, labels_by_name, points_by_name, with_labelled_tasks
from facemtl.data.rows import image_of, listed
from facemtl.data.sample import FaceSample
from facemtl.data.splits import read_own_split
from facemtl.errors import DataError
from facemtl.landmarks import SCHEMAS

PICTURES = "images"
UNGROUPED = (None, "", "0")


def read_cvat(root: str | Path, split: str, schema: str = "ibug68") -> list[FaceSample]:
    """The faces of one split in file order, with what is labelled of them; pictures without any are passed over.

    Args:
        root: ``train.xml``, ``test.xml`` and, if wanted, ``heldout.xml`` (without it a tenth of the training pictures
            is held out by the hash of their paths); pictures in ``images/``.
        split: ``train``, ``heldout`` or ``test``.
        schema: of the points, a key of :data:`facemtl.landmarks.SCHEMAS`.

    Raises:
        DataError: an unknown split, a missing file, another layout, or bad pictures: each with its name and reason.
    """
    root = Path(root)
    return read_own_split(root, split, "{}.xml", lambda path: _read(root, path, schema))


def _read(root: Path, path: Path, schema: str) -> list[FaceSample]:
    top = _parse(path)
    if top.tag != "annotations" or top.find("track") is not None:
        found = "a track" if top.tag == "annotations" else f"<{top.tag[:40]}>"
        raise DataError(f"{path}: expected <annotations> with images, as CVAT exports them for images; found {found}")
    samples, bad = [], []
    for image in top.iter("image"):
        try:
            samples += _faces(root, path, image, schema)
        except (ValueError, OSError) as error:
            bad.append(f"{path}: image {image.get('name')!r}: {error}")
    if bad:
        raise DataError(f"{len(bad)} bad pictures in {path}:\n{listed(bad)}")
    if not samples:
        raise DataError(f"{path} holds no faces")
    return with_labelled_tasks(samples)


def _parse(path: Path) -> Element:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: expected the annotations of CVAT for images") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # CVAT writes none, and entities can grow without bound
        raise DataError(f"{path}: expected XML without a document type, as CVAT writes it")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise DataError(f"{path} is no XML: {error}") from None


def _faces(root: Path, path: Path, image: Element, schema: str) -> list[FaceSample]:
    shapes = [child for child in image if child.tag in ("skeleton", "points")]
    boxes = [child for child in image if child.tag == "box"]
    if not shapes and not boxes:
        return []
    name = image.get("name")
    if not name:
        raise ValueError("expected a name")
    file = image_of(root / PICTURES, name)
    faces = []
    for i, (shape, box) in enumerate(_pairs(shapes, boxes), start=1):
        parts = [part for part in (shape, box) if part is not None]
        attributes = {a.get("name"): (a.text or "").strip() for part in parts for a in part.findall("attribute")}
        points = np.full((len(SCHEMAS[schema]), 2), np.nan, dtype=np.float32)
        faces.append(
            FaceSample(
                image=file,
                points=points if shape is None else _points(shape, schema),
                schema=schema,
                labels=labels_by_name(attributes),
                box=None if box is None else _box(box),
                source=f"{path.name}:{name}:{i}",
            )
        )
    return faces


def _pairs(shapes: list[Element], boxes: list[Element]) -> list[tuple[Element | None, Element | None]]:
    """Which box belongs to which points; never by where they are."""
    if len(shapes) <= 1 and len(boxes) <= 1:
        return [(shapes[0] if shapes else None, boxes[0] if boxes else None)]
    if not shapes or not boxes:
        return [*((shape, None) for shape in shapes), *((None, box) for box in boxes)]
    groups: dict[str | None, list[Element]] = {}
    for box in boxes:
        groups.setdefault(box.get("group_id"), []).append(box)
    loose = [e for e in (*shapes, *boxes) if e.get("group_id") in UNGROUPED]
    of_shapes = [shape.get("group_id") for shape in shapes]
    if loose or any(len(found) > 1 for found in groups.values()) or len(set(of_shapes)) < len(of_shapes):
        raise ValueError(
            f"{len(shapes)} faces with points and {len(boxes)} boxes: expected the points and the box of each face "
            "in a group of their own"
        )
    alone = [box for box in boxes if box.get("group_id") not in of_shapes]
    return [*((s, groups.get(s.get("group_id"), [None])[0]) for s in shapes), *((None, box) for box in alone)]


def _points(shape: Element, schema: str) -> np.ndarray:
    if shape.tag == "points":
        pairs = _coordinates(shape)
        if len(pairs) != len(SCHEMAS[schema]):
            raise ValueError(f"expected {len(SCHEMAS[schema])} points as {schema} has, found {len(pairs)}")
        return np.stack(pairs)
    named: dict[str, np.ndarray | None] = {}
    for point in shape.findall("points"):
        label = point.get("label") or ""
        pairs = _coordinates(point)
        if len(pairs) != 1:
            raise ValueError(f"expected one place of the point {label}, found {len(pairs)}")
        if point.get("outside") not in ("0", "1"):  # CVAT always says it, and puts what is outside at 0, 0
            raise ValueError(f"expected outside to be 0 or 1 at the point {label}, found {point.get('outside')!r}")
        if label in named:
            raise ValueError(f"a second point {label}")
        named[label] = pairs[0] if point.get("outside") != "1" else None
    return points_by_name({label: pair for label, pair in named.items() if pair is not None}, schema)


def _coordinates(element: Element) -> list[np.ndarray]:
    return [finite_pair(tuple(text.split(","))) for text in (element.get("points") or "").split(";") if text.strip()]


def _box(box: Element) -> np.ndarray:
    if box.get("rotation") not in (None, "", "0", "0.0", "0.00"):
        raise ValueError("a turned box is not read")
    corners = [box.get(side) for side in ("xtl", "ytl", "xbr", "ybr")]
    if None in corners:
        raise ValueError(f"expected a box with xtl, ytl, xbr and ybr, found {', '.join(box.keys())}")
    return box_of(*corners)
