"""Pictures and the table of a comparison, from figures set by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from facemtl.training.comparison import Comparison
from facemtl.training.comparison_plots import cost_plot, joined, pose_plot, rank_diagram, size_plot
from facemtl.training.costs import Cost
from facemtl.training.overview import overview, overview_csv, overview_markdown, words
from facemtl.training.recipe import Recipe
from facemtl.training.statistics import Interval
from facemtl.training.study import Settled, Trial
from facemtl.training.verdicts import Ranks, Row, Verdicts

ROWS = (
    Row("sum", "landmarks", "all", 5.0, 0.1, 4.0, Interval(1.0, 0.4, 1.6, 0.002), 3),
    Row("sum", "landmarks", "left", 6.0, 0.1, 5.0, Interval(1.0, -0.5, 2.5, 0.4), 3),
    Row("sum", "smile", "all", 9.0, 1.0, 10.0, Interval(-1.0, -3.0, 1.0, 0.3), 3),
    Row("uw", "landmarks", "all", 3.9, 0.1, 4.1, Interval(-0.2, -0.3, -0.1, 0.01), 5),
)
RANKS = Ranks({"single-task": 1.5, "sum": 2.5, "uw": 2.0}, 6, 1.35, 0.2)
VERDICTS = Verdicts(
    "test", 2995, 3, ROWS, {"sum": Interval(7.5, -1.0, 16.0, 0.1)}, ranks=RANKS, parts={"all": 2995, "left": 200}
)
METHODS = {"landmarks": Recipe("landmarks", tasks=("landmarks",)), "sum": Recipe("sum"), "uw": Recipe("uw")}
SETTLED = Settled(
    Comparison("x", METHODS, (0, 1, 2), more_seeds={"uw": (3, 4)}),
    {"uw": (Trial({"learning_rate": 1e-3}, 5.0, False), Trial({"learning_rate": 2e-3}, 4.0, True))},
    ("uw",),
    {},
)
COSTS = {"sum": [Cost(0.06, 0.03, 200, 100, 1, 1), Cost(0.03, 0.03, 100, 100, 1, 1), Cost(0.05, 0.04, 125, 100, 1, 1)]}


def test_a_line_a_method_by_hand():
    single, plain, uncertain = overview(VERDICTS, SETTLED, COSTS)
    # The baseline over the most seeds that any method is compared over.
    assert (single.method, single.seeds, single.errors, single.rows) == (
        "single-task",
        5,
        {"landmarks": 4.1, "smile": 10.0},
        {},
    )
    assert (plain.errors, plain.delta.estimate, plain.rank) == ({"landmarks": 5.0, "smile": 9.0}, 7.5, 2.5)
    # The middle of 2, 1 and 1.25; of 60, 30 and 50 ms.
    assert (plain.step, plain.memory, plain.milliseconds) == (1.25, 1.25, 50.0)
    assert (uncertain.seeds, uncertain.step, uncertain.settings) == (5, None, "learning rate 0.002")


def test_the_same_table_as_markdown_and_csv():
    lines = overview(VERDICTS, SETTLED, COSTS)
    assert overview_markdown(lines).splitlines()[:5] == [
        "| method | seeds | landmarks | smile | Delta-m | mean rank | step | memory | settings |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| single-task | 5 | 4.10 | 10.00 |  | 1.5 |  |  |  |",
        "| sum | 3 | 5.00* | 9.00 | +7.5 % | 2.5 | 1.2 x | 1.2 x |  |",
        "| uw | 5 | 3.90* |  |  | 2.0 |  |  | learning rate 0.002 |",
    ]
    rows = list(csv.DictReader(io.StringIO(overview_csv({"test": lines}))))
    assert [(row["method"], row["landmarks_error_percent"], row["landmarks_p_holm"]) for row in rows] == [
        ("single-task", "4.1", ""),
        ("sum", "5", "0.002"),
        ("uw", "3.9", "0.01"),
    ]
    assert rows[1]["step_ratio"] == "1.25"


def test_settings_in_words():
    assert words({"weights": {"smile": 0.1, "pose": 0.1}}) == "weights 0.1"
    assert words({"weights": {}}) == "weights 1"
    assert words({"weighing_options": {"on": "features", "c": 0.5}}) == "on features, c 0.5"
    assert words({"learning_rate": 0.002}) == "learning rate 0.002"


def test_what_is_joined_by_a_critical_difference():
    assert joined([1.0, 1.5, 3.0, 3.4], 1.0) == [(1.0, 1.5), (3.0, 3.4)]
    assert joined([1.0, 2.0, 3.0], 1.0) == [(1.0, 2.0), (2.0, 3.0)]
    assert joined([1.0, 2.0, 3.0], 2.0) == [(1.0, 3.0)]  # no shorter bar inside
    assert joined([1.0, 3.0], 1.0) == []


def test_ranks_are_written_beside_their_names():
    texts = [text.get_text().split() for text in rank_diagram(RANKS).axes[0].texts]
    for name, rank in (("single-task", "1.5"), ("sum", "2.5"), ("uw", "2.0")):
        assert sorted([name, rank]) in [sorted(text) for text in texts]


def bars(figure) -> list[list[float]]:
    """Low and high end of every interval drawn."""
    (axes,) = figure.axes
    return [[float(v) for v in path.vertices[:, 1]] for lines in axes.collections for path in lines.get_paths()]


def test_sizes_show_relative_differences_over_the_share():
    small = replace(VERDICTS, rows=(replace(ROWS[0], difference=Interval(-0.8, -1.2, -0.4), baseline=8.0),))
    figure = size_plot({0.1: small, 1.0: VERDICTS}, ["sum"])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [0.1, 1.0])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [-10, 25])  # -0.8 of 8, 1 of 4
    np.testing.assert_allclose(bars(figure), [[-15, -5], [10, 40]])


def test_poses_show_relative_differences_of_each_class():
    figure = pose_plot(VERDICTS, ["sum", "uw"])
    np.testing.assert_allclose(bars(figure), [[-10, 50]])  # -0.5 and 2.5 of 5; uw has none
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["left\n200 faces"]


def test_costs_have_a_dot_for_what_was_measured():
    (axes,) = cost_plot(overview(VERDICTS, SETTLED, COSTS)).axes
    assert [text.get_text() for text in axes.texts] == ["sum"]
    assert axes.lines[0].get_xydata().tolist() == [[1.25, pytest.approx(25)]]
