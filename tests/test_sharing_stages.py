"""Backbones in stages: their composition is the backbone, wherever and however it is cut."""

import pytest
import timm
import torch
from sharing_toy import ToyBackbone, ones
from torch import nn

from facemtl.errors import ModelError
from facemtl.models.factory import create_model
from facemtl.models.sharing.base import split_at
from facemtl.models.sharing.stages import run, stages_of

GRIDNET = {"input_size": 33, "stem": 4, "widths": [6, 8], "depths": [1, 1], "neck": 4, "hidden": 12}
TOKENS = (17, 64)


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("tcdcn", {}, [(1, 40, 40), (16, 18, 18), (48, 8, 8), (64, 3, 3), (64, 2, 2), (100,)]),
        ("tcdcn", {"shared_filters": False}, [(1, 40, 40), (16, 18, 18), (48, 8, 8), (64, 3, 3), (64, 2, 2), (100,)]),
        ("tcdcn60", {}, [(1, 60, 60), (20, 28, 28), (48, 12, 12), (64, 5, 5), (80, 3, 3), (512,)]),
        ("gridnet", {}, [(3, 80, 80), (20, 40, 40), (32, 20, 20), (64, 10, 10), (128, 5, 5), (384,)]),
        ("gridnet", GRIDNET, [(3, 33, 33), (4, 17, 17), (6, 9, 9), (8, 5, 5), (20,)]),
        (
            "timm/test_efficientnet",
            {},
            [(3, 64, 64), (16, 32, 32), (24, 16, 16), (32, 8, 8), (48, 4, 4), (64, 2, 2), (256,)],
        ),
        ("timm/test_vit", {}, [(3, 64, 64), *[TOKENS] * 6, (64,)]),
        ("timm/resnet18", {}, [(3, 64, 64), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512,)]),
    ],
)
def test_a_stage_is_a_resolution_or_a_block_and_together_they_are_the_backbone(name, options, shapes):
    torch.manual_seed(0)
    backbone = create_model(name, ["smile"], **options).backbone
    stages = stages_of(backbone)
    assert list(stages.shapes) == shapes
    assert backbone.training
    parameters = [p for stage in stages.modules for p in stage.parameters()]
    assert {id(p) for p in parameters} == {id(p) for p in backbone.parameters()}
    assert len(parameters) == len(list(backbone.parameters()))  # none stands in two stages
    x = torch.randn(3, *shapes[0])
    backbone.eval()
    *_, grid, features = run(stages.modules, x)
    assert torch.equal(features, backbone(x))
    assert tuple(grid.shape[1:]) == shapes[-2]
    for stage, shape in zip(stages.modules, shapes[1:], strict=True):
        x = stage(x)
        assert tuple(x.shape[1:]) == shape
    if name == "gridnet":  # what heat maps are read from
        assert torch.equal(backbone.vector(grid), features)


def test_stages_know_whether_they_are_in_training():
    torch.manual_seed(0)
    backbone = create_model("gridnet", ["smile"], **GRIDNET).backbone
    first = stages_of(backbone).modules[0]
    before = backbone.trunk[0].norm.running_mean.clone()
    first.eval()(torch.randn(2, 3, 33, 33))
    assert torch.equal(backbone.trunk[0].norm.running_mean, before)
    first.train()(torch.randn(2, 3, 33, 33))
    assert not torch.equal(backbone.trunk[0].norm.running_mean, before)


def test_the_toy_has_two_stages_of_known_values():
    stages = stages_of(ToyBackbone(2.0))
    assert stages.shapes == ((1, 2, 2), (1, 2, 2), (2,))
    *_, grid, features = run(stages.modules, ones())
    assert features.tolist() == [[8, 80]]  # four pixels of 2, times 1 and 10
    assert grid.flatten().tolist() == [2, 2, 2, 2]


class Wayward(ToyBackbone):
    def forward(self, images):
        return super().forward(images if images.sum() > 0 else -images)


class Single(ToyBackbone):
    def forward(self, images):
        return self.last(self.flat(images))


def test_what_cannot_be_cut_is_an_error_that_says_what_to_set():
    with pytest.raises(ModelError, match="Wayward cannot be cut into stages: set sharing = 'hard'"):
        stages_of(Wayward())
    with pytest.raises(ModelError, match="Single has no place to be cut into stages"):
        stages_of(Single())
    last = nn.Module()
    last.body = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=2, num_classes=0, depths=(1,)
    )
    with pytest.raises(ModelError, match="SwinTransformer keeps the channels of its maps last"):
        stages_of(last)


@pytest.mark.parametrize(("split", "first"), [(0, 0), (1, 1), (-1, 1), (-2, 0)])
def test_a_split_counts_shared_stages_or_from_the_end(split, first):
    assert split_at(stages_of(ToyBackbone()), split) == first


def test_a_split_where_there_is_none_is_an_error():
    stages = stages_of(ToyBackbone())
    assert split_at(stages, "end", 0) == split_at(stages, 2, 0) == 2
    with pytest.raises(ModelError, match=r"split = 3: the backbone has 2 stages, expected .* from -2 to 2 or 'end'"):
        split_at(stages, 3, 0)
    for split in (2, -3, "end"):
        with pytest.raises(ModelError, match="from -2 to 1: 1 or more must be left to the tasks"):
            split_at(stages, split)
