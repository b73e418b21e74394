"""How predicted standard deviations and head angles are judged."""

from __future__ import annotations

import numpy as np
import pytest
from random_predictions import random_predictions

from facemtl.training.metrics import angle_metrics, rank_correlation, sigma_metrics

EYES = (0, 1)
FACE = np.array([[0.0, 0.0], [10.0, 0.0], [5.0, 6.0], [1.0, 10.0], [9.0, 10.0]])


def faces(count: int) -> np.ndarray:
    return np.tile(FACE, (count, 1, 1))


def test_sigma_metrics_by_hand():
    points, sigma = faces(3), np.full((3, 5), 1.0)
    points[0] += [0.5, 0.0]
    points[1] += [0.0, 2.0]
    points[2] += [3.0, 4.0]
    sigma[1], sigma[2] = 2.0, 4.0
    result = sigma_metrics(points, faces(3), faces(3), sigma, EYES)
    assert result["faces"] == 3
    assert result["mean_percent"] == pytest.approx(100 * (1 + 2 + 4) / 3 / 10)
    raw = result["raw"]
    assert raw["rank_correlation"] == raw["rank_correlation_px"] == pytest.approx(1)
    assert raw["point_rank_correlation"] == pytest.approx([1] * 5)
    # Standardised: 0.5 and 0; 0 and 1; 0.75 and 1. All are at most 1.
    assert raw["within_1"] == 1
    assert raw["rms_z"] == pytest.approx(np.sqrt((0.5**2 + 1 + 0.75**2 + 1) / 6))
    assert np.isnan(result["corrected"]["rank_correlation"])  # points without an error have no order
    assert result["corrected"]["rms_z"] == 0


def test_the_share_within_one_sigma_is_that_of_a_normal_distribution():
    predictions = random_predictions(400, more=True)
    points, truth = predictions.points, predictions.truth
    raw = sigma_metrics(points, points, truth, predictions.sigma, EYES)["raw"]
    assert raw["within_1"] == pytest.approx(0.683, abs=0.02)
    assert raw["rms_z"] == pytest.approx(1, abs=0.03)
    halved = sigma_metrics(points, points, truth, predictions.sigma / 2, EYES)["raw"]
    assert halved["within_1"] == pytest.approx(0.383, abs=0.02)
    assert halved["rms_z"] == pytest.approx(2 * raw["rms_z"])
    assert halved["rank_correlation"] == pytest.approx(raw["rank_correlation"])


def test_sigma_is_ranked_against_the_error_over_the_inter_ocular_distance_and_in_pixels():
    scales = np.array([1.0, 10.0, 100.0])
    truth = faces(3) * scales[:, None, None]
    points = truth + np.array([1.0, 0.0])  # the same error in pixels, and the greatest NME in the smallest face
    sigma = np.tile(np.array([[1.0], [2.0], [3.0]]), 5)
    raw = sigma_metrics(points, points, truth, sigma, EYES)["raw"]
    assert raw["rank_correlation"] == pytest.approx(1)
    assert np.isnan(raw["rank_correlation_px"])


def test_sigma_metrics_leave_out_lost_faces_and_unlabelled_points():
    points, truth, sigma = faces(4) + 1.0, faces(4), np.ones((4, 5))
    points[0], sigma[0] = np.nan, np.nan
    truth[1] = np.nan
    truth[2, 4], sigma[2, 4] = np.nan, 100.0
    result = sigma_metrics(points, points, truth, sigma, EYES)
    assert result["faces"] == 2
    assert result["raw"]["within_1"] == 1
    assert np.isnan(result["raw"]["rank_correlation"])  # the sigma of the unlabelled point orders nothing
    nothing = sigma_metrics(points[:1], points[:1], truth[:1], sigma[:1], EYES)
    assert nothing["faces"] == 0
    assert np.isnan(list(nothing["raw"].pop("point_rank_correlation"))).all()
    assert np.isnan([nothing["mean_percent"], *nothing["raw"].values()]).all()


def test_rank_correlation_by_hand():
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation(np.array([1, 2, np.nan]), np.array([5, 0, 1])) == pytest.approx(-1)
    assert np.isnan(rank_correlation(np.array([1.0, 1.0]), np.array([1.0, 2.0])))
    assert np.isnan(rank_correlation(np.zeros(0), np.zeros(0)))


def test_angle_metrics_by_hand():
    truth = np.array([[-10.0, 0, np.nan], [0, 4, np.nan], [20, 8, np.nan]])
    angles = np.array([[-8.0, 8, 1], [1, 4, 1], [23, 0, 1]])
    yaw, pitch, roll = angle_metrics(angles, truth).values()
    assert yaw == {
        "faces": 3,
        "mae": pytest.approx(2),
        "constant_mae": pytest.approx(10),  # the median is 0
        "ratio": pytest.approx(0.2),
        "bias": pytest.approx(2),
        "correlation": pytest.approx(np.corrcoef([-8, 1, 23], [-10, 0, 20])[0, 1]),
    }
    assert pitch["correlation"] == pytest.approx(-1)  # predicted down where the head looks up
    assert (pitch["mae"], pitch["bias"], pitch["ratio"]) == (pytest.approx(16 / 3), 0, pytest.approx(2))
    assert roll.pop("faces") == 0
    assert np.isnan(list(roll.values())).all()
