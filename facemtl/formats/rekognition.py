"""A cloud-shaped dictionary: FaceDetail of Amazon Rekognition, for programs that were written for its answers.

https://docs.aws.amazon.com/rekognition/latest/APIReference/API_FaceDetail.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facemtl.face import Attribute, Face
from facemtl.formats.images import ImageFaces, rounded
from facemtl.landmarks import SCHEMAS

LANDMARKS = ("eyeLeft", "eyeRight", "nose", "mouthLeft", "mouthRight")  # in the order of mtfl5
# Their name -> our attribute, and what Value is for each of its classes.
ATTRIBUTES: dict[str, tuple[str, Mapping[str, bool | str]]] = {
    "Smile": ("smile", {"smiling": True, "not_smiling": False}),
    "Eyeglasses": ("glasses", {"glasses": True, "no_glasses": False}),
    "Gender": ("gender", {"male": "Male", "female": "Female"}),
}
_DIGITS = 8


def to_rekognition(image: ImageFaces) -> dict[str, Any]:
    """The picture's faces as ``DetectFaces`` returns them: ``{"FaceDetails": [...]}``.

    * ``BoundingBox`` and ``Landmarks`` are ratios of the picture's size, counted from its top left corner. Of every
      schema the five points are given that both know, see :meth:`facemtl.landmarks.LandmarkSchema.to_five`. Left is
      the viewer's left in both.
    * ``Confidence`` is in percent: of the face, the detector's; of an attribute, the probability of its ``Value``.
    * ``Pose`` is in degrees with the signs of :mod:`facemtl.face`, none of them changed. Amazon does not define its
      signs; for roll and yaw the sample answers of its developer guide agree with ours (roll > 0 clockwise, yaw > 0
      towards the viewer's right); for pitch they do not tell, and ours, > 0 up, is kept.

    What the face does not have is left out, as is what FaceDetail has no place for: sigma, the quality of a face (its
    ``Quality`` is brightness and sharpness), ``certain``, classes of pose and age.
    """
    return {"FaceDetails": [_detail(image, face) for face in image.faces]}


def _detail(image: ImageFaces, face: Face) -> dict[str, Any]:
    left, top, width, height = rounded(image.box_ratios(face.box), _DIGITS)
    detail: dict[str, Any] = {
        "BoundingBox": {"Width": width, "Height": height, "Left": left, "Top": top},
        "Confidence": _percent(face.score),
    }
    if len(face.landmarks):
        ratios = rounded(image.ratios(SCHEMAS[face.schema].to_five(face.landmarks)), _DIGITS)
        detail["Landmarks"] = [{"Type": kind, "X": x, "Y": y} for kind, (x, y) in zip(LANDMARKS, ratios, strict=True)]
    if face.pose is not None:
        pose = {"Roll": face.pose.roll, "Yaw": face.pose.yaw, "Pitch": face.pose.pitch}
        detail["Pose"] = {name: round(float(angle), 3) for name, angle in pose.items()}
    for name, (attribute, values) in ATTRIBUTES.items():
        if attribute in face.attributes:
            detail[name] = _value(face.attributes[attribute], values)
    return detail


def _value(attribute: Attribute, values: Mapping[str, bool | str]) -> dict[str, Any]:
    return {"Value": values[attribute.label], "Confidence": _percent(attribute.confidence)}


def _percent(share: float) -> float:
    return round(100 * float(share), 4)
