"""The mean of several models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scripts import run_script
from tiny_training import mixed_recipe

from facemtl.errors import ModelError
from facemtl.models.averaging import average
from facemtl.models.files import load_model, save_model
from facemtl.training.recipe import Recipe


def write(path: Path, recipe: Recipe, seed: int) -> Path:
    torch.manual_seed(seed)
    model = recipe.create_model()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    save_model(path, model, recipe.spec(model.backbone.input_size, model.backbone.channels))
    return path


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return [write(tmp_path / f"{seed}.safetensors", mixed_recipe(refine=True), seed) for seed in range(3)]


def test_every_parameter_and_running_statistic_is_the_mean(files):
    model, spec = average(files)
    parts = [load_model(path) for path in files]
    assert spec == parts[0][1]
    assert not model.training
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            expected = sum(part.state_dict()[name].double() for part, _ in parts) / 3
            torch.testing.assert_close(tensor, expected.float(), rtol=0, atol=1e-7)


def test_the_mean_of_a_model_and_itself_is_the_model(files):
    model, _ = average([files[0], files[0]])
    for name, tensor in load_model(files[0])[0].state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)


def test_the_locator_is_the_first_ones(files, tmp_path, monkeypatch):
    locator = write(tmp_path / "locator.safetensors", mixed_recipe(tasks=("landmarks",), passes=1, weights={}), 5)
    with_one = tmp_path / "with.safetensors"
    assert run_script("tools/add_locator.py", monkeypatch, files[0], locator, "--out", with_one) == 0
    for order in ([with_one, files[1]], [files[1], with_one]):
        model, spec = average(order)
        assert (model.locator is not None) == (spec.locator is not None) == (order[0] == with_one)
    model, _ = average([with_one, files[1]])
    for name, tensor in load_model(locator)[0].state_dict().items():
        torch.testing.assert_close(model.locator.state_dict()[name], tensor, rtol=0, atol=0)


def test_one_model_and_models_of_other_networks_are_refused(files, tmp_path):
    with pytest.raises(ModelError, match="two models or more; got 1"):
        average(files[:1])
    other = write(tmp_path / "other.safetensors", mixed_recipe(), 0)
    with pytest.raises(ModelError, match=r"other.safetensors holds the parameters of another model: .*refiner"):
        average([files[0], other])
    with pytest.raises(ModelError, match=r"holds the parameters of another model"):
        average([other, files[0]])


def test_the_tool_writes_a_model(files, tmp_path, monkeypatch, capsys):
    out = tmp_path / "mean.safetensors"
    assert run_script("tools/average_models.py", monkeypatch, *files, "--out", out) == 0
    assert "the mean of 3 models" in capsys.readouterr().out
    expected = average(files)[0].state_dict()
    torch.testing.assert_close(load_model(out)[0].state_dict(), expected, rtol=0, atol=0)
    assert run_script("tools/average_models.py", monkeypatch, files[0], "--out", out) == 2
    assert "two models or more" in capsys.readouterr().err
