"""Any numbers into geometry and schemas: the package's errors, or results that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facemtl.checking.against_model import mirror_points
from facemtl.errors import BoxError
from facemtl.geometry import (
    apply_affine,
    box_from_five,
    check_boxes,
    crop_matrix,
    crop_roll,
    crop_side,
    invert_affine,
    roll_of_five,
    warp_crop,
)
from facemtl.landmarks import SCHEMAS
from facemtl.shared_points import shared_points

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
SLOW = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))

places = st.floats(-5000, 5000)
anything = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.floats(),
    st.integers(),
    st.lists(st.lists(st.one_of(st.floats(), st.text(max_size=2), st.none()), max_size=6), max_size=4),
    arrays.arrays(st.sampled_from([np.float32, np.int64, object]), arrays.array_shapes(max_dims=3)),
)
boxes = st.tuples(places, places, st.floats(0.5, 4000), st.floats(0.5, 4000)).map(
    lambda b: np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]])
)
fives = arrays.arrays(np.float64, (5, 2), elements=places).map(lambda five: five.round(3))


def both(test):
    """The test as it is, and with many more cases among the slow ones."""
    return pytest.mark.parametrize(
        "run", [pytest.param(QUICK, id="quick"), pytest.param(SLOW, marks=pytest.mark.slow)]
    )(test)


@both
def test_boxes_are_boxes_or_an_error(run):
    @run
    @given(anything)
    def check(value):
        try:
            found = check_boxes(value)
        except BoxError:
            return
        assert found.shape[1:] == (4,) and np.isfinite(found).all() and (found[:, 2:] > found[:, :2]).all()

    check()


@both
def test_a_crop_goes_there_and_back(run):
    @run
    @given(boxes, st.integers(8, 256), st.floats(0.2, 4), st.floats(-3, 3), st.booleans(), places, places)
    def check(box, size, scale, roll, mirror, x, y):
        matrix = crop_matrix(box, size, scale, roll, mirror)
        point = np.array([x, y])
        side = ((box[2] - box[0]) + (box[3] - box[1])) / 2 * scale
        assert apply_affine(matrix, apply_affine(invert_affine(matrix), point)) == pytest.approx(point, abs=1e-6)
        assert crop_side(matrix, size) == pytest.approx(side)
        middle = apply_affine(matrix, np.full(2, (size - 1) / 2))
        assert middle == pytest.approx((box[:2] + box[2:]) / 2, abs=1e-6)
        if not mirror:
            assert crop_roll(matrix) == pytest.approx(math.remainder(roll, 2 * math.pi), abs=1e-9)

    check()


@both
def test_any_crop_of_any_picture_is_a_picture(run):
    @run
    @given(boxes, st.integers(1, 40), st.integers(1, 60), st.integers(1, 60), st.floats(-3, 3), st.booleans())
    def check(box, size, height, width, roll, grey):
        image = np.full((height, width, 3), 200, np.uint8)
        crop = warp_crop(image, crop_matrix(box, size, roll=roll), size, grey)
        assert crop.shape == ((size, size) if grey else (size, size, 3)) and crop.dtype == np.uint8
        assert crop.max() <= 200  # between black and the picture

    check()


@both
def test_the_box_of_five_points_moves_with_them(run):
    @run
    @given(fives, st.floats(0.1, 10), places, st.permutations(range(5)))
    def check(five, scale, by, order):
        try:
            box = box_from_five(five)
        except BoxError:
            assert np.ptp(five, axis=0).max() < 1e-6
            return
        assert box_from_five(five[list(order)]) == pytest.approx(box, abs=1e-6)
        assert box_from_five(five * scale + by) == pytest.approx(box * scale + by, rel=1e-6, abs=1e-5)
        assert math.isfinite(roll_of_five(five))

    check()


@both
@pytest.mark.parametrize("name", SCHEMAS)
def test_points_of_any_schema_mirror_twice_to_themselves_and_convert_alike(name, run):
    other = st.sampled_from(sorted(SCHEMAS))

    @run
    @given(arrays.arrays(np.float64, (2, len(SCHEMAS[name]), 2), elements=places), st.integers(1, 4000), other)
    def check(points, width, target):
        mirrored = mirror_points(points, width, name)
        np.testing.assert_allclose(mirror_points(mirrored, width, name), points, atol=1e-6)
        shared = shared_points(name, [target])
        one = mirror_points(shared.of_set(points), width, shared.schema)
        # The groups of a mean may be added in another order.
        np.testing.assert_allclose(one, shared.of_set(mirrored), atol=1e-6)

    check()
