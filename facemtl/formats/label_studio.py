"""Label Studio: tasks with predictions, https://labelstud.io/guide/predictions and https://labelstud.io/tags/.

A face is a region of RectangleLabels; its attributes are Choices of that region (the same ``id``); its points are
regions of KeyPointLabels whose ``parentID`` is the face's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from facemtl.errors import DataError
from facemtl.face import Face
from facemtl.formats.images import (
    BOX_LABEL,
    ImageFaces,
    flat_attributes,
    make_face,
    reading,
    rounded,
    used_attributes,
    used_schemas,
)
from facemtl.landmarks import SCHEMAS

_IMAGE, _BOX = "image", "box"  # names of tags
_DIGITS = 6  # of percents: a hundred-millionth of the picture
_POINT_WIDTH = 0.5  # percent of the picture's width that a point is drawn with


def label_studio_config(images: Sequence[ImageFaces]) -> str:
    """The labelling configuration (XML) of a project that :func:`to_label_studio`'s tasks can be imported to."""
    view = ET.Element("View")
    ET.SubElement(view, "Image", {"name": _IMAGE, "value": f"${_IMAGE}"})
    _tag(view, "RectangleLabels", _BOX, "Label", [BOX_LABEL])
    for schema in used_schemas(images):
        _tag(view, "KeyPointLabels", schema, "Label", SCHEMAS[schema].names)
    for name, classes in used_attributes(images).items():
        _tag(view, "Choices", name, "Choice", classes, perRegion="true", whenTagName=_BOX, choice="single")
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def _tag(view: ET.Element, tag: str, name: str, entry: str, values: Sequence[str], **more: str) -> None:
    element = ET.SubElement(view, tag, {"name": name, "toName": _IMAGE, **more})
    for value in values:
        ET.SubElement(element, entry, {"value": value})


def to_label_studio(
    images: Sequence[ImageFaces], model_version: str = "facemtl", url_prefix: str = ""
) -> list[dict[str, Any]]:
    """One task a picture, with one prediction.

    Coordinates are percents of the picture's size from its top left corner, with six digits after the point. Label
    Studio refuses predictions beyond 100: boxes are clipped to the picture, and points outside of it (and NaN) left
    out, as is a face whose box is wholly outside. The numbers that no tag can show stand in ``meta``:
    :func:`facemtl.formats.images.flat_attributes` at the face, and ``sigma``, in pixels, at a point.

    Args:
        images: the faces.
        model_version: what Label Studio calls the prediction.
        url_prefix: what stands before a picture's name in its address, such as ``/data/local-files/?d=``.
    """
    return [
        {
            "data": {
                _IMAGE: url_prefix + image.name,
                "name": image.name,
                "width": image.width,
                "height": image.height,
            },
            "predictions": [
                {
                    "model_version": model_version,
                    "score": round(float(np.mean([face.score for face in image.faces])), 6) if image.faces else 0.0,
                    "result": [
                        region
                        for number, face in enumerate(image.faces, start=1)
                        for region in _regions(image, face, f"{BOX_LABEL}{number}")
                    ],
                }
            ],
        }
        for image in images
    ]


def _regions(image: ImageFaces, face: Face, identity: str) -> list[dict[str, Any]]:
    def region(kind: str, tag: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
        size = {"original_width": image.width, "original_height": image.height, "image_rotation": 0}
        return {"id": identity, "type": kind, "from_name": tag, "to_name": _IMAGE, **size, "value": value, **more}

    corners = (100 * image.ratios(face.box.reshape(2, 2))).clip(0, 100)
    (left, top), (width, height) = rounded([corners[0], corners[1] - corners[0]], _DIGITS)
    if not (width > 0 and height > 0):
        return []
    place = {"x": left, "y": top, "width": width, "height": height, "rotation": 0}
    flat = flat_attributes(face)
    regions = [
        region("rectanglelabels", _BOX, place | {"rectanglelabels": [BOX_LABEL]}, score=flat["score"], meta=flat)
    ]
    for name, attribute in face.attributes.items():
        score = round(float(attribute.confidence), 6)
        regions.append(region("choices", name, place | {"choices": [attribute.label]}, score=score))
    percents = rounded(100 * image.ratios(face.landmarks), _DIGITS)
    for i, (name, (x, y)) in enumerate(zip(SCHEMAS[face.schema].names, percents, strict=False)):  # or no points at all
        if 0 <= x <= 100 and 0 <= y <= 100:
            sigma = np.nan if face.landmark_sigma is None else face.landmark_sigma[i]
            meta = {"meta": {"sigma": rounded(sigma, 4)}} if np.isfinite(sigma) else {}
            value = {"x": x, "y": y, "width": _POINT_WIDTH, "keypointlabels": [name]}
            point = region("keypointlabels", face.schema, value, parentID=identity, **meta)
            regions.append(point | {"id": f"{identity}-{name}"})
    return regions


def from_label_studio(tasks: Sequence[Mapping[str, Any]]) -> list[ImageFaces]:
    """The faces of tasks in Label Studio's JSON, as :func:`to_label_studio` wrote them or as exported later.

    A task's first annotation counts, or its first prediction while nobody has annotated it. A point without a parent
    belongs to the smallest face around it. What a person chose replaces what was predicted. Points nobody marked come
    as NaN; tasks made elsewhere need the size of the picture in a region (``original_width``) or in ``data``.

    Raises:
        DataError: this is no such list of tasks, a box is rotated, or a point is no schema's or in no face.
    """
    with reading("a list of Label Studio's tasks"):
        return [_image_faces(task) for task in tasks]


def _image_faces(task: Mapping[str, Any]) -> ImageFaces:
    data, results = task["data"], [*(task.get("annotations") or ()), *(task.get("predictions") or ())]
    regions = results[0]["result"] if results else []
    sized = {"original_width": data.get("width"), "original_height": data.get("height")}
    size = next((region for region in regions if "original_width" in region), sized)
    name = data.get("name", data[_IMAGE])
    image = ImageFaces(name, int(size["original_width"]), int(size["original_height"]))
    boxes, flats, points = {}, {}, {}
    for region in regions:
        if region["type"] == "rectanglelabels" and BOX_LABEL in region["value"]["rectanglelabels"]:
            value = region["value"]
            if value.get("rotation"):
                raise DataError(f"{name}: the box {region['id']} is rotated, which a face's cannot be")
            boxes[region["id"]] = image.box_pixels(*(value[key] / 100 for key in ("x", "y", "width", "height")))
            flats[region["id"]] = {**_known(region.get("meta")), **flats.get(region["id"], {})}
    for region in regions:
        if region["type"] == "choices" and region["id"] in boxes:
            flats[region["id"]][region["from_name"]] = region["value"]["choices"][0]
        elif region["type"] == "keypointlabels":
            value = region["value"]
            place = image.pixels([value["x"] / 100, value["y"] / 100])
            owner = region.get("parentID")
            found = points.setdefault(owner if owner in boxes else _around(place, boxes, name), {})
            found[region["from_name"], value["keypointlabels"][0]] = place, _known(region.get("meta")).get("sigma")
    faces = [_face(boxes[identity], flats[identity], points.get(identity, {})) for identity in boxes]
    return ImageFaces(name, image.width, image.height, faces)


def _known(meta: Any) -> dict[str, Any]:
    """What stands in ``meta``, without the notes that people write there as ``text``."""
    return {key: value for key, value in (meta or {}).items() if key != "text"}


def _around(place: np.ndarray, boxes: Mapping[str, np.ndarray], name: str) -> str:
    around = {i: np.ptp(box.reshape(2, 2), axis=0).prod() for i, box in boxes.items()}
    around = {i: area for i, area in around.items() if (boxes[i][:2] <= place).all() and (place <= boxes[i][2:]).all()}
    if not around:
        raise DataError(f"{name}: the point at {place.round(1).tolist()} has no parent and lies in no face")
    return min(around, key=around.__getitem__)


def _face(box: np.ndarray, flat: Mapping[str, Any], found: Mapping[tuple[str, str], tuple]) -> Face:
    schemas = {schema for schema, _ in found}
    if len(schemas) > 1 or not schemas <= set(SCHEMAS):
        raise DataError(
            f"the points of a face are of {', '.join(sorted(schemas))}; one of {', '.join(SCHEMAS)} is meant"
        )
    schema = next(iter(schemas or SCHEMAS))
    points, sigma = np.full((len(SCHEMAS[schema]), 2), np.nan), np.full(len(SCHEMAS[schema]), np.nan)
    for (_, label), (place, deviation) in found.items():
        i = SCHEMAS[schema].names.index(label)
        points[i] = place
        sigma[i] = np.nan if deviation is None else deviation
    return make_face(box, schema, points, flat, sigma)
