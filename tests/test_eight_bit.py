"""ONNX files in whole numbers of 8 bits: which parts compute so, how close they stay, and what they are made by."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scripts import run_script
from tiny_training import SMALL_GRIDNET, mixed_recipe, tiny_set

from facemtl import Predictor
from facemtl.data.sample import FaceSample, face_box, read_picture
from facemtl.data.sets import read_split
from facemtl.errors import DataError, ModelError
from facemtl.models.files import load_model, save_model
from facemtl.models.session import TorchSession
from facemtl.session import OnnxSession
from facemtl.training import eight_bit, export
from facemtl.training.eight_bit import is_eight_bit, training_crops
from facemtl.training.export import EIGHT_BIT_TOLERANCE, TOLERANCE, export_onnx
from facemtl.training.recipe import Recipe

EFFICIENTNET = {"backbone": "timm/test_efficientnet", "backbone_options": {"input_size": 48}}
LARGE = {**SMALL_GRIDNET, "neck": 24, "hidden": 320}  # 24 * 4 * 4 to 320: over the limit


def write(path: Path, recipe: Recipe, locator: Recipe | None = None) -> Path:
    """An untrained model whose outputs differ clearly from crop to crop."""
    torch.manual_seed(0)
    model = recipe.create_model()
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    spec = recipe.spec(model.backbone.input_size, model.backbone.channels)
    if locator:
        model.locator = locator.create_model()
        spec = spec.with_locator(locator.spec(model.locator.backbone.input_size, model.locator.backbone.channels))
    save_model(path, model, spec)
    return path


def crops(size: int = 32, channels: int = 3) -> np.ndarray:
    """Smooth pictures, as those of faces are."""
    coarse = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (48, channels, 5, 5)))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 255).byte().numpy()


@pytest.mark.parametrize(
    ("recipe", "channels", "size"),
    [
        (mixed_recipe(refine=True, backbone_options=LARGE), 3, 32),
        (mixed_recipe(points_head="heatmap"), 3, 32),
        (Recipe("grey", tasks=("landmarks", "smile")), 1, 40),
        (Recipe("timm", tasks=("smile",), passes=1, **EFFICIENTNET), 3, 48),
    ],
    ids=["gridnet refined", "gridnet heatmap", "tcdcn", "efficientnet"],
)
def test_networks_stay_close_to_themselves(tmp_path, recipe, channels, size):
    source = write(tmp_path / "model.safetensors", recipe)
    seen = crops(size, channels)
    differences = export_onnx(source, tmp_path / "model.onnx", seen)
    model, spec = load_model(source)
    assert list(differences) == list(spec.outputs())
    assert 0 < max(differences.values()) <= EIGHT_BIT_TOLERANCE
    session = OnnxSession(tmp_path / "model.onnx")
    assert session.spec == spec
    expected = TorchSession(model, spec, torch.device("cpu")).run(seen, list(spec.outputs()))
    for name, output in session.run(seen, list(spec.outputs())).items():
        off = np.sqrt(((output - expected[name]) ** 2).mean())
        assert differences[name] == pytest.approx(off / (expected[name] - expected[name].mean(axis=0)).std(), rel=1e-3)
    for count in (1, 3):
        assert len(session.run(seen[:count], list(spec.outputs()))[spec.tasks[0]]) == count


def test_all_convolutions_but_the_first_and_large_products_are_in_whole_numbers(tmp_path):
    source = write(tmp_path / "model.safetensors", mixed_recipe(refine=True, backbone_options=LARGE))
    export_onnx(source, tmp_path / "model.onnx", crops())
    graph = onnx.load(tmp_path / "model.onnx").graph
    sizes = {constant.name: np.prod(constant.dims) for constant in graph.initializer}
    rounded = {node.output[0]: sizes[node.input[0]] for node in graph.node if node.input[0] in sizes}
    rounded = {name: size for name, size in rounded.items() if name not in sizes}
    convolutions = [node.input[1] in rounded for node in graph.node if node.op_type == "Conv"]
    # The stem; two blocks of each stage; the neck; the refiner's.
    assert convolutions == [False, True, True, True, True, True, True]
    weights = [node.input[1] for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    large = [name for name in weights if name in rounded]
    assert [rounded[name] for name in large] == [24 * 4 * 4 * 320, 5 * (32 + 8) * 6 * 6 * 32]  # neck, refiner
    assert all(sizes[name] < 100_000 for name in weights if name not in rounded)
    assert len(weights) > 8


def test_a_locator_stays_as_it_is(tmp_path):
    small = {**SMALL_GRIDNET, "input_size": 16, "widths": [8], "depths": [1]}
    locator = mixed_recipe(name="where", tasks=("landmarks",), backbone_options=small, uncertainty=False)
    source = write(tmp_path / "model.safetensors", mixed_recipe(refine=True), locator)
    plain, whole = tmp_path / "plain.onnx", tmp_path / "whole.onnx"
    export_onnx(source, plain)
    export_onnx(source, whole, crops())
    onnx.checker.check_model(onnx.load(whole))
    assert (is_eight_bit(plain), is_eight_bit(whole)) == (False, True)
    for locate in (True, False):
        old, new = (OnnxSession(path).run(crops(), ["landmarks"], locate)["landmarks"] for path in (plain, whole))
        assert (np.abs(old - new).max() < TOLERANCE) == locate
    assert whole.stat().st_size < plain.stat().st_size


def test_a_network_that_rounding_spoils_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "EIGHT_BIT_TOLERANCE", 1e-6)
    source = write(tmp_path / "model.safetensors", mixed_recipe())
    with pytest.raises(ModelError, match="and its ONNX form differ by more than 1e-06: "):
        export_onnx(source, tmp_path / "model.onnx", crops())
    assert list(tmp_path.iterdir()) == [source]


@pytest.fixture
def faces(tmp_path, monkeypatch) -> list[FaceSample]:
    tiny_set(tmp_path / "mtfl_layout")
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path))
    return read_split("mtfl_layout", "train")


def test_crops_are_those_that_the_last_pass_is_given_mirrored_ones_too(tmp_path, faces, monkeypatch):
    source = write(tmp_path / "model.safetensors", mixed_recipe(passes=1, flip=True))
    monkeypatch.setattr(eight_bit, "FACES", 5)
    found = training_crops(source, "mtfl_layout")
    chosen = faces[:: -(-len(faces) // 5)]
    assert len(chosen) <= 5 and found.shape == (2 * len(chosen), 3, 32, 32)
    given = []
    predict = Predictor(source)
    run = predict._session.run
    monkeypatch.setattr(predict._session, "run", lambda crops, *rest: given.append(crops) or run(crops, *rest))
    predict(read_picture(chosen[0].image), face_box(chosen[0])[None])
    np.testing.assert_array_equal(found[:2], given[0])
    np.testing.assert_array_equal(found[1], found[0][..., ::-1])


def test_without_training_faces_there_is_nothing_to_go_by(tmp_path, monkeypatch):
    source = write(tmp_path / "model.safetensors", mixed_recipe())
    monkeypatch.setattr(eight_bit, "read_split", lambda data, split: [])
    with pytest.raises(DataError, match="mtfl has no training faces"):
        training_crops(source, "mtfl")


def test_the_tool_says_how_close_it_stays(tmp_path, faces, monkeypatch, capsys):
    source = write(tmp_path / "model.safetensors", mixed_recipe(passes=1))
    options = ("--eight-bit", "--data", "mtfl_layout")
    assert run_script("tools/export.py", monkeypatch, source, *options) == 0
    *lines, path = capsys.readouterr().out.splitlines()
    assert path == str(source.with_suffix(".onnx"))
    names = [line.split(": root mean square difference to torch 0.")[0] for line in lines]
    assert names == list(load_model(source)[1].outputs())
    assert is_eight_bit(source.with_suffix(".onnx"))
