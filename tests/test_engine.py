"""Training: it learns what it is given, tasks can leave it early, and what does not fit is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_training import copy_run, new_run, read_log, results, tiny_data, tiny_recipe, train_quietly

from facemtl.errors import ConfigError, DataError, DeviceError, OutputError
from facemtl.models.files import load_model
from facemtl.training.engine import CHECKPOINT, MODEL, train
from facemtl.training.looking import look
from facemtl.training.losses import task_losses
from facemtl.training.optimisers import learning_rate
from facemtl.training.training_data import TrainingData

ATTRIBUTES = ("glasses", "smile", "gender", "pose")


@pytest.fixture(scope="module")
def finished(folder, data) -> Path:
    """The folder of an uninterrupted training by :func:`tiny_recipe`."""
    assert train_quietly(tiny_recipe(), data, folder / "finished")
    return folder / "finished"


# --- learning ---


def test_the_network_can_learn_eight_faces_by_heart(tmp_path, folder, faces):
    recipe = tiny_recipe(epochs=250, points_loss="smooth_l1", ema=0.0, weight_decay=0.0)
    run = new_run(recipe, tiny_data(recipe, faces[:16], folder / "cache"), tmp_path)
    batch = run.looked_at["train"]
    before = look(run.average, batch, run.recipe)
    for _ in range(250):
        run.step(batch)
    after = look(run.average, batch, run.recipe)
    assert after["landmarks"] < before["landmarks"] / 100
    assert after["nme"] < 2  # percent; it starts at 60
    for task in ATTRIBUTES:
        assert after[task] < before[task] / 8, task
        assert after[f"{task}_accuracy"] == 100, task


def test_a_training_leaves_a_model_its_recipe_and_a_log(finished):
    model, spec = load_model(finished / MODEL)
    assert model.tasks == spec.tasks == ("landmarks", *ATTRIBUTES)
    assert (spec.name, spec.input_size, spec.channels) == ("tiny", 40, 1)
    assert json.loads((finished / "recipe.json").read_text()) == tiny_recipe().to_dict()
    rows = read_log(finished)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    parts = ("augmented", "train", "heldout")
    figures = {f"{part}/{task}" for part in (*parts, "labelled") for task in ("landmarks", *ATTRIBUTES)}
    figures |= {
        f"{part}/{name}" for part in parts[1:] for name in ("nme", *(f"{task}_accuracy" for task in ATTRIBUTES))
    }
    assert set(rows[0]) == {"epoch", *figures}
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert {row[f"labelled/{task}"] for row in rows for task in ("landmarks", *ATTRIBUTES)} == {"32"}
    assert list((finished / "tensorboard").iterdir())


def test_the_model_is_the_running_average(finished):
    kept, state = load_file(finished / MODEL), load_file(finished / CHECKPOINT)
    for key, value in kept.items():
        assert torch.equal(value, state[f"average.{key}"]), key
    assert not torch.equal(state["average.backbone.body.0.weight"], state["model.backbone.body.0.weight"])


def test_the_seed_decides_everything(tmp_path, finished, data):
    train_quietly(tiny_recipe(), data, tmp_path / "same")
    train_quietly(tiny_recipe(seed=4), data, tmp_path / "other")
    assert results(tmp_path / "same") == results(finished)
    assert results(tmp_path / "other")[0] != results(finished)[0]


def test_the_learning_rate_follows_the_schedule(tmp_path, data):
    recipe = tiny_recipe(epochs=3, warmup_epochs=0.5, learning_rate=0.02)
    run = new_run(recipe, data, tmp_path)
    for step in range(12):
        run.step(run.dataset[step])
        rates = {group["lr"] for group in run.optimiser.param_groups}
        assert rates == {learning_rate(step, steps=12, warmup=2, peak=0.02)}


def test_weights_multiply_the_losses(tmp_path, data):
    recipe = tiny_recipe(tasks=("landmarks", "smile"), weights={"landmarks": 0.0, "smile": 3.0}, weight_decay=0.0)
    run = new_run(recipe, data, tmp_path)
    batch = run.dataset[0]
    run.model.train()
    losses = task_losses(run.model(batch.images), batch.targets)
    expected = torch.autograd.grad(3 * losses["smile"], run.model.heads["smile"].weight)[0]
    run.step(batch)
    torch.testing.assert_close(run.model.heads["smile"].weight.grad, expected)
    assert not run.model.heads["landmarks"].linear.weight.grad.any()


def test_a_training_that_diverges_is_an_error_and_leaves_no_model(tmp_path, data):
    recipe = tiny_recipe(optimiser="sgd", learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(ConfigError, match=r"step 4: the loss of .*landmarks.* is not finite: lower learning_rate"):
        train(recipe, data, tmp_path, "cpu", progress=False)
    assert not (tmp_path / MODEL).exists()
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path, data):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"the folder .*file/run cannot be made"):
        train(tiny_recipe(), data, tmp_path / "file" / "run", "cpu", progress=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error(tmp_path, data):
    with pytest.raises(DeviceError, match="torch finds no GPU here"):
        train(tiny_recipe(), data, tmp_path, "cuda", progress=False)
    assert not list(tmp_path.iterdir())


# --- task-wise early stopping ---

STOPPING = {"early_stopping": True, "stop_k": 3, "stop_threshold": -1e12, "epochs": 5}  # all leave after epoch 3


def test_a_stopped_task_has_no_gradient_and_the_main_task_keeps_its_own(tmp_path, data):
    run = new_run(tiny_recipe(**STOPPING), data, tmp_path)
    run.progress.stopper.stopped = dict.fromkeys(ATTRIBUTES, 1)
    batch = run.dataset[0]
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    points = task_losses(run.model.train()(batch.images), batch.targets)["landmarks"]
    shared = run.model.backbone.body[0].weight
    expected = torch.autograd.grad(points, shared)[0]
    run.step(batch)
    torch.testing.assert_close(shared.grad, expected)
    for key, value in run.model.state_dict().items():
        moved = not torch.equal(value, before[key])
        assert moved != key.startswith(tuple(f"heads.{task}." for task in ATTRIBUTES)), key


def test_tasks_leave_after_their_epoch_and_stay_away_after_a_restart(tmp_path, data):
    recipe = tiny_recipe(**STOPPING)
    train_quietly(recipe, data, tmp_path / "whole")
    for stop in (12, 15):
        train_quietly(recipe, data, tmp_path / "stopped", max_steps=stop)
        copy_run(tmp_path / "stopped", tmp_path / f"at {stop}")
    leaving, later = (load_file(tmp_path / f"at {stop}" / CHECKPOINT) for stop in (12, 15))
    for key in leaving:
        if key.startswith("model."):
            stays = key.startswith(tuple(f"model.heads.{task}." for task in ATTRIBUTES))
            assert torch.equal(leaving[key], later[key]) == stays, key
    train_quietly(recipe, data, tmp_path / "stopped")
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    rows = read_log(tmp_path / "whole")
    for task in ATTRIBUTES:
        assert [row[f"stopped/{task}"] for row in rows] == ["0", "0", "3", "3", "3"]


def test_no_task_leaves_under_a_threshold_that_is_never_reached(tmp_path, data):
    recipe = tiny_recipe(**{**STOPPING, "stop_threshold": 1e12})
    train_quietly(recipe, data, tmp_path)
    assert {row[f"stopped/{task}"] for row in read_log(tmp_path) for task in ATTRIBUTES} == {"0"}


# --- data ---


def test_faces_without_a_label_train_the_other_tasks(tmp_path, folder, faces):
    unlabelled = [replace(face, labels={**face.labels, "smile": -1}) for face in faces]
    recipe = tiny_recipe(weight_decay=0.0)
    run = new_run(recipe, tiny_data(recipe, unlabelled, folder / "cache"), tmp_path)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    run.step(run.dataset[0])
    for key, value in run.model.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("heads.smile."), key
    assert train_quietly(recipe, run.data, tmp_path)
    for row in read_log(tmp_path):
        assert (row["augmented/smile"], row["labelled/smile"], row["labelled/pose"]) == ("0.0", "0", "32")
        assert not {"train/smile", "heldout/smile", "heldout/smile_accuracy"} & set(row)  # nothing to be measured by


def test_one_task_alone_trains(tmp_path, data):
    recipe = tiny_recipe(tasks=("pose",), passes=1, epochs=1)
    assert train_quietly(recipe, data, tmp_path)
    assert load_model(tmp_path / MODEL)[0].tasks == ("pose",)
    assert set(read_log(tmp_path)[0]) == {
        *("epoch", "augmented/pose", "labelled/pose"),
        *("train/pose", "train/pose_accuracy", "heldout/pose", "heldout/pose_accuracy"),
    }


def test_a_share_of_the_faces_is_the_same_for_every_seed(folder, faces):
    halves = [tiny_data(tiny_recipe(fraction=0.5, seed=seed), faces, folder / "cache") for seed in (0, 1)]
    assert [len(half.train["mtfl"]) for half in halves] == [16, 16]
    assert [len(half.heldout["mtfl"]) for half in halves] == [8, 8]
    np.testing.assert_array_equal(halves[0].train["mtfl"].points, halves[1].train["mtfl"].points)


def test_shuffled_labels_are_the_same_labels_in_another_order(folder, faces, data):
    control = tiny_data(tiny_recipe(shuffled_labels=("pose",)), faces, folder / "cache")
    pose, shuffled = data.train["mtfl"].labels["pose"], control.train["mtfl"].labels["pose"]
    assert sorted(shuffled) == sorted(pose)
    assert (shuffled != pose).any()
    np.testing.assert_array_equal(control.train["mtfl"].labels["smile"], data.train["mtfl"].labels["smile"])
    np.testing.assert_array_equal(control.heldout["mtfl"].labels["pose"], data.heldout["mtfl"].labels["pose"])


def test_data_that_does_not_fit_the_recipe_is_refused(tmp_path, faces):
    def read(recipe, train, heldout):
        return TrainingData.of(recipe, 1, tmp_path, train, heldout, progress=False)

    without_pose = [replace(face, labels={"smile": 0}) for face in faces]
    with pytest.raises(ConfigError, match=r"the training data has no labels for \['landmarks'\], it has .*mtfl5"):
        read(tiny_recipe(schema="ibug68"), faces, faces)
    with pytest.raises(ConfigError, match=r"the held-out data has no labels for \['pose'\], it has .*: leave them out"):
        read(tiny_recipe(tasks=("smile", "pose"), passes=1), faces, without_pose)
    with pytest.raises(ConfigError, match=r"no labels for \['angles'\], .* or add a data set that has them to mix"):
        read(tiny_recipe(tasks=("smile", "angles"), passes=1), [replace(face, angles=None) for face in faces], faces)
    with pytest.raises(DataError, match="there are no training faces in mtfl"):
        read(tiny_recipe(), [], faces)
    with pytest.raises(DataError, match="there are no held-out faces in mtfl"):
        read(tiny_recipe(), faces, [])
    with pytest.raises(DataError, match="there are no held-out faces in genki4k"):
        read(tiny_recipe(), faces, {"mtfl": faces, "genki4k": []})
    with pytest.raises(DataError, match="there are no training faces in mtfl"):
        read(tiny_recipe(), {"genki4k": faces}, faces)
    with pytest.raises(DataError, match="5 training faces do not fill one batch of 8"):
        read(tiny_recipe(), faces[:5], faces)


def test_faces_of_which_none_has_all_points_are_learned_from_and_looked_at(tmp_path, folder, faces):
    lost = [replace(face, points=np.where([[True], *[[False]] * 4], np.nan, face.points)) for face in faces]
    recipe = tiny_recipe(epochs=1)
    assert train_quietly(recipe, tiny_data(recipe, lost, folder / "cache"), tmp_path)
    (row,) = read_log(tmp_path)
    assert (row["heldout/nme"], row["labelled/landmarks"]) == ("nan", "32")
    assert float(row["heldout/landmarks"]) > 0
