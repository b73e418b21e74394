"""Targets: what a crop should be called, by hand, and that points, angles and pose move as the picture does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facemtl.data.cache import CropCache
from facemtl.data.targets import blank_target, labelled_targets, mirrored_class, moved_targets
from facemtl.geometry import apply_affine, crop_matrix, points_to_crop, roll_of_five
from facemtl.head_pose import MEAN_FACE, angles_from_five, rotation
from facemtl.landmarks import SCHEMAS

SIZE = 40
WHOLE = np.array([-0.5, -0.5, 39.5, 39.5])  # the box whose crop of SIZE pixels is the patch itself
NAN = math.nan
FIVE = np.float32([[9.5, 9.5], [29.5, 9.5], [19.5, 19.5], [9.5, 29.5], [27.5, 29.5]])


def moved(task: str, value, roll: float = 0.0, mirror: bool = False, schema: str = "mtfl5") -> np.ndarray:
    """The target of the crop of the whole patch, turned by ``roll`` degrees."""
    matrix = crop_matrix(WHOLE, SIZE, roll=math.radians(roll), mirror=mirror)
    return moved_targets({task: value}, matrix, SIZE, schema)[task]


# --- values by hand ---


def test_points_are_measured_from_the_middle_in_sides_of_the_crop():
    # 9.5 is 10 pixels of 40 before the middle, which is 19.5
    expected = [[-0.25, -0.25], [0.25, -0.25], [0, 0], [-0.25, 0.25], [0.2, 0.25]]
    np.testing.assert_allclose(moved("landmarks", FIVE), expected, atol=1e-7)
    assert moved("landmarks", FIVE).dtype == np.float32


def test_the_points_of_a_mirrored_crop_run_the_other_way_and_swap_names():
    expected = [[-0.25, -0.25], [0.25, -0.25], [0, 0], [-0.2, 0.25], [0.25, 0.25]]
    np.testing.assert_allclose(moved("landmarks", FIVE, mirror=True), expected, atol=1e-7)


def test_a_crop_turned_clockwise_sees_its_points_turned_back():
    found = moved("landmarks", FIVE, roll=90)  # right becomes up, down becomes right
    np.testing.assert_allclose(found[:2], [[-0.25, 0.25], [-0.25, -0.25]], atol=1e-7)


def test_missing_points_stay_missing_and_change_their_name_in_a_mirror():
    lost = FIVE.copy()
    lost[3] = NAN  # the left corner of the mouth
    assert np.isnan(moved("landmarks", lost)).all(axis=1).tolist() == [False, False, False, True, False]
    assert np.isnan(moved("landmarks", lost, mirror=True)).all(axis=1).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("roll", "mirror", "expected"),
    [
        (0, False, [20, -5, 30]),
        (0, True, [-20, -5, -30]),
        (10, False, [20, -5, 20]),  # the crop leans with the head, which is left with a smaller lean
        (10, True, [-20, -5, -20]),
        (-10, False, [20, -5, 40]),
        (30, True, [-20, -5, 0]),
    ],
)
def test_a_turned_crop_changes_roll_alone_and_a_mirror_yaw_and_roll(roll, mirror, expected):
    found = moved("angles", np.float32([20, -5, 30]), roll, mirror)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_a_roll_stays_within_half_a_turn():
    assert moved("angles", np.float32([0, 0, 170]), roll=-160)[2] == pytest.approx(-30, abs=1e-4)
    assert moved("angles", np.float32([0, 0, -170]), roll=160, mirror=True)[2] == pytest.approx(-30, abs=1e-4)


def test_a_missing_angle_stays_missing_alone():
    np.testing.assert_array_equal(moved("angles", np.float32([NAN, 3, NAN]), 10, mirror=True), [NAN, 3, NAN])


def test_mirrored_pose_classes_run_the_other_way():
    assert [int(mirrored_class("pose", np.int64(i))) for i in range(5)] == [4, 3, 2, 1, 0]
    np.testing.assert_array_equal(
        mirrored_class("pose", np.float32([0.5, 0.25, 0.125, 0.125, 0])), [0, 0.125, 0.125, 0.25, 0.5]
    )
    assert moved("pose", np.int64(1)) == 1
    assert moved("pose", np.int64(1), mirror=True) == 3


def test_what_is_missing_or_has_no_side_stays():
    assert mirrored_class("pose", np.int64(-1)) == -1
    assert mirrored_class("smile", np.int64(0)) == 0
    np.testing.assert_array_equal(mirrored_class("gender", np.float32([0.75, 0.25])), [0.75, 0.25])
    np.testing.assert_array_equal(mirrored_class("pose", np.full(5, NAN)), np.full(5, NAN))


def test_the_target_of_a_face_without_label():
    assert blank_target("smile", "mtfl5") == -1
    assert blank_target("smile", "mtfl5").dtype == np.int64
    for task, shape in (("landmarks", (5, 2)), ("landmarks_ibug68", (68, 2)), ("angles", (3,))):
        for taught in (False, True):
            blank = blank_target(task, "mtfl5", taught)
            assert (blank.shape, blank.dtype) == (shape, np.float32)
            assert np.isnan(blank).all()
    np.testing.assert_array_equal(blank_target("pose", "mtfl5", taught=True), np.full(5, NAN))
    assert blank_target("landmarks", "ibug68").shape == (68, 2)


# --- from a cache ---


def cache_of(schema: str, angles: np.ndarray | None = None) -> CropCache:
    points = np.arange(2 * len(SCHEMAS[schema]) * 2, dtype=np.float32).reshape(2, -1, 2)
    return CropCache(np.zeros((2, SIZE, SIZE), np.uint8), points, {"smile": np.array([1, -1])}, schema, angles)


def test_a_set_labels_what_it_has():
    targets = labelled_targets(cache_of("mtfl5"), 1, "mtfl5")
    assert list(targets) == ["landmarks", "smile"]
    np.testing.assert_array_equal(targets["landmarks"], np.arange(10, 20).reshape(5, 2))
    assert targets["smile"] == -1
    angles = np.float32([[1, 2, 3], [4, NAN, 6]])
    np.testing.assert_array_equal(labelled_targets(cache_of("mtfl5", angles), 1, "mtfl5")["angles"], [4, NAN, 6])


@pytest.mark.parametrize(
    ("schema", "main", "task"),
    [
        ("ibug68", "mtfl5", "landmarks_ibug68"),
        ("mtfl5", "ibug68", "landmarks_mtfl5"),
        ("ibug68", "ibug68", "landmarks"),
    ],
)
def test_points_of_another_schema_than_the_main_one_are_a_task_of_their_own(schema, main, task):
    targets = labelled_targets(cache_of(schema), 0, main)
    assert list(targets) == [task, "smile"]
    assert targets[task].shape == (len(SCHEMAS[schema]), 2)


# --- properties ---


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_two_mirrors_are_none(schema):
    points = np.random.default_rng(0).integers(0, SIZE, (len(schema), 2)).astype(np.float32)
    points[0] = NAN
    targets = {
        "landmarks": points,
        "angles": np.float32([10, 20, -30]),
        "pose": np.int64(1),
        "smile": np.float32([0.25, 0.75]),
    }
    matrix = crop_matrix(WHOLE, SIZE, mirror=True)
    once = moved_targets(targets, matrix, SIZE, schema.name)
    assert not np.array_equal(once["landmarks"], moved("landmarks", points, schema=schema.name), equal_nan=True)
    in_patch = once | {"landmarks": points_to_crop(once["landmarks"], SIZE)}
    twice = moved_targets(in_patch, matrix, SIZE, schema.name)
    np.testing.assert_allclose(points_to_crop(twice.pop("landmarks"), SIZE), points, atol=1e-5)
    for task, value in twice.items():
        np.testing.assert_array_equal(value, targets[task])


def test_a_turn_of_the_crop_moves_points_and_angles_alike():
    for roll in (-75.0, -10.0, 0.0, 33.0, 120.0):
        leans = math.degrees(roll_of_five(moved("landmarks", FIVE, roll)))
        angles = moved("angles", np.float32([0, 0, math.degrees(roll_of_five(FIVE))]), roll)
        assert math.remainder(leans - angles[2], 360) == pytest.approx(0, abs=1e-3)


def test_geometry_sees_in_the_moved_points_the_moved_angles():
    rng = np.random.default_rng(0)
    for _ in range(50):
        angles = np.float32(rng.uniform(-1, 1, 3) * (50, 30, 40))
        surface = MEAN_FACE - MEAN_FACE.mean(axis=0)
        points = (rotation(*angles.tolist()) @ surface.T).T[:, :2] * 0.2 + 19.5
        box = WHOLE + np.tile(rng.uniform(-3, 3, 2), 2)
        mirror = bool(rng.random() < 0.5)
        matrix = crop_matrix(box, SIZE, rng.uniform(0.8, 1.3), math.radians(rng.uniform(-60, 60)), mirror)
        targets = moved_targets({"landmarks": np.float32(points), "angles": angles}, matrix, SIZE, "mtfl5")
        np.testing.assert_allclose(angles_from_five(targets["landmarks"]), targets["angles"], atol=0.01)
        back = apply_affine(matrix, points_to_crop(targets["landmarks"].astype(float), SIZE))
        order = list(SCHEMAS["mtfl5"].flip_order) if mirror else slice(None)
        np.testing.assert_allclose(back[order], points, atol=1e-4)
