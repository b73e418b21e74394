"""COCO keypoints: https://cocodataset.org/#format-data, "Keypoint Detection"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facemtl.errors import DataError
from facemtl.face import Face
from facemtl.formats.images import BOX_LABEL, HALF, ImageFaces, flat_attributes, make_face, reading, rounded
from facemtl.landmarks import SCHEMAS

NOT_LABELLED, NOT_VISIBLE, VISIBLE = 0, 1, 2


def to_coco(images: Sequence[ImageFaces]) -> dict[str, Any]:
    """Ready for ``json.dumps``; numbers of pixels have three digits after the point.

    One category a landmark schema, ``face_mtfl5``, with the names of its points and, counted from 1, its edges.
    Keypoints are COCO's "0-indexed location", which is the frame of :mod:`facemtl.face`; boxes are "measured from the
    top left image corner", half a pixel further (detectron2's ``load_coco_json`` reads both so). Visibility is 2 inside
    the picture, 1 for a point that lies outside it, and 0, with ``x = y = 0``, where there is none.

    Beyond COCO: ``score`` as in its results format, ``attributes`` where CVAT looks for them, see
    :func:`facemtl.formats.images.flat_attributes`, and ``landmark_sigma`` in pixels. Readers pass over what they do not
    know.
    """
    used = {face.schema for image in images for face in image.faces}
    ids = {name: number for number, name in enumerate((s for s in SCHEMAS if s in used), start=1)}
    faces = [(number, image, face) for number, image in enumerate(images, start=1) for face in image.faces]
    return {
        "info": {"description": "faces found by facemtl"},
        "licenses": [],
        "images": [
            {"id": number, "file_name": image.name, "width": image.width, "height": image.height}
            for number, image in enumerate(images, start=1)
        ],
        "categories": [
            {
                "id": number,
                "name": f"{BOX_LABEL}_{name}",
                "supercategory": BOX_LABEL,
                "keypoints": list(SCHEMAS[name].names),
                "skeleton": [[a + 1, b + 1] for a, b in SCHEMAS[name].edges],
            }
            for name, number in ids.items()
        ],
        # Numbers begin at 1: COCO's own evaluation takes an annotation 0 for none.
        "annotations": [
            {"id": i, "image_id": number, "category_id": ids[face.schema], **_annotation(image, face)}
            for i, (number, image, face) in enumerate(faces, start=1)
        ],
    }


def _annotation(image: ImageFaces, face: Face) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(v) for v in face.box)
    points = np.full((len(SCHEMAS[face.schema]), 2), np.nan)
    points[: len(face.landmarks)] = face.landmarks
    marked = np.isfinite(points).all(axis=1)
    inside = ((points >= -HALF) & (points <= np.array([image.width, image.height]) - HALF)).all(axis=1)
    visibility = np.where(inside, VISIBLE, np.where(marked, NOT_VISIBLE, NOT_LABELLED)).tolist()
    places = rounded(np.where(marked[:, None], points, 0.0), 3)
    annotation = {
        "bbox": rounded([x1 + HALF, y1 + HALF, x2 - x1, y2 - y1], 3),
        "area": rounded((x2 - x1) * (y2 - y1), 3),
        "iscrowd": 0,
        "segmentation": [],
        "keypoints": [number for (x, y), v in zip(places, visibility, strict=True) for number in (x, y, v)],
        "num_keypoints": int(marked.sum()),
        "score": round(float(face.score), 6),
        "attributes": flat_attributes(face),
    }
    if face.landmark_sigma is not None:
        sigmas = rounded(face.landmark_sigma, 4)
        annotation["landmark_sigma"] = [sigma if math.isfinite(sigma) else None for sigma in sigmas]
    return annotation


def from_coco(document: Mapping[str, Any]) -> list[ImageFaces]:
    """The faces of a COCO file, by facemtl or by anybody who labels points of one of our schemas.

    A category's schema is the one whose points have its ``keypoints``' names in their order; a category without
    keypoints gives boxes. Points of visibility 0 come as NaN. Annotations of crowds are left out.

    Raises:
        DataError: this is no COCO file, or a category's points are those of no schema.
    """
    with reading("a COCO file"):
        schemas = {category["id"]: _schema(category) for category in document["categories"]}
        faces: dict[int, list[Face]] = {image["id"]: [] for image in document["images"]}
        for annotation in document["annotations"]:
            if not annotation.get("iscrowd"):
                faces[annotation["image_id"]].append(_face(annotation, schemas[annotation["category_id"]]))
        return [
            ImageFaces(image["file_name"], image["width"], image["height"], faces[image["id"]])
            for image in document["images"]
        ]


def _schema(category: Mapping[str, Any]) -> str:
    names = tuple(category.get("keypoints", ()))
    for name, schema in SCHEMAS.items():
        if not names or schema.names == names:
            return name
    raise DataError(f"the points of the category {category['name']!r} are those of no schema: {', '.join(SCHEMAS)}")


def _face(annotation: Mapping[str, Any], schema: str) -> Face:
    left, top, width, height = annotation["bbox"]
    box = np.array([left, top, left + width, top + height], np.float64) - HALF
    found = np.array(annotation.get("keypoints", []), np.float64).reshape(-1, 3)
    if len(found) not in (0, len(SCHEMAS[schema])):
        raise DataError(f"an annotation has {len(found)} points where {schema} has {len(SCHEMAS[schema])}")
    points = np.where(found[:, 2:] == NOT_LABELLED, np.nan, found[:, :2])
    flat = {key: annotation[key] for key in ("score", "track_id") if key in annotation}
    return make_face(box, schema, points, flat | annotation.get("attributes", {}), annotation.get("landmark_sigma"))
