from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from random_predictions import random_predictions
from sklearn import metrics as sklearn_metrics

from facemtl.training.metrics import (
    CROSSED_FACES,
    FILLED_BOX,
    attribute_metrics,
    bootstrap_interval,
    evaluate,
    eye_residuals,
    landmark_metrics,
    nme,
    offset_corrected,
)
from facemtl.training.reliability import ece_by_chance, reliability

EYES = (0, 1)
FACE = np.array([[0.0, 0.0], [10.0, 0.0], [5.0, 6.0], [1.0, 10.0], [9.0, 10.0]])


def faces(count: int) -> np.ndarray:
    return np.tile(FACE, (count, 1, 1))


def similarity(points: np.ndarray, scale: float, angle: float, shift: complex) -> np.ndarray:
    turned = points @ np.array([1, 1j]) * scale * np.exp(1j * angle) + shift
    return np.stack([turned.real, turned.imag], axis=-1)


def test_nme_is_the_mean_distance_over_the_inter_ocular_distance():
    points = faces(2)
    points[0, 2] += [3, 4]  # 5 pixels off at one of five points: 1 pixel in the mean, the eyes are 10 apart
    assert nme(points, faces(2), EYES) == pytest.approx([0.1, 0.0])


def test_nme_leaves_out_points_that_the_truth_lacks():
    points, truth = faces(1), faces(1)
    points[0, 2] += [3, 4]
    truth[0, 3] = np.nan
    assert nme(points, truth, EYES) == pytest.approx([5 / 4 / 10])


def test_nme_is_nan_without_a_prediction_or_without_two_true_eyes():
    points, truth = faces(4), faces(4)
    points[0] = np.nan
    truth[1, 0] = np.nan
    truth[2, 1] = truth[2, 0]
    truth[3] = np.nan
    assert np.isnan(nme(points, truth, EYES)).all()


@pytest.mark.parametrize(
    ("scale", "angle", "shift"), [(3.0, 0.0, 0), (1.0, 2.5, 0), (1.0, 0.0, 40 - 7j), (0.2, -1, 5j)]
)
def test_nme_does_not_depend_on_scale_rotation_and_place(scale, angle, shift):
    truth, points = random_predictions().truth, random_predictions().points
    moved = nme(similarity(points, scale, angle, shift), similarity(truth, scale, angle, shift), EYES)
    np.testing.assert_allclose(moved, nme(points, truth, EYES), rtol=1e-9)


def test_residuals_are_expressed_along_the_eyes_and_down_the_face():
    # A head that lies on its side: the eyes run down the image, and "down the face" is to the left.
    truth = np.array([[[0.0, 0.0], [0.0, 10.0]]])
    points = truth + np.array([-1.0, 2.0])
    assert eye_residuals(points, truth, EYES) == pytest.approx(np.full((1, 2), 0.2 + 0.1j))


def test_landmark_metrics_by_hand():
    points = faces(4)
    points[0] += [0.2, 0.0]  # 2 %
    points[1] += [0.0, 0.4]  # 4 %
    points[2] += [-1.2, 0.0]  # 12 %: a failure
    points[3] = np.nan  # not found: a failure without an error
    result = landmark_metrics(points, faces(4), EYES)
    assert result["faces"] == 4
    assert result["found"] == 0.75
    assert result["nme_percent"] == pytest.approx(6)
    assert result["median_percent"] == pytest.approx(4)
    assert result["failure_percent"] == 50
    assert result["auc"] == pytest.approx((0.8 + 0.6 + 0 + 0) / 4)
    assert result["point_nme_percent"] == pytest.approx([6] * 5)
    np.testing.assert_allclose(result["point_offset_px"], [[-1 / 3, 0.4 / 3]] * 5)
    np.testing.assert_allclose(result["point_offset_percent"], [[-10 / 3, 4 / 3]] * 5)


def test_a_face_at_the_limit_has_not_failed():
    points = faces(1)
    points[0, 2] += [3, 4]
    assert landmark_metrics(points, faces(1), EYES)["failure_percent"] == 0


def test_auc_is_the_area_under_the_cumulative_error_curve():
    predictions = random_predictions(lost=7)
    errors = nme(predictions.points, predictions.truth, EYES)
    middles = (np.arange(20000) + 0.5) / 20000 * 0.10
    area = np.mean([np.mean(errors <= limit) for limit in middles])
    result = landmark_metrics(predictions.points, predictions.truth, EYES)
    assert result["auc"] == pytest.approx(area, abs=1e-4)


def test_faces_without_true_eyes_are_not_counted():
    points, truth = faces(3), faces(3)
    truth[0] = np.nan
    points[1] = np.nan
    result = landmark_metrics(points, truth, EYES)
    assert (result["faces"], result["found"], result["failure_percent"]) == (2, 0.5, 50)


def test_landmark_metrics_of_nothing_are_nan():
    result = landmark_metrics(faces(0), faces(0), EYES)
    assert result["faces"] == 0
    assert np.isnan([result["found"], result["nme_percent"], result["failure_percent"], result["auc"]]).all()
    assert np.isnan(result["nme_interval_percent"]).all()
    assert np.isnan(result["point_nme_percent"]).all()


def test_correction_removes_a_constant_offset_in_the_eye_frame():
    rng = np.random.default_rng(0)
    offset = FACE * 0 + rng.normal(scale=0.5, size=FACE.shape)
    poses = [(rng.uniform(0.5, 4), rng.uniform(-3, 3), complex(*rng.normal(size=2))) for _ in range(20)]
    truth = np.stack([similarity(FACE, *pose) for pose in poses])
    points = np.stack([similarity(FACE + offset, *pose) for pose in poses])
    corrected = offset_corrected(points, truth, EYES, np.arange(20) % 2 == 0)
    assert nme(points, truth, EYES).min() > 0.02
    np.testing.assert_allclose(corrected, truth, atol=1e-9)


def test_correction_of_one_half_comes_from_the_other_half():
    points, halves = faces(4), np.array([True, True, False, False])
    points[halves] += [1.0, 0.0]
    points[~halves] += [0.0, 2.0]
    corrected = offset_corrected(points, faces(4), EYES, halves)
    np.testing.assert_allclose(corrected[halves], points[halves] - [0.0, 2.0])
    np.testing.assert_allclose(corrected[~halves], points[~halves] - [1.0, 0.0])


def test_correction_uses_no_truth_of_the_faces_it_corrects():
    predictions = random_predictions()
    halves = predictions.halves
    changed = predictions.truth.copy()
    changed[halves] += 17.0
    before = offset_corrected(predictions.points, predictions.truth, EYES, halves)
    after = offset_corrected(predictions.points, changed, EYES, halves)
    np.testing.assert_array_equal(before[halves], after[halves])
    assert not np.allclose(before[~halves], after[~halves])


def test_correction_survives_faces_whose_predicted_eyes_nearly_meet():
    truth, points = faces(40), faces(40) + np.array([0.3, 0.0])
    points[0, 1] = points[0, 0] + [1e-6, 0]
    points[1, 1] = points[1, 0]
    corrected = offset_corrected(points, truth, EYES, np.arange(40) % 2 == 0)
    np.testing.assert_allclose(corrected[2:], truth[2:], atol=1e-9)
    assert np.isfinite(corrected).all()


def test_correction_leaves_alone_what_the_other_half_does_not_show():
    points, truth, halves = faces(2) + 1.0, faces(2), np.array([True, False])
    truth[0] = np.nan
    points[1] = np.nan
    corrected = offset_corrected(points, truth, EYES, halves)
    np.testing.assert_array_equal(corrected, points)
    everything = np.ones(2, dtype=bool)
    np.testing.assert_array_equal(offset_corrected(points, truth, EYES, everything), points)


def test_bootstrap_interval_of_a_mean():
    values = np.random.default_rng(1).normal(3.0, 1.0, size=400)
    low, high = bootstrap_interval(values)
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.02)
    assert high == pytest.approx(values.mean() + error, abs=0.02)
    assert bootstrap_interval(values[::-1]) == (low, high)
    assert bootstrap_interval(np.array([2.0])) == (2.0, 2.0)


def test_attribute_metrics_of_two_classes_by_hand():
    first = np.array([0.9, 0.8, 0.4, 0.3, 0.6])
    result = attribute_metrics(np.array([0, 0, 0, 1, 1]), np.stack([first, 1 - first], axis=1))
    assert result["faces"] == 5
    assert result["confusion"] == [[2, 1], [1, 1]]
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["commonest"] == pytest.approx(3 / 5)
    assert result["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result["f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert result["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    # Five confidences (0.9 0.8 0.6 0.7 0.6) in 15 bins: the two of 0.6, both wrong, share one.
    assert result["ece"] == pytest.approx((0.1 + 0.2 + 2 * 0.6 + 0.3) / 5)


def test_attribute_metrics_of_five_classes_are_means_over_classes():
    predictions = random_predictions(200)
    labels, probabilities = predictions.labels("pose"), predictions.probabilities("pose")
    guesses = probabilities.argmax(axis=1)
    result = attribute_metrics(labels, probabilities)
    one_hot = np.eye(5)[labels]
    assert result["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, guesses))
    assert result["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, guesses))
    assert result["f1"] == pytest.approx(sklearn_metrics.f1_score(labels, guesses, average="macro"))
    expected = sklearn_metrics.average_precision_score(one_hot, probabilities, average="macro")
    assert result["average_precision"] == pytest.approx(expected)
    assert result["confusion"] == sklearn_metrics.confusion_matrix(labels, guesses).tolist()


def test_attribute_metrics_leave_out_faces_without_label_or_prediction():
    labels = np.array([0, 1, -1, 1])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [np.nan, np.nan]])
    assert attribute_metrics(labels, probabilities) == attribute_metrics(labels[:2], probabilities[:2])
    assert attribute_metrics(labels, probabilities)["faces"] == 2


def test_attribute_metrics_without_a_label_are_nan():
    result = attribute_metrics(np.full(3, -1), np.full((3, 2), 0.5))
    assert result.pop("faces") == 0
    assert result.pop("confusion") == [[0, 0], [0, 0]]
    assert np.isnan(list(result.values())).all()


def test_attribute_metrics_of_a_class_that_never_occurs():
    two = attribute_metrics(np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]]))
    assert np.isnan([two["f1"], two["average_precision"]]).all()
    assert two["balanced_accuracy"] == 0.5
    five = attribute_metrics(np.array([0, 1]), np.eye(5)[:2])
    assert (five["balanced_accuracy"], five["f1"], five["average_precision"]) == (1, 1, 1)


def test_calibration_error_by_hand():
    # 10 faces at confidence 0.6, half of them right; 20 at 0.9, all right.
    confidence = np.repeat([0.6, 0.9], [10, 20])
    labels = np.repeat([0, 1, 0], [5, 5, 20])
    result = attribute_metrics(labels, np.stack([confidence, 1 - confidence], axis=1))
    assert result["ece"] == pytest.approx((10 * 0.1 + 20 * 0.1) / 30)


def test_calibration_bins_hold_equal_numbers_of_faces():
    first = np.linspace(0.51, 0.99, 150)
    labels = (np.arange(150) % 10 == 0).astype(int)  # one in ten wrong, in every bin
    confidence, accuracy, count = reliability(labels, np.stack([first, 1 - first], axis=1), (first < 0.5).astype(int))
    assert count.tolist() == [10] * 15
    assert accuracy == pytest.approx([0.9] * 15)
    assert confidence == pytest.approx(first.reshape(15, 10).mean(axis=1))


def test_the_calibration_error_by_chance_is_that_of_labels_drawn_from_the_probabilities():
    shares = np.tile([0.7, 0.3], (150, 1))  # one bin: the mean distance of a share of 150 faces from 0.7
    deviation = math.sqrt(0.7 * 0.3 / 150)
    chosen = np.zeros(150, dtype=int)
    assert ece_by_chance(shares, chosen) == pytest.approx(deviation * math.sqrt(2 / math.pi), rel=0.15)
    assert ece_by_chance(np.tile([1.0, 0.0], (150, 1)), chosen) == 0
    assert math.isnan(ece_by_chance(shares[:0], chosen[:0]))


@pytest.mark.parametrize("more", [False, True])
def test_evaluate_gives_plain_values_that_json_can_hold(more):
    result = evaluate(random_predictions(20, lost=20, more=more))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["all"]["found"] == 0
    assert result["all"]["landmarks"]["raw"]["nme_percent"] is None
    assert (result["all"]["sigma"] is None) == (result["all"]["angles"] is None) == (not more)


def test_evaluate_does_not_depend_on_the_order_of_the_rows():
    predictions = random_predictions(lost=3, more=True)
    shuffled = replace(predictions, frame=predictions.frame.sample(frac=1, random_state=0, ignore_index=True))
    assert_same(evaluate(predictions), evaluate(shuffled))


def assert_same(one: object, other: object) -> None:
    """Equal up to the rounding of sums taken in another order."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for item, another in zip(one, other, strict=True):
            assert_same(item, another)
    elif one is not None and not isinstance(one, str):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    else:
        assert one == other


def test_evaluate_slices_by_pose_group_and_glasses_with_gender():
    predictions = random_predictions(100)
    slices = evaluate(predictions)["slices"]
    assert list(slices) == ["group", "pose", "glasses, gender", "size"]
    assert list(slices["group"]) == ["a", "b"]
    assert list(slices["pose"]) == ["left_profile", "left", "frontal", "right", "right_profile"]
    rows = (predictions.labels("glasses") == 0) & (predictions.labels("gender") == 1)
    block = slices["glasses, gender"]["glasses, female"]
    expected = nme(predictions.points[rows], predictions.truth[rows], EYES).mean()
    assert block["faces"] == rows.sum()
    assert block["landmarks"]["raw"]["nme_percent"] == pytest.approx(100 * expected)


def test_evaluate_slices_by_the_size_of_the_face():
    predictions = random_predictions(4)
    eyes = ["true_0_x", "true_0_y", "true_1_x", "true_1_y"]
    for row, distance in enumerate((34.9, 35.0, 44.9, 45.0)):
        predictions.frame.loc[row, eyes] = [9.0, 9.0, 9.0 + distance, 9.0]
    sizes = evaluate(predictions)["slices"]["size"]
    faces = {part: block["faces"] for part, block in sizes.items()}
    assert faces == {"under 35 px": 1, "35 to 45 px": 2, "45 px and over": 1}


def test_evaluate_slices_by_strata_and_where_two_of_them_meet():
    count = 6 * CROSSED_FACES
    predictions = random_predictions(count, more=True)
    frame = predictions.frame
    slices = evaluate(predictions)["slices"]
    assert {part: block["faces"] for part, block in slices["age"].items()} == {"adult": count / 2, "child": count / 2}
    assert {part: block["faces"] for part, block in slices["place"].items()} == {"here": count / 3, "there": count / 3}
    assert list(slices["age, place"]) == ["adult, here", "adult, there", "child, here", "child, there"]
    rows = (frame["stratum_age"] == "child") & (frame["stratum_place"] == "there")
    expected = attribute_metrics(predictions.labels("gender")[rows], predictions.probabilities("gender")[rows])
    assert slices["age, place"]["child, there"]["attributes"]["gender"]["accuracy"] == expected["accuracy"]
    frame.loc[rows.idxmax(), "stratum_place"] = "here"  # one face fewer than is judged
    assert list(evaluate(predictions)["slices"]["age, place"]) == ["adult, here", "adult, there", "child, here"]


def test_evaluate_gives_the_faces_with_a_box_of_their_own_beside_all():
    predictions = random_predictions(10)
    assert evaluate(predictions)["own_box"] is None
    predictions.frame.loc[:3, ["x1", "y1", "x2", "y2"]] = FILLED_BOX
    result = evaluate(predictions)
    assert (result["all"]["faces"], result["own_box"]["faces"]) == (10, 6)
    assert result["own_box"]["landmarks"]["raw"]["nme_percent"] == pytest.approx(
        100 * nme(predictions.points[4:], predictions.truth[4:], EYES).mean()
    )


def test_a_model_without_points_is_not_judged_by_them():
    predictions = random_predictions(12)
    predictions.frame.loc[:, predictions.frame.columns.str.startswith("pred_")] = np.nan
    result = evaluate(predictions)["all"]
    assert result["found"] == 1
    assert result["landmarks"]["raw"]["faces"] == 0
    assert result["landmarks"]["raw"]["failure_percent"] is None
    assert result["attributes"]["smile"]["faces"] == 12
