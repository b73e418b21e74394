"""Relatedness: tables and measures by hand on two quadratics, rank correlation, and the tool."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from scripts import run_script
from tiny_training import tiny_set

from facemtl.errors import ConfigError, DataError
from facemtl.image import read_image
from facemtl.training.comparison import Comparison
from facemtl.training.recipe import Recipe
from facemtl.training.relatedness import (
    ADD_ONE,
    AFFINITY,
    COSINE,
    FIRST_ORDER,
    LEAVE_ONE_OUT,
    measured,
    rank_correlation,
    relate,
    task_sets,
)
from facemtl.training.relatedness_report import as_markdown, relatedness_figure
from facemtl.training.watching import affinities, relations

TASKS = ("landmarks", "smile", "gender")
PAIR = TASKS[:2]
FACES = [SimpleNamespace(labels={"smile": face % 2, "gender": face % 2}) for face in range(4)]


def comparison(*sets: tuple[str, ...], **changes: object) -> Comparison:
    recipes = {"+".join(tasks): Recipe(name="+".join(tasks), tasks=tasks, passes=1, **changes) for tasks in sets}
    return Comparison("toy", recipes, (0,))


# --- two quadratics: L_a = (w - a)^2 / 2 and L_b = (w - b)^2 / 2, with errors of 1 + L at the optimum ---


def toy_error(own: float, *learned: float) -> np.ndarray:
    """(1 seed, 4 faces) error of the task at ``own`` where the sum of the quadratics at ``learned`` is least."""
    return np.full((1, 4), 1 + (np.mean(learned) - own) ** 2 / 2)


def toy_rows(a: float, b: float, start: float, rate: float) -> list[dict[str, float]]:
    """One snapshot at ``start``."""
    w = torch.nn.Parameter(torch.tensor([start]))

    def losses() -> dict[str, torch.Tensor]:
        return {"landmarks": (w - a).square().sum() / 2, "smile": (w - b).square().sum() / 2}

    here = losses()
    rows = torch.stack([torch.autograd.grad(loss, w)[0] for loss in here.values()])
    row = relations(list(here), rows, dict.fromkeys(here, 1.0))
    row |= {f"loss/{task}": loss.item() for task, loss in here.items()}
    ahead = affinities([w], dict(zip(here, rows, strict=True)), rate, here, losses)
    return [row | {f"affinity/{x}/{y}": value for (x, y), value in ahead.items() if x != y}]


def toy_related(a: float, b: float):
    errors = {
        "landmarks": {"landmarks": toy_error(a, a)},
        "smile": {"smile": toy_error(b, b)},
        "landmarks+smile": {"landmarks": toy_error(a, a, b), "smile": toy_error(b, a, b)},
    }
    methods = comparison(("landmarks",), ("smile",), PAIR)
    return relate(methods, errors, FACES, [toy_rows(a, b, start=0.0, rate=0.5)], "heldout")


def test_tasks_that_want_opposite_things_by_hand():
    # a = 1, b = -1: alone both have an error of 1, together w = 0 and both have 1.5.
    related = toy_related(1.0, -1.0)
    # Of two tasks, to leave one out is to have the other alone.
    for table in (ADD_ONE, LEAVE_ONE_OUT):
        assert {pair: change.estimate for pair, change in related.tables[table].items()} == {
            ("landmarks", "smile"): pytest.approx(50),
            ("smile", "landmarks"): pytest.approx(50),
        }
    # At 0 the gradients are -1 and 1, the losses 1/2; half a step along a goes to 1/2, where L_b = 9/8.
    pair = ("landmarks", "smile")
    assert related.measures[COSINE][pair] == pytest.approx(-1)
    assert related.measures[FIRST_ORDER][pair] == pytest.approx(-1 / 0.5)
    assert related.measures[AFFINITY][pair] == pytest.approx(1 - (9 / 8) / 0.5)


def test_tasks_that_want_similar_things_by_hand():
    # a = 1, b = 2: gradients -1 and -2, losses 1/2 and 2. Half a step along a: w = 1/2, L_b = 9/8; along b: w = 1.
    related = toy_related(1.0, 2.0)
    assert related.measures[COSINE]["landmarks", "smile"] == pytest.approx(1)
    assert related.measures[FIRST_ORDER]["landmarks", "smile"] == pytest.approx(2 / 2)
    assert related.measures[FIRST_ORDER]["smile", "landmarks"] == pytest.approx(2 / 0.5)
    assert related.measures[AFFINITY]["landmarks", "smile"] == pytest.approx(1 - (9 / 8) / 2)
    assert related.measures[AFFINITY]["smile", "landmarks"] == pytest.approx(1)
    # Together w = 3/2: an eighth on top of an error of 1.
    assert related.tables[ADD_ONE]["smile", "landmarks"].estimate == pytest.approx(12.5)


def test_adding_one_and_leaving_one_out_of_three_by_hand():
    level = {"landmarks": 4.0, "landmarks+smile": 3.0, "landmarks+gender": 5.0, "landmarks+smile+gender": 3.5}
    errors = {
        name: {task: np.full((2, 4), value if task == "landmarks" else 0.5) for task in name.split("+")}
        for name, value in level.items()
    }
    methods = comparison(*(tuple(name.split("+")) for name in level))
    related = relate(methods, errors, FACES, [], "test")
    tables = {name: {pair: c.estimate for pair, c in table.items()} for name, table in related.tables.items()}
    assert tables[ADD_ONE] == {("smile", "landmarks"): -25, ("gender", "landmarks"): 25}
    assert tables[LEAVE_ONE_OUT] == {
        ("smile", "landmarks"): pytest.approx(100 * (3.5 - 5) / 5),
        ("gender", "landmarks"): pytest.approx(100 * (3.5 - 3) / 3),
        ("smile", "gender"): 0,
        ("gender", "smile"): 0,
    }
    assert (related.measures, related.predictions) == ({}, {})


# --- which methods are compared ---


def test_only_recipes_that_differ_in_their_tasks_alone_make_tables():
    methods = comparison(("landmarks",), PAIR, TASKS[1:], TASKS)
    other = replace(methods.methods["landmarks+smile"], learning_rate=1.0)
    watched = replace(methods.methods["landmarks+smile+gender"], name="watched", affinity=True, snapshots=90, passes=2)
    shuffled = replace(watched, name="shuffled", shuffled_labels=("smile",))
    methods = replace(methods, methods={**methods.methods, "landmarks+smile": other, "w": watched, "s": shuffled})
    found = {frozenset(TASKS): "w", frozenset({"landmarks"}): "landmarks", frozenset(TASKS[1:]): "smile+gender"}
    assert task_sets(methods) == found
    with pytest.raises(ConfigError, match="toy has no two methods that differ in their tasks alone"):
        task_sets(replace(methods, methods={"landmarks+smile": other, "w": watched}))


def test_results_about_other_faces_are_refused():
    errors = {"landmarks": {"landmarks": np.ones((1, 3))}, "landmarks+smile": {"landmarks": np.ones((1, 3))}}
    with pytest.raises(DataError, match="the results are about 3 faces, but the data set has 4"):
        relate(comparison(("landmarks",), PAIR), errors, FACES, [], "test")


def test_every_training_weighs_the_same_in_a_measure():
    def row(value: float) -> dict[str, float]:
        return {"cosine/landmarks/smile": value}

    found = measured(PAIR, [[row(0.2), row(0.4), row(math.nan)], [row(0.9)], [row(math.nan)]])
    assert found[COSINE]["smile", "landmarks"] == found[COSINE]["landmarks", "smile"] == pytest.approx((0.3 + 0.9) / 2)
    assert found[AFFINITY] == found[FIRST_ORDER] == {}


# --- rank correlation ---


def test_rank_correlation_by_hand_and_against_scipy():
    # 1 - 6 sum d^2 / (n (n^2 - 1)) = 1 - 6 * 2 / 60.
    assert rank_correlation([1, 2, 3, 4], [10, 30, 20, 40]).estimate == pytest.approx(0.8)
    x, y = np.random.default_rng(0).integers(0, 6, (2, 20))  # with ties
    found = rank_correlation(x, y)
    assert found.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    assert -1 <= found.low < found.estimate < found.high <= 1


def test_its_interval_holds_the_truth_about_as_often_as_it_says():
    rng, held, runs = np.random.default_rng(1), 0, 150
    for run in range(runs):
        x, noise = rng.normal(size=(2, 20))
        found = rank_correlation(x, x + noise, seed=run, resamples=300)
        held += found.low <= 6 / math.pi * math.asin(0.5**0.5 / 2) <= found.high  # Pearson's is the root of a half
    assert held / runs > 0.88


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])])
def test_what_says_nothing_has_no_correlation(x, y):
    assert math.isnan(rank_correlation(x, y).estimate)


# --- shown ---


def test_the_report_shows_tables_measures_and_predictions():
    related = toy_related(1.0, -1.0)
    text = as_markdown(related)
    assert "| landmarks |  | **+50.0 [+50.0, +50.0]** |" in text
    assert "| smile | -1.25 |  |" in text
    assert "| affinity | add one | 2 | too few pairs |" in text
    matrices = relatedness_figure(related).axes
    assert [axes.get_title().split("\n")[0] for axes in matrices] == [
        ADD_ONE,
        LEAVE_ONE_OUT,
        AFFINITY,
        FIRST_ORDER,
        COSINE,
    ]
    assert [drawn.get_text() for drawn in matrices[0].texts] == ["-50", "-50"]


FILE = """
seeds = [0]
[common]
data = "mtfl_layout"
epochs = 1
batch_size = 8
patch_size = 64
affinity = true
[methods.landmarks]
tasks = ["landmarks"]
[methods.smile]
tasks = ["smile"]
passes = 1
[methods.both]
tasks = ["landmarks", "smile"]
"""


@pytest.fixture
def tool(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return partial(run_script, "tools/relatedness.py", monkeypatch)


def test_the_tool_trains_keeps_and_tells_and_rebuilds_without_training(tool, tmp_path, capsys):
    tiny_set(tmp_path / "data")
    Path("toy.toml").write_text(FILE)
    assert tool("toy.toml", "--data-root", "data") == 0
    told = capsys.readouterr().out
    results = Path("docs/results/toy")
    assert told.strip() == (results / "toy-relatedness.md").read_text().strip()
    assert told.count("**affinity** of the row's task onto the column's") == 2
    assert (results / "both.seed0.watch.csv").read_text() == Path("runs/toy/both/seed0/watch.csv").read_text()
    assert read_image(results / "toy-relatedness-test.png").std() > 5
    Path("runs").rename("gone")
    assert tool("toy.toml", "--data-root", "data", "--tables-only") == 0
    assert capsys.readouterr().out == told


def test_what_is_wrong_is_one_sentence(tool, capsys):
    Path("one.toml").write_text(FILE.split("[methods.both]")[0].replace('"smile"', '"smile"'))
    assert tool("one.toml") == 2
    assert capsys.readouterr().err.startswith("one has no two methods that differ in their tasks alone")
    Path("toy.toml").write_text(FILE)
    assert tool("toy.toml", "--results", "toy.toml/new") == 2
    assert capsys.readouterr().err == "the folder toy.toml/new cannot be made: Not a directory\n"
