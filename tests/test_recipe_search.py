"""Search over recipe keys: ranges, budget, what is stopped and continued, what is best."""

import csv
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scripts import run_script
from tiny_training import HELDOUT, read_log, tiny_faces, tiny_set

from facemtl.errors import ConfigError, DependencyError
from facemtl.training import search as searching
from facemtl.training.engine import Interrupted
from facemtl.training.recipe import Recipe, read_recipe, recipe_from_dict
from facemtl.training.search import Found, Search, read_search, run_search
from facemtl.training.training_data import TrainingData

pytest.importorskip("optuna")
BASE = """
name = "small"
tasks = ["landmarks", "smile"]
batch_size = 8
patch_size = 64
epochs = 1
workers = 0
"""
RANGES = """
recipe = "small.toml"
[set]
weights = {smile = 0.5}
[ranges]
"weights.landmarks" = {low = 0.1, high = 10.0, log = true}
epochs = {low = 2, high = 8, step = 2}
tasks = [["landmarks"], ["landmarks", "smile"]]
"""


@pytest.fixture
def files(tmp_path) -> Path:
    (tmp_path / "small.toml").write_text(BASE)
    (tmp_path / "ranges.toml").write_text(RANGES)
    return tmp_path / "ranges.toml"


def distance(recipe: Recipe) -> float:
    """A stand-in for a held-out error: 0 at weights.landmarks = 1 and epochs = 4."""
    return abs(np.log10(recipe.weights["landmarks"])) + abs(recipe.epochs - 4)


def fake_train(recipe, data, out, device, progress, after_epoch, stop_at=None):
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "heldout/nme", "heldout/smile_accuracy"])
        for epoch in range(recipe.epochs):
            writer.writerow([epoch + 1, 100.0 if epoch + 1 < recipe.epochs else distance(recipe), 50 + epoch])
            after_epoch({})


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(searching, "train", fake_train)


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def search_in(files: Path, out: Path, trials: int | None, seconds: float = 1e9) -> Found:
    return run_search(read_search(files), out, lambda recipe: None, seconds, trials, "cpu", False)


def test_a_range_changes_its_key_and_no_other():
    search = Search({"name": "x", "weights": {"pose": 0.5}}, {}, {"heldout/nme": 1.0})
    recipe = search.recipe({"weights.smile": 0.25, "epochs": 3})
    assert (recipe.weights, recipe.epochs) == ({"pose": 0.5, "smile": 0.25}, 3)
    assert search.base["weights"] == {"pose": 0.5}


def test_the_best_trial_is_found_and_printed_as_a_recipe(tmp_path, files, quick):
    found = search_in(files, tmp_path / "out", 12)
    rows = trials(tmp_path / "out")
    assert len(rows) == found.finished == 12
    assert {row["state"] for row in rows} == {"complete"}
    values = [float(row["value"]) for row in rows]
    assert found.value == min(values) == values[found.number]
    assert {int(row["epochs"]) for row in rows} <= {2, 4, 6, 8}
    assert all(0.1 <= float(row["weights.landmarks"]) <= 10 for row in rows)
    assert found.value == pytest.approx(distance(found.recipe))
    assert found.recipe.weights["smile"] == 0.5
    (tmp_path / "best.toml").write_text(found.as_toml())
    assert read_recipe(tmp_path / "best.toml") == found.recipe
    assert (tmp_path / "out" / "best.toml").read_text() == found.as_toml()
    assert set(tomllib.loads(found.as_toml())) <= {
        *("name", "tasks", "batch_size", "patch_size", "epochs", "workers", "weights")
    }
    assert "on held-out training rows" in found.as_toml().splitlines()[0]


def test_a_metric_may_be_a_sum(tmp_path, files, quick):
    files.write_text('metric = {"heldout/nme" = 2.0, "heldout/smile_accuracy" = -0.5}\n' + RANGES)
    found = search_in(files, tmp_path / "out", 2)
    assert found.value == pytest.approx(2 * distance(found.recipe) - 0.5 * (49 + found.recipe.epochs))


def test_a_stopped_search_makes_the_trials_of_one_that_was_not(tmp_path, files, quick, monkeypatch):
    search_in(files, tmp_path / "whole", 14)
    for count in (3, 11):
        search_in(files, tmp_path / "parts", count)

    def interrupted(recipe, data, out, *_, **__):
        raise Interrupted("stopped at step 1")

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(searching, "train", interrupted)
        search_in(files, tmp_path / "parts", 14)
    found = search_in(files, tmp_path / "parts", 14)
    assert trials(tmp_path / "parts") == trials(tmp_path / "whole")
    assert found.finished == 14


def test_the_budget_ends_within_a_trial_and_a_larger_one_continues_it(tmp_path, files, quick, monkeypatch):
    now = [0.0]

    def tick() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(searching.time, "perf_counter", tick)
    with pytest.raises(ConfigError, match="no trial was finished within 1 seconds of training"):
        search_in(files, tmp_path / "out", None, seconds=1)
    found = search_in(files, tmp_path / "out", None, seconds=25)
    assert found.seconds == pytest.approx(25)
    before = found.finished
    assert before >= 1
    again = search_in(files, tmp_path / "out", None, seconds=25)
    assert again.finished == before  # nothing is left of it
    more = search_in(files, tmp_path / "out", None, seconds=60)
    assert more.finished > before
    assert more.seconds == pytest.approx(60)


def test_what_cannot_be_trained_is_told_and_passed_over(tmp_path, files, quick, monkeypatch):
    def picky(recipe, *arguments, **named):
        if recipe.epochs != 4:
            raise ConfigError("only four epochs here")
        fake_train(recipe, *arguments, **named)

    monkeypatch.setattr(searching, "train", picky)
    found = search_in(files, tmp_path / "out", 3)
    assert found.recipe.epochs == 4
    assert set(found.failed.values()) == {"only four epochs here"}
    assert len(trials(tmp_path / "out")) == 3 + len(found.failed)
    files.write_text(RANGES.replace("low = 2, high = 8, step = 2", "low = 6, high = 8, step = 2"))
    with pytest.raises(ConfigError, match=r"20 trials in a row could not be trained.*: only four epochs here"):
        search_in(files, tmp_path / "hopeless", 3)


def test_a_metric_that_no_log_has_is_told(tmp_path, files, quick):
    files.write_text('metric = "heldout/age"\n' + RANGES)
    with pytest.raises(ConfigError, match=r"no \['heldout/age'\] in its log; it has heldout/nme"):
        search_in(files, tmp_path / "out", 1)


def test_a_folder_of_another_search_is_refused(tmp_path, files, quick):
    search_in(files, tmp_path / "out", 1)
    files.write_text(RANGES.replace("10.0", "20.0"))
    with pytest.raises(ConfigError, match="holds a search over other ranges, recipes or metrics; use another --out"):
        search_in(files, tmp_path / "out", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 'small.toml'", r"a search needs recipe, a file, and \[ranges\]"),
        ("recipe = 'small.toml'\ntrials = 3\n[ranges]\nepochs = [1]", r"unknown keys \['trials'\]"),
        ("recipe = 'small.toml'\n[ranges]\nepoch = [1, 2]", "'epoch': recipes have no such key"),
        ("recipe = 'small.toml'\n[ranges]\nepochs = []", "expected a list of choices, or low, high"),
        ("recipe = 'small.toml'\n[ranges]\nepochs = {low = 1}", "expected a list of choices, or low, high"),
        ("recipe = 'small.toml'\n[ranges]\nepochs = {low = 3, high = 1}", "expected numbers, low under high"),
        ("recipe = 'small.toml'\n[ranges]\nema = {low = 0, high = 0.5, log = true}", "with log, low over 0"),
        ("recipe = 'small.toml'\n[ranges]\nepochs = ['few']", "none of 50 recipes.*epochs = 'few': expected a whole"),
        ("recipe = 'small.toml'\nmetric = 'train/nme'\n[ranges]\nepochs = [1]", "not of held-out rows"),
        ("recipe = 'other.toml'\n[ranges]\nepochs = [1]", "other.toml cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_trained(files, text, message):
    files.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_search(files)


def test_settings_are_for_every_trial(files):
    assert read_search(files, ["weights.smile=0.1", "ema=0.5"]).base["weights"] == {"smile": 0.1}


def test_without_optuna_the_extra_is_named(tmp_path, files, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(DependencyError, match=r"pip install 'facemtl\[search\]'"):
        search_in(files, tmp_path / "out", 1)


def test_real_trainings_are_searched_by_their_heldout_rows(tmp_path, files):
    faces = tiny_faces(tmp_path)
    files.write_text('recipe = "small.toml"\n[ranges]\nlearning_rate = {low = 1e-5, high = 1e-2, log = true}\n')

    def read(recipe: Recipe) -> TrainingData:
        return TrainingData.of(recipe, 1, tmp_path / "cache", faces[HELDOUT:], faces[:HELDOUT], progress=False)

    search = read_search(files)
    found = run_search(search, tmp_path / "out", read, 1e9, 2, "cpu", False)
    logs = [read_log(tmp_path / "out" / f"trial-000{number}")[-1] for number in range(2)]
    assert found.value == min(float(row["heldout/nme"]) for row in logs)
    assert (tmp_path / "out" / f"trial-000{found.number}" / "model.safetensors").is_file()


def test_the_tool_prints_the_best_recipe(tmp_path, files, monkeypatch, capsys):
    (tmp_path / "small.toml").write_text(BASE + 'data = "mtfl_layout"\n')
    files.write_text('recipe = "small.toml"\n[ranges]\nema = [0.0, 0.5]\n')
    tiny_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    run = partial(run_script, "tools/search.py", monkeypatch, "ranges.toml", "--data-root", "set", "--quiet")
    assert run("--hours", "1", "--trials", "1", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert recipe_from_dict(tomllib.loads(out)).data == "mtfl_layout"
    assert (tmp_path / "runs" / "ranges" / "best.toml").read_text() == out
    assert run("--hours", "1", "--set", "ema=2") == 2
    assert capsys.readouterr().err == "recipe 'small': ema = 2.0, expected at least 0, under 1\n"
