"""FiftyOne: https://docs.voxel51.com/user_guide/import_datasets.html; coordinates are shares of the picture's size.

Two files, for two ways in: boxes with attributes in the documented simple format, and boxes and points together as
serialised samples. Names of fields there may hold no dot, so that ``smile.smiling`` is ``smile_smiling``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from facemtl.errors import DataError
from facemtl.face import Face
from facemtl.formats.images import BOX_LABEL, ImageFaces, flat_attributes, rounded

_DIGITS = 8  # of shares: a hundred-thousandth of a pixel in 1000


def to_fiftyone_detections(images: Sequence[ImageFaces]) -> dict[str, Any]:
    """The ``labels.json`` of a FiftyOneImageDetectionDataset, beside its folder ``data/`` of pictures.

    Pictures are keyed by their names without the suffix, as FiftyOne looks for them. The detector's score is the
    ``confidence``; the attributes are :func:`facemtl.formats.images.flat_attributes`. Points have no place here.

    Raises:
        DataError: two pictures differ in their suffix only.
    """
    keys = [str(PurePath(image.name).with_suffix("")) for image in images]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise DataError(f"FiftyOne tells pictures apart by their names without suffix: {', '.join(sorted(twice))}")
    return {
        "classes": [BOX_LABEL],
        "labels": {
            key: [
                {"label": 0, "bounding_box": _box(image, face), "confidence": _score(face), "attributes": _fields(face)}
                for face in image.faces
            ]
            for key, image in zip(keys, images, strict=True)
        },
    }


def to_fiftyone_samples(images: Sequence[ImageFaces]) -> dict[str, Any]:
    """The ``samples.json`` of a FiftyOneDataset: each picture with Detections ``faces`` and Keypoints ``landmarks``.

    With this file alone in a folder, ``fo.Dataset.from_dir(folder, dataset_type=fo.types.FiftyOneDataset)`` reads it
    with ``fo.Sample.from_dict`` (the file has no ``metadata.json`` beside it, which FiftyOne takes as the portable
    layout of its version 0.7); or do that yourself: ``[fo.Sample.from_dict(s) for s in document["samples"]]``.
    Names of pictures are paths relative to the folder, or absolute. A Keypoint has the ``index`` of its face's
    Detection, the name of its schema as label and, where the model gives it, ``sigma``, pixels, one a point. NaN points
    stay NaN, which is how FiftyOne marks a missing point: write the file with ``json.dumps`` as it is.
    """
    return {
        "samples": [
            {
                "filepath": image.name,
                "tags": [],
                "metadata": {"_cls": "ImageMetadata", "width": image.width, "height": image.height},
                "faces": {
                    "_cls": "Detections",
                    "detections": [_detection(image, face, i) for i, face in enumerate(image.faces)],
                },
                "landmarks": {
                    "_cls": "Keypoints",
                    "keypoints": [
                        _keypoint(image, face, i) for i, face in enumerate(image.faces) if len(face.landmarks)
                    ],
                },
            }
            for image in images
        ]
    }


def _detection(image: ImageFaces, face: Face, index: int) -> dict[str, Any]:
    place = {"label": BOX_LABEL, "bounding_box": _box(image, face), "confidence": _score(face), "index": index}
    return {"_cls": "Detection", "attributes": {}, "tags": [], **place, **_fields(face)}


def _keypoint(image: ImageFaces, face: Face, index: int) -> dict[str, Any]:
    points = rounded(image.ratios(face.landmarks), _DIGITS)
    keypoint = {"_cls": "Keypoint", "attributes": {}, "tags": [], "label": face.schema, "points": points}
    sigma = {} if face.landmark_sigma is None else {"sigma": rounded(face.landmark_sigma, 4)}
    return {**keypoint, "index": index, **sigma}


def _box(image: ImageFaces, face: Face) -> list[float]:
    return rounded(np.array(image.box_ratios(face.box)), _DIGITS)


def _score(face: Face) -> float:
    return round(float(face.score), 6)


def _fields(face: Face) -> dict[str, Any]:
    return {key.replace(".", "_"): value for key, value in flat_attributes(face).items() if key != "score"}
