"""Starting from another model: task sets that grew or shrank, other point schemes, timm's own files."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_training import SMALL_GRIDNET, results, tiny_data, tiny_faces, tiny_recipe, train_quietly

from facemtl.errors import ModelError
from facemtl.models.files import load_model, save_model
from facemtl.training.engine import MODEL
from facemtl.training.initial import start_from
from facemtl.training.recipe import Recipe

TIMM = "test_efficientnet"


def recipe_of(**changes) -> Recipe:
    return Recipe(**{"name": "x", "backbone": "gridnet", "backbone_options": SMALL_GRIDNET, "passes": 1, **changes})


def saved(path: Path, recipe: Recipe) -> dict[str, torch.Tensor]:
    """The parameters of a model with none of them zero, that ``path`` then holds."""
    torch.manual_seed(5)
    model = recipe.create_model()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    save_model(path, model, recipe.spec(32, 3))
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_new_heads_start_fresh_and_heads_of_tasks_gone_are_left_out(tmp_path):
    path = tmp_path / "a.safetensors"
    old = saved(path, recipe_of(tasks=("landmarks", "smile", "pose")))
    recipe = recipe_of(tasks=("landmarks", "gender", "smile"), init=str(path))
    torch.manual_seed(1)
    model = recipe.create_model()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, recipe)
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh[name] if "gender" in name else old[name]), name
    assert not any("pose" in name for name in model.state_dict())


def test_points_follow_their_scheme(tmp_path):
    path = tmp_path / "a.safetensors"
    old = saved(path, recipe_of(tasks=("landmarks", "smile")))
    recipe = recipe_of(tasks=("landmarks", "landmarks_mtfl5"), schema="ibug68", init=str(path))
    model = recipe.create_model()
    start_from(model, recipe)
    assert torch.equal(model.heads["landmarks_mtfl5"].linear.weight, old["heads.landmarks.linear.weight"])
    assert model.heads["landmarks"].linear.weight.shape[0] == 136
    save_model(path, model, recipe.spec(32, 3))
    back = recipe_of(tasks=("landmarks",), init=str(path))
    model = back.create_model()
    start_from(model, back)
    assert torch.equal(model.heads["landmarks"].linear.weight, old["heads.landmarks.linear.weight"])


def test_a_refiner_may_be_new_but_not_gone(tmp_path):
    path = tmp_path / "a.safetensors"
    saved(path, recipe_of(tasks=("landmarks",)))
    refined = recipe_of(tasks=("landmarks",), refine=True, init=str(path))
    start_from(refined.create_model(), refined)
    saved(path, refined)
    plain = replace(refined, refine=False)
    with pytest.raises(ModelError, match="holds the parameters of another model"):
        start_from(plain.create_model(), plain)
    without_points = replace(plain, tasks=("smile",))
    start_from(without_points.create_model(), without_points)  # it goes with the points


def test_a_new_tasks_own_network_starts_fresh_too(tmp_path):
    path = tmp_path / "a.safetensors"
    old = saved(path, recipe_of(tasks=("landmarks", "smile"), sharing="mtan"))
    recipe = recipe_of(tasks=("landmarks", "gender", "smile"), sharing="mtan", init=str(path))
    model = recipe.create_model()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, recipe)
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh[name] if "gender" in name.split(".") else old[name]), name
    assert any(name.startswith("backbone.own.gender") for name in fresh)


def test_cross_stitch_units_know_tasks_by_their_place(tmp_path):
    path = tmp_path / "a.safetensors"
    saved(path, recipe_of(tasks=("landmarks", "smile"), sharing="cross_stitch"))
    recipe = recipe_of(tasks=("smile", "landmarks"), sharing="cross_stitch", init=str(path))
    with pytest.raises(ModelError, match="mix tasks by their place: keep tasks as they were"):
        start_from(recipe.create_model(), recipe)


def test_another_backbone_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    saved(path, recipe_of(tasks=("landmarks",)))
    other = recipe_of(backbone_options={**SMALL_GRIDNET, "neck": 16}, tasks=("landmarks", "smile"), init=str(path))
    with pytest.raises(ModelError, match=r"a\.safetensors holds the parameters of another model: .* 'backbone\."):
        start_from(other.create_model(), other)


def test_a_file_of_timm_fills_the_backbone_without_its_classifier(tmp_path):
    torch.manual_seed(2)
    published = timm.create_model(TIMM, pretrained=False, num_classes=10)
    path = tmp_path / "model.safetensors"
    save_file(published.state_dict(), path)
    options = {"input_size": 64}
    recipe = recipe_of(backbone=f"timm/{TIMM}", backbone_options=options, tasks=("smile",), init=str(path))
    model = recipe.create_model()
    start_from(model, recipe)
    body = model.backbone.body.state_dict()
    assert body
    assert all(torch.equal(value, published.state_dict()[name]) for name, value in body.items())
    save_file({name: v for name, v in published.state_dict().items() if "conv_stem" not in name}, path)
    with pytest.raises(
        ModelError, match=r"neither a model of this package .* 1 are missing and 0 .* 'conv_stem\.weight'"
    ):
        start_from(model, recipe)
    save_file({**published.state_dict(), "other.weight": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"0 are missing and 1 are of something else, such as 'other\.weight'"):
        start_from(model, recipe)
    ours = replace(recipe, backbone="gridnet", backbone_options=SMALL_GRIDNET)
    with pytest.raises(ModelError, match="does not carry a facemtl model description"):
        start_from(ours.create_model(), ours)


def test_pretrained_weights_that_cannot_come_name_the_other_way(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    recipe = recipe_of(backbone=f"timm/{TIMM}", backbone_options={"pretrained": True}, tasks=("smile",))
    with pytest.raises(ModelError, match=re.escape("fetch its .safetensors file elsewhere and name it as init")):
        recipe.create_model()


def test_labels_that_arrive_later_are_learned_without_losing_what_was(tmp_path):
    """Incremental training: the points, then smile with a thawing backbone and the first model as teacher."""
    faces = tiny_faces(tmp_path)
    first = tiny_recipe(
        backbone="gridnet", backbone_options=SMALL_GRIDNET, tasks=("landmarks",), epochs=15, learning_rate=5e-3
    )
    assert train_quietly(first, tiny_data(first, faces, tmp_path / "cache"), tmp_path / "first")
    second = replace(
        first,
        tasks=("landmarks", "smile"),
        init=str(tmp_path / "first" / MODEL),
        teachers=(str(tmp_path / "first" / MODEL),),
        frozen=("backbone",),
        thaws={"backbone": 1},
        epochs=3,
        learning_rate=1e-3,
    )
    data = tiny_data(second, faces, tmp_path / "cache")
    assert train_quietly(second, data, tmp_path / "second")
    for stop in (3, 9):  # also while it thaws
        assert not train_quietly(second, data, tmp_path / "parts", max_steps=stop)
    assert train_quietly(second, data, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "second")
    nmes = [float(results(tmp_path / name)[1][-1]["train/nme"]) for name in ("first", "second")]
    untrained = float(results(tmp_path / "first")[1][0]["train/nme"])
    assert nmes[1] < nmes[0] + 0.25 * (untrained - nmes[0])
    assert load_model(tmp_path / "second" / MODEL)[0].tasks == ("landmarks", "smile")
