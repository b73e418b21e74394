"""Faces in other programs' formats, and back: one module a format.

    from facemtl.formats import ImageFaces, to_coco

    image = read_image("photo.jpg")
    height, width = image.shape[:2]
    document = to_coco([ImageFaces("photo.jpg", width, height, predict(image))])

Every writer says how many digits it keeps, and the tests hold the way there and back to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from facemtl.errors import ConfigError
from facemtl.formats.coco import from_coco, to_coco
from facemtl.formats.cvat import cvat_labels, from_cvat, to_cvat
from facemtl.formats.fiftyone import to_fiftyone_detections, to_fiftyone_samples
from facemtl.formats.images import ImageFaces
from facemtl.formats.label_studio import from_label_studio, label_studio_config, to_label_studio
from facemtl.formats.plain import FACE_VERSION, face_from_dict, face_schema, from_plain, to_plain
from facemtl.formats.rekognition import to_rekognition
from facemtl.formats.supervision import to_detections, to_key_points

__all__ = [
    "FACE_VERSION",
    "FORMATS",
    "ImageFaces",
    "cvat_labels",
    "face_from_dict",
    "face_schema",
    "format_text",
    "from_coco",
    "from_cvat",
    "from_label_studio",
    "from_plain",
    "label_studio_config",
    "to_coco",
    "to_cvat",
    "to_detections",
    "to_fiftyone_detections",
    "to_fiftyone_samples",
    "to_key_points",
    "to_label_studio",
    "to_plain",
    "to_rekognition",
]

# What `facemtl predict --format` knows: pictures -> what json.dumps takes, or text.
FORMATS: dict[str, Callable[[Sequence[ImageFaces]], Any]] = {
    "coco": to_coco,
    "cvat": to_cvat,
    "fiftyone": to_fiftyone_samples,
    "fiftyone-detections": to_fiftyone_detections,
    "label-studio": to_label_studio,
    "plain": to_plain,
    "rekognition": lambda images: [{"Name": image.name, **to_rekognition(image)} for image in images],
}


def format_text(images: Sequence[ImageFaces], name: str) -> str:
    """The file of a format, its last line ended.

    Raises:
        ConfigError: an unknown format; lists what there is.
    """
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    document = FORMATS[name](images)
    return document if isinstance(document, str) else json.dumps(document, indent=1) + "\n"
