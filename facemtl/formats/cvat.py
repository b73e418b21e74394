"""CVAT for images 1.1: https://docs.cvat.ai/docs/manual/advanced/xml_format/, and for skeletons CVAT's own reader.

That reader is ``load_anno`` in cvat/apps/dataset_manager/formats/cvat.py. A face is a box and, where it has points, a
skeleton; both have one ``group_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from facemtl.errors import DataError
from facemtl.face import Face
from facemtl.formats.images import (
    BOX_LABEL,
    HALF,
    ImageFaces,
    flat_attributes,
    make_face,
    reading,
    used_attributes,
    used_schemas,
)
from facemtl.landmarks import SCHEMAS

_PREFIX = f"{BOX_LABEL}_"  # of the label of a skeleton, before the schema's name
_SHAPE = {"source": "auto", "occluded": "0", "z_order": "0"}


def cvat_labels(images: Sequence[ImageFaces]) -> list[dict[str, Any]]:
    """The labels that a task needs before :func:`to_cvat`'s file can be uploaded to it: CVAT creates none by itself.

    Paste it as JSON into the "Raw" tab of the label constructor. ``face`` is a rectangle with the attributes,
    ``face_mtfl5`` a skeleton; how its template looks is taken from the first face that has all points.
    """
    names = {key: value for image in images for face in image.faces for key, value in flat_attributes(face).items()}
    classes = used_attributes(images)
    box = {"name": BOX_LABEL, "type": "rectangle", "attributes": [_spec(k, v, classes) for k, v in names.items()]}
    faces = [face for image in images for face in image.faces]
    return [box, *(_skeleton_label(name, [f for f in faces if f.schema == name]) for name in used_schemas(images))]


def _spec(name: str, value: Any, classes: dict[str, list[str]]) -> dict[str, Any]:
    if name in classes:
        return _attribute(name, "select", classes[name], classes[name][0])
    if isinstance(value, bool):
        return _attribute(name, "checkbox", ["false"], "false")
    return _attribute(name, "text", [""], "")  # numbers too: a number's range and step would have to be known


def _attribute(name: str, kind: str, values: list[str], default: str) -> dict[str, Any]:
    return {"name": name, "mutable": True, "input_type": kind, "default_value": default, "values": values}


def _skeleton_label(schema: str, faces: Sequence[Face]) -> dict[str, Any]:
    """A label of type skeleton, its points as sublabels, and the drawing of its template in a square of 100."""
    names, edges = SCHEMAS[schema].names, SCHEMAS[schema].edges
    whole = [face.landmarks for face in faces if len(face.landmarks) and np.isfinite(face.landmarks).all()]
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    points = np.float64(whole[0]) if whole else np.stack([np.sin(angles), -np.cos(angles)], axis=1)
    points = 10 + 80 * (points - points.min(axis=0)) / np.ptp(points, axis=0).max().clip(1e-6)
    lines = [
        f'<line x1="{points[a][0]:.2f}" y1="{points[a][1]:.2f}" x2="{points[b][0]:.2f}" y2="{points[b][1]:.2f}" '
        f'stroke="black" data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}"></line>'
        for a, b in edges
    ]
    circles = [
        f'<circle r="0.75" cx="{x:.2f}" cy="{y:.2f}" data-type="element node" data-element-id="{i}" '
        f'data-node-id="{i}" data-label-name="{name}"></circle>'
        for i, (name, (x, y)) in enumerate(zip(names, points, strict=True), start=1)
    ]
    sigma = [_attribute("sigma", "text", [""], "")]
    return {
        "name": _PREFIX + schema,
        "type": "skeleton",
        "attributes": [],
        "sublabels": [{"name": name, "type": "points", "attributes": sigma} for name in names],
        "svg": "".join(lines + circles),
    }


def to_cvat(images: Sequence[ImageFaces]) -> str:
    """An ``annotations.xml``; upload it as "CVAT 1.1" to a task with the same pictures and :func:`cvat_labels`.

    CVAT counts pixels from the picture's top left corner: half a pixel more than :mod:`facemtl.face`. Coordinates have
    three digits after the point (CVAT's own exports have two). The box carries
    :func:`facemtl.formats.images.flat_attributes`, a point its ``sigma`` in pixels. A NaN point is ``outside``.
    """
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    for name, text in (("name", "facemtl"), ("size", str(len(images))), ("mode", "annotation")):
        ET.SubElement(task, name).text = text
    labels = ET.SubElement(task, "labels")
    for label in cvat_labels(images):
        _add_label(labels, label)
    for number, image in enumerate(images):
        size = {"width": str(image.width), "height": str(image.height)}
        element = ET.SubElement(root, "image", {"id": str(number), "name": image.name, **size})
        for group, face in enumerate(image.faces, start=1):
            _add_face(element, face, {**_SHAPE, "group_id": str(group)})
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_label(labels: ET.Element, label: dict[str, Any], parent: str | None = None) -> None:
    element = ET.SubElement(labels, "label")
    ET.SubElement(element, "name").text = label["name"]
    ET.SubElement(element, "type").text = label["type"]
    attributes = ET.SubElement(element, "attributes")
    for spec in label["attributes"]:
        attribute = ET.SubElement(attributes, "attribute")
        for key, value in spec.items():
            ET.SubElement(attribute, key).text = "\n".join(value) if key == "values" else str(value)
    if "svg" in label:
        ET.SubElement(element, "svg").text = label["svg"]
    if parent is not None:
        ET.SubElement(element, "parent").text = parent
    for sublabel in label.get("sublabels", ()):
        _add_label(labels, sublabel, parent=label["name"])


def _add_face(image: ET.Element, face: Face, shape: dict[str, str]) -> None:
    corners = {key: f"{v + HALF:.3f}" for key, v in zip(("xtl", "ytl", "xbr", "ybr"), face.box, strict=True)}
    box = ET.SubElement(image, "box", {"label": BOX_LABEL, **shape, **corners})
    for name, value in flat_attributes(face).items():
        _add_attribute(box, name, str(value).lower() if isinstance(value, bool) else str(value))
    if not len(face.landmarks):
        return
    skeleton = ET.SubElement(image, "skeleton", {"label": _PREFIX + face.schema, **shape})
    for i, (name, point) in enumerate(zip(SCHEMAS[face.schema].names, face.landmarks, strict=True)):
        marked = bool(np.isfinite(point).all())
        x, y = (point if marked else np.zeros(2)) + HALF
        place = {"outside": str(int(not marked)), "points": f"{x:.3f},{y:.3f}"}
        element = ET.SubElement(skeleton, "points", {"label": name, "source": "auto", "occluded": "0", **place})
        if face.landmark_sigma is not None and np.isfinite(face.landmark_sigma[i]):
            _add_attribute(element, "sigma", f"{face.landmark_sigma[i]:.4f}")


def _add_attribute(shape: ET.Element, name: str, text: str) -> None:
    ET.SubElement(shape, "attribute", {"name": name}).text = text


def from_cvat(text: str) -> list[ImageFaces]:
    """The faces of a "CVAT for images 1.1" file, as :func:`to_cvat` wrote it or as CVAT exports it after corrections.

    Boxes labelled ``face`` and skeletons labelled ``face_`` and a schema's name are read; what has the same
    ``group_id`` in a picture is one face, what has none (or 0) a face of its own. Other labels are passed over. A point
    that is ``outside`` or missing comes as NaN. A skeleton alone has the rectangle around its points as box.

    Raises:
        DataError: this is no such file, it declares entities, or a skeleton names an unknown schema or point.
    """
    if "<!DOCTYPE" in text:  # CVAT writes none, and entities can blow up memory
        raise DataError("this is not a CVAT file: it declares a document type")
    try:
        root = ET.fromstring(text.encode())
    except ET.ParseError as error:
        raise DataError(f"this is not a CVAT file: {error}") from None
    with reading("a CVAT file"):
        if root.tag != "annotations" or root.find("track") is not None:
            raise DataError('this is not a file of "CVAT for images": export it as that, not as "for video"')
        return [
            ImageFaces(image.attrib["name"], int(image.attrib["width"]), int(image.attrib["height"]), _faces(image))
            for image in root.iter("image")
        ]


def _faces(image: ET.Element) -> list[Face]:
    groups: dict[Any, dict[str, ET.Element]] = {}
    for shape in image:
        label = shape.get("label", "")
        if (shape.tag == "box" and label == BOX_LABEL) or (shape.tag == "skeleton" and label.startswith(_PREFIX)):
            group = int(shape.get("group_id", 0)) or shape
            if shape.tag in groups.setdefault(group, {}):
                raise DataError(f"{image.get('name')}: the group {group} has more than one {shape.tag}")
            groups[group][shape.tag] = shape
    return [_face(shapes.get("box"), shapes.get("skeleton")) for shapes in groups.values()]


def _face(box: ET.Element | None, skeleton: ET.Element | None) -> Face:
    corners, flat, schema, points, sigma = None, {}, next(iter(SCHEMAS)), None, None
    if box is not None:
        corners = np.array([float(box.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr")]) - HALF
        flat = {attribute.attrib["name"]: attribute.text or "" for attribute in box.iter("attribute")}
    if skeleton is not None:
        schema = skeleton.attrib["label"].removeprefix(_PREFIX)
        if schema not in SCHEMAS:
            raise DataError(f"unknown landmark schema {schema!r}; known: {', '.join(SCHEMAS)}")
        points, sigma = _points(skeleton, SCHEMAS[schema].names)
    return make_face(corners, schema, points, {k: v for k, v in flat.items() if v != ""}, sigma)


def _points(skeleton: ET.Element, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    points, sigma = np.full((len(names), 2), np.nan), np.full(len(names), np.nan)
    for element in skeleton.iter("points"):
        i = names.index(element.attrib["label"])
        if element.get("outside") != "1":
            points[i] = [float(v) - HALF for v in element.attrib["points"].split(",")]
        for attribute in element.iter("attribute"):
            if attribute.attrib["name"] == "sigma" and attribute.text:
                sigma[i] = float(attribute.text)
    return points, sigma
