"""From errors to tables, verdicts and a picture; the errors are planted, so every verdict is known."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from facemtl.data.sample import FaceSample
from facemtl.errors import ConfigError, DataError
from facemtl.image import read_image
from facemtl.training.comparison import Comparison
from facemtl.training.comparison_plots import COLOURS, forest_plot
from facemtl.training.recipe import Recipe
from facemtl.training.statistics import Interval, paired_difference
from facemtl.training.verdicts import Row, Verdicts, as_markdown, judge

SEEDS = (0, 1, 2)
FACES = 60
POSES = ("left_profile", "left", "frontal", "right", "right_profile")


def recipe(name: str, *tasks: str, shuffled: tuple[str, ...] = ()) -> Recipe:
    return Recipe(name, tasks=tasks, passes=1, shuffled_labels=shuffled)


METHODS = {
    "both": recipe("both", "landmarks", "smile"),
    "points": recipe("points", "landmarks"),
    "smile": recipe("smile", "smile"),
    "control": recipe("control", "landmarks", "smile", shuffled=("smile",)),
}
COMPARISON = Comparison("planted", METHODS, SEEDS)


def faces(count: int = FACES) -> list[FaceSample]:
    """A third of the faces smile; no face is a left profile, one is a right profile, most are frontal."""
    poses = [4] + [1, 3] * 5 + [2] * count
    return [
        FaceSample(
            image=Path(f"{i}.png"),
            points=np.zeros((5, 2), np.float32),
            schema="mtfl5",
            labels={"smile": int(i % 3 > 0), "gender": i % 2, "glasses": 1, "pose": poses[i]},
        )
        for i in range(count)
    ]


def planted(points: float = -0.02, smile: float = 0.3, control: float = 0.0) -> dict[str, dict[str, np.ndarray]]:
    """Errors of ``both`` and ``control`` as far from the baselines' as said; 30 % of the smiles are missed alone."""
    rng = np.random.default_rng(0)
    base = np.float32(rng.uniform(0.05, 0.15, (len(SEEDS), FACES)))
    noise = np.float32(rng.normal(0, 0.005, (2, *base.shape)))
    chance = rng.random(base.shape)
    return {
        "both": {"landmarks": base + np.float32(points) + noise[0], "smile": np.float32(chance < 0.3 + smile)},
        "points": {"landmarks": base},
        "smile": {"smile": np.float32(chance < 0.3)},
        "control": {"landmarks": base + np.float32(control) + noise[1], "smile": np.ones_like(base)},
    }


def row(verdicts: Verdicts, method: str, task: str, part: str = "all") -> Row:
    (found,) = [r for r in verdicts.rows if (r.method, r.task, r.part) == (method, task, part)]
    return found


@pytest.fixture(scope="module")
def verdicts() -> Verdicts:
    return judge(COMPARISON, planted(), faces(), "heldout")


# --- judging --------------------------------------------------------------------------------------------------------


def test_who_is_judged_on_what(verdicts):
    parts = ("all", "left", "frontal", "right", "right_profile")  # nobody shows the left profile
    expected = [("both", task, part) for task in ("landmarks", "smile") for part in parts]
    expected += [("control", "landmarks", part) for part in parts]  # its smiles were shuffled: they are not judged
    assert [(r.method, r.task, r.part) for r in verdicts.rows] == expected  # the baselines are not judged by themselves
    assert list(verdicts.deltas) == ["both"]  # the control has one judged task
    assert (verdicts.split, verdicts.faces, verdicts.seeds) == ("heldout", FACES, len(SEEDS))


def test_planted_differences_are_found(verdicts):
    points, smile = row(verdicts, "both", "landmarks"), row(verdicts, "both", "smile")
    assert points.difference.verdict == "helped"
    assert points.difference.estimate == pytest.approx(-2, abs=0.1)  # percentage points of NME
    assert smile.difference.verdict == "hurt"
    assert smile.difference.estimate == pytest.approx(30, abs=8)
    assert row(verdicts, "control", "landmarks").difference.verdict == "undecided"


@pytest.mark.parametrize(
    ("points", "smile", "words"),
    [(-0.02, -0.2, ("helped", "helped", "helped")), (0.02, 0.3, ("hurt", "hurt", "hurt"))],
)
def test_delta_m_follows_when_all_tasks_agree(points, smile, words):
    verdicts = judge(COMPARISON, planted(points, smile), faces(), "test")
    found = (row(verdicts, "both", "landmarks").difference, row(verdicts, "both", "smile").difference)
    assert (*(interval.verdict for interval in found), verdicts.deltas["both"].verdict) == words


def test_figures_by_hand(verdicts):
    errors = planted()
    points = row(verdicts, "both", "landmarks")
    per_seed = 100 * errors["both"]["landmarks"].mean(axis=1)
    assert points.error == pytest.approx(per_seed.mean(), rel=1e-5)
    assert points.spread == pytest.approx(per_seed.std(ddof=1), rel=1e-4)
    assert points.baseline == pytest.approx(100 * errors["points"]["landmarks"].mean(), rel=1e-5)
    assert points.difference.estimate == pytest.approx(points.error - points.baseline, abs=1e-3)

    smiling = np.arange(FACES) % 3 == 0
    misses = errors["both"]["smile"]
    balanced = (misses[:, smiling].mean() + misses[:, ~smiling].mean()) / 2
    assert row(verdicts, "both", "smile").error == pytest.approx(100 * balanced, rel=1e-5)
    frontal = np.array([s.labels["pose"] == 2 for s in faces()])
    assert row(verdicts, "both", "smile", "frontal").error == pytest.approx(100 * misses[:, frontal].mean(), rel=1e-5)

    delta = 50 * (points.error / points.baseline - 1)
    delta += 50 * (row(verdicts, "both", "smile").error / row(verdicts, "both", "smile").baseline - 1)
    assert verdicts.deltas["both"].estimate == pytest.approx(delta, rel=1e-4)


def test_the_first_method_that_learns_a_task_alone_is_the_baseline():
    methods = {"control": recipe("control", "landmarks", shuffled=("smile",)), **METHODS}
    errors = planted()
    errors["control"] = {"landmarks": errors["both"]["landmarks"]}
    verdicts = judge(Comparison("x", methods, SEEDS), errors, faces(), "test")
    assert row(verdicts, "control", "landmarks").baseline == row(verdicts, "both", "landmarks").baseline
    assert not any(r.method in ("points", "smile") for r in verdicts.rows)


def test_a_missing_baseline_is_an_error():
    methods = {name: METHODS[name] for name in ("both", "points")}
    with pytest.raises(ConfigError, match=r"tasks = \['smile'\]"):
        judge(Comparison("x", methods, SEEDS), planted(), faces(), "test")


def test_errors_about_other_faces_are_refused():
    with pytest.raises(DataError, match="heldout: 'both' was judged on 60 faces, but the data set has 59"):
        judge(COMPARISON, planted(), faces(59), "heldout")


def test_a_data_set_without_some_attributes():
    bare = [replace(s, labels={"smile": s.labels["smile"]}) for s in faces()]
    verdicts = judge(COMPARISON, planted(), bare, "test")
    assert {r.part for r in verdicts.rows} == {"all"}
    assert row(verdicts, "both", "smile").difference.verdict == "hurt"


def test_one_seed_has_no_spread():
    errors = {name: {task: values[:1] for task, values in tasks.items()} for name, tasks in planted().items()}
    verdicts = judge(Comparison("x", METHODS, (0,)), errors, faces(), "test")
    assert np.isnan(row(verdicts, "both", "landmarks").spread)
    assert row(verdicts, "both", "landmarks").difference.verdict == "helped"


def three() -> tuple[Comparison, dict[str, dict[str, np.ndarray]]]:
    """Two methods with both tasks, ``both`` with two seeds more."""
    errors = planted()
    errors["more"] = {"landmarks": errors["points"]["landmarks"] + np.float32(0.01), "smile": errors["smile"]["smile"]}
    errors["both"] = {task: np.concatenate([values, values[:2]]) for task, values in errors["both"].items()}
    methods = {**METHODS, "more": recipe("more", "landmarks", "smile")}
    return Comparison("x", methods, SEEDS, more_seeds={"both": (3, 4)}), errors


def test_methods_are_compared_over_the_seeds_that_both_have():
    comparison, errors = three()
    found = judge(comparison, errors, faces(), "test")
    points = row(found, "both", "landmarks")
    assert points.seeds == 3
    assert points.error == pytest.approx(100 * errors["both"]["landmarks"].mean(), rel=1e-5)  # over all five of its own
    difference = errors["both"]["landmarks"][:3].mean() - errors["points"]["landmarks"].mean()
    assert points.difference.estimate == pytest.approx(100 * difference, rel=1e-4)


def test_ranks_are_over_tasks_and_common_seeds():
    comparison, errors = three()
    ranks = judge(comparison, errors, faces(), "test").ranks
    # Points: both, single-task, more; smiles: both worst, the others alike.
    assert ranks.mean == pytest.approx({"both": (1 + 3) / 2, "more": (3 + 1.5) / 2, "single-task": (2 + 1.5) / 2})
    assert ranks.blocks == 6
    assert judge(COMPARISON, planted(), faces(), "test").ranks is None  # of two there is nothing to say


def test_p_is_corrected_over_the_methods_of_a_task_and_part():
    comparison, errors = three()
    found = judge(comparison, errors, faces(), "test")
    # Two differ in every draw: 2 / 2001 each; the control does not. The least counts three times, and none is below it.
    assert row(found, "both", "landmarks").difference.p == pytest.approx(6 / 2001)
    assert row(found, "more", "landmarks").difference.p == pytest.approx(6 / 2001)
    truth = np.array([s.labels["smile"] for s in faces()])
    raw = paired_difference(errors["both"]["smile"][:3], errors["smile"]["smile"], truth).p
    assert row(found, "both", "smile").difference.p == pytest.approx(2 * raw)  # of two methods
    assert row(found, "more", "smile").difference.p == 1.0


# --- saying it ------------------------------------------------------------------------------------------------------


def by_hand() -> Verdicts:
    rows = (
        Row("all", "landmarks", "all", 7.456, 0.123, 8.0, Interval(-0.544, -0.7, -0.4, 0.002)),
        Row("all", "landmarks", "left", 9.0, 0.2, 9.0, Interval(0.0, -1.0, 1.0)),
        Row("all", "smile", "all", 12.0, 1.0, 10.0, Interval(2.0, 1.0, 3.0)),
    )
    return Verdicts("test", 2995, 5, rows, {"all": Interval(6.6, -0.14, 13.0, 0.061)})


def test_the_tables_in_literals():
    assert as_markdown(by_hand()).splitlines() == [
        "### test: 2995 faces, 5 seeds",
        "",
        "Error is NME for landmarks and balanced error for attributes, in percent; within a pose class plain error.",
        "Difference: method minus single-task, percentage points, paired bootstrap 95 % over seeds and faces;",
        "p is corrected over the methods (Holm).",
        "",
        "| method | task | error (sd over seeds) | single-task | difference [95 %] | p | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| all | landmarks | 7.46 (0.12) | 8.00 | -0.54 [-0.70, -0.40] | 0.002 | helped |",
        "| all | smile | 12.00 (1.00) | 10.00 | +2.00 [+1.00, +3.00] |  | hurt |",
        "",
        "| method | Delta-m: mean relative change of error over its tasks [95 %] | p | verdict |",
        "| --- | --- | --- | --- |",
        "| all | +6.6 % [-0.1, +13.0] | 0.061 | undecided |",
        "",
        "| method | task, pose class | error (sd over seeds) | single-task | difference [95 %] | p | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| all | landmarks, left | 9.00 (0.20) | 9.00 | +0.00 [-1.00, +1.00] |  | undecided |",
    ]


def test_one_seed_has_no_deviation():
    row = replace(by_hand().rows[0], spread=float("nan"))
    text = as_markdown(replace(by_hand(), seeds=1, rows=(row,), deltas={}))
    assert "### test: 2995 faces, 1 seed\n" in text
    assert "| all | landmarks | 7.46 | 8.00 |" in text


def test_tables_without_lines_are_left_out():
    text = as_markdown(replace(by_hand(), rows=by_hand().rows[:1], deltas={}))
    assert "Delta-m" not in text
    assert "pose class |" not in text
    assert text.count("| --- ") == 7


def test_the_plot_shows_relative_differences_in_the_colour_of_their_verdict():
    figure = forest_plot(by_hand())
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["all: landmarks", "all: smile"]
    bars, points = axes.lines[0:4:2], axes.lines[1:4:2]
    np.testing.assert_allclose(bars[0].get_xdata(), [-8.75, -5.0])  # -0.7 and -0.4 of 8 percent
    np.testing.assert_allclose(bars[1].get_xdata(), [10, 30])
    np.testing.assert_allclose([point.get_xdata()[0] for point in points], [-6.8, 20])
    assert [to_hex(bar.get_color()) for bar in bars] == [COLOURS["helped"], COLOURS["hurt"]]
    low, high = axes.get_ylim()
    assert low > high  # the first method is on top
    assert "2995 faces, 5 seeds" in axes.get_title()


def test_the_plot_is_a_picture(verdicts):
    data = io.BytesIO()
    forest_plot(verdicts).savefig(data, format="png", dpi=60)
    image = read_image(data.getvalue())
    assert image.std() > 5


def test_a_faultless_baseline_has_no_relative_change():
    errors = planted()
    errors["smile"]["smile"][:] = 0
    verdicts = judge(COMPARISON, errors, faces(), "test")
    assert row(verdicts, "both", "smile").difference.verdict == "hurt"
    assert verdicts.deltas["both"].verdict == "undecided"
    forest_plot(verdicts).savefig(io.BytesIO(), format="png", dpi=40)
    assert "| both | smile |" in as_markdown(verdicts)
