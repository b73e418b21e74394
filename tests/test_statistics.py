"""The paired bootstrap: estimates by hand, and intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facemtl.training.statistics import (
    Interval,
    critical_difference,
    delta_m,
    friedman,
    group_error,
    holm,
    mean_ranks,
    p_value,
    paired_difference,
    resampled_errors,
)

ONE = np.zeros(4, dtype=int)


def one_group(faces: int) -> np.ndarray:
    return np.zeros(faces, dtype=int)


# --- by hand --------------------------------------------------------------------------------------------------------


def test_group_error_by_hand():
    errors = np.array([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 4.0]])
    np.testing.assert_array_equal(group_error(errors, ONE), [3.0, 1.0])
    # Groups of three faces and of one: the mean of 2 and 6, of 0 and 4.
    np.testing.assert_array_equal(group_error(errors, np.array([7, 7, 7, 2])), [4.0, 2.0])


def test_balanced_error_counts_a_rare_class_as_much_as_a_common_one():
    misses = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]])
    classes = np.array([0] * 9 + [1])
    np.testing.assert_array_equal(group_error(misses, classes), [0.5])
    np.testing.assert_array_equal(group_error(misses, one_group(10)), [0.1])


def test_the_estimate_is_the_difference_of_the_means():
    ours, base = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 1.0], [2.0, 2.0]])
    assert paired_difference(ours, base, np.array([0, 1])).estimate == pytest.approx(2.5 - 1.5)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-2.0, -0.1, "helped"),
        (0.1, 2.0, "hurt"),
        (-1.0, 1.0, "undecided"),
        (0.0, 1.0, "undecided"),
        (-1.0, 0.0, "undecided"),
        (np.nan, np.nan, "undecided"),
    ],
)
def test_an_interval_on_one_side_of_zero_is_a_verdict(low, high, verdict):
    assert Interval(0.5, low, high).verdict == verdict


def test_delta_m_by_hand():
    # Errors fall from 0.2 to 0.1 (-50 %) and rise from 0.5 to 0.6 (+20 %): -15 % on average, in every resample.
    errors = {"landmarks": np.full((3, 4), 0.1), "smile": np.full((3, 4), 0.6)}
    baselines = {"landmarks": np.full((3, 4), 0.2), "smile": np.full((3, 4), 0.5)}
    delta = delta_m(errors, baselines, {"landmarks": ONE, "smile": np.array([0, 0, 1, 1])})
    assert (delta.estimate, delta.low, delta.high) == pytest.approx((-15, -15, -15))
    assert delta.verdict == "helped"


def test_delta_m_is_a_ratio_of_means_not_a_mean_of_ratios():
    errors, baseline = np.array([[1.0, 3.0]]), np.array([[2.0, 2.0]])
    assert delta_m({"a": errors}, {"a": baseline}, {"a": one_group(2)}).estimate == pytest.approx(0)
    assert delta_m({"a": baseline}, {"a": errors}, {"a": one_group(2)}).estimate == pytest.approx(0)


def test_delta_m_against_a_faultless_baseline_is_undecided():
    rng = np.random.default_rng(0)
    errors = {"smile": rng.integers(0, 2, (2, 30))}
    delta = delta_m(errors, {"smile": np.zeros((2, 30))}, {"smile": one_group(30)})
    assert np.isnan(delta.estimate)
    assert delta.verdict == "undecided"


# --- intervals ------------------------------------------------------------------------------------------------------


def simulated(
    rng: np.random.Generator, seeds: int, faces: int, *, of_seeds: float, of_faces: float, of_runs: float
) -> np.ndarray:
    """(S, N) errors whose true mean is 0: standard deviations between seeds, between faces, and of each error."""
    return rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_faces, faces) + rng.normal(0, of_runs, (seeds, faces))


def test_equal_methods_differ_by_exactly_nothing():
    errors = np.random.default_rng(0).random((5, 50)).astype(np.float32)
    groups = np.arange(50) % 3
    difference = paired_difference(errors, errors.copy(), groups)
    assert difference == Interval(0.0, 0.0, 0.0)
    assert difference.verdict == "undecided"
    delta = delta_m({"a": errors}, {"a": errors.copy()}, {"a": groups})
    assert delta == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(("shift", "verdict"), [(-0.3, "helped"), (0.3, "hurt"), (0.0, "undecided")])
def test_a_planted_difference_is_found(shift, verdict):
    rng = np.random.default_rng(1)
    base = 3 + simulated(rng, 5, 300, of_seeds=0.05, of_faces=1, of_runs=0.2)
    ours = base + shift + rng.normal(0, 0.2, base.shape)
    groups = {"a": np.arange(300) % 2}
    difference = paired_difference(ours, base, groups["a"])
    assert difference.verdict == verdict
    assert difference.low < shift < difference.high
    delta = delta_m({"a": ours}, {"a": base}, groups)
    assert delta.verdict == verdict
    assert delta.low < 100 * shift / 3 < delta.high


def test_swapping_the_methods_swaps_the_sign():
    rng = np.random.default_rng(2)
    ours, base = rng.random((3, 40)), rng.random((3, 40))
    there, back = paired_difference(ours, base, ONE.repeat(10)), paired_difference(base, ours, ONE.repeat(10))
    assert (back.estimate, back.low, back.high) == pytest.approx((-there.estimate, -there.high, -there.low))


@pytest.mark.parametrize(
    ("of_seeds", "of_faces", "of_runs"),
    [(0.0, 1.0, 0.0), (0.0, 1.0, 1.0), (0.1, 1.0, 1.0), (0.5**0.5 / 3, 1.0, 1.0)],
    ids=["faces alone", "faces and runs", "and seeds", "seeds as much as faces"],
)
def test_ninety_five_percent_of_the_intervals_hold_the_truth(of_seeds, of_faces, of_runs):
    rng = np.random.default_rng(3)
    trials, seeds, faces = 400, 5, 90
    held = 0
    for _ in range(trials):
        errors = simulated(rng, seeds, faces, of_seeds=of_seeds, of_faces=of_faces, of_runs=of_runs)
        interval = paired_difference(errors, np.zeros_like(errors), one_group(faces), resamples=400)
        held += interval.low <= 0 <= interval.high
    assert 0.92 <= held / trials <= 0.99


@pytest.mark.parametrize("seeds", [3, 5])
def test_few_seeds_that_alone_vary_still_give_ninety_five_percent(seeds):
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        errors = simulated(rng, seeds, 20, of_seeds=1, of_faces=0.01, of_runs=0.01)
        interval = paired_difference(errors, np.zeros_like(errors), one_group(20), resamples=400)
        held += interval.low <= 0 <= interval.high
    assert 0.91 <= held / 400 <= 0.99


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(5)
    base = simulated(rng, 5, 200, of_seeds=0, of_faces=1, of_runs=0.1)
    ours = base + rng.normal(0, 0.1, base.shape)
    shuffled = base[:, rng.permutation(200)]
    paired = paired_difference(ours, base, one_group(200))
    unpaired = paired_difference(ours, shuffled, one_group(200))
    assert unpaired.estimate == pytest.approx(paired.estimate)
    assert unpaired.high - unpaired.low > 4 * (paired.high - paired.low)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(6)
    agreeing = simulated(rng, 5, 200, of_seeds=0, of_faces=1, of_runs=0)
    shift = np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]])
    zero = np.zeros_like(agreeing)
    narrow = paired_difference(agreeing, zero, one_group(200))
    wide = paired_difference(agreeing + shift, zero, one_group(200))
    assert wide.estimate == pytest.approx(narrow.estimate)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    # Seeds alone: five runs of -1 to 1 have a standard error of sqrt(0.625 / 5); Student's t for it is 2.776.
    alone = paired_difference(np.repeat(shift, 200, axis=1), zero, one_group(200))
    assert alone.high - alone.low == pytest.approx(2 * 2.776 * 0.125**0.5, rel=0.1)


def test_the_interval_of_a_mean_over_faces_is_the_textbooks():
    errors = np.random.default_rng(7).normal(10, 2, (1, 400))
    interval = paired_difference(errors, np.zeros_like(errors), one_group(400))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * errors.std() / 20, rel=0.06)
    assert (interval.low + interval.high) / 2 == pytest.approx(errors.mean(), abs=0.02)


def test_a_rare_class_that_a_resample_misses_leaves_no_gap():
    errors = 1 + np.random.default_rng(8).random((1, 40))
    groups = np.array([0] * 39 + [1])  # the last face is absent from 36 % of the resamples
    draws = resampled_errors(errors, groups)
    assert draws.shape == (2000,)
    assert np.isfinite(draws).all()
    assert errors.min() <= draws.min() <= draws.max() <= errors.max()
    assert np.isfinite([paired_difference(errors, errors[::-1], groups).low])


def test_one_seed_and_one_face():
    assert paired_difference(np.array([[3.0]]), np.array([[1.0]]), one_group(1)) == Interval(2.0, 2.0, 2.0)


# --- what is drawn --------------------------------------------------------------------------------------------------


def test_draws_are_paired_across_methods_and_tasks():
    rng = np.random.default_rng(9)
    a, b = rng.random((4, 30)), rng.random((4, 30))
    groups = one_group(30)
    np.testing.assert_allclose(
        resampled_errors(a, groups) + resampled_errors(b, groups), resampled_errors(a + b, groups)
    )
    np.testing.assert_array_equal(resampled_errors(a, groups, seed=1), resampled_errors(a, groups, seed=1))
    assert not np.array_equal(resampled_errors(a, groups, seed=1), resampled_errors(a, groups, seed=2))


def test_a_resample_is_made_of_drawn_faces_and_of_seeds_drawn_and_widened():
    # Powers of ten show in the digits how often each was drawn.
    faces = np.array([[1.0, 10.0, 100.0]])
    drawn = np.round(3 * resampled_errors(faces, one_group(3))).astype(int)
    assert {sum(map(int, str(total))) for total in drawn.tolist()} == {3}
    assert set(drawn.tolist()) == {a + 10 * b + 100 * (3 - a - b) for a in range(4) for b in range(4 - a)}
    # Of three seeds, one drawn k times counts 1 + c (k - 1), c = sqrt(3 / 2) * 4.3027 / 1.9600 (Student, 2 degrees).
    seeds = np.array([[0.0], [0.0], [3.0]])
    counts = (resampled_errors(seeds, one_group(1)) - 1) / (math.sqrt(1.5) * 4.302653 / 1.959964) + 1
    assert set(np.round(counts, 5).tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_the_errors_are_left_as_they_were():
    errors = np.random.default_rng(0).random((3, 20)).astype(np.float32)
    before = errors.copy()
    paired_difference(errors, errors + 1, np.arange(20) % 4)
    np.testing.assert_array_equal(errors, before)


# --- many methods ---------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04, times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, and none less than one before it.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_does_not_count_what_has_no_p():
    found = holm([math.nan, 0.01, 0.03])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.02, 0.03])


def test_p_counts_the_draws_on_the_rarer_side_of_zero():
    draws = np.array([-1.0] * 4 + [2.0] * 95)
    assert p_value(draws) == pytest.approx(2 * (4 + 1) / 100)
    assert p_value(-draws) == p_value(draws)
    assert p_value(np.ones(99)) == pytest.approx(0.02)  # never 0
    assert p_value(np.zeros(99)) == 1.0
    assert math.isnan(p_value(np.array([1.0, np.nan])))


def test_constant_differences_leave_no_doubt():
    base = np.random.default_rng(0).random((3, 50))
    better = paired_difference(base - 0.25, base, one_group(50))
    assert (better.estimate, better.low, better.high) == pytest.approx((-0.25, -0.25, -0.25))
    assert better.p == pytest.approx(2 / 2001)
    assert better.verdict == "helped"
    same = paired_difference(base, base, one_group(50))
    assert (same, same.p, same.verdict) == (Interval(0.0, 0.0, 0.0), 1.0, "undecided")


def test_a_corrected_p_over_5_percent_decides_nothing():
    assert Interval(-1.0, -2.0, -0.1, 0.049).verdict == "helped"
    assert Interval(-1.0, -2.0, -0.1, 0.051).verdict == "undecided"
    assert Interval(1.0, 0.1, 2.0, 0.03).verdict == "hurt"


def test_mean_ranks_by_hand():
    # Blocks: a < b < c; b < a = c, which share 2.5; all alike, which share 2.
    errors = np.array([[1.0, 5.0, 7.0], [2.0, 4.0, 7.0], [3.0, 5.0, 7.0]])
    np.testing.assert_allclose(mean_ranks(errors), [(1 + 2.5 + 2) / 3, (2 + 1 + 2) / 3, (3 + 2.5 + 2) / 3])


def test_critical_differences_of_the_literature():
    # Demsar (JMLR 2006): q is 2.569 for four methods and 2.343 for three; four on 14 data sets differ from 1.25 on.
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(3, 10) == pytest.approx(2.343 * math.sqrt(3 * 4 / 60), abs=0.001)


def test_friedman_by_hand():
    # Three methods that always rank 1, 2, 3 in 6 blocks: chi squared 12 with 2 degrees, exp(-6).
    errors = np.arange(3)[:, None] + np.random.default_rng(0).random((1, 6))
    assert friedman(errors) == pytest.approx(math.exp(-6))
    assert friedman(np.ones((3, 4))) == 1.0
    assert math.isnan(friedman(errors[:2]))
