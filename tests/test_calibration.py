from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fake_network import spec
from random_predictions import random_predictions
from scipy.special import softmax
from scripts import run_script
from tiny_training import tiny_recipe, tiny_set

from facemtl.models.files import save_model
from facemtl.training.calibration import (
    HALVINGS,
    LEAST_ANSWERED,
    TEMPERATURES,
    Calibration,
    check,
    chosen_classes,
    crossed,
    errors_of_halves,
    fit,
    fit_prior,
    fit_sigma_scale,
    fit_temperature,
    fit_threshold,
    recalibrated,
)
from facemtl.training.metrics import attribute_metrics
from facemtl.training.predictions import Predictions
from facemtl.training.reliability import ece_by_chance


def two_classes(first: np.ndarray) -> np.ndarray:
    return np.stack([first, 1 - first], axis=1)


def overconfident(count: int = 2000, times: float = 2.0) -> Predictions:
    """Labels drawn from the probabilities, whose logits are then multiplied: the right temperature is ``times``."""
    predictions = random_predictions(count, tasks=("smile", "pose"), more=True)
    rng = np.random.default_rng(1)
    for task in predictions.tasks:
        shares = predictions.probabilities(task)
        labels = (rng.uniform(size=(count, 1)) > shares.cumsum(axis=1)).sum(axis=1)
        predictions.frame[f"{task}_true"] = np.minimum(labels, shares.shape[1] - 1)
        columns = [f"{task}_p{j}" for j in range(shares.shape[1])]
        predictions.frame[columns] = softmax(times * np.log(shares), axis=1)
    return predictions


def test_the_temperature_of_faces_that_are_all_equally_sure_by_hand():
    # Odds of 9 to 1, and three of four are right, odds of 3 to 1: log 9 / log 3 = 2.
    labels = np.array([0, 0, 0, 1])
    assert fit_temperature(labels, two_classes(np.full(4, 0.9))) == pytest.approx(2, rel=1e-4)


def test_the_temperature_of_faces_that_are_all_right_ends_at_a_bound():
    lowest = fit_temperature(np.zeros(4, dtype=int), two_classes(np.full(4, 0.9)))
    assert TEMPERATURES[0] <= lowest < 2 * TEMPERATURES[0]


@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_factor_on_the_logits(times):
    predictions = overconfident(times=times)
    fitted = fit(predictions)
    assert fitted.temperatures == {"smile": pytest.approx(times, rel=0.15), "pose": pytest.approx(times, rel=0.15)}


def groups(*counts: tuple[float, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of (confidence, faces, right ones)."""
    labels = np.concatenate([np.repeat([0, 1], [right, count - right]) for _, count, right in counts])
    shares = np.concatenate([np.full(count, confidence) for confidence, count, _ in counts])
    return labels, two_classes(shares), np.zeros(len(shares), dtype=int)


def test_the_threshold_is_the_smallest_confidence_that_reaches_the_target():
    faces = groups((0.9, 30, 30), (0.7, 30, 24), (0.6, 30, 21))  # accuracy so far: 100, 90, 83.3 %
    assert fit_threshold(*faces, target=0.95) == pytest.approx((0.9 + 0.7) / 2)
    assert fit_threshold(*faces, target=0.9) == pytest.approx((0.7 + 0.6) / 2)
    assert fit_threshold(*faces, target=0.8) == 0


def test_the_threshold_may_lie_under_a_group_that_misses_the_target():
    faces = groups((0.9, 30, 30), (0.7, 30, 24), (0.6, 60, 60), (0.55, 30, 15))  # 100, 90, 95, 86 %
    assert fit_threshold(*faces, target=0.95) == pytest.approx((0.6 + 0.55) / 2)


def test_where_the_target_is_out_of_reach_the_threshold_is_the_best_there_is():
    faces = groups((0.9, 30, 25), (0.7, 30, 30), (0.6, 30, 15))  # 83, 92, 78 %
    assert fit_threshold(*faces, target=0.95) == pytest.approx((0.7 + 0.6) / 2)


def test_a_handful_of_faces_makes_no_threshold():
    few = LEAST_ANSWERED - 1
    faces = groups((0.9, few, few), (0.7, 31, 1))
    assert fit_threshold(*faces, target=0.95) == 0  # 29 lucky ones are not enough, and nothing else beats all of them
    assert fit_threshold(*groups((0.9, 3, 3), (0.8, 1, 0)), target=0.95) == 0


def test_the_scale_of_sigma_gives_residuals_a_root_mean_square_of_one():
    errors = np.array([3.0, -3.0, 5.0, -5.0])
    points = np.stack([errors, errors], axis=1)[:, None]
    sigma = np.full((4, 1), 2.0)
    scale = fit_sigma_scale(points, points * 0, sigma)
    assert scale == pytest.approx(np.sqrt(17) / 2)
    assert np.mean((errors / (2 * scale)) ** 2) == pytest.approx(1)
    points[0] = np.nan
    assert fit_sigma_scale(points, points * 0, sigma) == pytest.approx(np.sqrt(59 / 3) / 2)
    assert fit_sigma_scale(points * np.nan, points, sigma) == 1


def test_recalibration_divides_logits_and_multiplies_sigma_and_can_be_undone():
    predictions = random_predictions(9, tasks=("smile", "pose"), lost=1, more=True)
    hot = Calibration({"smile": 2.0}, {}, 3.0)
    changed = recalibrated(predictions, hot)
    np.testing.assert_allclose(changed.sigma, 3 * predictions.sigma)
    np.testing.assert_allclose(changed.probabilities("pose"), predictions.probabilities("pose"))
    odds, before = (np.divide(*p.probabilities("smile").T) for p in (changed, predictions))
    np.testing.assert_allclose(odds, np.sqrt(before))
    assert np.isnan(changed.probabilities("smile")[0]).all()
    pd.testing.assert_frame_equal(recalibrated(changed, Calibration(), hot).frame, predictions.frame)
    sure = random_predictions(1, tasks=("smile",))
    sure.frame[["smile_p0", "smile_p1"]] = [0.0, 1.0]
    np.testing.assert_allclose(recalibrated(sure, hot).probabilities("smile"), [[0, 1]], atol=1e-100)


def test_a_calibration_travels_in_the_description_of_a_model():
    calibration = Calibration({"smile": 1.5}, {"smile": 0.8}, 2.0, {"smile": (0.5, -0.5)}, {"smile": (0.9, 0.1)})
    described = calibration.put_into(spec(("landmarks", "smile")))
    assert (described.temperatures, described.thresholds, described.sigma_scale) == ({"smile": 1.5}, {"smile": 0.8}, 2)
    assert described.offsets == {"smile": (0.5, -0.5)}
    assert described.priors == {"smile": (0.9, 0.1)}
    assert Calibration.of(described) == calibration


def test_crossed_calibration_gives_no_face_a_say_in_its_own():
    predictions = overconfident(400)
    halves = predictions.halves
    before, _ = crossed(predictions)
    predictions.frame.loc[halves, "pose_true"] = 0
    predictions.frame.loc[halves, [f"pred_{i}_{axis}" for i in range(5) for axis in "xy"]] += 9.0
    after, fitted = crossed(predictions)
    np.testing.assert_array_equal(before.probabilities("pose")[halves], after.probabilities("pose")[halves])
    np.testing.assert_array_equal(before.sigma[halves], after.sigma[halves])
    assert not np.allclose(before.probabilities("pose")[~halves], after.probabilities("pose")[~halves])
    np.testing.assert_allclose(after.sigma[halves], predictions.sigma[halves] * fitted[1].sigma_scale)
    assert after.frame["image"].tolist() == predictions.frame["image"].tolist()


def test_check_measures_each_half_with_what_the_other_taught():
    predictions = overconfident()
    result = check(predictions, target=0.8)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["attributes"]) == ["smile", "pose"]
    after, fitted = crossed(predictions, target=0.8)
    for task, figures in result["attributes"].items():
        assert max(figures["ece_after"]) < 0.06 < min(figures["ece_before"])
        mean, low, high = figures["ece_any_half"]
        assert low < mean < high < 0.06
        assert figures["ece"] == attribute_metrics(after.labels(task), after.probabilities(task))["ece"]
        assert (
            figures["answered_accuracy"] > attribute_metrics(after.labels(task), after.probabilities(task))["accuracy"]
        )
        assert 0 < figures["coverage"] < 1
    assert result["attributes"]["smile"]["answered_accuracy"] == pytest.approx(0.8, abs=0.03)
    # Sigma is right as it is; see random_predictions.
    assert [c.sigma_scale for c in fitted] == pytest.approx([1, 1], abs=0.03)
    for key, share in (("within_1_before", 0.683), ("within_1_after", 0.683), ("rms_z_after", 1.0)):
        assert result["sigma"][key] == pytest.approx([share] * 2, abs=0.03)


def test_errors_of_random_halves_are_those_of_chance_where_probabilities_are_right():
    rng = np.random.default_rng(1)
    shares = softmax(rng.normal(size=(600, 2)), axis=1)
    labels = (rng.uniform(size=600) < shares[:, 1]).astype(np.int64)
    errors = errors_of_halves(labels, shares)
    assert errors.shape == (2 * HALVINGS,)
    assert errors.mean() == pytest.approx(ece_by_chance(shares[:300], shares[:300].argmax(axis=1)), rel=0.2)
    assert errors.max() > 1.5 * errors.min()
    np.testing.assert_array_equal(errors_of_halves(labels, shares), errors)
    # Fitted on the other half: of probabilities that believe too much nothing is left of that.
    np.testing.assert_allclose(errors_of_halves(labels, softmax(3 * np.log(shares), axis=1)), errors, atol=1e-3)


def test_what_has_no_labels_is_not_calibrated():
    predictions = random_predictions(40, tasks=("smile", "pose"))
    predictions.frame["smile_true"] = -1
    assert list(fit(predictions).temperatures) == ["pose"]
    assert fit(predictions).sigma_scale == 1
    result = check(predictions)
    assert list(result["attributes"]) == ["pose"]
    assert result["sigma"] is None


def test_a_label_is_the_likeliest_class_relative_to_its_prior():
    shares = np.array([[0.6, 0.4], [0.9, 0.1], [0.79, 0.21], [np.nan, np.nan]])
    assert chosen_classes(shares, None).tolist() == [0, 0, 0, -1]
    assert chosen_classes(shares, [0.8, 0.2]).tolist() == [1, 0, 1, -1]
    faces = random_predictions(4, tasks=("smile",))
    faces.frame[["smile_p0", "smile_p1"]] = shares
    relative = recalibrated(faces, Calibration(priors={"smile": (0.8, 0.2)}))
    np.testing.assert_allclose(relative.probabilities("smile"), shares)  # which stay what they are
    assert relative.chosen("smile").tolist() == [1, 0, 1, -1]
    assert recalibrated(relative, Calibration()).chosen("smile").tolist() == [0, 0, 0, -1]


@pytest.mark.parametrize("power", [-0.5, 0.0, 0.7])
def test_what_a_balanced_training_believes_too_much_is_undone(power):
    prior = np.array([0.9, 0.07, 0.03])
    rng = np.random.default_rng(0)
    shares = softmax(rng.normal(size=(6000, 3)) * 2 + np.log(prior), axis=1)
    labels = np.minimum((rng.uniform(size=(6000, 1)) > shares.cumsum(axis=1)).sum(axis=1), 2)
    believed = softmax(2 * (np.log(shares) - power * np.log(prior)), axis=1)
    temperature, offsets = fit_prior(labels, believed, prior)
    assert temperature == pytest.approx(2, rel=0.1)
    common = np.log(prior) - np.log(prior).mean()
    np.testing.assert_allclose(offsets, 2 * power * common, atol=0.2)
    assert sum(offsets) == pytest.approx(0)


def test_offsets_act_before_the_temperature_and_can_be_undone():
    faces = random_predictions(9, tasks=("smile", "pose"), lost=1)
    moved = Calibration({"smile": 2.0}, offsets={"smile": (1.0, -1.0)})
    changed = recalibrated(faces, moved)
    odds, before = (np.divide(*p.probabilities("smile").T) for p in (changed, faces))
    np.testing.assert_allclose(odds, np.exp((np.log(before) + 2) / 2))
    pd.testing.assert_frame_equal(recalibrated(changed, Calibration(), moved).frame, faces.frame)
    np.testing.assert_allclose(changed.probabilities("pose"), faces.probabilities("pose"))


def test_a_prior_makes_other_choices_and_is_measured_by_them():
    faces = overconfident()
    prior = [0.8, 0.2]
    fitted = fit(faces, priors={"smile": prior})
    assert fitted.priors == {"smile": (0.8, 0.2)}
    assert list(fitted.offsets) == ["smile"]
    after, halves = crossed(faces, priors={"smile": prior})
    assert [half.priors for half in halves] == [fitted.priors] * 2
    labels, shares, chosen = after.labels("smile"), after.probabilities("smile"), after.chosen("smile")
    assert (chosen != shares.argmax(axis=1)).any()
    assert (chosen == chosen_classes(shares, prior)).all()
    figures = check(faces, priors={"smile": prior})["attributes"]
    assert figures["smile"]["ece"] == attribute_metrics(labels, shares, chosen)["ece"]
    assert max(figures["smile"]["ece_after"]) < 0.06  # the chosen class's probability means what it says
    assert figures["pose"] == check(faces)["attributes"]["pose"]


def test_a_picture_that_cannot_be_written_is_one_sentence_and_the_model_stays(tmp_path, monkeypatch, capsys):
    tiny_set(tmp_path / "mtfl_layout")
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path))
    recipe = tiny_recipe(tasks=("landmarks", "smile"), passes=1, flip=False)
    save_model(tmp_path / "run" / "model.safetensors", recipe.create_model(), recipe.spec(40, 1))
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    figure = tmp_path / "run" / "model.safetensors" / "figure.png"
    options = ("--data", "mtfl_layout", "--boxes", "truth", "--figure", figure)
    assert run_script("tools/calibrate.py", monkeypatch, tmp_path / "run", *options) == 2
    assert capsys.readouterr().err == f"the folder {figure.parent} cannot be made: File exists\n"
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
