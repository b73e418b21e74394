from __future__ import annotations

import numpy as np
import pytest

from facemtl.landmarks import SCHEMAS, LandmarkSchema

EVERY = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())


def part(name: str) -> str:
    """``left_eye`` of ``left_eye_3``."""
    return name.rstrip("0123456789").rstrip("_")


def other_side(name: str) -> str:
    swap = {"left": "right", "right": "left"}
    return "_".join(swap.get(word, word) for word in name.split("_"))


def test_the_five_points_of_mtfl():
    schema = SCHEMAS["mtfl5"]
    assert schema.names == ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner")
    assert schema.flip_order == (1, 0, 2, 4, 3)
    assert schema.eye_pair == (0, 1)
    assert len(schema) == 5


def test_the_68_points_of_300w():
    schema = SCHEMAS["ibug68"]
    assert len(schema) == 68
    counts: dict[str, int] = {}
    for name in schema.names:
        counts[part(name)] = counts.get(part(name), 0) + 1
    assert list(counts.values()) == [17, 5, 5, 4, 5, 6, 6, 12, 8]
    assert schema.names[36] == "left_eye_0"
    assert schema.eye_pair == (36, 45)  # the outer corners


PAIRS_OF_68 = {0: 16, 17: 26, 21: 22, 31: 35, 36: 45, 37: 44, 39: 42, 40: 47, 41: 46}
PAIRS_OF_68 |= {48: 54, 49: 53, 55: 59, 60: 64, 61: 63, 65: 67}
MIDDLE_OF_68 = (8, 27, 28, 29, 30, 33, 51, 57, 62, 66)


def test_pairs_of_the_68_points():
    flip = SCHEMAS["ibug68"].flip_order
    assert {one: flip[one] for one in PAIRS_OF_68} == PAIRS_OF_68
    assert tuple(i for i in range(68) if flip[i] == i) == MIDDLE_OF_68


@EVERY
def test_a_schema_is_found_by_its_name_and_names_every_point_once(schema: LandmarkSchema):
    assert SCHEMAS[schema.name] is schema
    assert len(set(schema.names)) == len(schema) == len(schema.names) == len(schema.flip_order)


@EVERY
def test_two_flips_are_none(schema: LandmarkSchema):
    assert [schema.flip_order[i] for i in schema.flip_order] == list(range(len(schema)))


@EVERY
def test_a_flip_takes_left_names_to_right_names(schema: LandmarkSchema):
    flipped = [part(schema.names[i]) for i in schema.flip_order]
    assert flipped == [other_side(part(name)) for name in schema.names]


@EVERY
def test_the_eye_pair_is_left_then_right_and_swaps_in_a_flip(schema: LandmarkSchema):
    left, right = schema.eye_pair
    assert schema.names[left].startswith("left_eye")
    assert schema.flip_order[left] == right


@EVERY
def test_the_five_points_of_a_flipped_face_are_the_flipped_five(schema: LandmarkSchema):
    flipped = [{schema.flip_order[i] for i in group} for group in schema.five]
    five = [set(group) for group in schema.five]
    assert flipped == [five[i] for i in SCHEMAS["mtfl5"].flip_order]


@EVERY
def test_edges_join_known_points_and_are_the_same_in_a_mirror(schema: LandmarkSchema):
    edges = {frozenset(edge) for edge in schema.edges}
    assert len(edges) == len(schema.edges)
    assert all(len(edge) == 2 and edge <= set(range(len(schema))) for edge in edges)
    assert {frozenset(schema.flip_order[i] for i in edge) for edge in edges} == edges


def test_five_points_of_five_are_themselves():
    points = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(SCHEMAS["mtfl5"].to_five(points), points)


def test_five_points_of_68_are_eye_centres_nose_tip_and_mouth_corners():
    points = np.zeros((68, 2))
    points[36:42, 0] = [10, 12, 14, 16, 14, 12]
    points[42:48, 0] = [20, 22, 24, 26, 24, 16]
    points[[30, 48, 54]] = [[17, 5], [12, 9], [22, 8]]
    expected = [[13, 0], [22, 0], [17, 5], [12, 9], [22, 8]]
    np.testing.assert_allclose(SCHEMAS["ibug68"].to_five(points), expected)
    np.testing.assert_allclose(SCHEMAS["ibug68"].to_five(np.stack([points, points + 1]))[1], np.add(expected, 1))


def test_an_eye_with_a_missing_point_is_missing_and_the_rest_is_not():
    points = np.ones((68, 2))
    points[38] = np.nan
    five = SCHEMAS["ibug68"].to_five(points)
    assert np.isnan(five[0]).all()
    assert np.isfinite(five[1:]).all()
