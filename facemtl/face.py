"""What a prediction is: frozen results, and every convention of the package in one place.

Frame
    Coordinates are image pixels, x to the right and y down, in *index coordinates*: the centre of
    the first pixel is (0, 0), so an image of width W spans -0.5 to W - 0.5.
Colour
    Images are ``uint8`` arrays (H, W, 3) in OpenCV's order, blue green red.
Left and right
    Always the viewer's: the left eye is the one with the smaller x in a frontal, upright face.
Pose classes
    ``left`` means that the face looks towards the viewer's left (the nose moves to smaller x).
Pose angles
    Degrees. ``yaw`` > 0 looks towards the viewer's right (the nose moves to larger x), ``pitch`` > 0
    looks up, ``roll`` > 0 turns the head clockwise as the viewer sees it (y points down). A head that looks at the
    viewer is turned by yaw about its own vertical axis, then nods by pitch, then leans by roll in the plane of the
    picture: ``R = Rz(roll) Rx(pitch) Ry(yaw)``, :func:`facemtl.head_pose.rotation`. So turning the picture changes
    roll alone, and its mirror image has yaw and roll negated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facemtl.landmarks import SCHEMAS

# Every attribute the package knows, with its classes in the order of the logits. For the attributes of
# MTFL the class index is the published code minus one.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "glasses": ("glasses", "no_glasses"),
    "smile": ("smiling", "not_smiling"),
    "gender": ("male", "female"),
    "pose": ("left_profile", "left", "frontal", "right", "right_profile"),
    "age": ("child", "adult", "senior"),  # under 18, 18 to 59, 60 and over
}


# The task of the head's rotation, and the order of its three numbers.
ANGLES_TASK = "angles"
ANGLES = ("yaw", "pitch", "roll")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of one face.

    Attributes:
        label: the likeliest class; where the model names how common the classes are (``ModelSpec.priors``, for pose),
            the likeliest relative to that, so that rare ones are found too.
        confidence: its probability, calibrated where the model is.
        probabilities: of all classes; they sum to 1.
        certain: whether the confidence reaches the model's threshold for this attribute; under it, better abstain.
    """

    label: str
    confidence: float
    probabilities: Mapping[str, float]
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Pose:
    """Head rotation in degrees; the signs are defined at the top of this module."""

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face found in one image.

    Attributes:
        box: (4,) float32 ``x1 y1 x2 y2``, image pixels.
        score: detector confidence in 0..1; 1.0 for a box the caller gave.
        landmarks: (K, 2) float32 ``x y``, image pixels, sub-pixel, in the order of ``schema``; (0, 2) if the model
            finds none.
        schema: name of the landmark schema, a key of :data:`facemtl.landmarks.SCHEMAS`.
        attributes: name -> :class:`Attribute`; empty if the model or the caller leaves them out.
        landmark_sigma: (K,) float32 predicted standard deviation in image pixels, or None.
        pose: head angles, or None if the model does not predict them.
        quality: probability 0..1 that the crop shows a face, or None.
        track_id: identity in a video, or None.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    schema: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    landmark_sigma: np.ndarray | None = None
    pose: Pose | None = None
    quality: float | None = None
    track_id: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The face as plain Python values, ready for ``json.dumps``; absent fields are None."""
        names = SCHEMAS[self.schema].names[: len(self.landmarks)]
        return {
            "box": [round(float(v), 3) for v in self.box],
            "score": round(float(self.score), 6),
            "schema": self.schema,
            "landmarks": {
                name: [round(float(x), 3), round(float(y), 3)]
                for name, (x, y) in zip(names, self.landmarks, strict=True)
            },
            "landmark_sigma": None
            if self.landmark_sigma is None
            else [round(float(v), 4) for v in self.landmark_sigma],
            "attributes": {
                name: {
                    "label": attribute.label,
                    "confidence": round(float(attribute.confidence), 6),
                    "probabilities": {k: round(float(v), 6) for k, v in attribute.probabilities.items()},
                    "certain": bool(attribute.certain),
                }
                for name, attribute in self.attributes.items()
            },
            "pose": None
            if self.pose is None
            else {angle: round(float(getattr(self.pose, angle)), 3) for angle in ANGLES},
            "quality": None if self.quality is None else round(float(self.quality), 6),
            "track_id": None if self.track_id is None else int(self.track_id),
        }
