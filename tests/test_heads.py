"""Heads: how points, deviations, attributes and angles are read off features, by hand."""

import math

import pytest
import torch
from torch import nn

from facemtl.models.heads import (
    BINS,
    POINT_HEADS,
    SMALLEST,
    SPAN,
    AnglesHead,
    ClassHead,
    DirectHead,
    HeatmapHead,
    SimCCHead,
)

FEATURES, CHANNELS, SIDE = 12, 6, 3
LIMITS = {"direct": 0.2, "simcc": 0.05, "heatmap": 0.3}  # how far from the middle points may lie at the start


def features(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, F) and (N, C, G, G)."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.randn(count, CHANNELS, SIDE, SIDE, generator=generator)
    return torch.randn(count, FEATURES, generator=generator), grid


def head_of(name: str, points: int = 5, uncertainty: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return POINT_HEADS[name](FEATURES, CHANNELS, points, uncertainty)


@pytest.mark.parametrize("points", [5, 68])
@pytest.mark.parametrize("name", POINT_HEADS)
def test_every_points_head_gives_points_and_positive_deviations(name, points):
    head = head_of(name, points).eval()
    found, sigma, logits = head(*features())
    assert found.shape == (4, points, 2)
    assert sigma.shape == (4, points)
    assert logits is None
    assert found.isfinite().all()
    assert (sigma > SMALLEST).all()
    assert found.abs().max() < LIMITS[name]  # it starts in the middle of the crop


@pytest.mark.parametrize("name", POINT_HEADS)
def test_without_uncertainty_there_is_no_deviation_and_the_points_are_the_same(name):
    without, with_it = head_of(name, uncertainty=False), head_of(name)
    shared = {k: v for k, v in with_it.state_dict().items() if not k.startswith("spread.")}
    without.load_state_dict(shared)
    points, sigma, _ = without(*features())
    assert sigma is None
    assert torch.equal(points, with_it(*features())[0])


@pytest.mark.parametrize("name", POINT_HEADS)
def test_deviations_stay_positive_and_finite_at_the_extremes(name):
    head = head_of(name)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(1e4)
    points, sigma, _ = head(*features())
    assert points.isfinite().all()
    assert sigma.isfinite().all()
    assert (sigma >= SMALLEST).all()
    (points.square().sum() + sigma.sum()).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all(), key


def test_a_direct_deviation_by_hand():
    head = DirectHead(2, 0, 2, uncertainty=True)
    with torch.no_grad():
        head.spread.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 100.0]]))
        head.spread.bias.zero_()
    _, sigma, _ = head(torch.tensor([[0.0, 0.0], [1.0, -1.0], [-1.0, 1.0]]), None)
    # 0.001 + 0.02 times the exponential, between exp(-6) and exp(6)
    expected = [[0.021, 0.021], [0.001 + 0.02 * math.e, 0.001 + 0.02 * math.exp(-6)]]
    expected += [[0.001 + 0.02 / math.e, 0.001 + 0.02 * math.exp(6)]]
    torch.testing.assert_close(sigma, torch.tensor(expected))


# --- SimCC ---


def simcc(logits: torch.Tensor) -> SimCCHead:
    """A head whose logits are these, whatever it reads."""
    head = SimCCHead(1, 0, logits.shape[0], uncertainty=True)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(logits.flatten())
    return head


def test_logits_of_places_are_given_in_training_only():
    head = head_of("simcc")
    points, _, logits = head.train()(*features())
    assert logits.shape == (4, 5, 2, BINS)
    torch.testing.assert_close(points, logits.softmax(dim=-1) @ torch.linspace(-SPAN, SPAN, BINS))
    assert head.eval()(*features())[2] is None


def test_the_point_is_the_mean_place_and_the_deviation_its_spread():
    step = 2 * SPAN / (BINS - 1)
    logits = torch.full((1, 2, BINS), -1e4)
    logits[0, 0, 10] = 0  # x: one place
    logits[0, 1, [100, 104]] = 0  # y: two, four bins apart: half way, two bins to either side
    points, sigma, _ = simcc(logits)(torch.zeros(1, 1), None)
    torch.testing.assert_close(points[0, 0], torch.tensor([-SPAN + 10 * step, -SPAN + 102 * step]))
    # the variances are 0 and (2 steps) ** 2; their mean
    assert sigma.item() == pytest.approx(SMALLEST + math.sqrt(2) * step, rel=1e-3)


def test_an_undecided_distribution_is_the_middle_and_as_wide_as_all_places():
    points, sigma, _ = simcc(torch.zeros(3, 2, BINS))(torch.zeros(1, 1), None)
    torch.testing.assert_close(points, torch.zeros(1, 3, 2), rtol=0, atol=1e-6)
    uniform = 2 * SPAN / math.sqrt(12)  # deviation of a uniform distribution; of 140 places a little more
    assert sigma[0].tolist() == pytest.approx([SMALLEST + uniform] * 3, rel=0.01)


# --- heat maps ---


class Fixed(nn.Module):
    """Stands for the layers that make heat maps."""

    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        return self.maps


def soft_argmax(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    head = HeatmapHead(0, CHANNELS, maps.shape[1], uncertainty=True)
    head.up = Fixed(maps)
    points, sigma, logits = head(torch.zeros(1, 0), torch.zeros(1, CHANNELS, SIDE, SIDE))
    assert logits is None
    return points, sigma


def test_the_mean_of_a_delta_map_is_its_place():
    maps = torch.full((1, 3, 8, 8), -1e4)
    for point, (row, column) in enumerate([(0, 7), (3, 1), (7, 4)]):
        maps[0, point, row, column] = 0
    points, sigma = soft_argmax(maps)
    step = 2 * SPAN / 7
    expected = [[-SPAN + column * step, -SPAN + row * step] for column, row in [(7, 0), (1, 3), (4, 7)]]  # x, y
    torch.testing.assert_close(points[0], torch.tensor(expected))
    torch.testing.assert_close(sigma, torch.full((1, 3), SMALLEST), rtol=0, atol=1e-3)


def test_two_peaks_lie_half_way_and_their_spread_is_per_axis():
    maps = torch.full((1, 1, 8, 8), -1e4)
    maps[0, 0, 2, [1, 5]] = 0  # in one row, four columns apart
    points, sigma = soft_argmax(maps)
    step = 2 * SPAN / 7
    torch.testing.assert_close(points[0, 0], torch.tensor([-SPAN + 3 * step, -SPAN + 2 * step]))
    assert sigma.item() == pytest.approx(SMALLEST + math.sqrt((2 * step) ** 2 / 2), rel=1e-4)  # none along y


def test_heat_maps_have_four_cells_along_an_axis_for_each_of_the_grid():
    head = head_of("heatmap")
    assert head.up(features()[1]).shape == (4, 5, 4 * SIDE, 4 * SIDE)


# --- attributes and angles ---


def test_features_of_attributes_are_dropped_in_training_only():
    torch.manual_seed(0)
    head = ClassHead(200, 3, dropout=0.5)
    vector = torch.randn(1, 200)
    still = head.eval()(vector)
    torch.testing.assert_close(still, torch.nn.functional.linear(vector, head.weight, head.bias))
    head.train()
    torch.manual_seed(1)
    first, second = head(vector), head(vector)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(head(vector), first)
    many = head(vector.expand(20000, 200)).mean(dim=0)
    torch.testing.assert_close(many, still[0], rtol=0, atol=0.03)  # what is kept is scaled up
    plain = ClassHead(200, 3).train()
    assert torch.equal(plain(vector), torch.nn.functional.linear(vector, plain.weight, plain.bias))


def test_angles_are_in_degrees_and_start_upright():
    torch.manual_seed(0)
    head = AnglesHead(FEATURES)
    angles = head(features()[0])
    assert angles.shape == (4, 3)
    assert angles.abs().max() < 5
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.tensor([1.0, -0.5, 0.0]))
    assert head(features(1)[0]).tolist() == [[30, -15, 0]]
