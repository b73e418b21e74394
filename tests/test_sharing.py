"""Ways of sharing: what is whose, whichever way it is, and the names and options of all of them."""

import pytest
import torch
from sharing_toy import TASKS, makers, values

from facemtl.errors import ModelError
from facemtl.models.sharing.branches import Branches
from facemtl.models.sharing.registry import SHARINGS, is_plain, options_of, shared_backbone, trunk_of


def test_branches_share_their_first_stages_alone():
    assert values(Branches(*makers(2, 3), TASKS, split=0)) == {"smile": (8, 2), "pose": (12, 3)}
    # The second stage of the other network begins with the same weights as the first's.
    shared = Branches(*makers(2, 3), TASKS, split=1)
    assert values(shared) == {"smile": (8, 2), "pose": (8, 2)}
    assert shared.own["smile"][0].last.weight is not shared.own["pose"][0].last.weight
    assert [name for name, _ in shared.trunk.named_parameters()] == ["0.first.weight", "0.first.bias"]


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
    network.by_task(torch.rand(4, 1, 2, 2))[absent][-1].sum().backward()
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
