"""ONNX export: every head of every network computes what it computes in torch, or nothing is written."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from facemtl.errors import ConfigError, ModelError
from facemtl.models.files import load_model, save_model
from facemtl.models.sharing.registry import SHARINGS
from facemtl.session import OnnxSession
from facemtl.training.export import TOLERANCE, export_onnx
from facemtl.training.recipe import Recipe
from facemtl.weights import METADATA_KEY, ModelSpec

TASKS = ("landmarks", "glasses", "smile", "gender", "pose")
EVERYTHING = ("landmarks", "landmarks_ibug68", *TASKS[1:], "angles")
GRIDNET = {"input_size": 33, "stem": 4, "widths": [6, 8], "depths": [1, 1], "neck": 4, "hidden": 12}


def write_model(path: Path, backbone: str = "tcdcn", options: dict | None = None, **choices) -> Path:
    """An untrained model with all heads, whose outputs differ clearly from crop to crop."""
    torch.manual_seed(0)
    values = {"name": "some", "tasks": TASKS, "crop_scale": 1.3, **choices}
    recipe = Recipe(backbone=backbone, backbone_options=options or {}, **values)
    model = recipe.create_model()
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter)
    if recipe.uncertainty and recipe.points_head == "direct":
        torch.nn.init.normal_(model.heads["landmarks"].spread.weight, std=0.8)  # within the limits of its exponential
    for module in model.backbone.modules():
        if backbone == "gridnet" and isinstance(module, torch.nn.BatchNorm2d):  # whose normalisation is folded
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    save_model(path, model, recipe.spec(model.backbone.input_size, model.backbone.channels))
    return path


def read_by(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of what the nodes of a graph and of its branches read."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from read_by(attribute.g)


TWO = ("landmarks", "smile")
SHARED = {
    "gridnet branches": ("gridnet", GRIDNET, {"sharing": "hard", "sharing_options": {"split": -2}}),
    "vit mmoe": ("timm/test_vit", {}, {"sharing": "mmoe", "sharing_options": {"experts": 2}}),
    **{name: ("tcdcn", {}, {"sharing": name, "cascade": {"landmarks": ["smile"]}}) for name in SHARINGS},
}
# The mean of four untrained experts is much the same for every crop, and agreeing on it would say little.
SHARED["mmoe"][2]["sharing_options"] = {"experts": 2}


def shared_networks():
    for backbone, options, choices in SHARED.values():
        yield pytest.param(backbone, options, {"tasks": TWO, **choices}, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("backbone", "options", "choices"),
    [
        ("tcdcn", {}, {}),
        ("tcdcn", {"shared_filters": False}, {}),
        ("tcdcn60", {}, {"schema": "ibug68"}),
        ("gridnet", GRIDNET, {"tasks": EVERYTHING, "uncertainty": True, "dropout": 0.2}),
        ("gridnet", GRIDNET, {"tasks": EVERYTHING, "uncertainty": True, "refine": True}),
        ("gridnet", GRIDNET, {"tasks": EVERYTHING, "uncertainty": True, "points_head": "simcc"}),
        ("gridnet", GRIDNET, {"tasks": EVERYTHING, "uncertainty": True, "points_head": "heatmap"}),
        ("timm/test_efficientnet", {"input_size": 48}, {}),
        ("timm/test_vit", {}, {}),
        *shared_networks(),
    ],
    ids=["tcdcn", "tcdcn local", "tcdcn60", "direct", "refined", "simcc", "heatmap", "efficientnet", "vit", *SHARED],
)
def test_every_head_of_every_network_computes_the_same(tmp_path, backbone, options, choices):
    source = write_model(tmp_path / "model.safetensors", backbone, options, **choices)
    target = tmp_path / "onnx" / "model.onnx"
    differences = export_onnx(source, target)
    names = list(load_model(source)[1].outputs())
    assert list(differences) == names
    assert max(differences.values()) <= TOLERANCE
    assert list(target.parent.iterdir()) == [target]  # one file, with its parameters inside
    graph = onnx.load(target)
    onnx.checker.check_model(graph)
    assert {constant.name for constant in graph.graph.initializer} <= set(read_by(graph.graph))
    if backbone == "gridnet":  # fused
        kinds = [node.op_type for node in graph.graph.node]
        assert (kinds.count("BatchNormalization"), kinds.count("Dropout")) == (0, 0)

    model, spec = load_model(source)
    session = OnnxSession(target)
    assert session.spec == spec
    rng = np.random.default_rng(1)
    for count in (1, 3, 8):
        crops = rng.integers(0, 256, (count, spec.channels, spec.input_size, spec.input_size), dtype=np.uint8)
        with torch.inference_mode():
            expected = model(torch.from_numpy(crops))
        for task, output in session.run(crops, names).items():
            assert output.dtype == np.float32
            np.testing.assert_allclose(output, expected[task].numpy(), rtol=0, atol=TOLERANCE, err_msg=task)
            assert count == 1 or output.std(axis=0).max() > 100 * TOLERANCE, task  # agreeing says something


def test_the_description_stands_in_the_metadata_as_text(tmp_path):
    source = write_model(tmp_path / "model.safetensors")
    export_onnx(source, tmp_path / "model.onnx")
    properties = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert ModelSpec.from_json(properties[METADATA_KEY], "x") == load_model(source)[1]


def test_a_damaged_model_is_refused_and_the_old_export_stays(tmp_path):
    source = write_model(tmp_path / "model.safetensors")
    source.write_bytes(source.read_bytes()[:-1])
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")
    with pytest.raises(ModelError, match=r"model\.safetensors is missing or damaged"):
        export_onnx(source, target)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.safetensors"]


def test_a_model_with_parameters_that_are_no_numbers_is_refused_and_nothing_is_written(tmp_path):
    source = write_model(tmp_path / "model.safetensors")
    model, spec = load_model(source)
    with torch.no_grad():
        model.heads["smile"].weight[0, 0] = torch.nan
    save_model(source, model, spec)
    with pytest.raises(ModelError, match=r"and its ONNX form differ by more than 0\.0001: .*'smile': nan"):
        export_onnx(source, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == [source]


def test_a_target_that_the_predictor_would_not_take_is_refused(tmp_path):
    source = write_model(tmp_path / "model.safetensors")
    before = source.read_bytes()
    with pytest.raises(ConfigError, match=r"must be named \.onnx"):
        export_onnx(source, source)
    assert source.read_bytes() == before
