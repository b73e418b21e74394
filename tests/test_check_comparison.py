"""Labels against what a model sees, with a model that is played by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facemtl.checking.against_model import Seen, mirror_points
from facemtl.checking.comparison import Comparison, check_labels, orders, shift_interval
from facemtl.checking.counts import check_boxes, check_outside, check_unlabelled, count_part
from facemtl.data.sample import FaceSample
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import SCHEMAS

FIVE = np.array([[-20.0, -15], [20, -15], [0, 3], [-16, 20], [16, 20]])
SIZE = 200


def a_part(count: int = 60, noise: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, 5, 2) labelled and seen points of faces somewhere in pictures of 200 x 200 pixels."""
    rng = np.random.default_rng(seed)
    seen = FIVE + rng.uniform(60, 140, (count, 1, 2))
    return seen + rng.normal(0, noise, seen.shape), seen


def samples_of(labelled: np.ndarray, **fields) -> list[FaceSample]:
    def one(i: int, points: np.ndarray) -> FaceSample:
        values = {"labels": {}, "source": f"row {i}"} | {name: value[i] for name, value in fields.items()}
        return FaceSample(image=Path(f"{i}.jpg"), points=np.float32(points), schema="mtfl5", **values)

    return [one(i, points) for i, points in enumerate(labelled)]


def seen_as(labelled: np.ndarray, points: np.ndarray, **fields) -> Seen:
    count = len(points)
    values = {"unsure": np.full(count, 0.5), "sizes": np.full((count, 2), SIZE)}
    values |= {"probabilities": {}, "angles": np.full((count, 3), np.nan)} | fields
    return Seen("mtfl5", points, labelled=labelled, **values)


def compare(labelled: np.ndarray, points: np.ndarray, first: int = 0, **fields) -> Comparison:
    comparison = Comparison(seen_as(labelled, points), samples_of(labelled, **fields), "a train", first)
    comparison.run()
    return comparison


def found(comparison: Comparison) -> list[tuple[str, tuple[int, ...]]]:
    return [(f.kind, f.rows) for f in comparison.findings]


def test_the_orders_that_points_are_mixed_up_in():
    assert orders(SCHEMAS["mtfl5"]) == {
        "left and right of all points": [1, 0, 2, 4, 3],
        "left and right of the eyes": [1, 0, 2, 3, 4],
        "left and right of the mouth": [0, 1, 2, 4, 3],
    }
    eyes = orders(SCHEMAS["ibug68"])["left and right of the eyes"]
    assert eyes[36] == 45 and eyes[48] == 48 and eyes[17] == 17


def test_a_mirrored_face_is_placed_and_named_anew():
    points = np.array([[10.0, 5], [30, 6], [20, 9], [12, 15], [28, 16]])
    mirrored = mirror_points(points, 100, "mtfl5")
    assert mirrored.tolist() == [[69, 6], [89, 5], [79, 9], [71, 16], [87, 15]]
    both = mirror_points(np.stack([points, points]), np.array([100, 200]), "mtfl5")
    assert both[0].tolist() == mirrored.tolist() and both[1, 0].tolist() == [169, 6]


def test_good_labels_are_left_alone():
    assert found(compare(*a_part())) == []


def test_single_faces_with_exchanged_or_mirrored_points_are_named():
    labelled, points = a_part()
    labelled[4] = labelled[4, [1, 0, 2, 3, 4]]
    labelled[9] = labelled[9, [1, 0, 2, 4, 3]]
    labelled[12] = mirror_points(labelled[12], SIZE, "mtfl5")
    labelled[20] += 30
    comparison = compare(labelled, points, first=1000)
    assert dict(found(comparison)[::-1]).keys() == {"points_exchanged", "mirrored", "points_elsewhere"}
    assert sorted(found(comparison)) == [
        ("mirrored", (1012,)),
        ("points_elsewhere", (1020,)),
        ("points_exchanged", (1004,)),
        ("points_exchanged", (1009,)),
    ]
    messages = {f.rows[0]: f.message for f in comparison.findings}
    assert "row 4: left and right of the eyes exchanged" in messages[1004]
    assert "left and right of all points" in messages[1009]


@pytest.mark.parametrize(
    ("order", "said"),
    [([1, 0, 2, 3, 4], "the eyes"), ([1, 0, 2, 4, 3], "all points"), ([3, 4, 2, 0, 1], "4 points exchanged")],
)
def test_an_order_that_is_wrong_in_the_whole_part_is_one_finding(order, said):
    labelled, points = a_part()
    comparison = compare(labelled[:, order], points)
    assert found(comparison) == [("points_exchanged", ())]
    assert said in comparison.findings[0].message


def test_beside_a_wrong_order_of_all_a_face_of_another_order_is_seen():
    labelled, points = a_part()
    labelled = labelled[:, [1, 0, 2, 4, 3]]
    labelled[7] = labelled[7, [1, 0, 2, 3, 4]]
    assert found(compare(labelled, points)) == [("points_exchanged", ()), ("points_exchanged", (7,))]


def test_pictures_that_were_all_mirrored_are_one_finding():
    labelled, points = a_part()
    comparison = compare(mirror_points(labelled, SIZE, "mtfl5"), points)
    assert ("mirrored", ()) in found(comparison)


def test_a_symmetric_face_in_the_middle_is_its_own_mirror_image():
    labelled, points = a_part()
    labelled[3] = points[3] = FIVE + np.array([(SIZE - 1) / 2, 90])
    assert found(compare(labelled, points)) == []


@pytest.mark.parametrize(
    ("by", "said"), [(1.0, "1-based coordinates read as 0-based"), (-1.0, "0-based coordinates read as 1-based")]
)
def test_coordinates_that_are_all_a_pixel_aside(by, said):
    labelled, points = a_part()
    comparison = compare(labelled + by, points)
    assert found(comparison) == [("pixel_shift", ())] and said in comparison.findings[0].message
    entry = comparison.facts["shift in x, pixels"]["all"]
    assert entry["low"] < by < entry["high"] and entry["high"] - entry["low"] < 0.3


def test_half_a_pixel_and_a_group_alone():
    labelled, points = a_part(120)
    labelled[:60] += 0.5
    groups = ["shifted"] * 60 + ["straight"] * 60
    comparison = compare(labelled, points, group=groups)
    assert [f.message.split(":")[0] for f in comparison.findings] == ["shifted"]
    assert "half a pixel" in comparison.findings[0].message


def test_an_annotators_habit_is_no_mistake():
    labelled, points = a_part()
    labelled += np.array([[-2, 0], [2, 0], [0, 3], [0, 0], [0, 0]])  # eyes further apart, the nose lower
    assert found(compare(labelled, points)) == []


def test_the_interval_of_a_shift_is_of_the_many():
    shifts = np.concatenate([np.full(99, 1.0), [500.0]])
    assert shift_interval(shifts) == (1.0, 1.0, 1.0)


@settings(max_examples=10, deadline=None)
@given(st.floats(-3, 3), st.integers(0, 2**32 - 1))
def test_the_interval_moves_with_the_shifts(by, seed):
    shifts = np.random.default_rng(seed).normal(0, 1, 50)
    low, middle, high = shift_interval(shifts)
    assert low <= middle <= high
    assert shift_interval(shifts + by) == pytest.approx((low + by, middle + by, high + by), abs=1e-9)


# --- attributes and angles ------------------------------------------------------------------------------------------


def doubts(task: str, labels: list[int], shares: np.ndarray) -> tuple[dict, list[tuple[str, tuple[int, ...]]]]:
    labelled, points = a_part(len(labels))
    samples = samples_of(labelled, labels=[{task: label} for label in labels])
    both = np.stack([shares, shares], axis=1)
    agreement, findings = check_labels(seen_as(labelled, points, probabilities={task: both}), samples, "a train", 0)
    return agreement, [(f.kind, f.rows) for f in findings]


def test_a_label_that_the_model_is_sure_is_wrong():
    shares = np.tile([0.9, 0.1], (40, 1))
    shares[5] = [0.001, 0.999]
    shares[6] = [0.1, 0.9]  # not sure enough
    assert doubts("smile", [0] * 40, shares) == ({"smile": 0.95}, [("label_suspect", (5,))])
    assert doubts("smile", [-1] * 40, shares) == ({}, [])


def test_classes_that_are_exchanged_in_the_whole_part():
    shares = np.tile([0.9, 0.1], (40, 1))
    shares[:15] = [0.1, 0.9]
    labels = [0] * 15 + [1] * 25
    assert doubts("smile", labels, shares) == ({"smile": 0.0}, [("inverted_label", ())])


def test_poses_of_mirrored_pictures():
    left, frontal, right = np.eye(5)[[1, 2, 3]] * 0.9 + 0.02
    shares = np.stack([frontal] * 30 + [left] * 10 + [right] * 10)
    assert [kind for kind, _ in doubts("pose", [2] * 30 + [3] * 10 + [1] * 10, shares)[1]] == ["inverted_label"]
    assert doubts("pose", [2] * 30 + [1] * 10 + [3] * 10, shares)[1] == []
    assert ATTRIBUTES["pose"][2] == "frontal"


def test_an_angle_whose_sign_is_mixed_up_and_one_that_is_far_off():
    labelled, points = a_part(40)
    angles = np.stack([np.linspace(-40, 40, 40), np.linspace(10, -10, 40), np.zeros(40)], axis=1)
    truth = angles * np.array([-1, 1, 1])
    truth[3, 1] += 45
    samples = samples_of(labelled, angles=list(np.float32(truth)))
    agreement, findings = check_labels(seen_as(labelled, points, angles=angles), samples, "a train", 0)
    assert agreement["yaw"] == -1 and [(f.kind, f.rows) for f in findings] == [
        ("inverted_label", ()),
        ("label_suspect", (3,)),
    ]


# --- what needs no model --------------------------------------------------------------------------------------------


def test_counts_of_a_part():
    labelled, _ = a_part(3)
    labelled[1, 0] = np.nan
    labels = [{"smile": 0}, {"smile": 1}, {"smile": -1}]
    samples = samples_of(labelled, labels=labels, group=["a", "a", "b"], angles=[np.zeros(3, np.float32), None, None])
    facts = count_part(samples)
    assert {key: facts[key] for key in ("faces", "pictures", "schema", "with all points", "with some points")} == {
        "faces": 3,
        "pictures": 3,
        "schema": "mtfl5",
        "with all points": 2,
        "with some points": 1,
    }
    assert facts["groups"] == {"a": 2, "b": 1}
    assert facts["labels"]["smile"] == {"smiling": 1, "not_smiling": 1, "missing": 1}
    assert facts["labels"]["yaw"] == {"known": 1, "missing": 2}


def test_faces_of_which_nothing_is_known():
    nothing = np.full((2, 5, 2), np.nan)
    samples = samples_of(nothing, labels=[{"smile": -1}, {"smile": 1}])
    assert [f.rows for f in check_unlabelled(samples, "a train", 10)] == [(10,)]


def test_points_outside_are_counted_and_those_far_outside_found():
    five = FIVE + 24  # unit 24.2; the leftmost point at x = 4
    sizes = np.full((3, 2), 100)
    outside, findings = check_outside(samples_of(np.stack([five, five - [5, 0], five - [20, 0]])), sizes, "a", 0)
    assert outside == 2 and [f.rows for f in findings] == [(2,)]
    assert "2 points, up to 16 px outside" in findings[0].message
    assert check_outside(samples_of(np.stack([five - [20, 0]])), np.zeros((1, 2), int), "a", 0) == (0, [])


def test_boxes_elsewhere_and_boxes_that_are_all_the_same():
    labelled, _ = a_part(40)
    boxes = [np.float32([*p.mean(axis=0) - 40, *p.mean(axis=0) + 40]) for p in labelled]
    boxes[3] = np.float32([0, 0, 20, 20])
    assert [(f.kind, f.rows) for f in check_boxes(samples_of(labelled, box=boxes), "a", 0)] == [("box_elsewhere", (3,))]
    boxes[10:20] = [np.float32([20, 26, 111, 117])] * 10
    kinds = [(f.kind, f.rows) for f in check_boxes(samples_of(labelled, box=boxes), "a", 0)]
    assert kinds == [("same_box", ()), ("box_elsewhere", (3,))]
