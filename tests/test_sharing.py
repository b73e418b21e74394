"""Ways of sharing: units and penalties by hand, and the equalities that hold at their limits."""

import math

import pytest
import torch
from sharing_toy import makers, ones

from facemtl.errors import ModelError
from facemtl.models.sharing.branches import Branches
from facemtl.models.sharing.cross_stitch import CrossStitch, Stitch
from facemtl.models.sharing.dirty import Dirty
from facemtl.models.sharing.gate import Gate, mixed
from facemtl.models.sharing.group_lasso import GroupLasso, l1_lq
from facemtl.models.sharing.l2_mean import ToTheMean
from facemtl.models.sharing.mmoe import MMoE
from facemtl.models.sharing.mtan import MTAN, Attention
from facemtl.models.sharing.pairwise import Pairwise
from facemtl.models.sharing.ple import PLE, SHARED
from facemtl.models.sharing.registry import SHARINGS, is_plain, options_of, shared_backbone, trunk_of
from facemtl.models.sharing.trace_norm import TraceNorm, trace_norm

TASKS = ("smile", "pose")


def values(sharing, images=None):
    """Task -> the first feature and the grid's first number: the toy's sum of pixels times the scale, the scale."""
    read = sharing.by_task(ones() if images is None else images)
    return {task: (features[0, 0].item(), grid.flatten()[0].item()) for task, (features, grid) in read.items()}


# --- branches ---


def test_branches_share_their_first_stages_alone():
    assert values(Branches(*makers(2, 3), TASKS, split=0)) == {"smile": (8, 2), "pose": (12, 3)}
    # The second stage of the other network begins with the same weights as the first's.
    shared = Branches(*makers(2, 3), TASKS, split=1)
    assert values(shared) == {"smile": (8, 2), "pose": (8, 2)}
    assert shared.own["smile"][0].last.weight is not shared.own["pose"][0].last.weight
    assert [name for name, _ in shared.trunk.named_parameters()] == ["0.first.weight", "0.first.bias"]


# --- soft sharing: each stack is a row a task ---

STACK = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, -2.0]])


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
    features, grid = network.by_task(ones())["pose"]
    # The stages give 2 everywhere, then 8 and 80; masks are 1/2, then 3/4 and 0.
    assert grid.flatten().tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(features, torch.tensor([[6.0, 0.0]]))
    torch.testing.assert_close(network.by_task(ones())["smile"][0], torch.tensor([[4.0, 40.0]]))


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
        for features, grid in read.values():
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
        for features, _ in PLE(*makers(2, 2, 2), TASKS, split=split).by_task(images).values():
            torch.testing.assert_close(features, backbone(images))


# --- what a task owns is reached by its own loss alone, and what all share by several ---

WAYS = {name: way for name, way in SHARINGS.items() if name != "hard"}


def built(name: str, **options):
    torch.manual_seed(0)
    way = SHARINGS[name]
    backbone, make = makers(*torch.linspace(1, 3, 12).tolist())
    return way.kind(backbone, make, TASKS, **{**way.options, **options})


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("absent", TASKS)
def test_what_a_task_owns_is_reached_by_its_own_loss_alone(name, absent):
    network = built(name)
    network.by_task(torch.rand(4, 1, 2, 2))[absent][0].sum().backward()
    for task in TASKS:
        reached = [p.grad is not None for p in (network.own[task].parameters() if task in network.own else ())]
        assert any(reached) == (task == absent and bool(reached))
    shared = [p for n, p in network.named_parameters() if not n.startswith("own.")]
    assert any(p.grad is not None for p in shared) == bool(shared)
    assert bool(shared) == (name != "separate" and not name.startswith("soft"))


def test_a_trunk_is_where_the_options_say():
    for name in SHARINGS:
        assert trunk_of(name, {}) == (name == "hard")
        if "split" in SHARINGS[name].options:
            assert trunk_of(name, {"split": 1}) == (name == "hard" or name.startswith("soft"))
            network = built(name, split=1)
            assert (network.trunk is not None) == trunk_of(name, {"split": 1})


# --- names and options ---


def test_hard_with_the_split_at_the_end_is_the_backbone_itself():
    backbone, make = makers(2)
    assert shared_backbone("hard", {}, backbone, make, TASKS) is backbone
    assert shared_backbone("hard", {"split": "end"}, backbone, make, TASKS) is backbone
    assert not is_plain("hard", {"split": -1})


@pytest.mark.parametrize(
    ("name", "options", "tasks", "message"),
    [
        ("hrad", {}, TASKS, "sharing = 'hrad', expected one of hard, separate, soft_mean, soft_pairwise, soft_group"),
        ("separate", {"split": 1}, TASKS, r"'separate' has no options \['split'\], it has none"),
        ("mmoe", {"expert": 1}, TASKS, r"has no options \['expert'\], it has experts, split"),
        ("mmoe", {"experts": 0}, TASKS, "experts = 0, expected a whole number, at least 1"),
        ("mmoe", {"experts": 1.5}, TASKS, "experts = 1.5, expected a whole number"),
        ("mmoe", {"split": "end"}, TASKS, "split = 'end', expected a whole number of stages .* from the end$"),
        ("hard", {"split": "start"}, TASKS, "split = 'start', expected a whole number .* or 'end'"),
        ("hard", {"split": True}, TASKS, "split = True, expected a whole number"),
        ("soft_group", {"q": 0.5}, TASKS, "q = 0.5, expected a number, at least 1, or 'inf'"),
        ("soft_mean", {"strength": -1}, TASKS, "strength = -1, expected a number, at least 0"),
        ("soft_mean", {"strength": "big"}, TASKS, "strength = 'big', expected a number"),
        ("cross_stitch", {"own": 1.1}, TASKS, "own = 1.1, expected a number from 0 to 1"),
        ("cross_stitch", {"per_channel": 1}, TASKS, "per_channel = 1, expected true or false"),
        ("cross_stitch", {}, ["smile"], r"needs two tasks or more, there is \['smile'\]: add tasks, or set 'hard'"),
        ("soft_trace", {}, ["smile"], "needs two tasks or more"),
    ],
)
def test_what_cannot_be_shared_is_an_error_that_says_what_to_change(name, options, tasks, message):
    with pytest.raises(ModelError, match=message):
        options_of(name, options, tasks)


def test_every_way_of_the_issue_is_there():
    assert list(SHARINGS) == [
        "hard",
        "separate",
        "soft_mean",
        "soft_pairwise",
        "soft_group",
        "soft_dirty",
        "soft_trace",
        "cross_stitch",
        "mtan",
        "mmoe",
        "ple",
    ]
    assert options_of("soft_group", {"q": "inf"}, TASKS) == {"split": 0, "strength": 1e-5, "q": "inf"}
