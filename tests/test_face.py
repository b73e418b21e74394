from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from facemtl.face import ATTRIBUTES, Attribute, Face, Pose

FIVE = np.array([[1, 2], [3, 2], [2, 3.0004], [1.25, 4], [2.75, 4]], np.float32)


def a_face(**more) -> Face:
    return Face(box=np.array([0, 0.12345, 4, 5], np.float32), score=0.75, landmarks=FIVE, schema="mtfl5", **more)


@pytest.mark.parametrize(
    "task, classes",
    [
        ("glasses", ("glasses", "no_glasses")),
        ("smile", ("smiling", "not_smiling")),
        ("gender", ("male", "female")),
        ("pose", ("left_profile", "left", "frontal", "right", "right_profile")),
    ],
)
def test_classes_are_in_the_order_of_mtfls_codes(task, classes):
    assert ATTRIBUTES[task] == classes


def test_the_pose_classes_run_the_other_way_in_a_mirror():
    swap = {"left": "right", "right": "left"}
    mirrored = ["_".join(swap.get(word, word) for word in label.split("_")) for label in ATTRIBUTES["pose"]]
    assert mirrored == list(reversed(ATTRIBUTES["pose"]))


def test_a_face_has_nothing_that_was_not_predicted():
    face = a_face()
    assert dict(face.attributes) == {}
    assert (face.landmark_sigma, face.pose, face.quality, face.track_id) == (None, None, None, None)


@pytest.mark.parametrize(
    "result, field",
    [(a_face(), "score"), (Attribute("male", 1.0, {"male": 1.0}), "label"), (Pose(1.0, 2.0, 3.0), "yaw")],
)
def test_results_are_frozen(result, field):
    with pytest.raises(FrozenInstanceError):
        setattr(result, field, None)


def test_a_face_as_plain_values():
    face = a_face(
        attributes={"smile": Attribute("smiling", 0.9, {"smiling": 0.9, "not_smiling": 0.1}, certain=False)},
        landmark_sigma=np.array([1, 1, 2, 1, 1], np.float32),
        pose=Pose(yaw=10.0, pitch=-5.5, roll=0.25),
        quality=0.5,
        track_id=3,
    )
    assert face.to_dict() == {
        "box": [0.0, 0.123, 4.0, 5.0],
        "score": 0.75,
        "schema": "mtfl5",
        "landmarks": {
            "left_eye": [1.0, 2.0],
            "right_eye": [3.0, 2.0],
            "nose_tip": [2.0, 3.0],
            "left_mouth_corner": [1.25, 4.0],
            "right_mouth_corner": [2.75, 4.0],
        },
        "landmark_sigma": [1.0, 1.0, 2.0, 1.0, 1.0],
        "attributes": {
            "smile": {
                "label": "smiling",
                "confidence": 0.9,
                "probabilities": {"smiling": 0.9, "not_smiling": 0.1},
                "certain": False,
            }
        },
        "pose": {"yaw": 10.0, "pitch": -5.5, "roll": 0.25},
        "quality": 0.5,
        "track_id": 3,
    }


def test_numpy_numbers_become_plain_ones():
    half = np.float32(0.5)
    face = a_face(
        attributes={"gender": Attribute("male", half, {"male": half, "female": half})},
        pose=Pose(half, half, half),
        quality=half,
        track_id=np.int64(3),
    )
    text = json.dumps(face.to_dict(), allow_nan=False)
    assert json.loads(text) == face.to_dict()


def test_what_is_absent_is_none_and_a_model_without_points_gives_none():
    face = Face(np.zeros(4, np.float32), 1.0, np.zeros((0, 2), np.float32), "mtfl5")
    plain = face.to_dict()
    assert plain["landmarks"] == {}
    assert plain["attributes"] == {}
    assert [plain[key] for key in ("landmark_sigma", "pose", "quality", "track_id")] == [None] * 4


@pytest.mark.parametrize("again", [copy.deepcopy, lambda face: pickle.loads(pickle.dumps(face))])
def test_a_face_can_be_copied_and_sent_to_another_process(again):
    face = a_face(attributes={"gender": Attribute("male", 0.6, {"male": 0.6, "female": 0.4})}, pose=Pose(1.0, 2.0, 3.0))
    assert again(face).to_dict() == face.to_dict()
    assert again(a_face()).to_dict() == a_face().to_dict()
