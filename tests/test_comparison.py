"""Comparison files: what they say, which method is whose baseline, and when they are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_comparison import FILE, written

from facemtl.errors import ConfigError
from facemtl.training.comparison import Comparison, read_comparison
from facemtl.training.recipe import Recipe

AGAINST = FILE.replace("[common]", 'against = "both"\n[common]')


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Comparison:
    return read_comparison(written(tmp_path_factory.mktemp("recipe")))


def test_a_file_says_the_methods_and_the_seeds(comparison):
    assert comparison.name == "small"
    assert comparison.seeds == (4, 7)
    assert list(comparison.methods) == ["both", "landmarks", "smile", "both shuffled"]
    assert {name: recipe.name for name, recipe in comparison.methods.items()} == {n: n for n in comparison.methods}
    assert comparison.methods["smile"] == Recipe(
        "smile", data="mtfl_layout", tasks=("smile",), passes=1, epochs=1, batch_size=8, patch_size=64
    )


def test_settings_override_every_method(tmp_path):
    comparison = read_comparison(written(tmp_path), {"epochs": 3, "weights": {"smile": 0.5}})
    assert {recipe.epochs for recipe in comparison.methods.values()} == {3}
    assert comparison.methods["both"].weights == {"smile": 0.5}


def test_the_baseline_of_a_task_learns_it_alone(comparison):
    assert comparison.baseline("landmarks") == "landmarks"
    assert comparison.baseline("smile") == "smile"
    with pytest.raises(ConfigError, match=r"tasks = \['pose'\]: the single-task baseline is missing"):
        comparison.baseline("pose")


def test_a_method_with_shuffled_labels_is_no_baseline(comparison):
    control = replace(comparison.methods["smile"], shuffled_labels=("smile",))
    with pytest.raises(ConfigError, match="single-task baseline is missing"):
        Comparison("x", {"control": control}, (0,)).baseline("smile")


def test_tasks_with_shuffled_labels_are_not_judged(comparison):
    assert comparison.judged_tasks("both") == ("landmarks", "smile")
    assert comparison.judged_tasks("both shuffled") == ("landmarks",)
    assert comparison.judged_tasks("smile") == ("smile",)


def test_all_methods_may_be_compared_with_one_of_them_as_far_as_it_goes(tmp_path):
    one = read_comparison(written(tmp_path, AGAINST.replace('[methods.landmarks]\ntasks = ["landmarks"]\n', "")))
    assert {one.baseline(task) for task in ("landmarks", "smile")} == {"both"}  # though smile has a method of its own
    part = read_comparison(written(tmp_path, AGAINST.replace('"both"', '"both shuffled"', 1)))
    assert (part.baseline("landmarks"), part.baseline("smile")) == ("both shuffled", "smile")
    with pytest.raises(ConfigError, match=r"tasks = \['pose'\]: the single-task baseline is missing"):
        read_comparison(written(tmp_path, AGAINST + '[methods.pose]\ntasks = ["landmarks", "pose"]\n'))


def test_a_run_is_its_method_with_a_seed(comparison):
    recipe = comparison.run_recipe("both", 7)
    assert recipe == replace(comparison.methods["both"], seed=7, workers=0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "[common]",
            "[commons]",
            "the keys seeds, common, methods, and may have against, tuning, shortlist",
        ),
        (
            "seeds = [4, 7]",
            "",
            "the keys seeds, common, methods, and may have against, tuning, shortlist",
        ),
        (
            "seeds = [4, 7]",
            'seeds = [4, 7]\nagainst = "none"',
            "against = 'none' is none of the methods both, landmarks",
        ),
        ("seeds = [4, 7]", "seeds = []", "seeds must be a list"),
        ("seeds = [4, 7]", "seeds = 5", "seeds must be a list"),
        ("seeds = [4, 7]", "seeds = [0.5]", "seeds must be a list"),
        ("seeds = [4, 7]", "seeds = [-1]", "seeds must be a list"),
        ("seeds = [4, 7]", "seeds = [4, 7, 4]", "each seed once"),
        ("epochs = 1", "epoch = 1", "unknown keys"),
        ("epochs = 1", "epochs = 0", "epochs = 0"),
        ("epochs = 1", "epochs = ", "cannot be read"),
        ("[methods.both]", '[methods.both]\ndata = "mtfl"', "the same data"),
        ("[methods.both]", "[methods]\nboth = 3", r"\[methods.<name>\]"),
        ('[methods.smile]\ntasks = ["smile"]', "[methods.smile]", r"tasks = \['smile'\]: the single-task baseline"),
    ],
)
def test_a_file_that_cannot_work_is_refused_before_anything_is_trained(tmp_path, old, new, said):
    assert old in FILE
    with pytest.raises(ConfigError, match=said):
        read_comparison(written(tmp_path, FILE.replace(old, new)))


@pytest.mark.parametrize("text", ["seeds = [0]\ncommon = 1\nmethods = 2\n", "seeds = [0]\n[common]\n[methods]\n"])
def test_what_should_be_tables(tmp_path, text):
    with pytest.raises(ConfigError, match=r"must have a table \[common\]"):
        read_comparison(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read"):
        read_comparison(tmp_path / "gone.toml")


@pytest.mark.parametrize("name", ["compare_tcdcn", "ablation_tcdcn"])
def test_a_committed_comparison_can_be_read(name):
    comparison = read_comparison(Path(__file__).parent.parent / "tools" / "recipes" / f"{name}.toml")
    alone = {comparison.baseline(task) for task in ("landmarks", "glasses", "smile", "gender", "pose")}
    assert alone == {"landmarks", "glasses", "smile", "gender", "pose"}
    # What makes a baseline fair: nothing differs but the tasks, and what matters only when a picture is predicted.
    plain = [replace(comparison.methods[name], name="x", tasks=("landmarks",), passes=1) for name in ("all", *alone)]
    assert all(recipe == plain[0] for recipe in plain)
