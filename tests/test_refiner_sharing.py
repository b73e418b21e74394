"""A refiner with every way of sharing: which maps it reads, whom its loss reaches, and the model in its files."""

import numpy as np
import pytest
import torch
from tiny_training import SMALL_GRIDNET, tiny_recipe

from facemtl.models.face_model import COARSE
from facemtl.models.files import load_model, save_model
from facemtl.models.gridnet import fuse
from facemtl.models.sharing.base import Sharing
from facemtl.models.sharing.registry import SHARINGS
from facemtl.predictor import Predictor
from facemtl.training.export import export_onnx

TASKS = ("smile", "landmarks", "pose")
SIDE = SMALL_GRIDNET["input_size"]
WAYS = [(name, {}) for name in SHARINGS] + [
    (name, {"split": split}) for name in ("hard", "soft_mean", "mmoe", "ple") for split in (1, 2)
]
contract = pytest.mark.parametrize(("sharing", "options"), WAYS)


def recipe_of(sharing: str, options: dict):
    return tiny_recipe(
        tasks=TASKS,
        backbone="gridnet",
        backbone_options=SMALL_GRIDNET,
        refine=True,
        sharing=sharing,
        sharing_options=options,
    )


def model_of(sharing: str, options: dict):
    torch.manual_seed(0)
    return recipe_of(sharing, options).create_model()


def crops(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


@contract
def test_it_reads_the_points_own_maps_of_half_and_a_quarter_of_the_side(sharing, options):
    model = model_of(sharing, options).eval()
    seen = []
    model.refiner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    outputs = model(crops(2))
    assert outputs["landmarks"].shape == (2, 5, 2)
    half, quarter = seen[0]
    assert (half.shape, quarter.shape) == ((2, 8, SIDE // 2, SIDE // 2), (2, 8, SIDE // 4, SIDE // 4))
    if isinstance(model.backbone, Sharing):
        read = model.backbone.by_task(model.standardise(crops(2)))["landmarks"]
        torch.testing.assert_close([half, quarter], list(read[1:3]))


@contract
def test_its_loss_reaches_nothing_that_another_task_owns(sharing, options):
    model = model_of(sharing, options).train()
    outputs = model(crops(4))
    assert list(outputs) == ["smile", "landmarks", "pose", COARSE]
    outputs["landmarks"].square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert "refiner.inner" in reached
    assert any(name.startswith("backbone.") for name in reached)
    assert not {name for name in reached if name.startswith("heads.")}
    others = tuple(f"backbone.own.{task}." for task in TASKS if task != "landmarks")
    assert not {name for name in reached if name.startswith(others)}


def test_where_nothing_is_shared_the_points_are_those_of_a_network_alone():
    alone, separate = model_of("hard", {}).eval(), model_of("separate", {}).eval()
    separate.backbone.own["landmarks"] = separate.backbone.own["smile"]  # which holds the first network that was drawn
    torch.testing.assert_close(separate(crops(2))["landmarks"], alone(crops(2))["landmarks"])


@contract
def test_from_its_file_and_fused_it_computes_the_same(tmp_path, sharing, options):
    recipe, model = recipe_of(sharing, options), model_of(sharing, options)
    model.train()(crops(8))  # batch statistics
    save_model(tmp_path / "model.safetensors", model, recipe.spec(SIDE, 3))
    read, spec = load_model(tmp_path / "model.safetensors")
    assert (spec.refine, spec.sharing) == (True, sharing)
    expected = model.eval()(crops(3))["landmarks"]
    torch.testing.assert_close(read.eval()(crops(3))["landmarks"], expected)
    torch.testing.assert_close(fuse(model)(crops(3))["landmarks"], expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["cross_stitch", "ple"])
def test_it_predicts_the_same_from_both_files(tmp_path, sharing):
    files = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    save_model(files[0], model_of(sharing, {}), recipe_of(sharing, {}).spec(SIDE, 3))
    export_onnx(*files)
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    one, other = (Predictor(file)(image, boxes=[[10.0, 10.0, 80.0, 80.0]])[0] for file in files)
    np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-2)
