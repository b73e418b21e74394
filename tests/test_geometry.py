from __future__ import annotations

import itertools
import math
import tracemalloc

import cv2
import numpy as np
import pytest

from facemtl.errors import BoxError
from facemtl.geometry import (
    BOX_SIDE,
    apply_affine,
    box_from_five,
    check_boxes,
    crop_matrix,
    crop_roll,
    crop_side,
    invert_affine,
    points_from_crop,
    points_to_crop,
    roll_of_five,
    warp_crop,
)

SIZE = 40
UPRIGHT = np.array([[30.0, 40.0], [70.0, 40.0], [50.0, 60.0], [35.0, 80.0], [65.0, 80.0]])
PROFILE = np.array([[48.0, 40.0], [50.0, 40.0], [30.0, 60.0], [44.0, 80.0], [47.0, 80.0]])
STEPS = (0.5, 1, 2, 3.7, 8)  # image pixels per crop pixel
TURNS = (0.0, 0.5, -2.0, math.pi)
ALL = list(itertools.product(STEPS, TURNS, (False, True)))


def box_around(centre: tuple[float, float], side: float) -> np.ndarray:
    x, y = centre
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """Clockwise as seen, about the origin: x to the right goes over into y down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ np.array([[cos, sin], [-sin, cos]])


def crop_grid(matrix: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 2) where each crop pixel lies in the image."""
    return apply_affine(matrix, np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(float))


def find_dot(image: np.ndarray) -> np.ndarray:
    """The centroid of a bright dot on black."""
    weights = image.astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


# Boxes


def test_boxes_become_float64_rows():
    boxes = check_boxes([[1, 2, 3, 4.5]])
    assert boxes.dtype == np.float64
    np.testing.assert_array_equal(boxes, [[1, 2, 3, 4.5]])


@pytest.mark.parametrize("none", [[], np.zeros((0, 4)), np.zeros((0, 5), np.float32), ()])
def test_no_boxes_are_no_rows(none):
    assert check_boxes(none).shape == (0, 4)


@pytest.mark.parametrize(
    "boxes, reason",
    [
        ([1, 2, 3, 4], r"shape \(N, 4\).*got \(4,\)"),
        ([[1, 2, 3, 4, 0.9]], r"got \(1, 5\)"),
        (np.zeros((3, 0)), r"got \(3, 0\)"),
        (np.zeros((1, 2, 2)), r"got \(1, 2, 2\)"),
        (7.0, r"got \(\)"),
        ([[1, 2, 3], [1, 2, 3, 4]], "must be numbers"),
        ([["a", "b", "c", "d"]], "must be numbers"),
        ([[10**400, 0, 1, 1]], "must be numbers"),
        (np.array([[0, 0, 1, 1]], complex), "must be numbers.*these are complex"),
        ([[0, 0, 1, 1 + 0j]], "must be numbers.*these are complex"),
        ([[0, 0, 1, 1], [1, 2, np.nan, 4]], "box 1 is not finite"),
        ([[1, 2, None, 4]], "box 0 is not finite"),
        ([[-np.inf, 0, np.inf, 1]], "box 0 is not finite"),
        ([[3, 0, 3, 1]], "box 0 has no area"),
        ([[0, 5, 1, 4]], "box 0 has no area"),
        ([[0, 0, 1, 1], [2e6, 0, 3e6, 1]], "box 1 lies more than a million pixels away"),
    ],
)
def test_a_bad_box_is_named_with_the_reason(boxes, reason):
    with pytest.raises(BoxError, match=reason):
        check_boxes(boxes)


def test_the_box_of_five_points():
    # Four points 5 pixels from their mean and one on it: mean distance 4, side 3.45 * 4 = 13.8.
    points = np.add([[-3, -4], [3, -4], [0, 0], [-3, 4], [3, 4]], [100, 50])
    assert BOX_SIDE == 3.45
    np.testing.assert_allclose(box_from_five(points), [93.1, 43.1, 106.9, 56.9])
    np.testing.assert_allclose(box_from_five(np.float32(points)), [93.1, 43.1, 106.9, 56.9])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_have_no_box(bad):
    points = UPRIGHT.copy()
    points[2, 1] = bad
    with pytest.raises(BoxError, match="not finite"):
        box_from_five(points)


@pytest.mark.parametrize("place", [0.0, 0.1, 1 / 3, 1234.567])
def test_points_in_one_place_have_no_box(place):
    with pytest.raises(BoxError, match="all in one place"):
        box_from_five(np.full((5, 2), place))


# Roll


def test_a_head_is_upright_when_its_eyes_are_level():
    assert roll_of_five(UPRIGHT) == 0
    # The mouth of the profile lies 3.5 pixels to the left: its head leans clockwise.
    assert roll_of_five(PROFILE) == pytest.approx(math.atan2(3.5, 2 + 40))


def test_roll_is_positive_when_the_viewers_right_eye_is_lower():
    points = np.add(UPRIGHT, [[0, -2], [0, 2], [0, 0], [0, 0], [0, 0]])
    assert 0 < roll_of_five(points) < math.atan2(4, 40)  # the line to the mouth votes against


@pytest.mark.parametrize("face", [UPRIGHT, PROFILE])
@pytest.mark.parametrize("degrees", [-170, -90, -30, -1, 0, 5, 45, 120, 179])
def test_rotated_points_have_that_much_more_roll(face, degrees):
    turned = roll_of_five(rotated(face, degrees)) - roll_of_five(face)
    assert math.remainder(turned - math.radians(degrees), 2 * math.pi) == pytest.approx(0, abs=1e-9)


def test_roll_knows_neither_place_nor_size():
    face = rotated(UPRIGHT, 25)
    assert roll_of_five(face * 0.01 + [1000, -7]) == pytest.approx(math.radians(25))


# The crop matrix


@pytest.mark.parametrize(
    "options, expected",
    [
        # Two image pixels for one of the crop; its first pixel lies 1.5 steps left of and above the centre (14, 24).
        ({}, [[2, 0, 11], [0, 2, 21]]),
        ({"scale": 2}, [[4, 0, 8], [0, 4, 18]]),
        ({"mirror": True}, [[-2, 0, 17], [0, 2, 21]]),
        # A quarter turn clockwise: the crop's x runs down the image, its y to the left.
        ({"roll": math.pi / 2}, [[0, -2, 17], [2, 0, 21]]),
        ({"roll": math.pi / 2, "mirror": True}, [[0, -2, 17], [-2, 0, 27]]),
    ],
)
def test_the_matrix_of_a_small_crop(options, expected):
    np.testing.assert_allclose(crop_matrix(np.array([10, 20, 18, 28]), 4, **options), expected, atol=1e-12)


def test_a_box_that_is_not_square_counts_as_the_square_of_its_mean_side():
    oblong, square = np.array([10, 18, 18, 30]), np.array([9, 19, 19, 29])
    np.testing.assert_array_equal(crop_matrix(oblong, 10), crop_matrix(square, 10))


@pytest.mark.parametrize("step, roll, mirror", ALL)
def test_the_middle_of_the_crop_is_the_middle_of_the_box(step, roll, mirror):
    matrix = crop_matrix(box_around((61.3, 47.9), SIZE * step), SIZE, 1.0, roll, mirror)
    np.testing.assert_allclose(apply_affine(matrix, np.full(2, (SIZE - 1) / 2)), [61.3, 47.9])


@pytest.mark.parametrize("step, roll, mirror", ALL)
def test_the_inverse_undoes_the_matrix(step, roll, mirror):
    matrix = crop_matrix(box_around((61.3, -470.9), SIZE * step), SIZE, 1.2, roll, mirror)
    points = np.random.default_rng(0).uniform(-100, 100, (3, 7, 2))
    np.testing.assert_allclose(apply_affine(invert_affine(matrix), apply_affine(matrix, points)), points, atol=1e-9)
    np.testing.assert_allclose(apply_affine(matrix, apply_affine(invert_affine(matrix), points)), points, atol=1e-9)
    np.testing.assert_allclose(invert_affine(invert_affine(matrix)), matrix, atol=1e-9)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("degrees", [-130, -20, 0, 35, 90])
def test_a_rolled_face_stands_upright_in_its_crop(degrees, mirror):
    face = rotated(UPRIGHT, degrees)
    matrix = crop_matrix(box_from_five(face), SIZE, 1.2, roll_of_five(face), mirror)
    in_crop = apply_affine(invert_affine(matrix), face)
    if mirror:
        in_crop = in_crop[[1, 0, 2, 4, 3]]
    assert roll_of_five(in_crop) == pytest.approx(0, abs=1e-9)
    assert in_crop[:2, 1].mean() < in_crop[3:, 1].mean()


def test_a_missing_point_stays_missing_and_spoils_no_other():
    moved = apply_affine(np.array([[2.0, 0, 1], [0, 3, 0]]), np.array([[np.nan, np.nan], [1, 1]]))
    np.testing.assert_array_equal(moved, [[np.nan, np.nan], [3, 3]])


def test_network_coordinates_are_zero_in_the_middle_and_a_half_on_the_edge():
    np.testing.assert_array_equal(points_to_crop(np.array([[0, 0], [0.5, -0.5]]), 40), [[19.5, 19.5], [39.5, -0.5]])
    points = np.random.default_rng(0).normal(size=(2, 5, 2))
    np.testing.assert_allclose(points_from_crop(points_to_crop(points, 40), 40), points)


# Pictures


def test_a_crop_of_the_whole_image_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(warp_crop(image, crop_matrix(np.array([-0.5, -0.5, 15.5, 15.5]), 16), 16), image)


def test_half_size_averages_two_by_two_pixels():
    image = np.arange(0, 160, 10, dtype=np.uint8).reshape(4, 4)
    crop = warp_crop(image, crop_matrix(np.array([-0.5, -0.5, 3.5, 3.5]), 2), 2)
    np.testing.assert_array_equal(crop, [[25, 45], [105, 125]])  # (0 + 10 + 40 + 50) / 4 and so on


def test_an_edge_within_a_block_is_averaged_where_it_lies():
    image = np.zeros((8, 8), np.float32)
    image[:, 3:] = 100  # one column of the first block of four
    crop = warp_crop(image, crop_matrix(np.array([-0.5, -0.5, 7.5, 7.5]), 2), 2)
    np.testing.assert_allclose(crop, [[25, 100], [25, 100]])
    crop = warp_crop(image.T, crop_matrix(np.array([-0.5, -0.5, 7.5, 7.5]), 2), 2)
    np.testing.assert_allclose(crop, [[25, 25], [100, 100]])


def test_an_edge_is_interpolated_between_pixels():
    image = np.zeros((8, 8), np.float32)
    image[:, 4:] = 100
    crop = warp_crop(image, crop_matrix(np.array([1.75, 1.75, 5.75, 5.75]), 4), 4)  # pixels at 2.25, 3.25, 4.25, 5.25
    np.testing.assert_allclose(crop, [[0, 25, 100, 100]] * 4)


@pytest.mark.parametrize("step, roll, mirror", ALL)
def test_every_crop_pixel_shows_the_place_that_the_matrix_says(step, roll, mirror):
    # The image holds its own coordinates, so the crop must hold the mapped ones; half a pixel of either would show.
    x, y = np.meshgrid(np.arange(640, dtype=np.float32), np.arange(600, dtype=np.float32))
    matrix = crop_matrix(box_around((321.3, 298.8), SIZE * step), SIZE, 1.0, roll, mirror)
    shown = np.stack([warp_crop(x, matrix, SIZE), warp_crop(y, matrix, SIZE)], axis=-1)
    assert np.abs(shown - crop_grid(matrix, SIZE)).max() < 0.05 * step


@pytest.mark.parametrize("step, roll, mirror", ALL)
@pytest.mark.parametrize("place", [(300.0, 280.0), (307.37, 276.81)])
def test_a_dot_is_found_where_the_matrix_says(place, step, roll, mirror):
    sigma = max(1.0, 1.5 * step)
    y, x = np.mgrid[:600, :640]
    dot = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * sigma**2))
    image = np.round(250 * dot).astype(np.uint8)
    matrix = crop_matrix(box_around((303.2, 281.9), SIZE * step), SIZE, 1.0, roll, mirror)
    expected = apply_affine(invert_affine(matrix), np.array(place))
    found = find_dot(warp_crop(image, matrix, SIZE))
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("roll", [0.0, 0.7])
def test_a_mirrored_crop_is_the_flipped_crop(step, roll):
    rng = np.random.default_rng(3)
    image = cv2.GaussianBlur(rng.integers(0, 256, (200, 220, 3), dtype=np.uint8), (0, 0), 3)
    box = box_around((100.5, 100.5), SIZE * step)  # over the border at step 4 with roll
    plain, mirrored = (crop_matrix(box, SIZE, 1.0, roll, mirror) for mirror in (False, True))
    flipped = warp_crop(image, plain, SIZE)[:, ::-1]
    np.testing.assert_allclose(warp_crop(image, mirrored, SIZE), flipped, atol=0 if roll == 0 else 1)

    points = rng.uniform(0, 200, (9, 2))
    in_plain, in_mirrored = (apply_affine(invert_affine(matrix), points) for matrix in (plain, mirrored))
    np.testing.assert_allclose(in_mirrored, [SIZE - 1, 0] + in_plain * [-1, 1], atol=1e-9)


@pytest.mark.parametrize(
    "centre, visible",
    [
        ((-0.5, 9.5), np.s_[:, 4:]),
        ((19.5, 9.5), np.s_[:, :4]),
        ((9.5, -0.5), np.s_[4:, :]),
        ((9.5, 19.5), np.s_[:4, :]),
        ((-0.5, -0.5), np.s_[4:, 4:]),
        ((19.5, 19.5), np.s_[:4, :4]),
        ((9.5, 9.5), np.s_[:, :]),
    ],
)
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_what_lies_past_the_border_is_black(centre, visible, block, channels):
    image = np.full((20, 20, *channels), 200, np.uint8)
    expected = np.zeros((8, 8, *channels), np.uint8)
    expected[visible] = 200
    if block == 2:  # the same crop at half the size
        expected = expected[::2, ::2]
    size = 8 // block
    np.testing.assert_array_equal(warp_crop(image, crop_matrix(box_around(centre, 8), size), size), expected)


def test_a_crop_over_the_border_is_neither_shifted_nor_shrunk():
    image = np.random.default_rng(0).integers(1, 256, (30, 30), dtype=np.uint8)
    roomy = np.pad(image, 20)
    for step, corner in itertools.product((1, 2), itertools.product((-12, 0, 15), repeat=2)):
        box = np.array([*corner, *np.add(corner, 16 * step)]) - 0.5
        crops = [warp_crop(picture, crop_matrix(b, 16), 16) for picture, b in ((image, box), (roomy, box + 20))]
        np.testing.assert_array_equal(*crops)


def test_a_last_block_that_is_not_full_fades_into_the_black():
    image = np.full((5, 5), 200, np.uint8)
    crop = warp_crop(image, crop_matrix(np.array([-0.5, -0.5, 7.5, 7.5]), 4), 4)
    np.testing.assert_array_equal(crop, [[200, 200, 100, 0]] * 2 + [[100, 100, 50, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("degrees", [0, 30, -100, 179])
def test_a_crop_says_its_roll_and_the_pixels_it_covers(degrees):
    matrix = crop_matrix(np.array([10, 20, 60, 70]), 40, 1.2, math.radians(degrees))
    assert crop_roll(matrix) == pytest.approx(math.radians(degrees))
    assert crop_side(matrix, 40) == pytest.approx(60)  # 1.2 times the box of 50
    assert crop_side(crop_matrix(np.array([10, 20, 60, 70]), 40, 1.2, mirror=True), 40) == pytest.approx(60)


@pytest.mark.parametrize("centre", [(-100, 10), (10, -100), (130, 10), (10, 130), (9e5, 9e5), (-9e5, 10)])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
@pytest.mark.parametrize("side", [1.0, 60.0])
def test_a_crop_beside_the_image_is_black(centre, shape, side):
    crop = warp_crop(np.full(shape, 255, np.uint8), crop_matrix(box_around(centre, side), 16, 1.2, 0.3), 16)
    assert crop.shape == (16, 16, *shape[2:])
    assert crop.dtype == np.uint8
    assert not crop.any()


def test_a_huge_box_shows_the_image_as_a_speck():
    image = np.full((100, 100, 3), 200, np.uint8)
    crop = warp_crop(image, crop_matrix(box_around((49.5, 49.5), 6500), 65), 65)  # one crop pixel is the whole image
    expected = np.zeros((65, 65, 3), np.uint8)
    expected[32, 32] = 200
    np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize("shape", [(100, 100, 3), (3, 2000, 3), (2000, 3, 3)])
def test_memory_follows_what_is_visible_and_not_the_box(shape):
    image = np.full(shape, 200, np.uint8)
    tracemalloc.start()
    warp_crop(image, crop_matrix(np.array([-1e6, -1e6, 1e6, 1e6]), 64, 1.2, 0.5), 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * image.nbytes


def test_a_face_far_right_in_a_very_wide_picture():
    # Some versions of OpenCV cannot warp a picture wider than 32766 pixels.
    image = np.zeros((60, 40_000), np.uint8)
    image[20:40, 36_000:36_020] = 255
    crop = warp_crop(image, crop_matrix(np.array([35_989.5, 9.5, 36_029.5, 49.5]), 40), 40)
    expected = np.zeros((40, 40), np.uint8)
    expected[10:30, 10:30] = 255
    np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize("step", [1, 2])
def test_an_image_that_cannot_be_written_to_is_read_only(step):
    image = np.random.default_rng(0).integers(0, 256, (33, 33, 3), dtype=np.uint8)
    before = image.copy()
    image.setflags(write=False)
    matrix = crop_matrix(np.array([2, 2, 2 + 12 * step, 2 + 12 * step]), 12)
    np.testing.assert_array_equal(warp_crop(image, matrix, 12), warp_crop(before, matrix, 12))
    np.testing.assert_array_equal(image, before)
