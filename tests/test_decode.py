"""What the network's outputs mean, worked out by hand: pixels, degrees, probabilities, mirrored crops."""

import json
import math

import numpy as np
import pytest
from fake_network import BOX, SIZE, noise, rich_session, rich_spec, rolled, spec
from fake_network import UPRIGHT as FIVE

from facemtl.decode import (
    average_mirrored,
    check_outputs,
    face_attributes,
    image_points,
    image_poses,
    image_sigmas,
    relative_shares,
    softmax,
)
from facemtl.errors import ModelError
from facemtl.face import Pose
from facemtl.geometry import box_from_five, crop_matrix
from facemtl.landmarks import SCHEMAS
from facemtl.predictor import Predictor

# A crop of 40 pixels that covers 80 x 80 pixels of the image: those around (60, 50); and the same crop, turned.
COVERED = [20, 10, 100, 90]
UPRIGHT = crop_matrix(COVERED, SIZE)


def turned(degrees: float) -> np.ndarray:
    return crop_matrix(COVERED, SIZE, roll=math.radians(degrees))


# --- into the image ---


def test_points_are_fractions_of_the_crops_side_from_its_middle():
    found = np.float32([[[0, 0], [-0.5, -0.5], [0.25, 0]]])
    points = image_points(found, [UPRIGHT], SIZE)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, [[[60, 50], [20, 10], [80, 50]]], atol=1e-5)
    # Turned by a quarter, clockwise as seen, the crop's x axis points down in the image.
    np.testing.assert_allclose(image_points(found, [turned(90)], SIZE), [[[60, 50], [100, 10], [60, 70]]], atol=1e-5)


@pytest.mark.parametrize("degrees", [0, 30, -120])
def test_deviations_are_scaled_to_image_pixels_however_the_crop_is_turned(degrees):
    found = np.float32([[0.01, 0.02, 0.03, 0.04, 0.05]])
    (sigma,) = image_sigmas(found, [turned(degrees)], rich_spec())
    np.testing.assert_allclose(sigma, [0.8, 1.6, 2.4, 3.2, 4.0], rtol=1e-6)  # of 80 pixels
    assert sigma.dtype == np.float32
    (larger,) = image_sigmas(found, [turned(degrees)], rich_spec(sigma_scale=1.5))
    np.testing.assert_allclose(larger, [1.2, 2.4, 3.6, 4.8, 6.0], rtol=1e-6)


def test_each_face_has_deviations_by_its_own_crop():
    small = crop_matrix([0, 0, 20, 20], SIZE)
    sigmas = image_sigmas(np.float32([[0.1] * 5, [0.1] * 5]), [UPRIGHT, small], rich_spec())
    np.testing.assert_allclose(sigmas, [[8] * 5, [2] * 5], rtol=1e-6)


def test_the_heads_roll_is_that_in_the_crop_plus_that_of_the_crop():
    found = np.float32([[30, -10, 5], [30, -10, 5], [0, 0, 20], [0, 0, -20]])
    crops = [UPRIGHT, turned(25), turned(170), turned(-170)]
    poses = image_poses(found, crops)
    expected = [Pose(30, -10, 5), Pose(30, -10, 30), Pose(0, 0, -170), Pose(0, 0, 170)]  # roll stays within half a turn
    for pose, wanted in zip(poses, expected, strict=True):
        assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((wanted.yaw, wanted.pitch, wanted.roll), abs=1e-4)
        assert type(pose.roll) is float


# --- attributes ---


def test_probabilities_of_logits():
    assert softmax([math.log(3), 0]) == pytest.approx([0.75, 0.25])
    assert softmax([2 * math.log(3), 0], temperature=2) == pytest.approx([0.75, 0.25])
    assert softmax([1e5, 0], temperature=0.01) == [1, 0]
    assert softmax([-1e5, 0, 0]) == [0, 0.5, 0.5]


def test_a_temperature_softens_only_its_own_attribute():
    outputs = {"smile": np.float32([[2 * math.log(3), 0]]), "gender": np.float32([[0, math.log(4)]])}
    model = spec(("smile", "gender"), temperatures={"smile": 2.0})
    (attributes,) = face_attributes(outputs, 1, model)
    assert attributes["smile"].probabilities == pytest.approx({"smiling": 0.75, "not_smiling": 0.25})
    assert attributes["gender"].probabilities == pytest.approx({"male": 0.2, "female": 0.8})


def test_offsets_move_the_logits_before_the_temperature():
    outputs = {"smile": np.float32([[0, 0]]), "gender": np.float32([[0, 0]])}
    model = spec(("smile", "gender"), offsets={"smile": (2 * math.log(3), 0.0)}, temperatures={"smile": 2.0})
    (attributes,) = face_attributes(outputs, 1, model)
    assert attributes["smile"].probabilities == pytest.approx({"smiling": 0.75, "not_smiling": 0.25})
    assert attributes["gender"].probabilities == pytest.approx({"male": 0.5, "female": 0.5})


def test_a_label_is_the_likeliest_class_relative_to_how_common_the_classes_are():
    outputs = {"smile": np.float32([[math.log(3), 0], [math.log(99), 0]])}
    first, second = face_attributes(
        outputs, 2, spec(("smile",), priors={"smile": (0.9, 0.1)}, thresholds={"smile": 0.5})
    )
    # Odds of 3 to 1, where 9 to 1 is usual.
    assert first["smile"].label == "not_smiling"
    assert first["smile"].confidence == pytest.approx(0.25)
    assert first["smile"].probabilities == pytest.approx({"smiling": 0.75, "not_smiling": 0.25})
    assert not first["smile"].certain
    assert second["smile"].label == "smiling"
    assert second["smile"].confidence == pytest.approx(0.99)


def test_shares_relative_to_a_prior_by_hand():
    assert relative_shares([0.6, 0.4], None) == [0.6, 0.4]
    assert relative_shares([0.6, 0.4], (0.75, 0.25)) == pytest.approx([1 / 3, 2 / 3])  # 0.8 to 1.6


@pytest.mark.parametrize(("threshold", "certain"), [(0.0, True), (0.74, True), (0.76, False), (1.0, False)])
def test_an_attribute_is_certain_from_its_threshold_on(threshold, certain):
    model = spec(("smile",), thresholds={"smile": threshold})
    (attributes,) = face_attributes({"smile": np.float32([[0, math.log(3)]])}, 1, model)
    assert attributes["smile"].label == "not_smiling"
    assert attributes["smile"].certain is certain


def test_without_a_threshold_every_attribute_is_certain():
    (attributes,) = face_attributes({"smile": np.float32([[0, 0]])}, 1, spec(("smile",)))
    assert attributes["smile"].confidence == 0.5
    assert attributes["smile"].certain


def test_attributes_come_in_the_order_of_the_outputs_and_what_was_not_computed_is_left_out():
    model = spec(("landmarks", "gender", "glasses", "smile"))
    assert face_attributes({}, 2, model) == [{}, {}]
    zeros = np.zeros((1, 2), np.float32)
    (attributes,) = face_attributes({"smile": zeros, "landmarks": np.zeros((1, 5, 2)), "gender": zeros}, 1, model)
    assert list(attributes) == ["smile", "gender"]


# --- mirrored crops ---


def test_what_the_mirror_image_says_is_turned_back_and_averaged():
    outputs = {
        "landmarks": [
            [[-0.2, -0.1], [0.2, -0.1], [0.04, 0.0], [-0.1, 0.2], [0.1, 0.2]],
            [[-0.1, -0.2], [0.3, -0.1], [0.0, 0.1], [-0.1, 0.3], [0.2, 0.2]],
        ],
        "landmark_sigma": [[3, 3, 3, 3, 3], [4, 5, 6, 7, 8]],
        "smile": [[1, 3], [5, 9]],
        "angles": [[10, 20, 30], [-20, 30, -50]],
        "pose": [[1, 2, 3, 4, 5], [10, 20, 30, 40, 60]],
    }
    averaged = average_mirrored({name: np.float32(rows) for name, rows in outputs.items()}, rich_spec())
    # The mirrored points with left and right swapped and x negated:
    # (-0.3, -0.1), (0.1, -0.2), (0, 0.1), (-0.2, 0.2), (0.1, 0.3)
    points = [[[-0.25, -0.1], [0.15, -0.15], [0.02, 0.05], [-0.15, 0.2], [0.1, 0.25]]]
    np.testing.assert_allclose(averaged["landmarks"], points, rtol=1e-6)
    variances = [[(9 + 25) / 2, (9 + 16) / 2, (9 + 36) / 2, (9 + 64) / 2, (9 + 49) / 2]]
    np.testing.assert_allclose(averaged["landmark_sigma"] ** 2, variances, rtol=1e-6)
    assert averaged["smile"].tolist() == [[3, 6]]
    assert averaged["angles"].tolist() == [[15, 25, 40]]
    assert averaged["pose"].tolist() == [[30.5, 21, 16.5, 12, 7.5]]


def test_further_points_swap_in_their_own_order():
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 68, 2)).astype(np.float32)
    mirrored = points[:, list(SCHEMAS["ibug68"].flip_order)] * np.float32([-1, 1])
    averaged = average_mirrored({"landmarks_ibug68": np.concatenate([points, mirrored])}, rich_spec())
    np.testing.assert_array_equal(averaged["landmarks_ibug68"], points)


# --- nonsense ---


@pytest.mark.parametrize("name", ["landmarks", "landmark_sigma", "landmarks_ibug68", "smile", "angles"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_an_output_that_is_not_finite_is_an_error(name, bad):
    outputs = {name: np.zeros((3, *shape), np.float32) for name, shape in rich_spec().outputs().items()}
    check_outputs(outputs, rich_spec())
    outputs[name][1, -1] = bad
    with pytest.raises(ModelError, match=f"fake is damaged: its {name} are not finite, or far too large"):
        check_outputs(outputs, rich_spec())


def test_a_negative_deviation_is_an_error():
    with pytest.raises(ModelError, match="fake is damaged: its landmark_sigma are negative"):
        image_sigmas(np.float32([[0.1, 0.1, -0.1, 0.1, 0.1]]), [UPRIGHT], rich_spec())


def test_no_faces_at_all():
    outputs = {name: np.zeros((0, *shape), np.float32) for name, shape in rich_spec().outputs().items()}
    check_outputs(outputs, rich_spec())
    assert image_sigmas(outputs["landmark_sigma"], [], rich_spec()) == []
    assert image_poses(outputs["angles"], []) == []
    assert face_attributes(outputs, 0, rich_spec()) == []


# --- as a face of the predictor ---


def test_a_face_of_a_model_of_everything():
    # The crop is 1.2 times the box of 60 pixels, so 72; it is not turned.
    (face,) = Predictor(rich_session(temperatures={"smile": 2.0}, thresholds={"smile": 0.8}))(noise(), BOX)
    np.testing.assert_allclose(face.landmarks, [60, 50] + 72 * FIVE, atol=1e-4)
    np.testing.assert_allclose(face.landmark_sigma, [0.72, 1.44, 2.16, 2.88, 3.6], rtol=1e-6)
    assert face.pose == Pose(30, -10, 5)
    assert face.attributes["smile"].confidence == pytest.approx(1 / (1 + math.exp(-1)))
    assert not face.attributes["smile"].certain
    plain = json.loads(json.dumps(face.to_dict(), allow_nan=False))
    assert plain["pose"] == {"yaw": 30, "pitch": -10, "roll": 5}
    assert plain["landmark_sigma"] == [0.72, 1.44, 2.16, 2.88, 3.6]


@pytest.mark.parametrize("degrees", [0, 25, -60])
def test_angles_and_deviations_are_told_of_the_image_and_not_of_the_last_crop(degrees):
    session = rich_session(passes=2)
    answers = iter([rolled(degrees), FIVE])
    session.answers["landmarks"] = lambda crop: next(answers)
    (face,) = Predictor(session)(noise(), BOX)
    assert (face.pose.yaw, face.pose.pitch) == (30, -10)
    assert face.pose.roll == pytest.approx(5 + degrees, abs=1e-4)
    x1, _, x2, _ = box_from_five(72 * FIVE)  # of the first points, whatever their roll
    np.testing.assert_allclose(face.landmark_sigma, 1.2 * (x2 - x1) * np.arange(1, 6) / 100, rtol=1e-5)


def test_flip_mirrors_back_what_the_mirror_image_says():
    (face,) = Predictor(rich_session(flip=True))(noise(), BOX)
    assert face.pose == Pose(0, -10, 0)  # the network says 30 and 5 degrees to the same side of both
    pairs = [1 + 4, 1 + 4, 9 + 9, 16 + 25, 16 + 25]  # of squared percents
    np.testing.assert_allclose(face.landmark_sigma, 0.72 * np.sqrt(np.array(pairs) / 2), rtol=1e-5)
