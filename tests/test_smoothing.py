"""One-Euro filters and hysteresis: values by hand, then what they are for."""

import math

import numpy as np
import pytest

from facemtl.face import Attribute, Face, Pose
from facemtl.geometry import box_from_five
from facemtl.smoothing import FaceSmoother, Hysteresis, OneEuro

STEP = 1 / (2 * math.pi)  # seconds after which a filter of 1 Hz has gone half the way: 1 / (1 + 1 / (2 pi f t))
FIVE = np.float32([[40, 40], [60, 40], [50, 52], [42, 62], [58, 62]])


def face(points: np.ndarray = FIVE, smiling: float = 0.9, pose: Pose | None = None, **fields) -> Face:
    shares = {"smiling": smiling, "not_smiling": 1 - smiling}
    label = max(shares, key=shares.__getitem__)
    smile = Attribute(label, shares[label], shares)
    return Face(np.float32([0, 0, 9, 9]), 0.7, np.float32(points), "mtfl5", {"smile": smile}, pose=pose, **fields)


# --- One-Euro -------------------------------------------------------------------------------------------------------


def run(filter_: OneEuro, values: list, step: float = STEP, scale: float = 1.0) -> list:
    return [filter_(np.array(value, dtype=float), 7 + i * step, scale).tolist() for i, value in enumerate(values)]


def test_at_a_fixed_cutoff_it_is_exponential_smoothing() -> None:
    assert run(OneEuro(1.0, 0.0), [[0], [1], [1], [1]]) == [
        [0],
        pytest.approx([1 / 2]),
        pytest.approx([3 / 4]),
        pytest.approx([7 / 8]),
    ]


def test_twice_the_time_or_twice_the_cutoff_goes_two_thirds_of_the_way() -> None:
    assert run(OneEuro(1.0, 0.0), [[0], [1]], step=2 * STEP)[1] == pytest.approx([2 / 3])
    assert run(OneEuro(2.0, 0.0), [[0], [1]])[1] == pytest.approx([2 / 3])


def test_speed_raises_the_cutoff() -> None:
    # Second value: the speed 1 / STEP = 2 pi is smoothed, at 1 Hz, to pi; the cutoff is 1 + pi / pi = 2 Hz.
    # Third value: what is left, 1/3, makes a speed of 2/3 pi, smoothed to 5/6 pi: 11/6 Hz, of what is left 11/17.
    found = run(OneEuro(1.0, 1 / math.pi), [[0], [1], [1]])
    assert found == [[0], pytest.approx([2 / 3]), pytest.approx([2 / 3 + 1 / 3 * 11 / 17])]


def test_what_moves_together_shares_its_speed() -> None:
    """(3, 4) has the speed of 5: both numbers go the same share of the way, that of a lone number going 5."""
    x, y = run(OneEuro(1.0, 1.0), [[0, 0], [3, 4]])[1]
    (lone,) = run(OneEuro(1.0, 1.0), [[0], [5]])[1]
    assert (x / 3, y / 4) == pytest.approx((lone / 5, lone / 5))


def test_rows_have_speeds_of_their_own() -> None:
    both = run(OneEuro(1.0, 1.0), [[[0, 0], [0, 0]], [[1, 0], [50, 0]]])[1]
    assert both == [run(OneEuro(1.0, 1.0), [[0, 0], [v, 0]])[1] for v in (1, 50)]


def test_speed_counts_in_the_scale_of_the_face() -> None:
    """A face seen ten times as large, moving ten times as many pixels, is filtered alike."""
    near = run(OneEuro(1.0, 2.0), [[0], [30], [50]], scale=100.0)
    far = run(OneEuro(1.0, 2.0), [[0], [3], [5]], scale=10.0)
    assert np.array(near) == pytest.approx(10 * np.array(far))


def test_the_caller_may_write_into_what_it_gets() -> None:
    filter_ = OneEuro(1.0, 0.0)
    first = filter_(np.zeros(1), 0.0)
    first += 100
    assert filter_(np.ones(1), STEP) == pytest.approx([0.5])


def test_points_at_rest_are_steadier_and_moving_ones_hardly_trail() -> None:
    rng, smoother = np.random.default_rng(0), FaceSmoother({})
    noise = 0.1  # pixels, 0.5 % of the distance between the eyes
    rest = [smoother(face(FIVE + rng.normal(0, noise, (5, 2))), i / 30).landmarks for i in range(90)]
    assert np.std(rest[30:], axis=0).mean() < 0.5 * noise
    smoother = FaceSmoother({})
    velocity = np.array([60.0, 0.0])  # pixels a second: more than a face a second
    for i in range(60):
        shown = smoother(face(FIVE + velocity * i / 30), i / 30).landmarks
    assert 0 < (FIVE + velocity * 59 / 30 - shown)[:, 0].max() < 2.0  # less than one frame behind


# --- labels ---------------------------------------------------------------------------------------------------------


def labels(shares: list[float], step: float = 0.1, **options) -> str:
    """What is shown, ``a`` or ``b``, when ``a`` has these probabilities."""
    hysteresis = Hysteresis(**options)
    return "".join(hysteresis({"a": share, "b": 1 - share}, i * step) for i, share in enumerate(shares))


def test_a_label_changes_after_another_has_led_for_a_while() -> None:
    #       seconds: 0    0.1  0.2  0.3  0.4  0.5
    assert labels([0.9, 0.9, 0.1, 0.1, 0.1, 0.1], margin=0.2, hold=0.3) == "aaaaab"
    assert labels([0.1, 0.1, 0.9, 0.9, 0.9, 0.9], margin=0.2, hold=0.3) == "bbbbba"


def test_a_lead_below_the_margin_changes_nothing() -> None:
    assert labels([0.9] + 50 * [0.41], margin=0.2) == 51 * "a"
    assert labels([0.9] + 50 * [0.39], margin=0.2).endswith("b")


def test_a_lead_that_breaks_off_starts_again() -> None:
    assert labels([0.9, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1, 0.1], hold=0.3) == "aaaaaaab"


def test_a_change_takes_seconds_and_not_frames() -> None:
    assert labels([0.9, 0.1, 0.1], step=0.35, hold=0.3) == "aab"


def test_the_same_rival_must_lead_all_the_time() -> None:
    hysteresis = Hysteresis(hold=0.3)
    leaders = "abcbcbccccc"
    shown = [
        hysteresis({name: 0.8 if name == leader else 0.1 for name in "abc"}, i / 10) for i, leader in enumerate(leaders)
    ]
    assert "".join(shown) == "aaaaaaaaacc"


# --- faces ----------------------------------------------------------------------------------------------------------


def test_the_first_face_is_as_found_with_the_box_of_its_points() -> None:
    sigma = np.float32([1, 2, 3, 4, 5])
    given = face(pose=Pose(10, -5, 3), landmark_sigma=sigma, track_id=4, quality=0.5)
    shown = FaceSmoother({})(given, 0.0)
    assert (shown.landmarks == FIVE).all()
    assert shown.box == pytest.approx(box_from_five(FIVE), abs=1e-4)
    assert (shown.box.dtype, shown.landmarks.dtype) == (np.float32, np.float32)
    assert shown.pose == given.pose
    assert shown.attributes == given.attributes
    assert (shown.score, shown.track_id, shown.quality) == (0.7, 4, 0.5)
    assert shown.landmark_sigma is sigma


def test_probabilities_are_smoothed_and_still_sum_to_one() -> None:
    smoother = FaceSmoother({})
    smoother(face(smiling=0.9), 0.0)
    for i in range(1, 4):
        smile = smoother(face(smiling=0.1), i / 30).attributes["smile"]
        assert sum(smile.probabilities.values()) == pytest.approx(1)
        assert 0.1 < smile.probabilities["smiling"] < 0.9
        assert smile.label == "smiling"
        assert smile.confidence == smile.probabilities["smiling"]
    for i in range(4, 90):
        smile = smoother(face(smiling=0.1), i / 30).attributes["smile"]
    assert smile.label == "not_smiling"
    assert smile.confidence == pytest.approx(0.9, abs=0.01)


def test_certain_is_judged_by_the_threshold_of_the_model() -> None:
    assert FaceSmoother({"smile": 0.95})(face(smiling=0.9), 0.0).attributes["smile"].certain is False
    assert FaceSmoother({"smile": 0.85})(face(smiling=0.9), 0.0).attributes["smile"].certain is True
    assert FaceSmoother({})(face(smiling=0.9), 0.0).attributes["smile"].certain is True


def test_a_label_is_chosen_relative_to_the_prior_and_held_like_any_other() -> None:
    smoother = FaceSmoother({}, {"smile": (0.9, 0.1)})
    first = smoother(face(smiling=0.75), 0.0).attributes["smile"]
    assert (first.label, first.confidence) == ("not_smiling", pytest.approx(0.25))
    assert smoother(face(smiling=0.99), 0.01).attributes["smile"].label == "not_smiling"
    for frame in range(30):
        last = smoother(face(smiling=0.99), 0.1 + frame / 10).attributes["smile"]
    assert last.label == "smiling"


def test_angles_are_smoothed_across_half_a_turn() -> None:
    smoother = FaceSmoother({})
    smoother(face(pose=Pose(0, 0, 179)), 0.0)
    pose = smoother(face(pose=Pose(0, 0, -179)), 1 / 30).pose  # two degrees further
    assert 179 < pose.roll < 180
    for i in range(2, 60):
        pose = smoother(face(pose=Pose(20, 10, -179)), i / 30).pose
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((20, 10, -179), abs=0.5)


def test_pose_and_attributes_may_be_missing() -> None:
    bare = Face(np.float32([0, 0, 9, 9]), 1.0, FIVE, "mtfl5")
    shown = FaceSmoother({})(bare, 0.0)
    assert shown.pose is None
    assert shown.attributes == {}
