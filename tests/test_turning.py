"""Faces turned aside: the relief by hand, pictures and points that agree, and what is said of the copies."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from dotted_faces import FIVE, P, cache_of, dotted_patch

from facemtl.data.cache import PATCH_SCALE
from facemtl.data.turning import PIVOT, TURNS, TurnedFace, relief, turned_points, with_turned
from facemtl.geometry import box_from_five
from facemtl.head_pose import MEAN_FACE, angles_from_five
from facemtl.landmarks import SCHEMAS
from facemtl.training.recipe import Recipe

EYE, NOSE = MEAN_FACE[1], MEAN_FACE[2]


def test_the_relief_passes_through_the_mean_face_and_ends_in_a_plane():
    assert relief(EYE[0], EYE[1]) == pytest.approx(EYE[2], abs=0.5)
    assert relief(NOSE[0], NOSE[1]) == pytest.approx(NOSE[2], abs=2)
    assert relief(*MEAN_FACE[3, :2]) == pytest.approx(MEAN_FACE[3, 2], abs=6)  # a mouth lies deeper than an ellipsoid
    assert relief(200.0, 0.0) == relief(0.0, -300.0) == -85.5
    np.testing.assert_array_equal(relief(np.array([-17.0]), 30.0), relief(np.array([17.0]), 30.0))


def test_a_quarter_turn_shows_depth_as_width():
    depth = relief(NOSE[0], NOSE[1])
    np.testing.assert_allclose(turned_points(NOSE[:2], 90.0), [depth - PIVOT, NOSE[1]], atol=1e-9)
    np.testing.assert_allclose(turned_points(NOSE[:2], -90.0), [PIVOT - depth, NOSE[1]], atol=1e-9)
    np.testing.assert_allclose(turned_points(MEAN_FACE[:, :2], 0.0), MEAN_FACE[:, :2])


@pytest.mark.parametrize("degrees", TURNS)
def test_dots_of_a_picture_go_where_their_points_go(degrees):
    ys, xs = np.mgrid[:P, :P]
    for index, (x, y) in enumerate(np.rint(FIVE).astype(int).tolist()):
        patch = np.zeros((P, P), np.uint8)
        cv2.circle(patch, (x, y), 2, 255, -1)
        face = TurnedFace(FIVE, degrees, P)
        expected = face.points(np.array([[x, y]], float))[0]
        # Close by: beyond its edges a picture is mirrored, and the dot with it.
        seen = face.picture(patch) * (np.hypot(xs - expected[0], ys - expected[1]) < 6.0)
        middle = np.array([(seen * xs).sum(), (seen * ys).sum()]) / seen.sum()
        # Of a dot on the nose's tip only the near half is seen.
        np.testing.assert_allclose(middle, expected, atol=1.5 if index == 2 else 0.8)


def test_a_turned_face_lies_in_the_middle_of_its_patch_and_looks_where_it_was_turned():
    for degrees in TURNS:
        five = TurnedFace(FIVE, degrees, P).points(FIVE)
        x1, y1, x2, y2 = box_from_five(five)
        assert (x1 + x2, y1 + y2) == (pytest.approx(P - 1), pytest.approx(P - 1))
        assert x2 - x1 == pytest.approx(P / PATCH_SCALE)
        assert np.sign(angles_from_five(five)[0]) == np.sign(degrees)


def test_the_mirror_image_of_a_turn_is_the_other_turn_of_the_mirror_image():
    flip = list(SCHEMAS["mtfl5"].flip_order)
    mirrored = lambda points: (points * [-1, 1] + [P - 1, 0])[flip]  # noqa: E731
    right, left = TurnedFace(FIVE, 40, P), TurnedFace(mirrored(FIVE), -40, P)
    np.testing.assert_allclose(mirrored(right.points(FIVE)), left.points(mirrored(FIVE)), atol=1e-3)
    patch = dotted_patch(FIVE)
    difference = right.picture(patch)[:, ::-1].astype(float) - left.picture(np.ascontiguousarray(patch[:, ::-1]))
    assert np.abs(difference).mean() < 0.5


def test_copies_follow_the_patches_and_say_what_is_still_known():
    cache = cache_of(np.repeat(FIVE[None], 40, axis=0), pose=2)
    said = np.repeat(FIVE[None].astype(np.float32), 40, axis=0)
    cache = replace(
        cache,
        angles=np.tile(np.float32([1, 2, 3]), (40, 1)),
        taught={"landmarks": said, "pose": np.full((40, 5), 0.2, np.float32), "angles": np.zeros((40, 3), np.float32)},
        sides=np.full(40, 50, np.float32),
    )
    more = with_turned(cache, 0.25, "mtfl5", seed=3)
    assert len(more) == 50
    np.testing.assert_array_equal(more.patches[:40], cache.patches)
    np.testing.assert_array_equal(more.labels["pose"], [2] * 40 + [-1] * 10)
    assert set(more.labels["smile"][40:].tolist()) <= {-1, 0, 1}
    turns = more.angles[40:, 0] - 1
    assert set(turns.tolist()) <= set(TURNS)
    np.testing.assert_array_equal(more.angles[40:, 1:], np.tile(np.float32([2, 3]), (10, 1)))
    np.testing.assert_array_equal(more.taught["angles"][40:, 0], turns)
    assert np.isnan(more.taught["pose"][40:]).all()
    np.testing.assert_array_equal(more.taught["landmarks"][40:], more.points[40:])
    expected = [TurnedFace(cache.points[0].astype(float), int(d), P).points(cache.points[0]) for d in turns]
    np.testing.assert_allclose(more.points[40:], expected, atol=1e-4)
    zooms = [TurnedFace(cache.points[0].astype(float), int(d), P).zoom for d in turns]
    np.testing.assert_allclose(more.sides[40:], np.multiply(50, zooms), rtol=1e-5)
    again, other = (with_turned(cache, 0.25, "mtfl5", seed=s) for s in (3, 4))
    np.testing.assert_array_equal(again.angles, more.angles)
    assert (other.angles != more.angles).any()


def test_only_faces_that_look_at_the_viewer_are_turned():
    aside = TurnedFace(FIVE, 40, P).points(FIVE)
    cache = cache_of(np.stack([aside, FIVE, aside]))
    assert len(with_turned(cache, 1.0, "mtfl5", seed=0)) == 4
    assert with_turned(cache.subset(np.array([0])), 1.0, "mtfl5", seed=0).patches.shape[0] == 1


def test_points_of_a_teacher_do_where_there_are_none():
    cache = cache_of(FIVE[None])
    blind = replace(cache, points=np.full_like(cache.points, np.nan))
    assert len(with_turned(blind, 1.0, "mtfl5", seed=0)) == 1
    taught = with_turned(replace(blind, taught={"landmarks": cache.points}), 1.0, "mtfl5", seed=0)
    seen = with_turned(cache, 1.0, "mtfl5", seed=0)
    np.testing.assert_array_equal(taught.patches, seen.patches)
    np.testing.assert_allclose(taught.taught["landmarks"][1], seen.points[1], atol=1e-4)
    assert np.isnan(taught.points).all()


def test_no_face_is_turned_unless_a_recipe_says_so():
    assert Recipe(name="plain").turned == 0
