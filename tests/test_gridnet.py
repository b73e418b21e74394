"""GridNet: sizes by hand, and that the fused network computes what the trained one does."""

import pytest
import torch
from torch import nn

from facemtl.errors import ModelError
from facemtl.models.factory import create_model
from facemtl.models.gridnet import ConvBlock, GridNet, fuse, shallower

SMALL = {"input_size": 32, "stem": 4, "widths": (6, 8), "depths": (1, 2), "neck": 5, "hidden": 16}


def randomised(network: nn.Module) -> nn.Module:
    """In evaluation mode, as if long trained: the statistics of its normalisations are anything but 0 and 1."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2), (3, 6, 2)])
def test_a_fused_block_is_one_convolution_that_computes_the_same(inputs, outputs, stride):
    torch.manual_seed(0)
    block = randomised(ConvBlock(inputs, outputs, stride))
    images = torch.randn(2, inputs, 9, 9)
    before = block(images)
    assert block.identity == (inputs == outputs and stride == 1)
    block.fuse()
    assert [type(module) for module in block.children()] == [nn.Conv2d]
    torch.testing.assert_close(block(images), before, rtol=0, atol=1e-5)
    once = {key: value.clone() for key, value in block.state_dict().items()}
    block.fuse()  # again: nothing is left to fold
    assert all(torch.equal(value, once[key]) for key, value in block.state_dict().items())


def test_an_identity_can_stay_beside_the_convolution():
    torch.manual_seed(0)
    block = randomised(ConvBlock(4, 4))
    images = torch.randn(2, 4, 9, 9)
    before, weight = block(images), block.conv.weight.clone()
    scale = block.norm.weight / torch.sqrt(block.norm.running_var + block.norm.eps)
    block.fuse(identity=False)
    torch.testing.assert_close(block(images), before, rtol=0, atol=1e-5)
    torch.testing.assert_close(block.conv.weight, weight * scale[:, None, None, None])


def test_a_block_by_hand():
    block = ConvBlock(1, 1).eval()
    with torch.no_grad():
        block.conv.weight.zero_()
        block.conv.weight[0, 0, 1, 1] = 2.0  # the pixel itself, doubled
        block.norm.running_mean.fill_(1.0)
        block.norm.running_var.fill_(4.0 - block.norm.eps)
        block.norm.weight.fill_(3.0)
        block.norm.bias.fill_(0.5)
        # relu(3 (2 x - 1) / 2 + 0.5 + x) = relu(4 x - 1)
        assert block(torch.tensor([[[[1.0, 0.0, 2.5]]]])).flatten().tolist() == pytest.approx([3, 0, 9])
        block.fuse()
        assert block.conv.weight[0, 0, 1, 1].item() == pytest.approx(4)
        assert block.conv.bias.item() == pytest.approx(-1)


@pytest.mark.parametrize("size", [32, 37])
def test_a_fused_network_computes_the_same_and_the_trained_one_stays_as_it_is(size):
    tasks = ("landmarks", "landmarks_ibug68", "smile", "angles")
    model = create_model("gridnet", tasks, points_head="heatmap", uncertainty=True, **{**SMALL, "input_size": size})
    randomised(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        expected, found = model(images), fuse(model)(images)
    assert list(found) == list(expected)
    for name, output in expected.items():
        scale = output.abs().max().clamp(min=1).item()
        torch.testing.assert_close(found[name], output, rtol=0, atol=1e-5 * scale)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fuse(model).modules())


def test_fusing_a_network_in_training_gives_one_in_evaluation_mode():
    model = create_model("gridnet", ["smile"], dropout=0.5, **SMALL).train()
    fused = fuse(model)
    assert model.training
    assert not any(module.training for module in fused.modules())


# Halved, rounded up, once by the stem and once by each stage.
@pytest.mark.parametrize(
    ("size", "stages", "side"), [(80, 3, 5), (81, 3, 6), (64, 3, 4), (33, 3, 3), (32, 2, 4), (37, 2, 5), (40, 1, 10)]
)
def test_the_side_of_the_grid(size, stages, side):
    network = GridNet(size, 4, [6] * (stages - 1) + [8], [0] * stages, neck=5, hidden=16)
    grid = network.maps(torch.zeros(1, 3, size, size))[-1]
    assert grid.shape == (1, 8, side, side)
    assert (network.grid_channels, network.features, network.channels, network.input_size) == (8, 24, 3, size)
    assert network.vector(grid).shape == (1, 24)


def test_the_features_are_the_flattened_grid_and_its_mean():
    torch.manual_seed(0)
    network = GridNet(**SMALL).eval()
    images = torch.randn(2, 3, 32, 32)
    grid, vector = network.maps(images)[-1], network(images)
    torch.testing.assert_close(vector[:, 16:], grid.mean(dim=(2, 3)))
    turned = grid.flip(3)  # the mean does not see where something is, the rest does
    torch.testing.assert_close(network.vector(turned)[:, 16:], vector[:, 16:])
    assert not torch.allclose(network.vector(turned)[:, :16], vector[:, :16])


def test_the_fine_maps_have_half_and_a_quarter_of_the_side():
    network = GridNet(40, 4, (6, 8), (2, 1), neck=5, hidden=16)
    half, quarter, last = network.maps(torch.zeros(3, 3, 40, 40))
    assert (half.shape, quarter.shape, last.shape) == ((3, 4, 20, 20), (3, 6, 10, 10), (3, 8, 5, 5))
    assert network.fine_channels == (4, 6)


# --- blocks left out ---


def test_a_shallower_network_keeps_the_first_blocks_of_each_stage():
    # stem 0 | stage of 6 channels: 1 halves, 2 3 further | stage of 8 channels: 4 halves, 5 further
    deep = create_model("gridnet", ["smile"], input_size=32, stem=4, widths=(6, 8), depths=(2, 1), neck=5, hidden=16)
    shallow = create_model("gridnet", ["smile"], input_size=32, stem=4, widths=(6, 8), depths=(1, 0), neck=5, hidden=16)
    shallow.load_state_dict(shallower(deep, (1, 0)))
    for place, was in enumerate((0, 1, 2, 4)):
        torch.testing.assert_close(
            shallow.backbone.trunk[place].conv.weight, deep.backbone.trunk[was].conv.weight, rtol=0, atol=0
        )
    torch.testing.assert_close(shallow.heads["smile"].weight, deep.heads["smile"].weight, rtol=0, atol=0)


def test_as_deep_as_it_was_it_is_the_same():
    model = create_model("gridnet", ["smile"], **SMALL)
    kept, tensors = shallower(model, model.backbone.depths), model.state_dict()
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(kept[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("depths", [(1,), (2, 1), (1, -1), (1, 1, 1)])
def test_no_stage_can_be_deeper_than_it_was(depths):
    model = create_model("gridnet", ["smile"], input_size=32, stem=4, widths=(6, 8), depths=(1, 1), neck=5, hidden=16)
    with pytest.raises(ModelError, match=r"depths \[.*\]: expected 2, at most \[1, 1\]"):
        shallower(model, depths)


# --- size ---


# Convolutions have no biases, normalisations two numbers a channel; counted by hand, layer by layer:
#   stem 3*4*9 + 8 = 116; stages 4*6*9 + 12 = 228, 6*6*9 + 12 = 336 and 6*8*9 + 16 = 448, 2 (8*8*9 + 16) = 1184
#   neck 8*5 + 5 = 45, then 5 * 4 * 4 = 80 numbers to 16: 1296. The grid of 32 has 4 cells along an axis.
def test_the_number_of_parameters():
    assert sum(p.numel() for p in GridNet(**SMALL).parameters()) == 116 + 564 + 1632 + 45 + 1296


def test_stages_and_depths_must_go_together():
    with pytest.raises(ValueError, match="zip"):
        GridNet(32, 4, (6, 8), (1, 2, 3))
