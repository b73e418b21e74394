"""From a picture to faces, with networks whose answers are known."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from fake_network import (
    BOX,
    SIZE,
    TASKS,
    UPRIGHT,
    FakeDetector,
    FakeSession,
    dot,
    full_session,
    mean_and_corner,
    noise,
    rolled,
    spec,
)

from facemtl.detect import Detections
from facemtl.errors import BoxError, ImageError
from facemtl.geometry import box_from_five, crop_matrix, roll_of_five, warp_crop
from facemtl.image import write_image
from facemtl.landmarks import SCHEMAS
from facemtl.predictor import BATCH, Predictor

# --- where the points are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True], ids=["", "flip"])
@pytest.mark.parametrize("degrees", [None, 0, 35, -140], ids=["one pass", "upright", "rolled", "nearly upside down"])
@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((110, 60, 150, 100), (127.3, 81.6)),
        ((60, 10, 260, 190), (171.8, 88.25)),  # coarser than the crop: averaged over blocks of pixels
        ((100.5, 80.25, 124, 104), (113.1, 91.7)),  # finer than the crop
        ((-30, 130, 50, 220), (22.4, 165.5)),  # past the left and the lower border
        ((240, -40, 360, 80), (285.0, 33.3)),  # past the right and the upper border
        ((100, 50, 160, 90), (131.2, 71.9)),  # not square
    ],
)
def test_a_point_that_the_network_sees_comes_back_to_where_it_is_in_the_image(box, place, degrees, flip, channels):
    side = (box[2] - box[0] + box[3] - box[1]) / 2
    ys, xs = np.mgrid[:200, :320]
    spot = np.exp(-((xs - place[0]) ** 2 + (ys - place[1]) ** 2) / (2 * (0.05 * side) ** 2))
    image = np.repeat(np.uint8(np.round(250 * spot))[..., None], 3, axis=2)
    first = [] if degrees is None else [rolled(degrees)]  # only the last pass looks at the mirrored crop too
    answers = iter(first)

    session = FakeSession(
        spec(channels=channels, passes=1 + bool(first), flip=flip), landmarks=lambda crop: next(answers, dot(crop))
    )
    (face,) = Predictor(session)(image, [box])

    assert np.abs(face.landmarks - place).max() < 0.1
    assert face.landmarks.shape == (5, 2)
    assert face.landmarks.dtype == np.float32


def test_network_coordinates_in_literals():
    # The middle of the crop is the middle of the box; half a crop from it is the crop's edge, 0.6 sides of the box.
    corners = np.array([[0, 0], [-0.5, -0.5], [0.5, 0.5], [0.25, 0], [0, 0.25]])
    (face,) = Predictor(FakeSession(spec(), landmarks=lambda crop: corners))(noise(), BOX)
    np.testing.assert_allclose(face.landmarks, [[60, 50], [24, 14], [96, 86], [78, 50], [60, 68]], atol=1e-5)


def test_the_crop_shows_the_box_in_the_colours_and_order_that_the_model_wants():
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:60, 40:60] = (200, 100, 50)  # blue green red
    for channels, expected in ((3, [200, 100, 50]), (1, [round(0.114 * 200 + 0.587 * 100 + 0.299 * 50)])):
        session = FakeSession(spec(channels=channels, crop_scale=1.0), landmarks=lambda crop: UPRIGHT)
        Predictor(session)(image, [[29.5, 29.5, 69.5, 69.5]])  # 40 pixels, as many as the crop has
        (crops, _), *_ = session.calls
        assert crops[0, :, 20, 20].tolist() == expected
        inside = crops[0, 0] > 0
        assert (np.flatnonzero(inside.any(axis=0))[[0, -1]].tolist()) == [10, 29]
        assert (np.flatnonzero(inside.any(axis=1))[[0, -1]].tolist()) == [10, 29]


def test_a_box_outside_the_picture_gives_black_crops_and_finite_points():
    session = FakeSession(spec(passes=2, flip=True), landmarks=mean_and_corner)
    (face,) = Predictor(session)(noise(), [[5000, 5000, 5100, 5100]])
    assert all(not crops.any() for crops, _ in session.calls)
    assert np.isfinite(face.landmarks).all()


# --- passes and flips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 25, -60])
def test_the_second_crop_is_laid_upright_through_the_first_points(degrees):
    image = noise()
    answers = iter([rolled(degrees), UPRIGHT])
    session = FakeSession(spec(passes=2), landmarks=lambda crop: next(answers))
    (face,) = Predictor(session)(image, BOX)

    first = [60, 50] + 72 * rolled(degrees)  # the crop's side is 1.2 times 60 pixels
    assert roll_of_five(first) == pytest.approx(math.radians(degrees))
    matrix = crop_matrix(box_from_five(first), SIZE, 1.2, math.radians(degrees))
    for (crops, _), laid in zip(session.calls, (crop_matrix(BOX[0], SIZE, 1.2), matrix), strict=True):
        shown = cv2.cvtColor(warp_crop(image, laid, SIZE), cv2.COLOR_BGR2GRAY)
        assert np.abs(crops[0, 0].astype(int) - shown).max() <= 1
    # A head that is upright in the second crop is rolled in the image, about the middle of the first points.
    assert roll_of_five(face.landmarks) == pytest.approx(math.radians(degrees), abs=1e-4)
    np.testing.assert_allclose(face.box, BOX[0])  # the box is still the one that was given


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_attributes_and_auxiliary_heads_wait_for_the_last_pass(passes):
    session = full_session(passes=passes, flip=True)
    Predictor(session)(noise(), BOX)
    assert session.located == [False] * passes
    assert [tasks for _, tasks in session.calls] == [("landmarks",)] * (passes - 1) + [session.spec.tasks]


@pytest.mark.parametrize(("passes", "located"), [(1, [False]), (2, [True, False]), (3, [True, False, False])])
def test_a_locator_has_the_first_pass_of_several_and_a_crop_of_its_own_scale(passes, located):
    locator = spec(crop_scale=1.6, input_size=SIZE // 2)
    session = FakeSession(spec(passes=passes, locator=locator), landmarks=lambda crop: UPRIGHT)
    image = noise()
    Predictor(session)(image, BOX)
    assert session.located == located
    through = crop_matrix(box_from_five([60, 50] + 60 * 1.6 * UPRIGHT), SIZE, 1.2)
    laid = [crop_matrix(BOX[0], SIZE, 1.6), through] if passes > 1 else [crop_matrix(BOX[0], SIZE, 1.2)]
    for (crops, _), matrix in zip(session.calls, laid, strict=False):
        shown = cv2.cvtColor(warp_crop(image, matrix, SIZE), cv2.COLOR_BGR2GRAY)
        assert np.abs(crops[0, 0].astype(int) - shown).max() <= 1


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_last_crop_that_was_off_is_laid_once_more_where_there_are_several(passes):
    """Of three faces the second is found a third of a crop away in the last pass: as after a box far off."""
    far, near = (UPRIGHT + np.array([x, 0]) for x in (0.3, 0.01))
    answers = iter([*[UPRIGHT] * 3 * (passes - 1), UPRIGHT, far, UPRIGHT, near])
    session = FakeSession(spec(passes=passes), landmarks=lambda crop: next(answers))
    boxes = [[30.0, 20, 90, 80], [40.0, 10, 100, 70], [20.0, 30, 80, 90]]
    faces = Predictor(session)(noise(), boxes)
    assert [len(crops) for crops, _ in session.calls] == ([3] if passes == 1 else [3] * passes + [1])
    middles = [face.landmarks.mean(axis=0).tolist() for face in faces]
    moved = 70 + 72 * (0.3 if passes == 1 else 0.31)
    assert middles == [pytest.approx(m, abs=0.01) for m in ([60, 50], [moved, 40], [50, 60])]


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.1, -0.2)])
def test_first_points_all_in_one_place_leave_the_crop_where_it_was(place):
    session = FakeSession(spec(passes=2), landmarks=lambda crop: np.tile(place, (5, 1)))
    (face,) = Predictor(session)(noise(), [[30, 20, 90, 90]])
    np.testing.assert_array_equal(session.calls[0][0], session.calls[1][0])
    assert np.isfinite(face.landmarks).all()


def test_flip_averages_the_picture_and_its_mirror():
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :60] = 200  # the left half of the crop is bright, in the mirror the right one
    plain = np.array([[-0.2, -0.1], [0.2, -0.1], [0.04, 0.0], [-0.1, 0.2], [0.1, 0.2]])
    mirror = np.array([[-0.1, -0.2], [0.3, -0.1], [0.0, 0.1], [-0.1, 0.3], [0.2, 0.2]])
    answers = {
        "landmarks": (plain, mirror),
        "smile": ((1.0, 3.0), (5.0, 9.0)),
        "pose": ((1, 2, 3, 4, 5), (10, 20, 30, 40, 60)),
    }

    def answer(task: str) -> Callable[[np.ndarray], object]:
        return lambda crop: answers[task][int(crop[0, 20, 5] < crop[0, 20, 35])]

    session = FakeSession(spec(tuple(answers), flip=True), **{task: answer(task) for task in answers})
    (face,) = Predictor(session)(image, BOX)

    # The mirrored points with left and right swapped and x negated:
    # (-0.3, -0.1), (0.1, -0.2), (0, 0.1), (-0.2, 0.2), (0.1, 0.3)
    mean = np.array([[-0.25, -0.1], [0.15, -0.15], [0.02, 0.05], [-0.15, 0.2], [0.1, 0.25]])
    np.testing.assert_allclose(face.landmarks, [60, 50] + 72 * mean, atol=1e-4)
    assert_probabilities(face.attributes["smile"], [3, 6])
    assert_probabilities(
        face.attributes["pose"], [(1 + 60) / 2, (2 + 40) / 2, (3 + 30) / 2, (4 + 20) / 2, (5 + 10) / 2]
    )
    assert face.attributes["pose"].label == "left_profile"

    (plain_face,) = Predictor(session, flip=False)(image, BOX)
    np.testing.assert_allclose(plain_face.landmarks, [60, 50] + 72 * plain, atol=1e-4)
    assert plain_face.attributes["pose"].label == "right_profile"


def assert_probabilities(attribute, logits: Sequence[float]) -> None:
    shares = np.exp(np.array(logits) - max(logits))
    np.testing.assert_allclose(list(attribute.probabilities.values()), shares / shares.sum(), rtol=1e-6)


def test_a_mirrored_picture_gives_mirrored_faces_with_flip():
    session = full_session(flip=True)
    image = noise()
    (face,) = Predictor(session)(image, [[30, 20, 90, 80]])
    (mirrored,) = Predictor(session)(np.ascontiguousarray(image[:, ::-1]), [[159 - 90, 20, 159 - 30, 80]])
    expected = face.landmarks[list(SCHEMAS["mtfl5"].flip_order)] * [-1, 1] + [159, 0]
    np.testing.assert_allclose(mirrored.landmarks, expected, atol=0.02)
    pose = list(face.attributes["pose"].probabilities.values())
    np.testing.assert_allclose(list(mirrored.attributes["pose"].probabilities.values()), pose[::-1], atol=1e-3)


def test_the_points_of_another_schema_swap_in_its_own_order():
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (68, 2))
    session = FakeSession(spec(schema="ibug68", flip=True), landmarks=lambda crop: points)
    (face,) = Predictor(session, schema="ibug68")(noise(), BOX)
    mean = (points + points[list(SCHEMAS["ibug68"].flip_order)] * [-1, 1]) / 2
    np.testing.assert_allclose(face.landmarks, [60, 50] + 72 * mean, atol=1e-4)
    assert face.schema == "ibug68"


# --- boxes, scores, order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros((0, 4), np.float32)], ids=["list", "f64", "f32"])
def test_no_face_is_an_empty_list(boxes):
    session = full_session()
    assert Predictor(session)(noise(), boxes) == []
    assert Predictor(session, detector=FakeDetector([], []))(noise()) == []
    assert Predictor(session).batch([], []) == []
    assert session.calls == []


def test_detected_faces_keep_the_detectors_order_and_scores():
    boxes, scores = [[80, 10, 140, 70], [10.5, 30.25, 50, 70], [-20, -20, 30, 30]], [0.96875, 0.5, 0.25]
    faces = Predictor(full_session(), detector=FakeDetector(boxes, scores))(noise())
    np.testing.assert_array_equal([face.box for face in faces], np.float32(boxes))
    assert [face.score for face in faces] == scores
    for face, box in zip(faces, boxes, strict=True):
        assert face.box.dtype == np.float32
        assert face.box.shape == (4,)
        assert type(face.score) is float
        (alone,) = Predictor(full_session())(noise(), [box])
        np.testing.assert_array_equal(face.landmarks, alone.landmarks)
        assert alone.score == 1.0


def test_given_boxes_skip_the_detector():
    class Never:
        def detect(self, image: np.ndarray) -> Detections:
            raise AssertionError("the detector ran")

    faces = Predictor(full_session(), detector=Never())(noise(), [[60, 20, 90, 50], [0, 0, 20, 20]])
    assert [face.box.tolist() for face in faces] == [[60, 20, 90, 50], [0, 0, 20, 20]]


def test_a_batch_equals_one_picture_at_a_time():
    images = [noise(120, 160, 0), noise(50, 300, 1), noise(90, 90, 2), noise(200, 100, 3)]
    boxes = [[[0, 0, 60, 60], [20, 30, 90, 100]], [], [[-40, -40, 50, 50]], [[1, 2, 99, 98], [50, 100, 99, 199.5]]]
    predict = Predictor(full_session(passes=2, flip=True))
    together = predict.batch(iter(images), iter(boxes))
    alone = [predict(image, b) for image, b in zip(images, boxes, strict=True)]
    assert [len(faces) for faces in together] == [2, 0, 1, 2]
    assert [[f.to_dict() for f in faces] for faces in together] == [[f.to_dict() for f in faces] for faces in alone]


def test_more_faces_than_one_run_of_the_network_takes():
    session = FakeSession(spec(), landmarks=lambda crop: UPRIGHT)
    starts = np.arange(BATCH + 3) % 100
    boxes = np.stack([starts, starts, starts + 50, starts + 50], axis=1)
    scores = np.linspace(1, 0.5, len(boxes), dtype=np.float32)
    faces = Predictor(session, detector=FakeDetector(boxes, scores))(noise())
    assert [len(crops) for crops, _ in session.calls] == [BATCH, 3]
    np.testing.assert_allclose([face.landmarks[2, 0] for face in faces], starts + 25)
    np.testing.assert_array_equal([face.score for face in faces], scores)


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([[0, 0, np.nan, 10]], "box 0 is not finite"),
        ([[0, 0, 9, 9], [0, 0, np.inf, 10]], "box 1 is not finite"),
        ([[10, 10, 10, 20]], "no area"),
        ([[10, 20, 30, 10]], "no area"),
        ([[0, 0, 1e9, 1e9]], "million pixels"),
        ([10, 10, 50, 50], r"got \(4,\)"),
        ([[1, 2, 3]], r"got \(1, 3\)"),
        ([["a", "b", "c", "d"]], "numbers"),
        ([[1, 2, 3, 4], [5, 6]], "numbers"),
    ],
)
def test_boxes_that_are_none(boxes, said):
    session = full_session()
    with pytest.raises(BoxError, match=said):
        Predictor(session)(noise(), boxes)
    assert session.calls == []


def test_boxes_for_another_number_of_images():
    with pytest.raises(BoxError, match="2 images but boxes for 1"):
        Predictor(full_session()).batch([noise(), noise()], [BOX])


# --- pictures -------------------------------------------------------------------------------------------------------


def test_every_kind_of_picture_is_read_as_the_same_face(tmp_path):
    colour = noise()
    level = colour[..., 0]
    predict = Predictor(full_session(channels=3))

    def found(picture) -> dict:
        (face,) = predict(picture, BOX)
        return face.to_dict()

    write_image(tmp_path / "a.png", colour)
    opaque = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
    for same in (tmp_path / "a.png", str(tmp_path / "a.png"), opaque, colour.astype(np.uint16) * 257):
        assert found(same) == found(colour)
    for same in (level, level[..., None], level.astype(np.uint16) * 257):
        assert found(same) == found(np.repeat(level[..., None], 3, axis=2))
    assert found(level) != found(colour)


def test_the_picture_is_left_as_it_was_and_may_be_read_only_or_a_view():
    image = noise(240, 320)
    before = image.copy()
    image.flags.writeable = False
    predict = Predictor(full_session(passes=2, flip=True))
    (view,) = predict(image[::2, ::-2], BOX)
    (copy,) = predict(image[::2, ::-2].copy(), BOX)
    assert view.to_dict() == copy.to_dict()
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("picture", [noise().astype(np.float32), np.zeros((0, 5, 3), np.uint8), "no such file.png"])
def test_what_is_no_picture(picture):
    with pytest.raises(ImageError):
        Predictor(full_session())(picture, BOX)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 2)])
def test_the_smallest_pictures(shape):
    (face,) = Predictor(full_session(passes=2, flip=True))(noise(*shape), [[-5, -5, 10, 10]])
    assert np.isfinite(face.landmarks).all()


# --- what a face says -----------------------------------------------------------------------------------------------


def test_attributes_name_the_likeliest_class_and_all_probabilities():
    session = FakeSession(
        spec(("landmarks", "smile", "pose")),
        landmarks=lambda crop: UPRIGHT,
        smile=lambda crop: [math.log(3), 0.0],
        pose=lambda crop: [0, 0, 0, math.log(4), 0],
    )
    (face,) = Predictor(session)(noise(), BOX)
    assert list(face.attributes) == ["smile", "pose"]
    assert face.attributes["smile"].label == "smiling"
    assert face.attributes["smile"].confidence == pytest.approx(0.75)
    assert face.attributes["smile"].probabilities == pytest.approx({"smiling": 0.75, "not_smiling": 0.25})
    assert face.attributes["pose"].label == "right"
    assert face.attributes["pose"].confidence == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [0.0, 1.0, 90.0, 1e5])
def test_probabilities_sum_to_one_however_large_the_logits(scale):
    logits = scale * np.random.default_rng(0).standard_normal(5)
    session = FakeSession(spec(("pose",)), pose=lambda crop: logits)
    (face,) = Predictor(session)(noise(), BOX)
    pose = face.attributes["pose"]
    assert sum(pose.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert pose.confidence == max(pose.probabilities.values()) == pose.probabilities[pose.label]
    assert all(0 <= p <= 1 for p in pose.probabilities.values())


def test_a_face_is_plain_json():
    (face,) = Predictor(full_session(passes=2, flip=True))(noise(), BOX)
    read = json.loads(json.dumps(face.to_dict(), allow_nan=False))
    assert read["box"] == BOX[0]
    assert list(read["landmarks"]) == list(SCHEMAS["mtfl5"].names)
    np.testing.assert_allclose(list(read["landmarks"].values()), face.landmarks, atol=1e-3)
    assert list(read["attributes"]) == list(TASKS[1:])
    assert read["pose"] is None


def test_a_face_cannot_be_changed():
    (face,) = Predictor(full_session())(noise(), BOX)
    with pytest.raises(AttributeError):
        face.score = 0.0
    with pytest.raises(AttributeError):
        face.attributes["smile"].label = "smiling"


def test_a_face_travels_between_processes():
    (face,) = Predictor(full_session())(noise(), BOX)
    assert pickle.loads(pickle.dumps(face)).to_dict() == face.to_dict()
