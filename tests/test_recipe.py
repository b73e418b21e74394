"""Recipes: what a file may say, what --set changes, and what is refused before anything starts."""

import json
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from facemtl.errors import ConfigError
from facemtl.models.heads import HeatmapHead
from facemtl.training.comparison import read_comparison
from facemtl.training.recipe import Recipe, parse_settings, read_recipe, recipe_from_dict
from facemtl.training.search import read_search
from facemtl.weights import ModelSpec

RECIPES = Path(__file__).parent.parent / "tools" / "recipes"


def write(folder: Path, text: str) -> Path:
    path = folder / "some.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_recipe_is_the_defaults_named_as_its_file(tmp_path):
    assert read_recipe(write(tmp_path, "")) == Recipe(name="some")


def test_the_defaults_are_the_shipped_training():
    recipe = Recipe(name="x")
    assert recipe.tasks == ("landmarks", "glasses", "smile", "gender", "pose")
    assert (recipe.data, recipe.backbone, recipe.schema) == ("mtfl", "tcdcn", "mtfl5")
    assert (recipe.fraction, recipe.early_stopping, recipe.seed) == (1.0, False, 0)


def test_a_file_sets_keys_and_tables(tmp_path):
    path = write(
        tmp_path,
        """
        name = "mine"
        tasks = ["landmarks", "pose"]
        learning_rate = 1
        epochs = 3
        pixels = 0.0
        flip = false
        [weights]
        pose = 0.1
        [backbone_options]
        shared_filters = false
        """,
    )
    assert read_recipe(path) == Recipe(
        name="mine",
        tasks=("landmarks", "pose"),
        learning_rate=1.0,
        epochs=3,
        pixels=0.0,
        flip=False,
        weights={"pose": 0.1},
        backbone_options={"shared_filters": False},
    )


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("epochs=5", {"epochs": 5}),
        (" epochs = 5 ", {"epochs": 5}),
        ("learning_rate=1e-3", {"learning_rate": 0.001}),
        ("learning_rate=1", {"learning_rate": 1.0}),
        ("backbone=tcdcn60", {"backbone": "tcdcn60"}),
        ('backbone="tcdcn60"', {"backbone": "tcdcn60"}),
        ("backbone=timm/test_vit.r160_in1k", {"backbone": "timm/test_vit.r160_in1k"}),
        ("name=a=b", {"name": "a=b"}),
        ("flip=false", {"flip": False}),
        ('tasks=["landmarks"]', {"tasks": ("landmarks",)}),
        ("weights.pose=0.1", {"weights": {"smile": 2.0, "pose": 0.1}}),
        ("weights.smile=3", {"weights": {"smile": 3.0}}),
        ("weights={pose=1}", {"weights": {"pose": 1.0}}),
        ("stop_importance.pose=4", {"stop_importance": {"pose": 4.0}}),
        ("backbone_options.shared_filters=false", {"backbone_options": {"shared_filters": False}}),
    ],
)
def test_a_setting_is_a_key_and_a_toml_value_or_a_bare_word(tmp_path, setting, changes):
    path = write(tmp_path, "[weights]\nsmile = 2.0")
    assert read_recipe(path, [setting]) == replace(Recipe(name="some", weights={"smile": 2.0}), **changes)


def test_of_two_settings_the_later_holds(tmp_path):
    assert read_recipe(write(tmp_path, "epochs = 2"), ["epochs=3", "epochs=4"]).epochs == 4


def test_settings_alone_make_a_dictionary():
    assert parse_settings(["epochs=3", "weights.pose=0.1", "weights.smile=2"]) == {
        "epochs": 3,
        "weights": {"pose": 0.1, "smile": 2},
    }


@pytest.mark.parametrize("setting", ["epochs", "=3", "", "weights.pose.x=1", "backbone.x=1"])
def test_a_setting_that_cannot_be_applied_is_refused(tmp_path, setting):
    path = write(tmp_path, 'backbone = "tcdcn"\n[weights]\npose = 1.0')
    with pytest.raises(ConfigError, match="--set"):
        read_recipe(path, [setting])


def test_a_key_that_does_not_exist_is_refused_and_the_known_ones_are_listed(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown keys \['epoch'\] in recipe 'some'; known: .*epochs"):
        read_recipe(write(tmp_path, "epoch = 3"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("epochs = 2.5", "a whole number"),
        ('epochs = "2"', "a whole number"),
        ("epochs = true", "a whole number"),
        ("learning_rate = true", "a finite number"),
        ("learning_rate = inf", "a finite number"),
        ("learning_rate = nan", "a finite number"),
        ("flip = 1", "true or false"),
        ("name = 3", "a string"),
        ('tasks = "landmarks"', "a list of strings"),
        ("tasks = [1]", "a list of strings"),
        ("tasks = {landmarks = 1}", "a list of strings"),
        ("weights = 1.0", "a table of finite numbers"),
        ('weights = {pose = "high"}', "a table of finite numbers"),
        ("weights = {pose = true}", "a table of finite numbers"),
        ("backbone_options = []", "a table"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(tmp_path, line, expected):
    key, value = line.split(" = ", 1)
    with pytest.raises(ConfigError, match=rf"^{key} = .*: expected {expected}$"):
        read_recipe(write(tmp_path, f"{key} = {value}"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('name = " "', "a name"),
        ("tasks = []", "some of landmarks, landmarks_ibug68, landmarks_aflw19, landmarks_aflw21, landmarks_cofw29"),
        ("tasks = []", "landmarks_wflw98, landmarks_lapa106, glasses, smile, gender, pose, age, angles"),
        ('tasks = ["landmark"]', "some of landmarks, landmarks_ibug68, "),
        ('tasks = ["landmarks_mtfl5"]', "some of landmarks, landmarks_ibug68, "),
        ('tasks = ["landmarks", "pose", "pose"]', "some of landmarks, .*, each once"),
        ('data = "mtfl6"', "one of mtfl, udacity68, genki4k, utkface"),
        ("mix = {genki4k = 1.0}", "shares over 0 of mtfl and others of"),
        ("mix = {mtfl = 1.0, mtfl6 = 0.5}", "shares over 0 of mtfl and others of mtfl, udacity68"),
        ("mix = {mtfl = 1.0, genki4k = 0.0}", "shares over 0"),
        ('points_head = "wing"', "one of direct, simcc, heatmap"),
        ('shuffled_labels = ["landmarks"]', "some of glasses"),
        ("weights = {hat = 1.0}", "keys of landmarks"),
        ("weights = {landmarks_mtfl5 = 1.0}", "landmark_sigma, landmarks_logits, landmarks_coarse, values at least 0"),
        ("weights = {pose = -1.0}", "at least 0"),
        ("stop_importance = {landmarks = 1.0}", "keys of glasses"),
        ("stop_importance = {pose = 0.0}", "over 0"),
        ('schema = "wflw"', "one of mtfl5, ibug68"),
        ('backbone = "vgg"', "one of tcdcn, tcdcn60, gridnet, timm/<name>"),
        ('points_loss = "l2"', "one of squared, smooth_l1, l1, wing, soft_wing"),
        ('optimiser = "adam"', "one of adamw, sgd"),
        ("fraction = 0", "over 0, at most 1"),
        ("fraction = 1.1", "over 0, at most 1"),
        ("dropout = 1", "at least 0, under 1"),
        ("momentum = 1", "at least 0, under 1"),
        ("momentum = -0.1", "at least 0, under 1"),
        ("ema = 1", "at least 0, under 1"),
        ("ema = -0.1", "at least 0, under 1"),
        ("passes = 0", "1, or more with landmarks"),
        ("stop_k = 2", "at least 3"),
        ("crop_scale = 0", "over 0"),
        ("patch_size = 0", "over 0"),
        ("learning_rate = 0", "over 0"),
        ("batch_size = 0", "over 0"),
        ("epochs = 0", "over 0"),
        ("threads = 0", "over 0"),
        ("weight_decay = -1", "at least 0"),
        ("warmup_epochs = -1", "at least 0"),
        ("stretch = -0.1", "at least 0"),
        ("seed = -1", "at least 0"),
        ("workers = -1", "at least 0"),
        ("refined = 2", "from 0 to 1"),
        ("mirror = -0.1", "from 0 to 1"),
        ("pixels = 1.5", "from 0 to 1"),
        ("balance = 1.5", "from 0 to 1"),
        ("lesson = -0.5", "from 0 to 1"),
        ("smoothing = 2", "from 0 to 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_expected(tmp_path, line, expected):
    key = line.split(" = ")[0]
    with pytest.raises(ConfigError, match=rf"{key} = .*, expected .*{expected}"):
        read_recipe(write(tmp_path, line))


def test_shares_of_crops_are_of_one_whole(tmp_path):
    assert read_recipe(write(tmp_path, "refined = 0.7\nrough = 0.3")).rough == 0.3
    with pytest.raises(ConfigError, match=r"refined = 0\.5 and rough = 0\.6 are shares of the same crops: lower one"):
        read_recipe(write(tmp_path, "rough = 0.6"))


def test_a_second_pass_early_stopping_and_deviations_need_landmarks():
    values = {"name": "x", "tasks": ["smile"]}
    assert recipe_from_dict({**values, "passes": 1}).passes == 1
    with pytest.raises(ConfigError, match="passes = 2, expected 1, or more with landmarks"):
        recipe_from_dict({**values, "passes": 2})
    with pytest.raises(ConfigError, match="early_stopping = True, expected false where landmarks"):
        recipe_from_dict({**values, "passes": 1, "early_stopping": True})
    with pytest.raises(ConfigError, match="uncertainty = True, expected false where landmarks"):
        recipe_from_dict({**values, "passes": 1, "uncertainty": True})


def test_a_recipe_needs_a_name():
    with pytest.raises(ConfigError, match="needs a name"):
        recipe_from_dict({"epochs": 3})


@pytest.mark.parametrize("content", [b"epochs = ", b"\xff\xfe", None])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml cannot be read"):
        read_recipe(path)


def test_plain_values_make_the_same_recipe_again_also_through_json():
    recipe = Recipe(
        name="x",
        tasks=("landmarks", "pose"),
        shuffled_labels=("pose",),
        weights={"pose": 0.1},
        stop_importance={"pose": 3.0},
        backbone_options={"shared_filters": False},
        learning_rate=1e-3,
        early_stopping=True,
        mix={"mtfl": 0.5, "genki4k": 0.5},
        teachers=("one.safetensors", "two.safetensors"),
    )
    values = recipe.to_dict()
    assert set(values) == {f.name for f in fields(Recipe)}
    assert recipe_from_dict(values) == recipe
    assert recipe_from_dict(json.loads(json.dumps(values))) == recipe


def test_the_spec_describes_the_model_of_the_recipe():
    recipe = Recipe(
        name="x",
        tasks=("pose", "landmarks", "angles", "landmarks_ibug68"),
        crop_scale=1.3,
        passes=3,
        flip=False,
        points_head="simcc",
        uncertainty=True,
    )
    spec = recipe.spec(input_size=40, channels=1)
    assert (spec.name, spec.backbone, spec.schema, spec.tasks) == ("x", "tcdcn", "mtfl5", recipe.tasks)
    assert spec.attributes == {"pose": ("left_profile", "left", "frontal", "right", "right_profile")}
    assert (spec.input_size, spec.channels, spec.crop_scale, spec.passes, spec.flip) == (40, 1, 1.3, 3, False)
    assert (spec.points_head, spec.uncertainty) == ("simcc", True)
    assert ModelSpec.from_json(spec.to_json(), "x") == spec


def test_the_network_and_the_crops_are_those_of_the_recipe():
    options = {"input_size": 32, "stem": 4, "widths": [6, 8], "depths": [1, 1], "neck": 4, "hidden": 8}
    recipe = Recipe(
        name="x",
        backbone="gridnet",
        backbone_options=options,
        tasks=("landmarks", "smile", "angles"),
        points_head="heatmap",
        uncertainty=True,
        dropout=0.3,
        crop_scale=1.4,
        refined=0.1,
        rough=0.4,
        mirror=0.2,
        pixels=0.3,
    )
    model = recipe.create_model()
    assert model.tasks == recipe.tasks
    assert (model.backbone.input_size, model.backbone.features) == (32, 16)
    assert isinstance(model.heads["landmarks"], HeatmapHead)
    assert model.heads["landmarks"].uncertainty
    assert model.heads["smile"].dropout == 0.3
    crops = recipe.augmentation(32, 3)
    assert (crops.size, crops.crop_scale, crops.schema) == (32, 1.4, "mtfl5")
    assert (crops.refined, crops.rough, crops.mirror, crops.pixels) == (0.1, 0.4, 0.2, 0.3)


FILES = sorted(RECIPES.glob("*.toml"))
KEYS = {path: tomllib.loads(path.read_text()) for path in FILES}
SEARCHES = [path for path, keys in KEYS.items() if "ranges" in keys]
COMPARISONS = [path for path, keys in KEYS.items() if "methods" in keys]
SINGLE = [path for path in FILES if path not in (*SEARCHES, *COMPARISONS)]


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.name)
def test_every_shipped_recipe_can_be_read_and_its_network_built(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    model = recipe.create_model()
    spec = recipe.spec(model.backbone.input_size, model.backbone.channels)
    assert ModelSpec.from_json(spec.to_json(), path) == spec


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.name)
def test_every_shipped_comparison_can_be_read_and_its_networks_built(path):
    for recipe in read_comparison(path).methods.values():
        assert recipe.create_model().tasks == recipe.tasks


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.name)
def test_every_shipped_search_can_be_read(path):
    search = read_search(path)
    assert search.recipe({}).create_model()
