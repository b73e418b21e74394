"""The runs of a comparison: what is trained and kept, and results that are not what they should be."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_comparison import written
from tiny_training import tiny_set, train_quietly

from facemtl.data.sample import FaceSample, face_box
from facemtl.data.sets import read_split
from facemtl.errors import ConfigError, DataError
from facemtl.face import ATTRIBUTES
from facemtl.image import read_image
from facemtl.models.files import save_model
from facemtl.models.session import TorchSession
from facemtl.predictor import Predictor
from facemtl.training.comparison import SPLITS, Comparison, read_comparison
from facemtl.training.comparison_runs import (
    RunResult,
    evaluate_run,
    load_errors,
    load_result,
    result_path,
    run_comparison,
    training_data,
)
from facemtl.training.recipe import Recipe
from facemtl.training.study import run_study


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """16 training, 8 held-out and 4 test faces."""
    return tiny_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Comparison:
    return read_comparison(written(tmp_path_factory.mktemp("recipe")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root, comparison) -> Path:
    """A folder with the runs, the cache and the results of the whole comparison."""
    folder = tmp_path_factory.mktemp("finished")
    run_comparison(comparison, folder / "runs", folder / "results", folder / "cache", root)
    return folder


def every_run(comparison: Comparison) -> Iterator[tuple[str, int, str]]:
    return ((name, seed, split) for name in comparison.methods for seed in comparison.seeds for split in SPLITS)


def contents(folder: Path) -> dict[str, bytes]:
    """Without what was measured with a clock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".cost.json")}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_run_leaves_its_errors_and_where_they_come_from(finished, comparison):
    names = {f"{name}.seed{seed}.{split}.npz" for name, seed, split in every_run(comparison)}
    assert set(contents(finished / "results")) == names
    for name, seed, split in every_run(comparison):
        result = load_result(comparison, finished / "results", name, seed, split)
        assert result.recipe == comparison.run_recipe(name, seed).to_dict()
        assert tuple(result.errors) == comparison.methods[name].tasks
        assert {values.shape for values in result.errors.values()} == {({"heldout": 8, "test": 4}[split],)}


def test_errors_are_stacked_by_seed(finished, comparison):
    for split, faces in (("heldout", 8), ("test", 4)):
        errors = load_errors(comparison, finished / "results", split)
        assert list(errors) == list(comparison.methods)
        for name, recipe in comparison.methods.items():
            assert tuple(errors[name]) == recipe.tasks
            for task, values in errors[name].items():
                assert values.shape == (2, faces)
                assert values.dtype == np.float32
                assert (values >= 0).all()
                if task != "landmarks":
                    assert set(np.unique(values)) <= {0.0, 1.0}
                for i, seed in enumerate(comparison.seeds):
                    kept = RunResult.load(result_path(finished / "results", name, seed, split))
                    np.testing.assert_array_equal(values[i], kept.errors[task])
        assert not np.array_equal(errors["both"]["landmarks"][0], errors["both"]["landmarks"][1])


def test_errors_are_those_of_single_upright_crops(finished, comparison, root):
    samples = read_split("mtfl_layout", "test", root)
    predict = Predictor(
        TorchSession.load(finished / "runs" / "both" / "seed4" / "model.safetensors"), passes=1, flip=False
    )
    kept = load_result(comparison, finished / "results", "both", 4, "test").errors
    for i, sample in enumerate(samples):
        (face,) = predict(sample.image, [sample.box])
        left, right = sample.points[:2]
        distances = np.linalg.norm(face.landmarks - sample.points, axis=1)
        assert kept["landmarks"][i] == pytest.approx(distances.mean() / np.linalg.norm(left - right), rel=1e-3)
        assert kept["smile"][i] == (face.attributes["smile"].label != ATTRIBUTES["smile"][sample.labels["smile"]])


def test_points_and_attributes_of_the_main_set_are_judged_and_nothing_else(root, tmp_path):
    recipe = Recipe("x", tasks=("landmarks", "landmarks_ibug68", "smile", "angles"), uncertainty=True)
    assert Comparison("x", {"some": recipe}, (0,)).judged_tasks("some") == ("landmarks", "smile")
    model = tmp_path / "model.safetensors"
    save_model(model, recipe.create_model(), recipe.spec(40, 1))
    samples = read_split("mtfl_layout", "test", root)
    result = evaluate_run(model, samples, [read_image(s.image) for s in samples], [face_box(s) for s in samples])
    assert {task: values.shape for task, values in result.errors.items()} == {"landmarks": (4,), "smile": (4,)}


def test_finished_runs_are_not_repeated(finished, comparison, root):
    before = times(finished)
    run_comparison(comparison, finished / "runs", finished / "results", finished / "cache", root)
    assert times(finished) == before


def test_data_are_read_once_for_recipes_that_differ_in_what_is_done_with_them(finished, comparison, root):
    recipe = comparison.run_recipe("both", 4)
    data = training_data(recipe, finished / "cache", root)
    alike = [
        replace(recipe, name="other", seed=9, epochs=3, warmup_epochs=0.5, learning_rate=1e-4, snapshots=0),
        replace(recipe, weighing="uw", weights={"smile": 0.5}, early_stopping=True),
        replace(recipe, sharing="mmoe", sharing_options={"experts": 2}),
        replace(recipe, cascade={"smile": ["landmarks"]}, cascade_gradients=True),
    ]
    assert all(training_data(other, finished / "cache", root) is data for other in alike)
    shuffled = training_data(comparison.run_recipe("both shuffled", 4), finished / "cache", root)
    assert shuffled is not data


def test_two_jobs_give_the_same_files_as_one(finished, comparison, root, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("the results are bitwise the same on a CPU")
    few = replace(comparison, seeds=(7,), methods={k: comparison.methods[k] for k in ("both", "landmarks")})
    run_comparison(few, tmp_path / "runs", tmp_path / "results", finished / "cache", root, jobs=2)
    expected = contents(finished / "results")
    found = contents(tmp_path / "results")
    assert len(found) == 4
    assert found == {name: expected[name] for name in found}


def test_an_interrupted_run_continues_to_the_same_result(finished, comparison, root, tmp_path):
    few = replace(comparison, seeds=(4,), methods={"both": comparison.methods["both"]})
    recipe, out = few.run_recipe("both", 4), tmp_path / "runs" / "both" / "seed4"
    data = training_data(recipe, finished / "cache", root)
    assert not train_quietly(recipe, data, out, max_steps=1)
    checkpoint = (out / "checkpoint.safetensors").read_bytes()

    run_comparison(few, tmp_path / "runs", tmp_path / "results", finished / "cache", root)

    assert (out / "checkpoint.safetensors").read_bytes() != checkpoint
    expected = contents(finished / "results")
    assert contents(tmp_path / "results") == {
        name: expected[name] for name in ("both.seed4.heldout.npz", "both.seed4.test.npz")
    }


def test_a_run_without_its_result_is_judged_again_and_not_trained(finished, comparison, root, tmp_path):
    shutil.copytree(finished / "runs" / "smile" / "seed7", tmp_path / "runs" / "smile" / "seed7")
    shutil.copytree(finished / "results", tmp_path / "results")
    lost = result_path(tmp_path / "results", "smile", 7, "test")
    lost.unlink()
    log = tmp_path / "runs" / "smile" / "seed7" / "log.csv"
    before = log.stat().st_mtime_ns
    run_comparison(comparison, tmp_path / "runs", tmp_path / "results", finished / "cache", root)
    assert log.stat().st_mtime_ns == before
    assert contents(tmp_path / "results") == contents(finished / "results")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["smile"]


@pytest.mark.parametrize("run", [run_comparison, run_study])
def test_jobs_and_engines_out_of_range_are_refused_before_anything_is_read_or_cut(run, comparison, tmp_path):
    nothing_to_do = replace(comparison, methods={})
    for asked in (comparison, nothing_to_do):
        with pytest.raises(ConfigError, match="jobs must be at least 1, found 0"):
            run(asked, *(tmp_path / name for name in ("runs", "results", "cache", "no data")), jobs=0)
        with pytest.raises(ConfigError, match="unknown engine 'rya'; known: local, ray"):
            run(asked, *(tmp_path / name for name in ("runs", "results", "cache", "no data")), engine="rya")


# --- results that are not what they should be -------------------------------------------------------------------------


def test_results_of_another_recipe_are_not_taken_for_this_one(finished, comparison, root, tmp_path):
    longer = replace(comparison, methods={k: replace(r, epochs=2, flip=False) for k, r in comparison.methods.items()})
    with pytest.raises(ConfigError, match=r"both\.seed4\.heldout\.npz was made with other values of flip, epochs"):
        load_errors(longer, finished / "results", "heldout")
    with pytest.raises(ConfigError, match="made with other values of flip, epochs"):
        run_comparison(longer, tmp_path / "runs", finished / "results", finished / "cache", root)
    with pytest.raises(ConfigError, match="trained with other values of flip, epochs"):
        run_comparison(longer, finished / "runs", tmp_path / "results", finished / "cache", root)


def test_a_key_that_is_younger_than_a_result_has_its_default(finished, comparison, tmp_path):
    result = load_result(comparison, finished / "results", "both", 4, "test")
    older = {key: value for key, value in result.recipe.items() if key not in ("flip", "epochs")}
    path = result_path(tmp_path, "both", 4, "test")
    replace(result, recipe=older).save(path)
    with pytest.raises(ConfigError, match="other values of epochs"):  # 1 here; flip has its default
        load_result(comparison, tmp_path, "both", 4, "test")
    replace(result, recipe={**older, "epochs": 1}).save(path)
    load_result(comparison, tmp_path, "both", 4, "test")


@pytest.mark.parametrize("damage", ["empty", "cut", "altered", "text", "array", "no recipe"])
def test_a_damaged_result_is_named(finished, comparison, tmp_path, damage):
    results = tmp_path / "results"
    shutil.copytree(finished / "results", results)
    path = result_path(results, "landmarks", 7, "test")
    data = path.read_bytes()
    if damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(4))
    elif damage == "no recipe":
        np.savez_compressed(path, landmarks=np.zeros(4))
    else:
        middle = bytes(byte ^ 0xFF for byte in data[60:120])
        path.write_bytes(
            {"empty": b"", "cut": data[: len(data) // 2], "altered": data[:60] + middle + data[120:], "text": b"hello"}[
                damage
            ]
        )
    with pytest.raises(DataError, match=r"landmarks\.seed7\.test\.npz cannot be read.*delete it to train again"):
        load_errors(comparison, results, "test")


def test_a_damaged_result_is_found_before_anything_is_trained(finished, comparison, root, tmp_path):
    shutil.copytree(finished / "results", tmp_path / "results")
    result_path(tmp_path / "results", "both", 4, "test").unlink()
    result_path(tmp_path / "results", "smile", 7, "heldout").write_bytes(b"")
    with pytest.raises(DataError, match=r"smile\.seed7\.heldout\.npz"):
        run_comparison(comparison, tmp_path / "runs", tmp_path / "results", finished / "cache", root)
    assert not (tmp_path / "runs").exists()


def test_a_missing_result_is_not_called_damaged(comparison, tmp_path):
    with pytest.raises(DataError, match=r"both\.seed4\.test\.npz is missing: this run is not finished"):
        load_errors(comparison, tmp_path, "test")


def test_results_about_other_faces_are_refused(finished, comparison, tmp_path):
    shutil.copytree(finished / "results", tmp_path / "results")
    path = result_path(tmp_path / "results", "both", 4, "test")
    shutil.copy(result_path(finished / "results", "both", 4, "heldout"), path)
    with pytest.raises(DataError, match=r"about \[4, 8\] faces: they are of different data"):
        load_errors(comparison, tmp_path / "results", "test")


def test_a_result_reads_back_what_was_saved(tmp_path):
    errors = {"landmarks": np.float32([0.0, 0.0712, 2.5]), "pose": np.float32([0, 1, 1])}
    path = tmp_path / "new" / "a.npz"
    RunResult(errors, {"name": "a", "tasks": ["pose"], "weights": {"pose": 0.1}}).save(path)
    read = RunResult.load(path)
    assert read.recipe == {"name": "a", "tasks": ["pose"], "weights": {"pose": 0.1}}
    np.testing.assert_allclose(read.errors["landmarks"], errors["landmarks"], rtol=2**-11)
    np.testing.assert_array_equal(read.errors["pose"], errors["pose"])
    assert [item.name for item in path.parent.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("change", "task"),
    [
        ({"points": np.full((5, 2), np.nan, np.float32)}, "landmarks"),
        ({"points": np.full((5, 2), 9, np.float32)}, "landmarks"),
        ({"labels": {"smile": -1}}, "smile"),
        ({"labels": {}}, "smile"),
    ],
)
def test_a_face_that_lacks_what_it_is_judged_by_is_an_error(finished, root, change, task):
    samples: list[FaceSample] = read_split("mtfl_layout", "test", root)
    boxes, images = [face_box(s) for s in samples], [read_image(s.image) for s in samples]
    model = finished / "runs" / "both" / "seed4" / "model.safetensors"
    samples[2] = replace(samples[2], **change)
    with pytest.raises(DataError, match=rf"testing\.txt:3: {task} is not labelled"):
        evaluate_run(model, samples, images, boxes)
