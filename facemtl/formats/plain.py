"""facemtl's own JSON: faces as :meth:`facemtl.face.Face.to_dict` gives them, their JSON Schema, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facemtl.errors import DataError
from facemtl.face import ANGLES, Attribute, Face, Pose
from facemtl.formats.images import ImageFaces, reading
from facemtl.landmarks import SCHEMAS

FACE_VERSION = 1  # of the layout of a face; raised when a reader of the one before would misread or refuse it


def face_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12, https://json-schema.org/draft/2020-12) of :meth:`facemtl.face.Face.to_dict`.

    Its ``$id`` ends in :data:`FACE_VERSION`. A face has all of the keys, and None for what was not predicted.
    """
    share = {"type": "number", "minimum": 0, "maximum": 1}
    attribute = {
        "type": "object",
        "description": "label is the likeliest class, confidence its probability.",
        "properties": {
            "label": {"type": "string"},
            "confidence": share,
            "probabilities": {"type": "object", "additionalProperties": share, "minProperties": 2},
            "certain": {"type": "boolean"},
        },
    }
    pose = {
        "type": ["object", "null"],
        "description": "Degrees: yaw > 0 looks towards the viewer's right, pitch > 0 up, roll > 0 leans clockwise.",
        "properties": {name: {"type": "number", "minimum": -180, "maximum": 180} for name in ANGLES},
    }
    point = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    face = {
        "type": "object",
        "properties": {
            "box": {
                "description": "x1 y1 x2 y2, image pixels; the centre of the first pixel is 0 0.",
                "type": "array",
                "items": {"type": "number"},
                "minItems": 4,
                "maxItems": 4,
            },
            "score": share,
            "schema": {"enum": list(SCHEMAS)},
            "landmarks": {
                "description": "x y of all points of the schema by their names, image pixels; or of none.",
                "type": "object",
                "additionalProperties": point,
            },
            "landmark_sigma": {
                "description": "Standard deviations in pixels, in the order of the schema.",
                "type": ["array", "null"],
                "items": {"type": "number", "minimum": 0},
            },
            "attributes": {"type": "object", "additionalProperties": _closed(attribute)},
            "pose": _closed(pose),
            "quality": share | {"type": ["number", "null"]},
            "track_id": {"type": ["integer", "null"]},
        },
    }
    heading = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:facemtl:face:{FACE_VERSION}"}
    return {**heading, "title": "Face", **_closed(face)}


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object that has all of its properties and no other."""
    return {**schema, "required": list(schema["properties"]), "additionalProperties": False}


def face_from_dict(plain: Mapping[str, Any]) -> Face:
    """The inverse of :meth:`facemtl.face.Face.to_dict`, to its three digits of points and six of probabilities.

    Raises:
        DataError: a key is missing or unknown, a number is none or not finite, or the points are not the schema's.
    """
    with reading("a face"):
        if set(plain) != set(face_schema()["properties"]):
            raise DataError(f"a face has the keys {', '.join(face_schema()['properties'])}; found {', '.join(plain)}")
        schema, points, sigma = plain["schema"], plain["landmarks"], plain["landmark_sigma"]
        if schema not in SCHEMAS:
            raise DataError(f"unknown landmark schema {schema!r}; known: {', '.join(SCHEMAS)}")
        names = SCHEMAS[schema].names
        if points and set(points) != set(names):
            raise DataError(f"the points of a face are not those of {schema}")
        face = Face(
            box=_finite(plain["box"], (4,)),
            score=float(_finite(plain["score"], (), np.float64)),
            landmarks=_finite([points[name] for name in names] if points else np.zeros((0, 2)), (len(points), 2)),
            schema=schema,
            attributes={name: Attribute(**attribute) for name, attribute in plain["attributes"].items()},
            landmark_sigma=None if sigma is None else _finite(sigma, (len(points),)),
            pose=None if plain["pose"] is None else Pose(**plain["pose"]),
            quality=plain["quality"],
            track_id=plain["track_id"],
        )
        if any(a.label not in a.probabilities for a in face.attributes.values()):
            raise DataError("the label of an attribute is not one of its classes")
        return face


def _finite(values: Any, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    array = np.asarray(values, dtype)
    if array.shape != shape or not np.isfinite(array).all():
        raise DataError(f"expected finite numbers of shape {shape}, found {values}")
    return array


def to_plain(images: Sequence[ImageFaces]) -> dict[str, Any]:
    """``{"face_version": 1, "images": [{"name", "width", "height", "faces"}]}``; nothing is lost but digits.

    Raises:
        DataError: a point or sigma is NaN, as in faces read from annotations; JSON has no such number.
    """
    arrays = [array for image in images for face in image.faces for array in (face.landmarks, face.landmark_sigma)]
    if not all(np.isfinite(array).all() for array in arrays if array is not None):
        raise DataError("facemtl's JSON holds no unmarked points; COCO, CVAT and Label Studio do")
    return {
        "face_version": FACE_VERSION,
        "images": [
            {
                "name": image.name,
                "width": image.width,
                "height": image.height,
                "faces": [face.to_dict() for face in image.faces],
            }
            for image in images
        ],
    }


def from_plain(document: Mapping[str, Any]) -> list[ImageFaces]:
    """The inverse of :func:`to_plain`.

    Raises:
        DataError: another version, or anything that :func:`to_plain` does not write.
    """
    with reading("facemtl's JSON"):
        if document["face_version"] != FACE_VERSION:
            raise DataError(f"faces of version {document['face_version']!r}; this facemtl reads {FACE_VERSION}")
        return [
            ImageFaces(image["name"], image["width"], image["height"], [face_from_dict(f) for f in image["faces"]])
            for image in document["images"]
        ]
