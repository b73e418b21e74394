"""Faces at any angle: crops turned in training, boxes looked at from all sides, pictures turned to see what a model
knows."""

from __future__ import annotations

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from dotted_faces import FIVE, SIZE, augment, cache_of
from fake_network import BOX as FACE_BOX
from fake_network import SCALE, UPRIGHT, FakeSession, noise, spec

from facemtl.errors import BoxError
from facemtl.face import Face, Pose
from facemtl.geometry import points_to_crop, roll_of_five
from facemtl.predictor import Predictor
from facemtl.quality import FITTED
from facemtl.training.rolled import RolledPredictor

BOX = np.array([30.0, 20.0, 70.0, 60.0])  # around (50, 40)


class DotFinder:
    """Stands for a predictor: all five points lie on the middle of what is bright, and every head is rolled by 170."""

    schema, tasks = "mtfl5", ("landmarks", "angles")
    spec = SimpleNamespace(name="dots")

    def __init__(self, pose: Pose | None = None) -> None:
        self.pose = pose

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> list[Face]:
        self.image, self.boxes = image, np.asarray(boxes)
        ys, xs = np.mgrid[: image.shape[0], : image.shape[1]]
        bright = image[..., 0].astype(float)
        middle = np.array([(bright * xs).sum(), (bright * ys).sum()]) / bright.sum()
        return [Face(np.float32(box), 1.0, np.float32([middle] * 5), "mtfl5", pose=self.pose) for box in self.boxes]


def dotted_picture(x: int, y: int) -> np.ndarray:
    image = np.zeros((100, 120, 3), np.uint8)
    cv2.circle(image, (x, y), 2, (255, 255, 255), -1)
    return image


# A model is shown faces that are turned


def test_a_quarter_turn_clockwise_puts_what_is_above_the_middle_to_its_right():
    finder = DotFinder()
    RolledPredictor(finder, 90.0)(dotted_picture(50, 30), boxes=BOX[None])  # 10 pixels above the middle of the box
    size = finder.image.shape[0]
    ys, xs = np.nonzero(finder.image[..., 0] > 125)
    assert (xs.mean() - (size - 1) / 2, ys.mean() - (size - 1) / 2) == (pytest.approx(10), pytest.approx(0, abs=1e-9))


@pytest.mark.parametrize("roll", [0.0, 33.0, 90.0, -120.0, 180.0])
def test_what_is_found_is_turned_back(roll):
    for x, y in ((50, 40), (44, 52), (61, 30)):
        (face,) = RolledPredictor(DotFinder(), roll)(dotted_picture(x, y), boxes=BOX[None])
        np.testing.assert_allclose(face.landmarks, [[x, y]] * 5, atol=0.1)
        np.testing.assert_array_equal(face.box, np.float32(BOX))
        assert face.pose is None


def test_the_box_is_as_large_as_before_and_in_the_middle():
    finder = DotFinder()
    RolledPredictor(finder, 45.0)(dotted_picture(50, 40), boxes=BOX[None])
    assert finder.image.shape == (120, 120, 3)
    np.testing.assert_allclose(finder.boxes, [[39.5, 39.5, 79.5, 79.5]])


def test_the_roll_of_the_head_is_that_of_the_picture_as_it_was():
    turned = RolledPredictor(DotFinder(Pose(20.0, -5.0, 170.0)), 180.0)
    (face,) = turned(dotted_picture(50, 40), boxes=BOX[None])
    assert face.pose == Pose(20.0, -5.0, -10.0)
    (face,) = RolledPredictor(DotFinder(Pose(20.0, -5.0, -170.0)), 60.0)(dotted_picture(50, 40), boxes=BOX[None])
    assert face.pose == Pose(20.0, -5.0, pytest.approx(130.0))


def test_each_box_is_a_picture_of_its_own_and_bad_boxes_are_told(tmp_path):
    cv2.imwrite(str(tmp_path / "dot.png"), dotted_picture(50, 40))
    turned = RolledPredictor(DotFinder(), 10.0)
    faces = turned(str(tmp_path / "dot.png"), boxes=np.stack([BOX, BOX + 5]))
    assert [face.box.tolist() for face in faces] == [BOX.tolist(), (BOX + 5).tolist()]
    np.testing.assert_allclose([face.landmarks[0] for face in faces], [[50, 40]] * 2, atol=0.05)
    with pytest.raises(BoxError, match="no area"):
        turned(dotted_picture(50, 40), boxes=np.array([[5, 5, 5, 9]]))


# The predictor looks again from all sides where there hardly is a face


def network(*deviations: float, passes: int = 2) -> FakeSession:
    """A face that stands upright in every crop; relative deviations of its points, crop after crop."""
    left = list(deviations)
    return FakeSession(
        spec(passes=passes, uncertainty=True),
        landmarks=lambda crop: UPRIGHT,
        landmark_sigma=lambda crop: 5 * [left.pop(0) / SCALE],
    )


@pytest.fixture
def fitted(monkeypatch) -> None:
    monkeypatch.setitem(FITTED, "fake", (2.0, 0.04))  # a relative deviation of 0.04 is as likely a face as not


@pytest.mark.parametrize("best", range(4))
def test_of_all_sides_the_surest_counts(fitted, best):
    sides = [0.03] * 4
    sides[best] = 0.02
    session = network(0.08, *sides)
    (face,) = Predictor(session)(noise(), FACE_BOX)
    assert [len(crops) for crops, _ in session.calls] == [1, 1, 4]
    assert face.quality == pytest.approx(0.8, abs=1e-4)
    assert math.remainder(math.degrees(roll_of_five(face.landmarks)) - 90 * best, 360) == pytest.approx(0, abs=0.01)
    np.testing.assert_array_equal(session.calls[2][0][0], session.calls[0][0][0])  # the box as it is


def test_a_face_is_taken_to_stand_upright_where_no_side_shows_one(fitted):
    session = network(0.05, 0.08, 0.06, 0.05, 0.07)
    (face,) = Predictor(session)(noise(), FACE_BOX)
    assert face.quality == pytest.approx(0.2, abs=1e-4)
    assert roll_of_five(face.landmarks) == pytest.approx(0, abs=1e-4)


def test_only_doubtful_faces_are_looked_at_again(fitted):
    session = network(0.02, 0.08, 0.039, *[0.02] * 4)
    faces = Predictor(session)(noise(), [FACE_BOX[0], [40.0, 10, 100, 70], [20.0, 30, 80, 90]])
    assert [len(crops) for crops, _ in session.calls] == [3, 3, 4]
    assert [face.quality for face in faces] == pytest.approx([0.8, 0.8, 1600 / (1600 + 39**2)], abs=1e-4)


def test_no_side_is_looked_at_by_models_of_one_pass_and_models_without_quality(fitted, monkeypatch):
    assert Predictor(network(0.08, passes=1))(noise(), FACE_BOX)[0].quality == pytest.approx(0.2, abs=1e-4)
    monkeypatch.delitem(FITTED, "fake")
    session = network(0.08)
    assert Predictor(session)(noise(), FACE_BOX)[0].quality is None
    assert len(session.calls) == 2


# Training


def rolls_of(count: int, **options) -> np.ndarray:
    """Degrees, -180 to 180, of the faces in so many crops of upright ones."""
    _, points, _ = augment(cache_of(np.repeat(FIVE[None], count, axis=0)), np.arange(count), **options)
    return np.degrees([roll_of_five(five) for five in points_to_crop(points, SIZE)])


def test_rolled_crops_lie_at_all_angles_alike():
    counts, _ = np.histogram(rolls_of(1200, rolled=1.0), bins=12, range=(-180, 180))
    assert counts.sum() == 1200
    assert (np.abs(counts - 100) < 4 * math.sqrt(100)).all()


@pytest.mark.parametrize("refined", [0.0, 1.0])
def test_the_share_of_rolled_crops_and_the_rest_as_they_were(refined):
    far = lambda rolled: (np.abs(rolls_of(600, refined=refined, rolled=rolled)) > 60).mean()  # noqa: E731
    assert far(0.0) == 0
    assert far(0.3) == pytest.approx(0.3 * 2 / 3, abs=0.06)
    np.testing.assert_array_equal(rolls_of(50, rolled=0.0), rolls_of(50))


def test_dots_stay_under_the_points_of_a_rolled_crop():
    images, points, _ = augment(cache_of(FIVE[None]), 40, refined=1.0, rolled=1.0, mirror=0.0)
    for image, five in zip(images, points, strict=True):
        brightest = np.array(np.unravel_index(image[0].argmax(), image[0].shape))[::-1]
        assert np.abs(brightest - points_to_crop(five[4], SIZE)).max() < 1
