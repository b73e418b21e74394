"""Training: it learns, it can be stopped at any moment and loses nothing, and it refuses what does not fit.

That an interrupted training gives bitwise what an uninterrupted one gives is checked on the bytes of its model and on
every figure of its log.
"""

import json
import multiprocessing
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import (
    copy_run,
    read_log,
    results,
    tiny_data,
    tiny_faces,
    tiny_recipe,
    train_quietly,
)
from torch import nn

from facemtl.data.sample import FaceSample
from facemtl.errors import ConfigError, DataError, DeviceError, ModelError, OutputError
from facemtl.models.factory import BACKBONES
from facemtl.models.files import load_model
from facemtl.training.engine import CHECKPOINT, MODEL, Interrupted, Run, TrainingData, train
from facemtl.training.losses import task_losses
from facemtl.training.optimisers import learning_rate

# Processes that import torch once and can be killed.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["__main__", "facemtl.training.engine"])

ATTRIBUTES = ("glasses", "smile", "gender", "pose")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def faces(folder) -> list[FaceSample]:
    return tiny_faces(folder)


@pytest.fixture(scope="module")
def data(folder, faces) -> TrainingData:
    """For every recipe of the standard network."""
    return tiny_data(tiny_recipe(), faces, folder / "cache")


@pytest.fixture(scope="module")
def finished(folder, data) -> Path:
    """The folder of an uninterrupted training by :func:`tiny_recipe`."""
    assert train_quietly(tiny_recipe(), data, folder / "finished")
    return folder / "finished"


def new_run(recipe, data, out: Path) -> Run:
    torch.manual_seed(recipe.seed)
    return Run(recipe, data, out, torch.device("cpu"))


def in_a_process(*arguments) -> None:
    process = CHILDREN.Process(target=train_quietly, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


# --- learning ---


def test_the_network_can_learn_eight_faces_by_heart(tmp_path, folder, faces):
    recipe = tiny_recipe(epochs=250, points_loss="smooth_l1", ema=0.0, weight_decay=0.0)
    run = new_run(recipe, tiny_data(recipe, faces[:16], folder / "cache"), tmp_path)
    batch = run.looked_at["train"]
    before = run._look(batch)
    for _ in range(250):
        run.step(batch)
    after = run._look(batch)
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
    figures = {f"{part}/{task}" for part in parts for task in ("landmarks", *ATTRIBUTES)}
    figures |= {
        f"{part}/{name}" for part in parts[1:] for name in ("nme", *(f"{task}_accuracy" for task in ATTRIBUTES))
    }
    assert set(rows[0]) == {"epoch", *figures}
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
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
    losses = task_losses(run.model(batch.images), batch.points, batch.labels)
    expected = torch.autograd.grad(3 * losses["smile"], run.model.heads["smile"].weight)[0]
    run.step(batch)
    torch.testing.assert_close(run.model.heads["smile"].weight.grad, expected)
    assert not run.model.heads["landmarks"].linear.weight.grad.any()


def test_a_training_that_diverges_is_an_error_and_leaves_no_model(tmp_path, data):
    recipe = tiny_recipe(optimiser="sgd", learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(ConfigError, match=r"step 4: the loss of landmarks.* is not finite: lower learning_rate"):
        train(recipe, data, tmp_path, "cpu", progress=False)
    assert not (tmp_path / MODEL).exists()
    assert not (tmp_path / CHECKPOINT).exists()


# --- stopping and continuing ---


def test_a_training_stopped_at_some_steps_gives_what_an_uninterrupted_one_gives(tmp_path, finished, data):
    for stop in (1, 2, 4, 7):
        assert not train_quietly(tiny_recipe(), data, tmp_path, max_steps=stop)
        assert not (tmp_path / MODEL).exists()
    assert train_quietly(tiny_recipe(), data, tmp_path)
    assert results(tmp_path) == results(finished)


def test_workers_change_nothing(tmp_path, finished, data):
    with_worker = replace(tiny_recipe(), workers=1)
    in_a_process(with_worker, data, tmp_path, 3)
    assert len(list(tmp_path.glob(CHECKPOINT))) == 1
    in_a_process(tiny_recipe(), data, tmp_path, 6)
    in_a_process(with_worker, data, tmp_path)
    assert results(tmp_path) == results(finished)


def test_the_number_of_steps_asked_for_is_not_exceeded_by_asking_again(tmp_path, data):
    for _ in range(2):
        with pytest.raises(Interrupted, match="stopped at step 3 of 8; the same command continues"):
            train(tiny_recipe(), data, tmp_path, "cpu", progress=False, max_steps=3)
    assert train_quietly(tiny_recipe(epochs=2), data, tmp_path, max_steps=100)


def test_a_training_killed_at_random_moments_gives_what_an_uninterrupted_one_gives(tmp_path, data):
    recipe = tiny_recipe(epochs=24)
    assert train_quietly(recipe, data, tmp_path / "whole")
    moments = random.Random(0)
    ends = []
    for _ in range(4):
        checkpoint = tmp_path / "killed" / CHECKPOINT
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process = CHILDREN.Process(target=train_quietly, args=(recipe, data, tmp_path / "killed"))
        process.start()
        while process.is_alive() and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.005)  # every life gets one epoch further, at least
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.join()
        ends.append(process.exitcode)
    assert -signal.SIGKILL in ends
    assert train_quietly(recipe, data, tmp_path / "killed")
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_ctrl_c_saves_after_the_step_and_the_same_call_continues(tmp_path, monkeypatch, finished, data):
    step = Run.step

    def interrupted_step(run, batch):
        if run.progress.step == 5:
            signal.raise_signal(signal.SIGINT)
        step(run, batch)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped at step 6 of 8"):
        patch.setattr(Run, "step", interrupted_step)
        train(tiny_recipe(), data, tmp_path, "cpu", progress=False)
    assert signal.getsignal(signal.SIGINT) is handler
    assert train_quietly(tiny_recipe(), data, tmp_path)
    assert results(tmp_path) == results(finished)


class Dropping(nn.Module):
    """A backbone whose every step depends on random numbers of torch."""

    input_size, channels, features = 40, 1, 8

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(100, 8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


def test_dropout_and_sgd_continue_bitwise_too(tmp_path, monkeypatch, data):
    monkeypatch.setitem(BACKBONES, "dropping", Dropping)
    recipe = tiny_recipe(backbone="dropping", optimiser="sgd")
    train_quietly(recipe, data, tmp_path / "whole")
    for stop in (2, 5, None):
        train_quietly(recipe, data, tmp_path / "stopped", max_steps=stop)
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_finished_training_is_left_as_it_is(finished, data):
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    before = state()
    assert train_quietly(tiny_recipe(), data, finished)
    assert state() == before


def test_a_model_file_that_was_lost_is_written_again(tmp_path, finished, data):
    out = copy_run(finished, tmp_path / "run")
    (out / MODEL).unlink()
    assert train_quietly(tiny_recipe(), data, out)
    assert results(out) == results(finished)


def test_a_folder_with_a_run_of_another_recipe_is_refused_and_not_touched(tmp_path, finished, data):
    out = copy_run(finished, tmp_path / "run")
    other = tiny_recipe(learning_rate=1e-3, weights={"pose": 0.5}, workers=1)
    with pytest.raises(ConfigError, match="was trained with other values of weights, learning_rate; use another --out"):
        train(other, data, out, "cpu", progress=False)
    assert json.loads((out / "recipe.json").read_text()) == tiny_recipe().to_dict()
    assert results(out) == results(finished)


@pytest.mark.parametrize("damage", ["empty", "cut short", "something else", "no state", "other network"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, finished, data, damage):
    path = tmp_path / CHECKPOINT
    whole = (finished / CHECKPOINT).read_bytes()
    tensors = load_file(finished / CHECKPOINT)
    if damage == "other network":
        header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
        del tensors["model.heads.smile.weight"]
        save_file(tensors, path, header["__metadata__"])
    elif damage == "no state":
        save_file(tensors, path, {"facemtl": "{}"})
    else:
        path.write_bytes({"empty": b"", "cut short": whole[:-1], "something else": b"no tensors" * 9}[damage])
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors (is|holds)"):
        train(tiny_recipe(), data, tmp_path, "cpu", progress=False)
    assert not (tmp_path / MODEL).exists()


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path, data):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"recipe\.json cannot be written"):
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
    points = task_losses(run.model.train()(batch.images), batch.points, batch.labels)["landmarks"]
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
    assert {row["heldout/smile"] for row in read_log(tmp_path)} == {"0.0"}


def test_one_task_alone_trains(tmp_path, data):
    recipe = tiny_recipe(tasks=("pose",), passes=1, epochs=1)
    assert train_quietly(recipe, data, tmp_path)
    assert load_model(tmp_path / MODEL)[0].tasks == ("pose",)
    assert set(read_log(tmp_path)[0]) == {
        *("epoch", "augmented/pose", "train/pose", "train/pose_accuracy", "heldout/pose", "heldout/pose_accuracy")
    }


def test_a_share_of_the_faces_is_the_same_for_every_seed(folder, faces):
    halves = [tiny_data(tiny_recipe(fraction=0.5, seed=seed), faces, folder / "cache") for seed in (0, 1)]
    assert [len(half.train) for half in halves] == [16, 16]
    assert [len(half.heldout) for half in halves] == [8, 8]
    np.testing.assert_array_equal(halves[0].train.points, halves[1].train.points)


def test_shuffled_labels_are_the_same_labels_in_another_order(folder, faces, data):
    control = tiny_data(tiny_recipe(shuffled_labels=("pose",)), faces, folder / "cache")
    pose, shuffled = data.train.labels["pose"], control.train.labels["pose"]
    assert sorted(shuffled) == sorted(pose)
    assert (shuffled != pose).any()
    np.testing.assert_array_equal(control.train.labels["smile"], data.train.labels["smile"])
    np.testing.assert_array_equal(control.heldout.labels["pose"], data.heldout.labels["pose"])


def test_data_that_does_not_fit_the_recipe_is_refused(tmp_path, faces):
    def read(recipe, train, heldout):
        return TrainingData.of(recipe, 1, tmp_path, train, heldout, progress=False)

    without_pose = [replace(face, labels={"smile": 0}) for face in faces]
    with pytest.raises(ConfigError, match="the training data has 'mtfl5' points, the recipe asks for 'ibug68'"):
        read(tiny_recipe(schema="ibug68"), faces, faces)
    with pytest.raises(ConfigError, match=r"the held-out data has no labels for \['pose'\]: leave them out of tasks"):
        read(tiny_recipe(tasks=("smile", "pose"), passes=1), faces, without_pose)
    with pytest.raises(DataError, match="there are no training faces"):
        read(tiny_recipe(), [], faces)
    with pytest.raises(DataError, match="there are no held-out faces"):
        read(tiny_recipe(), faces, [])
    with pytest.raises(DataError, match="5 training faces do not fill one batch of 8"):
        read(tiny_recipe(), faces[:5], faces)
