"""Soft sharing: penalties by hand, whom they pull, and what stays out of them."""

import math

import pytest
import torch
from sharing_toy import TASKS, makers, values

from facemtl.models.sharing.dirty import Dirty
from facemtl.models.sharing.group_lasso import GroupLasso, l1_lq
from facemtl.models.sharing.l2_mean import ToTheMean
from facemtl.models.sharing.pairwise import Pairwise
from facemtl.models.sharing.trace_norm import TraceNorm, trace_norm

STACK = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, -2.0]])  # a row a task


def of_stack(kind, stack, **options):
    return kind(*makers(1, 1, 1), TASKS, **options).of_stack(stack).item()


def test_distances_by_hand():
    # The mean is (2, 0, 0): distances 1 + 4 and 1 + 4; between the two 4 + 16.
    assert of_stack(ToTheMean, STACK) == 10
    assert of_stack(Pairwise, STACK) == 20
    three = torch.tensor([[0.0], [1.0], [5.0]])
    assert of_stack(Pairwise, three) == 1 + 25 + 16
    assert of_stack(ToTheMean, three) == pytest.approx((1 + 25 + 16) / 3)  # as the docstring says


def test_block_sparsity_by_hand():
    assert of_stack(GroupLasso, STACK, q=2.0) == pytest.approx(math.sqrt(10) + math.sqrt(8))
    assert of_stack(GroupLasso, STACK, q="inf") == 3 + 2
    assert of_stack(GroupLasso, STACK, q=1) == 1 + 3 + 2 + 2
    # Equally long weights: together in one place 5, apart 3 + 4.
    assert l1_lq(torch.tensor([[3.0, 0.0], [4.0, 0.0]]), 2) == 5
    assert l1_lq(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), 2) == 7


@pytest.mark.parametrize("q", [1.0, 1.5, 2.0, 3.0, float("inf")])
def test_a_group_of_zeros_has_no_slope(q):
    stack = torch.tensor([[3.0, 0.0], [4.0, 0.0]], requires_grad=True)
    l1_lq(stack, q).backward()
    assert stack.grad[:, 1].tolist() == [0, 0]
    assert stack.grad[:, 0].isfinite().all()
    if q == 2:
        torch.testing.assert_close(stack.grad[:, 0], torch.tensor([0.6, 0.8]))


def test_the_trace_norm_of_known_matrices():
    assert trace_norm(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])).item() == pytest.approx(7)
    assert trace_norm(torch.tensor([[1.0, 2.0, 2.0]] * 2)).item() == pytest.approx(math.sqrt(2) * 3, abs=1e-5)  # rank 1
    torch.manual_seed(0)
    some = torch.randn(4, 9, requires_grad=True)
    torch.testing.assert_close(trace_norm(some), torch.linalg.svdvals(some).sum())
    trace_norm(some).backward()
    left, _, right = torch.linalg.svd(some.detach(), full_matrices=False)
    torch.testing.assert_close(some.grad, left @ right, atol=1e-4, rtol=0)  # the slope of the trace norm
    zeros = torch.zeros(2, 3, requires_grad=True)
    trace_norm(zeros).backward()
    assert zeros.grad.tolist() == torch.zeros(2, 3).tolist()


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        # Scales 1 and 3, everything else equal; a weight of the last layer is 1 or 10, four of each.
        (ToTheMean, {"strength": 0.5}, 0.5 * 2),
        (Pairwise, {"strength": 0.5}, 0.5 * 4),
        (GroupLasso, {"strength": 0.5}, 0.5 * (math.sqrt(10) + 44 * math.sqrt(2))),
        (GroupLasso, {"strength": 0.5, "q": "inf"}, 0.5 * (3 + 44)),
        (TraceNorm, {"strength": 0.5}, 0.5 * (math.sqrt(10) + math.sqrt(2 * 4 * 101))),
        (Dirty, {"block": 2.0, "sparse": 5.0}, 2.0 * (3 + 44)),  # S starts at 0
    ],
)
def test_penalties_of_two_networks_by_hand(kind, options, expected):
    network = kind(*makers(1, 3), TASKS, **options)
    assert values(network) == {"smile": (4, 1), "pose": (12, 3)}  # a penalty changes no output
    torch.testing.assert_close(network.penalty(TASKS), torch.tensor(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", [ToTheMean, Pairwise, GroupLasso, TraceNorm, Dirty])
def test_a_task_that_is_absent_is_a_constant_of_the_penalty(kind):
    network = kind(*makers(1, 3), TASKS)
    both = network.penalty(TASKS)
    both.backward()
    gradients = {name: p.grad for name, p in network.own["smile"].named_parameters()}
    network.zero_grad()
    alone = network.penalty(["smile"])
    assert alone.item() == both.item()
    alone.backward()
    assert all(p.grad is None for p in network.own["pose"].parameters())
    for name, p in network.own["smile"].named_parameters():
        torch.testing.assert_close(p.grad, gradients[name])
    assert not network.penalty([]).requires_grad


def test_penalties_leave_the_trunk_alone():
    network = ToTheMean(*makers(1, 3), TASKS, split=1)
    network.penalty(TASKS).backward()
    assert all(p.grad is None for p in network.trunk.parameters())


def test_sparsity_leaves_biases_alone_and_distances_do_not():
    for kind, expected in ((GroupLasso, True), (TraceNorm, True), (Dirty, True), (ToTheMean, False)):
        network = kind(*makers(1, 3), TASKS)
        network.penalty(TASKS).backward()
        assert (network.own["smile"][0].first.bias.grad is None) == expected


def test_a_dirty_weight_is_the_sum_of_its_parts():
    network = Dirty(*makers(1, 3), TASKS, block=2.0, sparse=5.0)
    parts = network.own["pose"][0].first.parametrizations.weight
    with torch.no_grad():
        parts.original0.fill_(2.0)
        parts.original1.fill_(-1.5)
    assert values(network)["pose"] == (2, 0.5)
    penalty = network.penalty(TASKS)
    assert penalty.item() == 2.0 * (2 + 44) + 5.0 * 1.5
    penalty.backward()
    assert (parts.original0.grad.item(), parts.original1.grad.item()) == (2.0, -5.0)
