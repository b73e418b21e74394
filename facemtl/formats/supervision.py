"""supervision (Roboflow, MIT): https://supervision.roboflow.com/latest/detection/core/ and /keypoint/core/.

The package is not a dependency: ``pip install supervision``. Its coordinates are pixels of the array, as ours are.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from facemtl.errors import ConfigError, DependencyError
from facemtl.face import Face
from facemtl.formats.images import BOX_LABEL, flat_attributes
from facemtl.landmarks import SCHEMAS

if TYPE_CHECKING:
    from supervision import Detections, KeyPoints


def _supervision() -> ModuleType:
    try:
        import supervision
    except ImportError as error:
        raise DependencyError(f"supervision is needed for its types (pip install supervision): {error}") from error
    return supervision


def to_detections(faces: Sequence[Face]) -> Detections:
    """The boxes of one picture's faces.

    Returns:
        ``xyxy`` (n, 4) float32, ``confidence`` (n,) the detector's, ``class_id`` zeros, ``tracker_id`` where every face
        has one; in ``data``, each an array of n: ``class_name`` "face", and all of
        :func:`facemtl.formats.images.flat_attributes` that every face has, such as ``smile`` and ``smile.smiling``.

    Raises:
        DependencyError: supervision is not installed.
    """
    sv = _supervision()
    if not faces:
        return sv.Detections.empty()
    data = _common(faces)
    ids = data.pop("track_id", None)
    return sv.Detections(
        xyxy=np.stack([face.box for face in faces]),
        confidence=np.float32(data.pop("score")),
        class_id=np.zeros(len(faces), int),
        tracker_id=ids,
        data={"class_name": np.array([BOX_LABEL] * len(faces)), **data},
    )


def to_key_points(faces: Sequence[Face]) -> KeyPoints:
    """The points of one picture's faces, which are all of one schema.

    Returns:
        ``xy`` (n, K, 2) float32 and ``class_id`` zeros; in ``data`` what :func:`to_detections` has, ``score`` too, and
        ``sigma`` (n, K) pixels where every face has it. To draw lines: ``sv.EdgeAnnotator(edges=edges(schema))``.

    Raises:
        DependencyError: supervision is not installed.
        ConfigError: the faces are of several schemas.
    """
    sv = _supervision()
    if not faces:
        return sv.KeyPoints.empty()
    if len(found := sorted({face.schema for face in faces})) > 1:
        raise ConfigError(f"KeyPoints hold points of one schema; these faces are of {', '.join(found)}")
    data = {"class_name": np.array([BOX_LABEL] * len(faces)), **_common(faces)}
    if all(face.landmark_sigma is not None for face in faces):
        data["sigma"] = np.stack([face.landmark_sigma for face in faces])
    points = np.stack([face.landmarks for face in faces])
    return sv.KeyPoints(xy=points, class_id=np.zeros(len(faces), int), data=data)


def edges(schema: str) -> list[tuple[int, int]]:
    """The lines of a schema as supervision counts points, from 1."""
    return [(a + 1, b + 1) for a, b in SCHEMAS[schema].edges]


def _common(faces: Sequence[Face]) -> dict[str, Any]:
    """What all faces have, each as an array of n."""
    flats = [flat_attributes(face) for face in faces]
    return {key: np.array([flat[key] for flat in flats]) for key in flats[0] if all(key in flat for flat in flats)}
