"""ONNX export: every head of every network computes what it computes in torch, or nothing is written."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from facemtl.errors import ConfigError, ModelError
from facemtl.models.factory import create_model
from facemtl.models.files import load_model, save_model
from facemtl.session import OnnxSession
from facemtl.training.export import TOLERANCE, export_onnx
from facemtl.training.recipe import Recipe
from facemtl.weights import METADATA_KEY, ModelSpec

TASKS = ("landmarks", "glasses", "smile", "gender", "pose")


def write_model(path: Path, backbone: str = "tcdcn", schema: str = "mtfl5", **options) -> Path:
    """An untrained model with all heads, whose outputs differ clearly from crop to crop."""
    torch.manual_seed(0)
    recipe = Recipe(name="some", backbone=backbone, schema=schema, backbone_options=options, crop_scale=1.3)
    model = create_model(backbone, TASKS, schema, **options)
    for head in model.heads.parameters():
        torch.nn.init.normal_(head)
    save_model(path, model, recipe.spec(model.backbone.input_size, model.backbone.channels))
    return path


@pytest.mark.parametrize(
    ("backbone", "schema", "options"),
    [
        ("tcdcn", "mtfl5", {}),
        ("tcdcn", "mtfl5", {"shared_filters": False}),
        ("tcdcn60", "ibug68", {}),
        ("timm/test_efficientnet", "mtfl5", {"input_size": 48}),
        ("timm/test_vit", "mtfl5", {}),
    ],
)
def test_every_head_of_every_network_computes_the_same(tmp_path, backbone, schema, options):
    source = write_model(tmp_path / "model.safetensors", backbone, schema, **options)
    target = tmp_path / "onnx" / "model.onnx"
    differences = export_onnx(source, target)
    assert list(differences) == list(TASKS)
    assert max(differences.values()) <= TOLERANCE
    assert list(target.parent.iterdir()) == [target]  # one file, with its parameters inside
    onnx.checker.check_model(onnx.load(target))

    model, spec = load_model(source)
    session = OnnxSession(target)
    assert session.spec == spec
    rng = np.random.default_rng(1)
    for count in (1, 3, 8):
        crops = rng.integers(0, 256, (count, spec.channels, spec.input_size, spec.input_size), dtype=np.uint8)
        with torch.inference_mode():
            expected = model(torch.from_numpy(crops))
        for task, output in session.run(crops, TASKS).items():
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
