"""Around the runs of a comparison: trials, the shortlist, shares of the data; kept files decide, test rows never do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import tiny_set

from facemtl.data.sets import read_split
from facemtl.errors import ConfigError, FaceMTLError
from facemtl.training import study as module
from facemtl.training.comparison import Comparison, read_comparison
from facemtl.training.comparison_report import write_tables
from facemtl.training.comparison_runs import RunResult, load_costs, result_path
from facemtl.training.study import TRIALS, check_study, run_study, settle, size_results

REPOSITORY = Path(__file__).parent.parent
FILE = """
seeds = [4]

[common]
data = "mtfl_layout"
tasks = ["landmarks", "smile"]
epochs = 1
batch_size = 8
patch_size = 64
passes = 1
snapshots = 0

[tuning]
criterion = "landmarks"
batch_size = 4
tries = [{ learning_rate = 1e-3 }, { learning_rate = 3e-3 }]

[shortlist]
criterion = "landmarks"
best = 1
always = ["landmarks"]
seeds = [7]

[sizes]
methods = ["landmarks", "sum"]
at = [{ fraction = 0.5, epochs = 2 }]

[methods.landmarks]
tasks = ["landmarks"]
[methods.smile]
tasks = ["smile"]
[methods.sum]
[methods.upgrad]
weighing = "upgrad"
weighing_options = { on = "features" }
tries = [{ weights = { smile = 0.5 } }, { weights = { smile = 0.1 } }]
"""


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Comparison:
    return read_comparison(written(tmp_path_factory.mktemp("recipe")))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """16 training, 8 held-out and 4 test faces."""
    return tiny_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root, comparison) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_study(comparison, folder / "runs", folder / "results", folder / "cache", root)
    return folder


def kept(folder: Path) -> dict[str, bytes]:
    """The results, without what was measured with a clock."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npz")}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_file_says_what_is_tried_and_who_gets_more(comparison):
    tuning = comparison.tuning
    assert (tuning.criterion, tuning.keys) == ("landmarks", {"batch_size": 4})
    assert tuning.tries["sum"] == ({"learning_rate": 1e-3}, {"learning_rate": 3e-3})
    assert tuning.tries["upgrad"] == ({"weights": {"smile": 0.5}}, {"weights": {"smile": 0.1}})
    assert (comparison.shortlist.seeds, comparison.shortlist.best, comparison.shortlist.always) == (
        (7,),
        1,
        ("landmarks",),
    )
    assert (comparison.sizes.methods, comparison.sizes.seeds) == (("landmarks", "sum"), (4,))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "{ weights = { smile = 0.5 } }, ",
            "",
            "as many tries as the others; there are landmarks 2, smile 2, sum 2, upgrad 1",
        ),
        ("tries = [{ learning_rate = 1e-3 }, { learning_rate = 3e-3 }]", "", "tries of 'landmarks' must be a list"),
        ("{ learning_rate = 3e-3 }", "{ learning_rat = 3e-3 }", "unknown keys"),
        (
            'criterion = "landmarks"\nbatch',
            'criterion = "pose"\nbatch',
            "tuning.criterion = 'pose', expected one of landmarks, smile",
        ),
        ("seeds = [7]", "seeds = [4]", r"shortlist.seeds \[4\] must differ from seeds"),
        ("best = 1", "bests = 1", r"\[shortlist\] has no keys \['bests'\]"),
        ("best = 1", "best = -1", "shortlist.best = -1"),
        (
            'always = ["landmarks"]',
            'always = ["lanmarks"]',
            "shortlist.always = .*expected a list of the methods landmarks",
        ),
        (
            'methods = ["landmarks", "sum"]',
            'methods = ["sum"]',
            r"\['landmarks'\]: the single-task baseline is missing",
        ),
        ("fraction = 0.5, ", "", "sizes.at must be a list of tables, each with the key fraction"),
        ("fraction = 0.5", "fraction = 1.5", "fraction = 1.5"),
        ("[tuning]", "[tunings]", "may have against, tuning, shortlist, sizes"),
        ('"upgrad"\nweighing_options', '"upgrat"\nweighing_options', "weighing = 'upgrat', expected one of"),
        ("[methods.sum]", '[methods.sum]\nsharing = "stitched"', "sharing = 'stitched', expected one of"),
        ("[methods.sum]", '[methods.sum]\ncascade = { smile = ["landmarks"], landmarks = ["smile"] }', "cascade"),
        ("[methods.smile]", '[methods.smile]\nweighing = "upgrad"', "needs two tasks or more"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_read(tmp_path, old, new, said):
    assert old in FILE
    with pytest.raises(ConfigError, match=said):
        read_comparison(written(tmp_path, FILE.replace(old, new)))


def test_tries_without_tuning(tmp_path):
    start, end = FILE.index("[tuning]"), FILE.index("[shortlist]")
    with pytest.raises(ConfigError, match=r"upgrad have tries, but there is no table \[tuning\]"):
        read_comparison(written(tmp_path, FILE[:start] + FILE[end:]))


@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:FutureWarning", "ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["study_mtl", "study_mtl_gridnet"])
def test_the_studies_of_the_repository_can_be_read(name):
    study = read_comparison(REPOSITORY / "tools" / "recipes" / f"{name}.toml")
    assert {len(tried) for tried in study.tuning.tries.values()} == {3}
    single = {study.baseline(task) for task in ("landmarks", "glasses", "smile", "gender", "pose")}
    together = set(study.methods) - single
    assert len(together) >= {"study_mtl": 14, "study_mtl_gridnet": 3}[name]
    # Fair: nothing but tasks, sharing, weighing and weights differs.
    free = {"tasks": ("landmarks",), "weights": {}, "weighing": "fixed", "weighing_options": {}, "name": "x"}
    free |= {"sharing": "hard", "sharing_options": {}, "cascade": {}, "early_stopping": False, "stop_k": 5}
    assert len({str(replace(recipe, **free)) for recipe in study.methods.values()}) == 1


# --- before anything is trained -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "[methods.sum]",
            '[methods.sum]\ntasks = ["landmarks", "smile", "angles"]',
            r"method 'sum': the training data has no labels for \['angles'\]",
        ),
        ("fraction = 0.5", "fraction = 0.2", "method 'landmarks': 3 training faces do not fill one batch of 8"),
        (
            "[methods.sum]",
            "[methods.sum]\nbackbone_options = { wide = 3 }",
            "method 'sum': .*does not take these options",
        ),
    ],
)
def test_what_data_or_network_lack_is_said_before_anything_is_trained(tmp_path, root, old, new, said):
    study = read_comparison(written(tmp_path, FILE.replace(old, new)))
    with pytest.raises(FaceMTLError, match=said):
        run_study(study, tmp_path / "runs", tmp_path / "results", tmp_path / "cache", root)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "results").exists()


def test_faces_that_cannot_be_judged_are_said_before_anything_is_trained(tmp_path, root, comparison, monkeypatch):
    samples = {split: read_split("mtfl_layout", split, root) for split in ("heldout", "test")}
    samples["test"][2] = replace(samples["test"][2], labels={})
    monkeypatch.setattr(module, "_samples", lambda data, split, root: samples[split])
    with pytest.raises(FaceMTLError, match=r"testing\.txt:3: smile is not labelled"):
        check_study(comparison, tmp_path / "results", tmp_path / "cache", root)


# --- running --------------------------------------------------------------------------------------------------------


def every_result(comparison: Comparison, shortlist: tuple[str, ...]) -> Iterator[str]:
    for name in comparison.methods:
        yield from (f"{TRIALS}/{name}.trial{number}.seed4.heldout.npz" for number in (0, 1))
        for seed in (4, 7) if name in shortlist else (4,):
            yield from (f"{name}.seed{seed}.{split}.npz" for split in ("heldout", "test"))
    for name in ("landmarks", "sum"):
        yield from (f"fraction0.5/{name}.seed4.{split}.npz" for split in ("heldout", "test"))


def test_trials_see_held_out_rows_alone_and_everything_leaves_its_file(finished, comparison, root):
    settled = settle(comparison, finished / "results", root)
    assert "landmarks" in settled.shortlist
    assert len(settled.shortlist) == 2
    assert set(kept(finished / "results")) == set(every_result(comparison, settled.shortlist))


def test_the_trial_with_the_least_held_out_error_is_taken(finished, comparison, root):
    settled = settle(comparison, finished / "results", root)
    for name, trials in settled.trials.items():
        errors = []
        for number in (0, 1):
            path = result_path(finished / "results" / TRIALS, f"{name}.trial{number}", 4, "heldout")
            found = RunResult.load(path).errors
            if "landmarks" in found:
                errors.append(100 * float(found["landmarks"].mean()))
            else:  # smiles of the single-task model: balanced over the classes
                truth = np.array([s.labels["smile"] for s in read_split("mtfl_layout", "heldout", root)])
                errors.append(100 * float(np.mean([found["smile"][truth == c].mean() for c in np.unique(truth)])))
        assert [trial.error for trial in trials] == pytest.approx(errors, rel=1e-5)
        best = int(np.argmin(errors))
        assert [trial.chosen for trial in trials] == [number == best for number in (0, 1)]
        recipe = settled.main.methods[name]
        assert recipe == replace(comparison.methods[name], **comparison.tuning.tries[name][best])


def test_of_equal_trials_the_one_that_changes_nothing_is_taken(comparison, root, monkeypatch):
    own = comparison.methods["sum"].learning_rate
    tries = ({"learning_rate": own / 2}, {"learning_rate": own}, {"learning_rate": 2 * own})
    tuning = replace(comparison.tuning, tries=dict.fromkeys(comparison.methods, tries))
    faces = len(read_split("mtfl_layout", "heldout", root))

    def guesses(trials, results, split):
        return {name: {task: np.ones((1, faces)) for task in recipe.tasks} for name, recipe in trials.methods.items()}

    monkeypatch.setattr(module, "load_errors", guesses)
    _, trials = module._tuned(replace(comparison, tuning=tuning), Path(), root)
    assert {tuple(trial.chosen for trial in some) for some in trials.values()} == {(False, True, False)}


def test_the_best_by_held_out_error_and_those_named_get_further_seeds(finished, comparison, root):
    settled = settle(comparison, finished / "results", root)
    error = {
        name: RunResult.load(result_path(finished / "results", name, 4, "heldout")).errors["landmarks"].mean()
        for name in ("landmarks", "sum", "upgrad")
    }
    best = min(("sum", "upgrad"), key=error.get)
    assert settled.shortlist == tuple(sorted(("landmarks", best), key=error.get))
    assert settled.main.seeds_of(best) == settled.main.seeds_of("landmarks") == (4, 7)
    assert settled.main.seeds_of("smile") == (4,)


def test_shares_of_the_data_use_the_chosen_settings(finished, comparison, root):
    settled = settle(comparison, finished / "results", root)
    (part,) = settled.sizes.values()
    assert part.methods["sum"] == replace(settled.main.methods["sum"], fraction=0.5, epochs=2)
    kept_recipe = RunResult.load(result_path(size_results(finished / "results", 0.5), "sum", 4, "test")).recipe
    assert (kept_recipe["fraction"], kept_recipe["epochs"]) == (0.5, 2)


def test_costs_are_measured_within_the_runs(finished, comparison, root):
    settled = settle(comparison, finished / "results", root)
    costs = load_costs(settled.main, finished / "results")
    assert {name: len(some) for name, some in costs.items()} == {
        name: len(settled.main.seeds_of(name)) for name in comparison.methods
    }
    for name, some in costs.items():
        for cost in some:
            assert cost.seconds > 0
            assert cost.plain_seconds > 0
            assert cost.parameters == cost.plain_parameters
            # Plain summing of itself takes the same memory to the byte.
            assert (cost.bytes == cost.plain_bytes) == (name != "upgrad")


def test_a_finished_study_is_not_repeated(finished, comparison, root):
    before = times(finished)
    run_study(comparison, finished / "runs", finished / "results", finished / "cache", root)
    assert times(finished) == before


@pytest.mark.slow
def test_two_processes_leave_the_same_files_as_one(finished, comparison, root, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("the results are bitwise the same on a CPU")
    run_study(comparison, tmp_path / "runs", tmp_path / "results", finished / "cache", root, jobs=2)
    assert kept(tmp_path / "results") == kept(finished / "results")


def test_a_study_that_was_stopped_goes_on_to_the_same_files(finished, comparison, root, tmp_path, monkeypatch):
    calls = []
    one = module.run_comparison

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 2:  # the trials are done
            raise KeyboardInterrupt
        one(*arguments)

    monkeypatch.setattr(module, "run_comparison", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(comparison, tmp_path / "runs", tmp_path / "results", finished / "cache", root)
    trials = times(tmp_path / "results")
    assert len(trials) == 8
    monkeypatch.setattr(module, "run_comparison", one)
    run_study(comparison, tmp_path / "runs", tmp_path / "results", finished / "cache", root)
    assert kept(tmp_path / "results") == kept(finished / "results")
    assert {path: times(tmp_path / "results")[path] for path in trials} == trials


# --- what is read ---------------------------------------------------------------------------------------------------


def test_tables_are_rebuilt_from_kept_files_alone(finished, comparison, root):
    results = finished / "results"
    made = {}
    for _ in range(2):
        settled = settle(comparison, results, root)
        text = write_tables(settled, results, root, "python tools/compare.py small.toml")
        files = [path for path in results.iterdir() if path.suffix in (".html", ".md", ".csv", ".png")]
        made[len(made)] = {path.name: path.read_bytes() for path in files}
        for path in files:
            path.unlink()
    assert made[0] == made[1]
    assert {"small.html", "small.md", "small.csv", "small-details.csv", "small-test-sizes.png"} <= set(made[0])
    assert made[0]["small.md"].decode() == text
    for split in ("heldout", "test"):
        _, smaller = text.split(f"### {split}: fewer training rows")
        rows = [line.split(" | ")[:3] for line in smaller.split("###")[0].splitlines() if line.startswith("| sum")]
        assert rows == [["| sum", "landmarks", "50 %"], ["| sum", "landmarks", "100 %"]]
    details = made[0]["small-details.csv"].decode().splitlines()
    assert {line.split(",")[1] for line in details[1:]} == {"50", "100"}
    page = made[0]["small.html"].decode()
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") == page.count("<img")
    lines = made[0]["small.csv"].decode().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [split, name] for split in ("heldout", "test") for name in ("single-task", "sum", "upgrad")
    ]
