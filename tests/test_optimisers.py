"""Optimisers, schedule and running average: values by hand."""

import pytest
import torch
from torch import nn

from facemtl.training.optimisers import create_optimiser, learning_rate, update_average
from facemtl.training.recipe import Recipe


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1.0),  # up to 2 in two steps
        (1, 2.0),
        (2, 2.0),  # the cosine starts
        (4, 1.5),  # 1 + cos(60 degrees)
        (5, 1.0),  # half way
        (6, 0.5),
        (7, 0.1339746),  # 1 + cos(150 degrees)
        (8, 0.0),  # after the last step
    ],
)
def test_the_learning_rate_warms_up_and_falls_along_half_a_cosine(step, rate):
    assert learning_rate(step, steps=8, warmup=2, peak=2.0) == pytest.approx(rate, abs=1e-6)


def test_without_warm_up_the_learning_rate_starts_at_its_peak():
    assert learning_rate(0, steps=10, warmup=0, peak=0.5) == 0.5


def test_a_warm_up_as_long_as_the_training_only_rises():
    assert [learning_rate(step, steps=4, warmup=4, peak=1.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_average_moves_slowly_once_there_is_something_to_remember():
    average, current = [torch.tensor([0.0, 8.0])], [torch.tensor([1.0, 9.0])]
    update_average(average, current, decay=0.9, step=1000)
    torch.testing.assert_close(average[0], torch.tensor([0.1, 8.1]))


@pytest.mark.parametrize(("step", "value"), [(0, 0.9), (8, 0.5), (10**6, 0.002)])
def test_the_average_forgets_the_start(step, value):
    average = [torch.zeros(1)]  # step 0 keeps 1 / 10, step 8 keeps 9 / 18, later ones the decay
    update_average(average, [torch.ones(1)], decay=0.998, step=step)
    assert average[0].item() == pytest.approx(value)


def test_a_decay_of_0_is_no_average():
    average, current = [torch.rand(100)], [torch.rand(100)]
    update_average(average, current, decay=0.0, step=5)
    assert torch.equal(average[0], current[0])


def test_counters_are_copied():
    average = [torch.tensor(3), torch.tensor(1.0)]
    update_average(average, [torch.tensor(7), torch.tensor(1.0)], decay=0.9, step=1000)
    assert average[0] == 7


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_spares_biases_and_normalisation(name):
    net = network()
    decayed, plain = create_optimiser(net, Recipe(name="x", optimiser=name, weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(net[0].weight), id(net[3].weight)}
    assert {id(p) for p in plain["params"]} == {id(p) for p in (net[0].bias, *net[1].parameters(), net[3].bias)}


def test_frozen_parameters_are_left_out():
    net = network()
    net[0].requires_grad_(False)
    groups = create_optimiser(net, Recipe(name="x")).param_groups
    assert sum(len(group["params"]) for group in groups) == 4


def test_a_step_of_sgd_by_hand():
    net = nn.Linear(1, 1, bias=False)
    optimiser = create_optimiser(
        net, Recipe(name="x", optimiser="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.5)
    )
    with torch.no_grad():
        net.weight.fill_(2.0)
    net.weight.grad = torch.full((1, 1), 3.0)
    optimiser.step()
    assert net.weight.item() == pytest.approx(2 - 0.1 * (3 + 0.5 * 2))


def test_momentum_of_sgd_is_nesterovs():
    assert create_optimiser(network(), Recipe(name="x", optimiser="sgd")).defaults["nesterov"]
