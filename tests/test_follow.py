"""Predictor.follow: one pass through crops laid by older points, and the quality of what is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fake_network import BOX, SCALE, UPRIGHT, FakeDetector, FakeSession, noise, rich_session, spec

from facemtl.errors import BoxError, ImageError
from facemtl.geometry import box_from_five, roll_of_five
from facemtl.predictor import Predictor
from facemtl.quality import FITTED

RELATIVE = 0.02  # sigma over the side of the face box, of the networks here
SIGMA = RELATIVE / SCALE


def network(*answers: np.ndarray, passes: int = 2, name: str = "fake") -> FakeSession:
    """Gives these points in network coordinates, one after the other, then the last for ever."""
    left = list(answers)
    return FakeSession(
        spec(passes=passes, crop_scale=SCALE, uncertainty=True, name=name),
        landmarks=lambda crop: left.pop(0) if len(left) > 1 else left[0],
        landmark_sigma=lambda crop: 5 * [SIGMA],
    )


def test_a_face_that_is_where_it_was_takes_one_pass() -> None:
    session = network(UPRIGHT)
    (face,) = Predictor(session).follow(noise(), np.array(BOX), [0.3])
    assert len(session.calls) == 1
    assert face.box.tolist() == BOX[0]
    assert face.score == 1.0
    assert box_from_five(face.landmarks) == pytest.approx(BOX[0], abs=1e-3)
    assert roll_of_five(face.landmarks) == pytest.approx(0.3 + roll_of_five(UPRIGHT), abs=1e-4)
    assert face.landmark_sigma == pytest.approx(5 * [RELATIVE * 60])


@pytest.mark.parametrize(
    ("moved", "passes"),
    [
        (UPRIGHT + np.array([0.07, 0]), 1),
        (UPRIGHT + np.array([0.09, 0]), 2),  # over a twelfth of the crop's side
        (UPRIGHT + np.array([0, -0.09]), 2),
        (UPRIGHT * math.exp(0.1), 1),
        (UPRIGHT * math.exp(-0.14), 2),
    ],
    ids=["near", "to the right", "up", "a little larger", "smaller"],
)
def test_only_a_crop_that_was_off_is_laid_again(moved: np.ndarray, passes: int) -> None:
    session = network(moved, UPRIGHT)
    (face,) = Predictor(session).follow(noise(), np.array(BOX), [0.0])
    assert len(session.calls) == passes
    x, y = (moved.mean(axis=0) * SCALE * 60).tolist()  # the middle of the points: that of the second crop, if any
    assert (face.landmarks.mean(axis=0) - [60, 50]).tolist() == pytest.approx([x, y], abs=0.01)


def test_of_several_faces_only_those_that_were_off_are_looked_at_again() -> None:
    session = network(UPRIGHT, UPRIGHT + 0.2, UPRIGHT)
    boxes = np.array([BOX[0], [10, 10, 50, 50], [80, 40, 120, 80]], dtype=float)
    faces = Predictor(session).follow(noise(), boxes, [0.0, 0.0, 0.0])
    assert [len(crops) for crops, _ in session.calls] == [3, 1]
    assert [face.box.tolist() for face in faces] == boxes.tolist()


def test_it_is_the_later_pass_of_the_plain_call() -> None:
    """Two passes in a box, or the second alone in the box and roll of the first one's points: the same crop."""
    first = UPRIGHT @ np.array([[0.96, 0.28], [-0.28, 0.96]]) * 0.9 + [0.05, -0.03]
    plain, following = network(first, UPRIGHT), network(UPRIGHT)
    (whole,) = Predictor(plain)(noise(), BOX)
    points = np.array([60 - 0.5, 50 - 0.5]) + 0.5 + first * SCALE * 60
    (later,) = Predictor(following).follow(noise(), box_from_five(points)[None], [roll_of_five(points)])
    assert (plain.calls[1][0] == following.calls[0][0]).mean() > 0.99
    assert later.landmarks == pytest.approx(whole.landmarks, abs=0.01)


def test_a_model_of_one_pass_gets_upright_crops_and_no_second() -> None:
    session = network(UPRIGHT + 0.3, passes=1)
    (face,) = Predictor(session).follow(noise(), np.array(BOX), [0.5])
    assert len(session.calls) == 1
    assert roll_of_five(face.landmarks) == pytest.approx(roll_of_five(UPRIGHT), abs=1e-4)


def test_no_boxes_no_faces_and_bad_input_is_an_error() -> None:
    predict = Predictor(network(UPRIGHT))
    assert predict.follow(noise(), np.zeros((0, 4)), []) == []
    with pytest.raises(BoxError):
        predict.follow(noise(), np.array([[0, 0, 0, 5.0]]), [0.0])
    with pytest.raises(ImageError):
        predict.follow(np.zeros((4, 4)), np.array(BOX), [0.0])


# --- quality --------------------------------------------------------------------------------------------------------


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FITTED, "fake", (2.0, 0.04))


def test_quality_is_logistic_in_the_logarithm_of_sigma_over_side(fitted: None) -> None:
    """Log-odds 2 * log(0.04 / 0.02): odds of 4 to 1."""
    predict = Predictor(network(UPRIGHT), detector=FakeDetector(BOX, [0.9]))
    assert predict(noise())[0].quality == pytest.approx(0.8, abs=1e-4)
    assert predict(noise(), BOX)[0].quality == pytest.approx(0.8, abs=1e-4)
    assert predict.follow(noise(), np.array(BOX), [0.0])[0].quality == pytest.approx(0.8, abs=1e-4)


def test_a_model_that_was_not_fitted_has_none() -> None:
    assert Predictor(network(UPRIGHT))(noise(), BOX)[0].quality is None


def test_points_all_in_one_place_are_no_face(fitted: None) -> None:
    assert Predictor(network(np.zeros((5, 2))))(noise(), BOX)[0].quality == 0.0


def test_quality_is_of_the_main_points_whatever_else_is_asked_for(fitted: None) -> None:
    qualities = {
        Predictor(rich_session(), schema=schema, tasks=tasks)(noise(), BOX)[0].quality
        for schema, tasks in ((None, None), (None, ["smile"]), ("ibug68", None), ("ibug68", ["angles"]))
    }
    assert len(qualities) == 1
    assert None not in qualities
    (other,) = Predictor(rich_session(), schema="ibug68", tasks=["angles"])(noise(), BOX)
    assert (len(other.landmarks), other.landmark_sigma, dict(other.attributes)) == (68, None, {})
