from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import albumentations as A
import cv2
import numpy as np
import pytest
from dotted_faces import BRIGHTNESS, CROP_SCALE, FIVE, SIZE, P, augment, cache_of, crops_of, dotted_patch, rolled

from facemtl.data.cache import CropCache
from facemtl.data.transforms import (
    DETECTOR_JITTER,
    REFINED_JITTER,
    ROUGH_JITTER,
    Augmentation,
    jittered_crop,
    pixel_transform,
    plain_crops,
    to_nchw,
)
from facemtl.geometry import (
    box_from_five,
    crop_matrix,
    points_from_crop,
    points_to_crop,
    warp_crop,
)
from facemtl.landmarks import SCHEMAS

EVERY_SCHEMA = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())


def recovered(points: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """From points (N, 5, 2) in network coordinates: how far each crop lies from the face box of ``truth``.

    Returns shift x, shift y in box sides, log scale, roll in degrees: (N,) each.
    """
    box = box_from_five(truth)
    p = ((truth - (box[:2] + box[2:]) / 2) / (box[2] - box[0])) @ np.array([1, 1j])
    q = points.astype(float) @ np.array([1, 1j])
    a = ((q - q.mean(axis=1, keepdims=True)) @ (p - p.mean()).conj()) / np.sum(np.abs(p - p.mean()) ** 2)
    middle = p.mean() - q.mean(axis=1) / a  # where q is 0
    np.testing.assert_allclose(a[:, None] * (p - middle[:, None]), q, atol=1e-5)  # a similarity and nothing else
    return middle.real, middle.imag, -np.log(np.abs(a)) - math.log(CROP_SCALE), -np.degrees(np.angle(a))


# Mirrors


def test_a_mirrored_crop_of_the_whole_picture_is_its_mirror_image():
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    whole = crop_matrix(np.array([-0.5, -0.5, 59.5, 59.5]), 60, mirror=True)
    mirrored = warp_crop(image, whole, 60)
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    np.testing.assert_array_equal(warp_crop(mirrored, whole, 60), image)


@EVERY_SCHEMA
def test_the_mirror_of_an_augmented_crop_is_the_mirror_of_its_points_and_labels(schema):
    points = np.random.default_rng(1).uniform(20, 76, (1, len(schema), 2))
    noise = np.random.default_rng(2).integers(0, 256, (1, P, P), dtype=np.uint8)
    cache = cache_of(points, cv2.GaussianBlur(noise[0], (0, 0), 2)[None], pose=1)
    image, found, labels = augment(cache, 6, mirror=0)
    flipped, mirrored, other = augment(cache, 6, mirror=1)
    np.testing.assert_allclose(flipped, image[..., ::-1], atol=1)  # rounding of the interpolation
    expected = found[:, list(schema.flip_order)] * (-1, 1)  # 0 is the middle of the crop
    np.testing.assert_allclose(mirrored, expected, atol=1e-5)
    assert labels["pose"].tolist() == [1] * 6
    assert other["pose"].tolist() == [3] * 6
    assert other["smile"].tolist() == labels["smile"].tolist()


# Crops


def test_plain_crops_are_the_crops_of_the_true_boxes():
    cache = cache_of(np.stack([FIVE, FIVE]), channels=3)
    images, targets = plain_crops(cache, SIZE, CROP_SCALE, "mtfl5")
    assert (images.shape, images.dtype) == ((2, 3, SIZE, SIZE), np.uint8)
    points = targets[0]["landmarks"]
    assert (points.shape, points.dtype) == ((5, 2), np.float32)
    expected = warp_crop(cache.patches[0], crop_matrix(cache.box, SIZE, CROP_SCALE), SIZE)
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0), expected)
    np.testing.assert_allclose(points, (FIVE - (P - 1) / 2) / (P / 2) / CROP_SCALE, atol=1e-6)
    assert [face["smile"] for face in targets] == [-1, 0]


def test_a_corner_of_the_face_box_in_network_coordinates():
    corner = cache_of(FIVE[None]).box[:2]
    cache = cache_of(np.tile(corner, (1, 5, 1)), np.zeros((1, P, P), np.uint8))
    _, (targets,) = plain_crops(cache, SIZE, CROP_SCALE, "mtfl5")
    np.testing.assert_allclose(targets["landmarks"], -0.5 / 1.2, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_types_of_a_crop(channels):
    cache = cache_of(np.stack([FIVE] * 3), channels=channels)
    augmentation = Augmentation(SIZE, channels, CROP_SCALE, pixels=1.0)
    image, targets, taught = augmentation(cache, 2, np.random.default_rng(0))
    assert (image.shape, image.dtype) == ((SIZE, SIZE) if channels == 1 else (SIZE, SIZE, 3), np.uint8)
    assert (targets["landmarks"].shape, targets["landmarks"].dtype) == ((5, 2), np.float32)
    assert {task: targets[task].dtype for task in ("pose", "smile")} == {"pose": np.int64, "smile": np.int64}
    assert (targets["smile"], taught) == (1, {})
    assert augment(cache, np.array([2, 0, 1, 1]))[2]["smile"].tolist() == [1, -1, 0, 0]


def test_what_a_teacher_says_moves_as_the_labels_do():
    labelled = replace(cache_of(FIVE[None], pose=1), angles=np.float32([[20, 5, 10]]))
    taught = {"landmarks": labelled.points, "angles": labelled.angles, "pose": np.float32([[0, 1, 0, 0, 0]])}
    augmentation = Augmentation(SIZE, 1, CROP_SCALE, mirror=0.5)
    rng, mirrored = np.random.default_rng(0), 0
    for _ in range(20):
        _, targets, lesson = augmentation(replace(labelled, taught=taught), 0, rng)
        np.testing.assert_array_equal(lesson["landmarks"], targets["landmarks"])
        np.testing.assert_array_equal(lesson["angles"], targets["angles"])
        assert lesson["pose"].tolist() == [float(c == targets["pose"]) for c in range(5)]
        mirrored += targets["pose"] == 3
    assert 0 < mirrored < 20


def test_points_of_another_schema_are_further_points():
    cache = cache_of(np.random.default_rng(1).uniform(20, 76, (1, 68, 2)), np.zeros((1, P, P), np.uint8))
    _, targets, _ = Augmentation(SIZE, 1, CROP_SCALE, schema="mtfl5")(cache, 0, np.random.default_rng(0))
    assert set(targets) == {"landmarks_ibug68", "pose", "smile"}
    _, (plain,) = plain_crops(cache, SIZE, CROP_SCALE, "mtfl5")
    assert set(plain) == set(targets)


def test_to_nchw_puts_channels_first():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_nchw(images)[1, 2], images[1, :, :, 2])
    np.testing.assert_array_equal(to_nchw(images[..., 0])[:, 0], images[..., 0])


@pytest.mark.parametrize("refined", [0.0, 1.0])
@pytest.mark.parametrize("face_roll", [0.0, 35.0])
def test_dots_painted_at_the_points_stay_under_the_points(refined, face_roll):
    # Each dot has its own brightness, so that swapped points would show as well.
    cache = cache_of(rolled(FIVE, face_roll)[None])
    images, points, labels = augment(cache, 60, refined=refined)
    mirrored = labels["pose"] == 4
    assert 15 < mirrored.sum() < 45
    y, x = np.mgrid[:SIZE, :SIZE]
    checked = 0
    for image, places, swapped in zip(images[:, 0].astype(float), points_to_crop(points, SIZE), mirrored, strict=True):
        for i, place in enumerate(places):
            if place.min() < 5 or place.max() > SIZE - 6:
                continue  # a dot cut by the border has another centre
            window = np.where((x - place[0]) ** 2 + (y - place[1]) ** 2 < 5**2, image, 0)
            centre = np.array([(window * x).sum(), (window * y).sum()]) / window.sum()
            np.testing.assert_allclose(centre, place, atol=0.15)
            source = SCHEMAS["mtfl5"].flip_order[i] if swapped else i
            assert 0.75 < window.max() / BRIGHTNESS[source] < 1.02  # the peak may lie between pixels
            checked += 1
    assert checked > 200


def test_missing_points_stay_missing():
    points = FIVE.copy()
    points[0] = np.nan  # the left eye
    cache = cache_of(points[None], dotted_patch(FIVE)[None])
    _, found, labels = augment(cache, 40)
    mirrored = labels["pose"] == 4
    assert 5 < mirrored.sum() < 35
    lost = np.isnan(found).all(axis=2)
    assert (lost == np.isnan(found).any(axis=2)).all()
    np.testing.assert_array_equal(lost[~mirrored], [[True, False, False, False, False]] * (~mirrored).sum())
    np.testing.assert_array_equal(lost[mirrored], [[False, True, False, False, False]] * mirrored.sum())


def test_a_missing_pose_stays_missing_in_a_mirror():
    _, _, labels = augment(cache_of(FIVE[None], pose=-1), 20, mirror=1.0)
    assert labels["pose"].tolist() == [-1] * 20


# Chance


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_follow_from_their_generator(channels):
    cache = cache_of(np.stack([FIVE] * 4), channels=channels)
    rows = np.arange(4).repeat(8).tolist()
    augmentation = Augmentation(SIZE, channels, CROP_SCALE, pixels=1.0)
    first = crops_of(augmentation, cache, rows, 5)
    other = crops_of(augmentation, cache, rows, 6)
    for again in (augmentation, Augmentation(SIZE, channels, CROP_SCALE, pixels=1.0)):
        images, points, labels = crops_of(again, cache, rows, 5)
        np.testing.assert_array_equal(images, first[0])
        np.testing.assert_array_equal(points, first[1])
        assert {t: v.tolist() for t, v in labels.items()} == {t: v.tolist() for t, v in first[2].items()}
    assert not np.array_equal(other[0], first[0])
    assert not np.array_equal(other[1], first[1])


def test_crops_of_one_face_differ():
    _, points, _ = augment(cache_of(FIVE[None]), 50)
    assert len(np.unique(points[:, 0], axis=0)) == 50


@pytest.mark.parametrize("mirror, share", [(0.0, (0, 0)), (1.0, (400, 400)), (0.25, (70, 130))])
def test_the_share_of_mirrored_crops(mirror, share):
    _, _, labels = augment(cache_of(FIVE[None]), 400, mirror=mirror)
    assert share[0] <= (labels["pose"] == 4).sum() <= share[1]


def firsts(cache: CropCache, pixels: float) -> tuple[np.ndarray, np.ndarray]:
    """The first crop and its points of 300 generators: the draws for pixels come after those for the place."""
    augmentation = Augmentation(SIZE, 1, CROP_SCALE, pixels=pixels)
    crops = [crops_of(augmentation, cache, [0], seed) for seed in range(300)]
    return np.concatenate([images for images, _, _ in crops]), np.concatenate([points for _, points, _ in crops])


def test_pixels_are_disturbed_in_their_share_and_points_never():
    cache = cache_of(FIVE[None])
    plain, disturbed, half = (firsts(cache, pixels=share) for share in (0.0, 1.0, 0.5))
    for batch in (disturbed, half):
        np.testing.assert_array_equal(plain[1], batch[1])
    changed, half_changed = ((plain[0] != batch[0]).any(axis=(1, 2, 3)).sum() for batch in (disturbed, half))
    # By chance none of the steps may touch a picture: each spares it alone, 0.7 * 0.8 * 0.9 ** 3 * 0.85 * 0.8 = 0.28.
    assert 190 < changed < 245
    assert 0.3 < half_changed / changed < 0.7


@pytest.mark.parametrize(
    "jitter, refined, rough", [(DETECTOR_JITTER, 0.0, 0.0), (REFINED_JITTER, 1.0, 0.0), (ROUGH_JITTER, 0.0, 1.0)]
)
@pytest.mark.parametrize("face_roll", [0.0, 30.0])
def test_jitter_has_the_stated_deviations(jitter, refined, rough, face_roll):
    truth = rolled(FIVE, face_roll)
    count = 4000
    _, points, _ = augment(cache_of(truth[None]), count, refined=refined, rough=rough, mirror=0)
    upright = face_roll + _roll_of_shape() if jitter.upright else 0.0
    clipped = 0.98872  # standard deviation of a normal variable clipped at 2.5
    deviations = (jitter.shift_x, jitter.shift_y, jitter.scale, jitter.roll)
    for values, mean, deviation in zip(recovered(points, truth), (0, 0, 0, upright), deviations, strict=True):
        assert values.mean() == pytest.approx(mean, abs=4 * deviation / math.sqrt(count))
        assert values.std() == pytest.approx(clipped * deviation, rel=0.05)
        assert np.abs(values - mean).max() == pytest.approx(2.5 * deviation, rel=1e-3)


def _roll_of_shape() -> float:
    """Degrees by which FIVE itself leans: its right mouth corner is higher than its left one."""
    (lx, ly), (rx, ry), _, (mlx, mly), (mrx, mry) = FIVE
    down = np.array([mlx + mrx - lx - rx, mly + mry - ly - ry]) / 2
    return math.degrees(math.atan2(ry - ly - down[0], rx - lx + down[1]))


def test_both_kinds_of_jitter_take_their_shares():
    _, points, _ = augment(cache_of(rolled(FIVE, 90)[None]), 400, refined=0.25, mirror=0)
    *_, roll = recovered(points, rolled(FIVE, 90))
    turned_upright = np.abs(roll - 90) < 20
    assert (turned_upright | (np.abs(roll) < 30)).all()
    assert 70 <= turned_upright.sum() <= 130


def test_rough_boxes_take_their_share_of_those_that_are_not_refined():
    _, points, _ = augment(cache_of(FIVE[None]), 2000, refined=0.5, rough=0.3, mirror=0)
    shift_x, *_ = recovered(points, FIVE)
    variance = 0.5 * REFINED_JITTER.shift_x**2 + 0.3 * ROUGH_JITTER.shift_x**2 + 0.2 * DETECTOR_JITTER.shift_x**2
    assert shift_x.std() == pytest.approx(0.98872 * math.sqrt(variance), rel=0.1)


def test_a_face_with_a_missing_point_cannot_be_turned_upright():
    points = rolled(FIVE, 90)
    lost = points.copy()
    lost[2] = np.nan
    _, found, _ = augment(cache_of(lost[None], dotted_patch(points)[None]), 50, refined=1.0, mirror=0)
    eyes = found[:, 1] - found[:, 0]
    assert (np.abs(np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])) - 90) < 11).all()


def test_the_stated_jitter_is_that_of_detectors():
    # Centre 0.22 d and 0.12 d of the box of side 3.45 d; 5th to 95th percentile of the side 3.0 d to 4.0 d.
    assert DETECTOR_JITTER.shift_x == pytest.approx(0.22 / 3.45, abs=0.001)
    assert DETECTOR_JITTER.shift_y == pytest.approx(0.12 / 3.45, abs=0.001)
    assert DETECTOR_JITTER.scale == pytest.approx(math.log(4.0 / 3.0) / (2 * 1.645), abs=0.001)
    assert not DETECTOR_JITTER.upright
    assert REFINED_JITTER.upright


def test_a_jittered_crop_by_hand():
    box = np.array([20.0, 20, 60, 60])
    matrix = jittered_crop(box, SIZE, 1.0, DETECTOR_JITTER, (1.0, -2.0, 0.0), 0.0, False)
    # The side of 40 is the crop's own size: pixels of the image, moved by 0.064 * 40 and -2 * 0.035 * 40.
    np.testing.assert_allclose(matrix, [[1, 0, 20.5 + 2.56], [0, 1, 20.5 - 2.8]])
    matrix = jittered_crop(box, SIZE, 1.2, DETECTOR_JITTER, (0.0, 0.0, 1.0), 0.0, False)
    assert matrix[0, 0] == pytest.approx(1.2 * math.exp(0.088))


# Pixels


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, SIZE, 3)])
def test_disturbed_pixels_keep_shape_and_type_and_leave_the_original(shape):
    transform = pixel_transform(1 if len(shape) == 2 else 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    transform.set_random_seed(0)
    changed = 0
    for _ in range(300):
        result = transform(image=image)["image"]
        assert (result.shape, result.dtype) == (shape, np.uint8)
        changed += not np.array_equal(result, image)
    np.testing.assert_array_equal(image, before)
    assert changed > 150


def test_every_pixel_step_works_alone():
    for channels, shape in ((1, (SIZE, SIZE)), (3, (SIZE, SIZE, 3))):
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for step in pixel_transform(channels).transforms:
            step.p = 1.0
            result = step(image=image)["image"]
            assert (result.shape, result.dtype) == (shape, np.uint8), step
            assert not np.array_equal(result, image), step


@pytest.mark.parametrize("channels", [1, 3])
def test_no_pixel_step_moves_what_a_picture_shows(channels):
    # albumentations' own low resolution moves it by 1.1 pixels to the right and down.
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(40, 80, 80, 3))
    pictures = [cv2.normalize(cv2.GaussianBlur(n, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX) for n in noise]
    pictures = [np.uint8(picture if channels == 3 else picture[..., 0]) for picture in pictures]
    window = cv2.createHanningWindow((80, 80), cv2.CV_64F)

    def grey(picture: np.ndarray) -> np.ndarray:
        return np.float64(picture if channels == 1 else picture.mean(axis=2))

    for step in pixel_transform(channels).transforms:
        alone = A.Compose([step], seed=5)
        alone.transforms[0].p = 1.0
        moved = [cv2.phaseCorrelate(grey(p), grey(alone(image=p)["image"]), window)[0] for p in pictures]
        assert np.abs(np.mean(moved, axis=0)).max() < 0.1, (type(step).__name__, np.mean(moved, axis=0))


def test_disturbed_faces_are_still_the_same_faces():
    face = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8), (0, 0), 3)
    face = cv2.normalize(face, None, 20, 235, cv2.NORM_MINMAX)
    transform = pixel_transform(1)
    transform.set_random_seed(0)
    alike = [np.corrcoef(face.ravel(), transform(image=face)["image"].ravel())[0, 1] for _ in range(300)]
    assert np.median(alike) > 0.98
    assert min(alike) > 0.3


def test_importing_the_augmentation_asks_nothing_of_the_network():
    code = """
import socket
def refuse(*arguments, **options):
    raise SystemExit("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import facemtl.data.transforms
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_what_a_network_predicts_goes_back_to_the_picture():
    cache = cache_of(FIVE[None])
    matrix = crop_matrix(cache.box, SIZE, CROP_SCALE)
    _, (targets,) = plain_crops(cache, SIZE, CROP_SCALE, "mtfl5")
    points = targets["landmarks"]
    back = points_to_crop(points.astype(float), SIZE) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(back, FIVE, atol=1e-4)
    np.testing.assert_allclose(points_from_crop(points_to_crop(points, SIZE), SIZE), points, atol=1e-6)
