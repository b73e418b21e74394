"""The locator: a small network inside another one, which lays its crop."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scripts import run_script
from tiny_training import SMALL_GRIDNET, mixed_recipe

from facemtl.errors import ModelError
from facemtl.models.files import load_model, save_model
from facemtl.models.session import TorchSession
from facemtl.session import OnnxSession
from facemtl.training.export import TOLERANCE, export_onnx
from facemtl.training.initial import start_from
from facemtl.training.recipe import Recipe

SMALLER = {**SMALL_GRIDNET, "input_size": 16, "widths": [8], "depths": [1]}


def locator_recipe(**changes) -> Recipe:
    values = {"name": "where", "tasks": ("landmarks",), "crop_scale": 1.5, "passes": 1}
    return Recipe(**{**values, "backbone": "gridnet", "backbone_options": SMALLER, **changes})


def write(path: Path, recipe: Recipe, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = recipe.create_model()
    for parameter in model.heads["landmarks"].parameters():
        torch.nn.init.normal_(parameter)
    save_model(path, model, recipe.spec(model.backbone.input_size, model.backbone.channels))
    return path


@pytest.fixture
def both(tmp_path, monkeypatch) -> Path:
    model = write(tmp_path / "model.safetensors", mixed_recipe(refine=True, passes=1))
    locator = write(tmp_path / "locator.safetensors", locator_recipe(), seed=1)
    out = tmp_path / "both.safetensors"
    assert run_script("tools/add_locator.py", monkeypatch, model, locator, "--out", out) == 0
    return out


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def test_it_looks_at_the_crop_averaged_to_its_own_size(both):
    model, _ = load_model(both)
    alone, _ = load_model(both.with_name("locator.safetensors"))
    blocks = crops(3).reshape(3, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    with torch.inference_mode():
        found = model.locate(torch.from_numpy(crops(3)))
        expected = alone(torch.from_numpy(blocks))["landmarks"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert found.std(dim=0).max() > 0.01


def test_the_network_says_what_it_said_and_its_description_has_the_locators(both):
    with_it, spec = load_model(both)
    without, before = load_model(both.with_name("model.safetensors"))
    images = torch.from_numpy(crops(3))
    with torch.inference_mode():
        for name, output in without(images).items():
            assert torch.equal(with_it(images)[name], output)
    assert (spec.passes, before.passes) == (2, 1)
    assert (spec.locator.name, spec.locator.crop_scale, spec.locator.input_size) == ("where", 1.5, 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone_options": {**SMALLER, "input_size": 24}},
        {"schema": "ibug68"},
        {"backbone": "tcdcn", "backbone_options": {}},
    ],
    ids=["a side that does not divide", "other points", "grey"],
)
def test_one_that_does_not_fit_is_refused_and_the_model_stays(tmp_path, monkeypatch, capsys, changes):
    model = write(tmp_path / "model.safetensors", mixed_recipe())
    before = model.read_bytes()
    locator = write(tmp_path / "locator.safetensors", locator_recipe(**changes))
    assert run_script("tools/add_locator.py", monkeypatch, model, locator) == 2
    assert "where cannot lay the crops of tiny: a locator needs the same main points" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_exported_both_are_one_file_whose_branches_own_their_constants(both, tmp_path):
    target = tmp_path / "both.onnx"
    assert max(export_onnx(both, target).values()) <= TOLERANCE
    graph = onnx.load(target).graph
    onnx.checker.check_model(onnx.load(target))
    (branching,) = [node for node in graph.node if node.op_type == "If"]
    branches = [attribute.g for attribute in branching.attribute]
    own = [{constant.name for constant in branch.initializer} for branch in branches]
    assert all(any("conv.weight" in name for name in names) for names in own)
    assert sum("conv.weight" in constant.name for constant in graph.initializer) == 0
    assert not any(node.metadata_props for branch in branches for node in branch.node)

    sessions = OnnxSession(target), TorchSession.load(both)
    assert sessions[0].spec == sessions[1].spec
    (full, fulls), (coarse, coarses) = (
        [session.run(crops(4), ["landmarks"], locate)["landmarks"] for session in sessions] for locate in (False, True)
    )
    np.testing.assert_allclose(full, fulls, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(coarse, coarses, rtol=0, atol=TOLERANCE)
    assert np.abs(full - coarse).max() > 0.1


def test_a_description_with_a_locator_that_the_graph_lacks_is_refused(both, tmp_path):
    target = tmp_path / "model.onnx"
    export_onnx(both.with_name("model.safetensors"), target)
    graph = onnx.load(target)
    onnx.helper.set_model_props(graph, {"facemtl": load_model(both)[1].to_json()})
    onnx.save(graph, target)
    with pytest.raises(ModelError, match="is not the network that it describes"):
        OnnxSession(target)


def test_a_training_starts_from_the_network_without_it(both):
    recipe = mixed_recipe(refine=True, init=str(both))
    model = recipe.create_model()
    start_from(model, recipe)
    assert model.locator is None
    expected = load_model(both)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
