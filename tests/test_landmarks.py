from __future__ import annotations

import numpy as np
import pytest

from facemtl.errors import ConfigError
from facemtl.landmarks import SCHEMAS, LandmarkSchema, conversion

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


def test_the_points_of_aflw_in_the_order_of_its_database():
    schema = SCHEMAS["aflw21"]
    assert schema.names == (
        *("left_brow_left_corner", "left_brow_center", "left_brow_right_corner"),
        *("right_brow_left_corner", "right_brow_center", "right_brow_right_corner"),
        *("left_eye_left_corner", "left_eye_center", "left_eye_right_corner"),
        *("right_eye_left_corner", "right_eye_center", "right_eye_right_corner"),
        *("left_ear", "nose_left", "nose_center", "nose_right", "right_ear"),
        *("mouth_left_corner", "mouth_center", "mouth_right_corner", "chin_center"),
    )
    assert schema.flip_order == (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 16, 15, 14, 13, 12, 19, 18, 17, 20)
    assert [schema.names[i] for i in schema.eye_pair] == ["left_eye_left_corner", "right_eye_right_corner"]
    assert SCHEMAS["aflw19"].names == tuple(n for n in schema.names if not n.endswith("ear"))
    assert SCHEMAS["aflw19"].flip_order == (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 14, 13, 12, 17, 16, 15, 18)


def test_the_29_points_of_cofw():
    schema = SCHEMAS["cofw29"]
    pairs = ((0, 1), (2, 3), (4, 6), (5, 7), (8, 9), (10, 11), (12, 14), (13, 15), (16, 17), (18, 19), (22, 23))
    assert {frozenset((i, j)) for i, j in enumerate(schema.flip_order) if i != j} == {frozenset(p) for p in pairs}
    assert [i for i, j in enumerate(schema.flip_order) if i == j] == [20, 21, 24, 25, 26, 27, 28]
    assert schema.five == ((16,), (17,), (20,), (22,), (23,))


# As every other program that trains on these sets has them, counted from 0.
PAIRS_OF_JAW_AND_BROWS = {0: 32, 15: 17, 33: 46, 37: 42, 38: 50, 41: 47}
PAIRS_OF_98 = PAIRS_OF_JAW_AND_BROWS | {55: 59, 56: 58, 60: 72, 61: 71, 62: 70, 63: 69, 64: 68, 65: 75, 66: 74, 67: 73}
PAIRS_OF_98 |= {76: 82, 77: 81, 78: 80, 83: 87, 84: 86, 88: 92, 89: 91, 93: 95, 96: 97}
MIDDLE_OF_98 = (16, 51, 52, 53, 54, 57, 79, 85, 90, 94)
PAIRS_OF_106 = PAIRS_OF_JAW_AND_BROWS | {55: 65, 59: 61, 66: 79, 67: 78, 68: 77, 69: 76, 70: 75, 71: 82, 72: 81, 73: 80}
PAIRS_OF_106 |= {74: 83, 84: 90, 86: 88, 91: 95, 92: 94, 96: 100, 97: 99, 101: 103, 104: 105}
MIDDLE_OF_106 = (16, 51, 52, 53, 54, 60, 87, 93, 98, 102)


@pytest.mark.parametrize(
    ("name", "pairs", "middle"),
    [("wflw98", PAIRS_OF_98, MIDDLE_OF_98), ("lapa106", PAIRS_OF_106, MIDDLE_OF_106)],
)
def test_pairs_of_the_98_and_106_points(name, pairs, middle):
    flip = SCHEMAS[name].flip_order
    assert {one: flip[one] for one in pairs} == pairs
    assert tuple(i for i in range(len(flip)) if flip[i] == i) == middle


def test_outlines_of_the_98_and_106_points_begin_where_those_of_68_do():
    assert [SCHEMAS["wflw98"].names[i] for i in (33, 42, 51, 55, 60, 68, 76, 88, 96)] == [
        *("left_brow_0", "right_brow_0", "nose_bridge_0", "nose_base_0", "left_eye_0", "right_eye_0"),
        *("outer_lip_0", "inner_lip_0", "left_pupil"),
    ]
    assert [SCHEMAS["lapa106"].names[i] for i in (55, 66, 74, 75, 83, 84, 96, 104)] == [
        *("nose_side_0", "left_eye_0", "left_eye_center_0", "right_eye_0", "right_eye_center_0"),
        *("outer_lip_0", "inner_lip_0", "left_pupil"),
    ]


def test_schemas_of_every_size_in_use_are_there():
    assert [len(schema) for schema in SCHEMAS.values()] == [5, 68, 19, 21, 29, 98, 106]


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
    assert schema.names[right].startswith("right_eye")
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


# Conversions


def test_the_19_points_are_the_21_without_ears_exactly():
    to19 = conversion("aflw21", "aflw19")
    assert to19.exact
    assert [SCHEMAS["aflw21"].names[i] for (i,) in to19.groups] == list(SCHEMAS["aflw19"].names)
    points = np.arange(42.0).reshape(21, 2)
    points[0] = np.nan
    np.testing.assert_array_equal(to19(points), np.delete(points, (12, 16), axis=0))


def test_the_68_points_of_98_and_106():
    to68 = conversion("wflw98", "ibug68")
    assert not to68.exact
    assert to68.offset is None  # no picture at hand has both
    found = [i for (i,) in to68.groups]
    assert found[:17] == list(range(0, 33, 2))
    assert found[17:36] == [33, 34, 35, 36, 37, 42, 43, 44, 45, 46, 51, 52, 53, 54, 55, 56, 57, 58, 59]
    assert found[36:48] == [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75]
    assert found[48:] == list(range(76, 96))
    found = [i for (i,) in conversion("lapa106", "ibug68").groups]
    assert found[27:48] == [51, 52, 53, 54, 58, 59, 60, 61, 62, 66, 67, 69, 70, 71, 73, 75, 76, 78, 79, 80, 82]
    assert found[48:] == list(range(84, 104))


PAIRS = [
    *((name, name) for name in SCHEMAS),
    *((name, "mtfl5") for name in SCHEMAS if name != "mtfl5"),
    *(("aflw21", "aflw19"), ("wflw98", "ibug68"), ("lapa106", "ibug68")),
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_conversion_commutes_with_a_flip_and_keeps_names_on_their_side(source, target):
    convert = conversion(source, target)
    first, second = SCHEMAS[source], SCHEMAS[target]
    assert len(convert.groups) == len(second)
    points = np.random.default_rng(0).normal(size=(2, len(first), 2))
    flipped_first = convert(points[:, list(first.flip_order)])
    np.testing.assert_allclose(flipped_first, convert(points)[:, list(second.flip_order)])
    for indices, name in zip(convert.groups, second.names, strict=True):
        sides = {word for i in indices for word in first.names[i].split("_") if word in ("left", "right")}
        assert sides <= set(name.split("_")) or not {"left", "right"} & set(name.split("_"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_gives_itself_exactly(name):
    assert conversion(name, name).exact
    points = np.random.default_rng(0).normal(size=(len(SCHEMAS[name]), 2))
    np.testing.assert_array_equal(conversion(name, name)(points), points)


@pytest.mark.parametrize("name", [n for n in SCHEMAS if n != "mtfl5"])
def test_five_points_of_any_other_schema_are_approximate(name):
    convert = conversion(name, "mtfl5")
    assert not convert.exact
    points = np.random.default_rng(0).normal(size=(len(SCHEMAS[name]), 2))
    np.testing.assert_array_equal(convert(points), SCHEMAS[name].to_five(points))


def test_the_measured_offset_of_five_points_of_68_is_small_and_there():
    offset = np.array(conversion("ibug68", "mtfl5").offset)
    assert offset.shape == (5, 2)
    assert 0.02 < np.abs(offset).max() < 0.05  # 3 % of the eye distance: far from nothing where errors are 5 %


@pytest.mark.parametrize(("source", "target"), [("mtfl5", "ibug68"), ("ibug68", "cofw29"), ("x", "x"), ("x", "mtfl5")])
def test_what_cannot_be_converted_is_an_error_that_lists_what_can(source, target):
    with pytest.raises(ConfigError, match=f"points of '{source}' give no '{target}'; known: aflw21 to aflw19, wflw98"):
        conversion(source, target)
