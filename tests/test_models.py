"""Networks: one contract for all of them, and TCDCN as published."""

import math

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from facemtl.errors import ModelError
from facemtl.face import ATTRIBUTES
from facemtl.models.face_model import LOGITS, Standardise
from facemtl.models.factory import create_model
from facemtl.models.files import load_model, save_model
from facemtl.models.heads import DirectHead, HeatmapHead
from facemtl.models.sharing.registry import SHARINGS
from facemtl.models.tcdcn import AbsTanh, LocallyConnected2d, tcdcn_eccv2014, tcdcn_tpami2016
from facemtl.training.recipe import Recipe

ALL_TASKS = ("landmarks", "landmarks_ibug68", *ATTRIBUTES, "angles")
GRIDNET = {"input_size": 33, "stem": 4, "widths": [6, 8], "depths": [1, 1], "neck": 4, "hidden": 12}
# name, options, side and channels of the crop, width of the features
BACKBONES = [
    ("tcdcn", {}, 40, 1, 100),
    ("tcdcn", {"shared_filters": False}, 40, 1, 100),
    ("tcdcn60", {}, 60, 1, 512),
    ("gridnet", {}, 80, 3, 256 + 128),
    ("gridnet", GRIDNET, 33, 3, 12 + 8),
    ("timm/test_efficientnet", {}, 64, 3, 256),
    ("timm/test_efficientnet", {"input_size": 96}, 96, 3, 256),
    ("timm/test_vit", {}, 64, 3, 64),
]
TASKS = {"landmarks": ("landmarks",), "pose": ("pose",), "all": ALL_TASKS}
# points head, uncertainty; which of them a backbone can have depends on its grid
HEADS = [("direct", False), ("direct", True), ("simcc", False), ("simcc", True), ("heatmap", False), ("heatmap", True)]
CASCADE = {"landmarks": ["pose", "angles"], "smile": ["landmarks", "landmarks_ibug68"]}
SHARED = [
    ("hard", {"split": -1}, {}),
    ("hard", {}, CASCADE),
    *((name, {}, {}) for name in SHARINGS if name != "hard"),
    ("soft_mean", {"split": 1}, {}),
    ("cross_stitch", {"per_channel": False}, {}),
    ("mmoe", {"split": -2, "experts": 2}, {}),
    ("ple", {"split": -1, "shared_experts": 2}, CASCADE),
    ("mtan", {}, CASCADE),
]


def networks():
    """Every backbone with every head for every set of tasks: the heads of points only where there are points; and every
    way of sharing on one of each kind."""
    for name, options, *sizes in BACKBONES:
        for points_head, uncertainty in HEADS:
            if points_head == "heatmap" and name != "gridnet":
                continue
            for key in TASKS if (points_head, uncertainty) == ("direct", False) else ("all",):
                recipe = Recipe(
                    name="some",
                    backbone=name,
                    backbone_options=options,
                    tasks=TASKS[key],
                    passes=1,
                    points_head=points_head,
                    uncertainty=uncertainty,
                )
                told = f"{name} {len(options)} {points_head}{' sigma' if uncertainty else ''} {key}"
                yield pytest.param(recipe, *sizes, id=told)
    for name, options, *sizes in (BACKBONES[0], BACKBONES[4], BACKBONES[5], BACKBONES[7]):
        for sharing, choices, cascade in SHARED:
            recipe = Recipe(
                name="some",
                backbone=name,
                backbone_options=options,
                tasks=ALL_TASKS,
                sharing=sharing,
                sharing_options=choices,
                cascade=cascade,
            )
            told = f"{name} {sharing} {' '.join(choices)}{' cascade' if cascade else ''}"
            yield pytest.param(recipe, *sizes, id=told, marks=pytest.mark.slow if name.startswith("timm") else ())


def crops(model, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, model.backbone.channels, model.backbone.input_size, model.backbone.input_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("recipe", "size", "channels", "features"), list(networks()))
def test_every_network_keeps_the_contract(tmp_path, recipe, size, channels, features):
    torch.manual_seed(0)
    model = recipe.create_model()
    assert model.tasks == recipe.tasks
    assert (model.backbone.input_size, model.backbone.channels, model.backbone.features) == (size, channels, features)

    spec = recipe.spec(size, channels)
    images = crops(model)
    with torch.no_grad():
        outputs = model.eval()(images)
        alone = model(images[1:2])
    assert {name: tuple(output.shape[1:]) for name, output in outputs.items()} == spec.outputs()
    assert tuple(outputs) == tuple(spec.outputs())
    for name, output in outputs.items():
        assert (len(output), output.dtype) == (3, torch.float32)
        assert output.isfinite().all()
        torch.testing.assert_close(alone[name], output[1:2], rtol=1e-4, atol=1e-5)  # a face does not see its neighbours

    save_model(tmp_path / "model.safetensors", model, spec)
    kept, kept_spec = load_model(tmp_path / "model.safetensors")
    assert kept_spec == spec
    with torch.no_grad():
        for name, output in kept(images).items():
            assert torch.equal(output, outputs[name])

    before = {key: value.clone() for key, value in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    trained = model.train()(images)
    assert set(trained) - set(outputs) == (
        {LOGITS} if "landmarks" in recipe.tasks and recipe.points_head == "simcc" else set()
    )
    sum((output - 1).square().sum() for output in trained.values()).backward()  # points start near 0: without slopes
    for key, value in model.named_parameters():
        assert value.grad is not None, key
    optimiser.step()
    for key, value in model.named_parameters():
        assert value.isfinite().all(), key
        if key.endswith("weight"):  # a bias before a normalisation has no effect, so it has no gradient
            assert not torch.equal(value, before[key]), key


def test_the_main_points_may_have_another_schema():
    model = create_model("tcdcn", ("landmarks_mtfl5", "landmarks"), "ibug68", uncertainty=True).eval()
    outputs = model(crops(model))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "landmarks_mtfl5": (3, 5, 2),
        "landmarks": (3, 68, 2),
        "landmark_sigma": (3, 68),
    }


def test_further_points_are_regressed_and_have_no_deviation():
    model = create_model("gridnet", ALL_TASKS, points_head="heatmap", uncertainty=True, **GRIDNET)
    assert isinstance(model.heads["landmarks"], HeatmapHead)
    assert isinstance(model.heads["landmarks_ibug68"], DirectHead)
    assert set(model(crops(model))) == {*ALL_TASKS, "landmark_sigma"}


def test_dropout_is_of_attributes_alone():
    torch.manual_seed(0)
    model = create_model("tcdcn", ALL_TASKS, uncertainty=True, dropout=0.5)
    first, second = (model.train()(crops(model)) for _ in range(2))
    differ = {name for name, output in first.items() if not torch.equal(output, second[name])}
    assert differ == set(ATTRIBUTES)


def test_a_single_task_network_is_the_multi_task_network_with_fewer_heads():
    torch.manual_seed(0)
    everything = create_model("tcdcn", ALL_TASKS)
    torch.manual_seed(0)
    alone = create_model("tcdcn", ["landmarks"])
    shared = {key for key in everything.state_dict() if key.startswith(("backbone.", "heads.landmarks."))}
    assert set(alone.state_dict()) == shared
    for key, value in alone.backbone.state_dict().items():
        assert torch.equal(value, everything.backbone.state_dict()[key]), key


def test_attributes_of_ones_own_get_heads():
    model = create_model("tcdcn", ["hat"], attributes={"hat": ("none", "cap", "helmet")})
    assert model(crops(model))["hat"].shape == (3, 3)


# Weights and biases counted by hand, layer by layer:
#   16*1*25+16 = 416, 48*16*9+48 = 6960, 64*48*9+64 = 27712, 64*64*4+64 = 16448, 256*100+100 = 25700
#   20*1*25+20 = 520, 48*20*25+48 = 24048, 27712, 80*64*9+80 = 46160, 720*512+512 = 369152
# Without sharing, the convolutions count once a position: 36*36, 16*16, 6*6, 2*2.
@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (tcdcn_eccv2014(), 416 + 6960 + 27712 + 16448 + 25700),
        (tcdcn_eccv2014(shared_filters=False), 1296 * 416 + 256 * 6960 + 36 * 27712 + 4 * 16448 + 25700),
        (tcdcn_tpami2016(), 520 + 24048 + 27712 + 46160 + 369152),
    ],
)
def test_tcdcn_has_the_published_number_of_parameters(network, parameters):
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_the_heads_of_tcdcn_add_2121_parameters():
    # 100 features: 10 coordinates 1010, three pairs of classes 202 each, five poses 505
    five = ("landmarks", "glasses", "smile", "gender", "pose")
    assert sum(p.numel() for p in create_model("tcdcn", five).parameters()) == 77236 + 1010 + 3 * 202 + 505


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (
            tcdcn_eccv2014(),
            [(16, 36, 36), (16, 18, 18), (48, 16, 16), (48, 8, 8), (64, 6, 6), (64, 3, 3), (64, 2, 2), (100,)],
        ),
        (
            tcdcn_eccv2014(shared_filters=False),
            [(16, 36, 36), (16, 18, 18), (48, 16, 16), (48, 8, 8), (64, 6, 6), (64, 3, 3), (64, 2, 2), (100,)],
        ),
        (
            tcdcn_tpami2016(),
            [(20, 56, 56), (20, 28, 28), (48, 24, 24), (48, 12, 12), (64, 10, 10), (64, 5, 5), (80, 3, 3), (512,)],
        ),
    ],
)
def test_the_layers_of_tcdcn_have_the_published_sizes(network, sizes):
    seen = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | LocallyConnected2d | nn.MaxPool2d | nn.Linear):
            layer.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 1, network.input_size, network.input_size))
    assert seen == sizes


def test_filters_of_every_position_equal_to_one_another_are_a_convolution():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    local = LocallyConnected2d(3, 4, 3, input_size=7)
    with torch.no_grad():
        local.weight.copy_(conv.weight.flatten(1).expand(25, 4, 27))
        local.bias.copy_(conv.bias.expand(25, 4))
    images = torch.randn(2, 3, 7, 7)
    torch.testing.assert_close(local(images), conv(images))


def test_every_position_has_its_own_filter():
    local = LocallyConnected2d(1, 1, 2, input_size=3)
    with torch.no_grad():
        local.weight.copy_(torch.eye(4)[:, None])  # position i, in reading order, picks pixel i of its 2 x 2 patch
        local.bias.copy_(torch.tensor([[0.0], [10], [20], [30]]))
    image = torch.arange(9.0).reshape(1, 1, 3, 3)  # the patches: 0 1 3 4, 1 2 4 5, 3 4 6 7, 4 5 7 8
    assert local(image).flatten().tolist() == [0, 10 + 2, 20 + 6, 30 + 8]


def test_the_filter_of_one_position_acts_on_that_position_only():
    torch.manual_seed(0)
    local = LocallyConnected2d(1, 1, 2, input_size=4)
    images = torch.randn(1, 1, 4, 4)
    before = local(images)
    with torch.no_grad():
        local.weight[5] += 1  # row 1, column 2 of 3 x 3
    changed = (local(images) - before)[0, 0].detach()
    assert changed[1, 2] == pytest.approx(images[0, 0, 1:3, 2:4].sum().item(), abs=1e-5)
    changed[1, 2] = 0
    assert not changed.any()


def test_abs_tanh_is_the_absolute_hyperbolic_tangent():
    values = AbsTanh()(torch.tensor([-1.0, 0.0, 0.5, 20.0]))
    torch.testing.assert_close(values, torch.tensor([0.7615942, 0.0, 0.4621172, 1.0]))


def test_standardise_gives_mean_0_and_variance_1():
    half = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    half[..., 0] = 255
    expected = 0.5 / math.sqrt(0.25 + 1e-4)  # pixels are 0 or 1, their mean is 1/2 and their variance 1/4
    row = [expected, -expected]
    torch.testing.assert_close(Standardise()(half), torch.tensor([[[row, row]]]))


def test_standardise_does_not_see_brightness_and_contrast():
    dark = torch.randint(0, 80, (1, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, brighter, harder = (Standardise()(images) for images in (dark, dark + 100, dark * 3))
    torch.testing.assert_close(brighter, plain, rtol=0, atol=1e-4)
    torch.testing.assert_close(harder, plain, rtol=0, atol=0.03)  # a flat crop counts a little less


def test_standardise_makes_a_crop_without_contrast_zero():
    flat = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
    torch.testing.assert_close(Standardise()(flat), torch.zeros(2, 1, 8, 8), rtol=0, atol=1e-4)


def test_features_are_counted_after_the_models_own_head():
    # The pooled features of MobileNetV4 small 0.5 are 480 wide; its head makes them 1280.
    assert create_model("timm/mobilenetv4_conv_small_050", ["smile"]).heads["smile"].in_features == 1280


def test_published_weights_are_loaded_where_they_are_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    published = timm.create_model("test_vit")
    repository = tmp_path / f"models--{published.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    (repository / "snapshots" / "1").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1")
    save_file(published.state_dict(), repository / "snapshots" / "1" / "model.safetensors")

    model = create_model("timm/test_vit", ["landmarks"], pretrained=True)
    torch.testing.assert_close(model.backbone.body.blocks[0].attn.qkv.weight, published.blocks[0].attn.qkv.weight)
    with pytest.raises(ModelError, match="test_efficientnet cannot be built"):
        create_model("timm/test_efficientnet", ["landmarks"], pretrained=True)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("vgg", ["smile"]), {}, "unknown backbone 'vgg'; known: tcdcn, tcdcn60, gridnet, timm/<any timm model>"),
        (("timm/test_vitt", ["smile"]), {}, "timm has no model 'test_vitt'; near it: .*test_vit"),
        (("timm/test_vit", ["smile"]), {"input_size": 50}, "test_vit cannot be built for 50 x 50 crops"),
        (("tcdcn", ["smile"]), {"input_size": 96}, "'tcdcn' does not take these options"),
        (("tcdcn", []), {}, "tasks must be one or more"),
        (("tcdcn", ["smile", "smile"]), {}, "each once"),
        (
            ("tcdcn", ["hat"]),
            {},
            "smile, gender, pose, age, angles; got \\['hat'\\]",
        ),
        (("tcdcn", ["landmarks", "landmarks_mtfl5"]), {}, "tasks must be one or more, each once, of"),
        (("tcdcn", ["smile"]), {"points_head": "wing"}, "unknown points head 'wing'; known: direct, simcc, heatmap"),
        (
            ("tcdcn", ["smile"]),
            {"points_head": "heatmap"},
            "'heatmap' reads a grid, which backbone 'tcdcn' does not give",
        ),
        (("timm/test_vit", ["landmarks"]), {"points_head": "heatmap"}, "backbone 'timm/test_vit' does not give"),
        (("gridnet", ["smile"]), {"side": 80}, "'gridnet' does not take these options"),
        (("tcdcn", ["smile"], "wflw"), {}, "unknown landmark schema 'wflw'; known: mtfl5, ibug68"),
    ],
)
def test_what_cannot_be_built_is_an_error_that_says_what_can(arguments, options, message):
    with pytest.raises(ModelError, match=message):
        create_model(*arguments, **options)
