"""A training can be stopped at any moment and loses nothing: continued, it gives bitwise what a whole one gives.

Checked on the bytes of its model and on every figure of its log.
"""

import json
import multiprocessing
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import copy_run, results, tiny_recipe, train_quietly
from torch import nn

from facemtl.errors import ConfigError, ModelError
from facemtl.models.factory import BACKBONES
from facemtl.training.engine import CHECKPOINT, MODEL, Interrupted, Run, train

# Processes that import torch once and can be killed.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["__main__", "facemtl.training.engine"])


@pytest.fixture(scope="module")
def finished(folder, data) -> Path:
    """The folder of an uninterrupted training by :func:`tiny_recipe`."""
    assert train_quietly(tiny_recipe(), data, folder / "finished")
    return folder / "finished"


def in_a_process(*arguments) -> None:
    process = CHILDREN.Process(target=train_quietly, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


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


def test_a_checkpoint_older_than_a_key_of_recipes_continues(tmp_path, finished, data):
    train_quietly(tiny_recipe(), data, tmp_path, max_steps=3)
    path = tmp_path / CHECKPOINT
    whole, tensors = path.read_bytes(), load_file(path)
    state = json.loads(json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]["facemtl"])
    del state["recipe"]["augment_on"]
    save_file(tensors, path, {"facemtl": json.dumps(state)})
    assert train_quietly(tiny_recipe(), data, tmp_path)
    assert results(tmp_path) == results(finished)


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
