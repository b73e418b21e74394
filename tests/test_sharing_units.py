"""Cross-stitch units, attention and experts: by hand, and the equalities that hold at their limits."""

import math

import pytest
import torch
from sharing_toy import TASKS, makers, ones, values

from facemtl.models.sharing.branches import Branches
from facemtl.models.sharing.cross_stitch import CrossStitch, Stitch
from facemtl.models.sharing.gate import Gate, mixed
from facemtl.models.sharing.mmoe import MMoE
from facemtl.models.sharing.mtan import MTAN, Attention
from facemtl.models.sharing.ple import PLE, SHARED

# --- cross-stitch ---


def test_a_unit_of_two_tasks_by_hand():
    unit = Stitch(2, channels=1, own=0.75)
    x = torch.tensor([[[4.0]], [[8.0]]])  # (tasks, faces, features)
    assert unit(x).flatten().tolist() == [0.75 * 4 + 0.25 * 8, 0.25 * 4 + 0.75 * 8]
    with torch.no_grad():
        unit.mixture.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert unit(x).flatten().tolist() == [4 + 2 * 8, 3 * 4 + 4 * 8]


@pytest.mark.parametrize("tokens", [False, True])
def test_a_unit_of_channels_mixes_each_by_its_own_numbers(tokens):
    unit = Stitch(2, channels=3, own=1.0)
    with torch.no_grad():
        unit.mixture.view(2, 2, 3)[0, 1] = torch.tensor([0.0, 1.0, 2.0])
    x = torch.arange(12.0).view(2, 1, 3, 2)  # two tasks, one face, three channels at two places
    mixed_ = unit(x.transpose(2, 3)).transpose(2, 3) if tokens else unit(x.unsqueeze(-1)).squeeze(-1)
    expected = x[0] + torch.tensor([0.0, 1.0, 2.0])[:, None] * x[1]
    torch.testing.assert_close(mixed_[0], expected)
    torch.testing.assert_close(mixed_[1], x[1])


def test_stitched_networks_by_hand():
    # Scales 2 and 4; after the first unit 0.75 * 2 + 0.25 * 4 = 2.5 and 3.5; their sums 10 and 14; then 11 and 13.
    network = CrossStitch(*makers(2, 4), TASKS, own=0.75, per_channel=False)
    assert values(network) == {"smile": (11, 2.5), "pose": (13, 3.5)}


def test_a_stitch_that_keeps_its_own_is_separate_networks():
    for per_channel in (False, True):
        assert values(CrossStitch(*makers(2, 4), TASKS, own=1.0, per_channel=per_channel)) == values(
            Branches(*makers(2, 4), TASKS)
        )


def test_decay_of_weights_does_not_act_on_mixtures():
    network = CrossStitch(*makers(2, 4), TASKS)
    assert [p.ndim for name, p in network.named_parameters() if "mixture" in name] == [1, 1]
    rows = Stitch(5, 1, 0.9).mixture.view(5, 5)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(rows[0], torch.tensor([0.9, 0.025, 0.025, 0.025, 0.025]))


# --- MTAN ---


def still(attention: Attention) -> None:
    """g gives nothing, so that the mask is sigmoid of what h's normalisation adds."""
    with torch.no_grad():
        attention.narrow.linear.weight.zero_()
        attention.widen.linear.weight.zero_()


def test_attention_by_hand():
    network = MTAN(*makers(2), TASKS, reduction=1).eval()
    for attention in (*network.own["smile"], *network.own["pose"]):
        still(attention)
    with torch.no_grad():
        network.own["pose"][1].widen.norm.bias.copy_(torch.tensor([math.log(3), -50.0]))
    *_, grid, features = network.by_task(ones())["pose"]
    # The stages give 2 everywhere, then 8 and 80; masks are 1/2, then 3/4 and 0.
    assert grid.flatten().tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(features, torch.tensor([[6.0, 0.0]]))
    torch.testing.assert_close(network.by_task(ones())["smile"][-1], torch.tensor([[4.0, 40.0]]))


def test_attention_reads_what_was_read_before_and_what_the_stage_gives():
    torch.manual_seed(0)
    attention = Attention((4, 9, 9), (6, 5, 5), reduction=1).eval()
    given, before = torch.randn(2, 6, 5, 5), torch.randn(2, 4, 9, 9)
    mask = attention(given, before) / given
    assert not torch.allclose(mask, attention(given, -before) / given, atol=1e-3)
    assert not torch.allclose(mask, attention(-given, before) / -given, atol=1e-3)


@pytest.mark.parametrize(
    ("before", "shape"),
    [
        (None, (6, 5, 5)),
        ((4, 9, 9), (6, 5, 5)),
        ((4, 5, 5), (6, 5, 5)),
        ((4, 9, 9), (7,)),
        ((4,), (7,)),
        ((4, 9, 9), (3, 8)),
        ((3, 4), (3, 8)),
        ((5, 4), (3, 8)),
        ((3, 4), (7,)),
        ((3, 4), (6, 2, 2)),
    ],
)
def test_masks_lie_between_0_and_1_for_whatever_follows_whatever(before, shape):
    torch.manual_seed(0)
    attention = Attention(before, shape, reduction=4).eval()
    given = torch.randn(2, *shape)
    read = attention(given, None if before is None else torch.randn(2, *before))
    assert read.shape == given.shape
    mask = read / given
    assert mask.min() > 0
    assert mask.max() < 1


# --- mixtures of experts ---


@pytest.mark.parametrize("shape", [(2, 9, 9), (2, 3, 3), (5, 8), (7,)])
def test_gates_sum_to_one_face_by_face(shape):
    torch.manual_seed(0)
    shares = Gate(shape, 3)(torch.randn(4, *shape))
    assert shares.shape == (4, 3)
    assert shares.min() > 0
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    assert not torch.allclose(shares[0], shares[1])


def test_a_mixture_by_hand():
    shares = torch.tensor([[0.25, 0.75], [1.0, 0.0]])  # two faces
    answers = [torch.tensor([[4.0], [4.0]]), torch.tensor([[8.0], [8.0]])]
    assert mixed(shares, answers).tolist() == [[7], [4]]


def gate_of(gate: Gate, *shares: float) -> None:
    """Let a gate give these shares, whatever it reads."""
    with torch.no_grad():
        gate.linear.weight.zero_()
        gate.linear.bias.copy_(torch.tensor(shares).clamp(min=1e-30).log())


def test_mmoe_by_hand():
    network = MMoE(*makers(2, 4), TASKS, experts=2, split=0)
    gate_of(network.own["smile"], 0.5, 0.5)
    gate_of(network.own["pose"], 0.25, 0.75)
    read = values(network)
    assert read["smile"] == pytest.approx((12, 3))  # experts give 8 and 16 from maps of 2 and 4
    assert read["pose"] == pytest.approx((14, 3.5))


def test_mmoe_with_one_expert_is_hard_sharing():
    backbone, make = makers(2)
    images = torch.rand(3, 1, 2, 2)
    for split in (0, -1):
        read = MMoE(backbone, make, TASKS, experts=1, split=split).by_task(images)
        for *_, grid, features in read.values():
            assert torch.equal(features, backbone(images))
            assert torch.equal(grid, backbone.first(images))


def test_ple_of_two_levels_by_hand():
    # Experts of the first level scale by 1 (shared), 2 (smile) and 3 (pose); all those of the second sum four pixels.
    network = PLE(*makers(1, 2, 3), TASKS, split=-2)
    first = network.levels[0]
    gate_of(first.gates["smile"], 0.5, 0.5)  # of the shared one, then its own: maps of 1.5
    gate_of(first.gates["pose"], 0.0, 1.0)  # 3
    gate_of(first.gates[SHARED], 0.2, 0.4, 0.4)  # of all: 2.2
    gate_of(network.own["smile"].gates["smile"], 1.0, 0.0)  # the shared expert alone: 4 * 2.2
    gate_of(network.own["pose"].gates["pose"], 0.5, 0.5)  # 4 * 2.2 and 4 * 3
    read = values(network)
    assert read["smile"] == pytest.approx((8.8, 1.5))
    assert read["pose"] == pytest.approx((10.4, 3.0))


def test_the_gates_of_ple_sum_to_one():
    torch.manual_seed(0)
    network = PLE(*makers(1, 2, 3, 4, 5, 6), TASKS, shared_experts=2, task_experts=2, split=-2)
    seen = []
    gates = [module for module in network.modules() if isinstance(module, Gate)]
    for gate in gates:
        gate.register_forward_hook(lambda _, __, shares: seen.append(shares))
    network.by_task(torch.rand(3, 1, 2, 2))
    assert sorted(shares.shape[1] for shares in seen) == [4, 4, 4, 4, 6]
    for shares in seen:
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))


def test_ple_whose_experts_are_one_network_is_that_network():
    backbone, _ = makers(2)
    images = torch.rand(3, 1, 2, 2)
    for split in (-1, -2):
        for *_, features in PLE(*makers(2, 2, 2), TASKS, split=split).by_task(images).values():
            torch.testing.assert_close(features, backbone(images))
