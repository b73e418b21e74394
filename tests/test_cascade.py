"""Cascades: who reads whom, in which order, and what is read."""

import pytest
import torch

from facemtl.errors import ModelError
from facemtl.models.cascade import Cascade, cascade_order

FIVE = ("landmarks", "glasses", "smile", "gender", "pose")


@pytest.mark.parametrize(
    ("feeds", "order"),
    [
        ({}, FIVE),
        ({"landmarks": ["pose"]}, ("glasses", "smile", "gender", "pose", "landmarks")),
        (
            {"landmarks": ["pose"], "smile": ["landmarks"], "glasses": ["landmarks"]},
            ("gender", "pose", "landmarks", "glasses", "smile"),
        ),
        ({"glasses": ["smile", "pose"]}, ("landmarks", "smile", "gender", "pose", "glasses")),
    ],
)
def test_those_who_feed_come_first_and_else_the_tasks_keep_their_order(feeds, order):
    assert cascade_order(FIVE, feeds) == order


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"landmarks": ["pose"], "pose": ["landmarks"]}, "goes round in a circle, .*pose.* -> .*: take one of these"),
        ({"landmarks": ["pose"], "pose": ["smile"], "smile": ["landmarks"]}, "circle, (\\w+ -> ){3}\\w+: take"),
        ({"pose": ["pose"]}, "circle, pose -> pose"),
        ({"angles": ["pose"]}, "'angles' is not among the tasks landmarks, glasses"),
        ({"pose": ["hat"]}, r"cascade.pose = \['hat'\]: 'hat' is not among the tasks"),
        ({"pose": []}, r"cascade.pose = \[\]: expected one or more tasks, each once"),
        ({"pose": ["smile", "smile"]}, "each once"),
    ],
)
def test_what_cannot_be_a_cascade_is_refused(feeds, message):
    with pytest.raises(ModelError, match=message):
        Cascade(FIVE, feeds)


def test_what_a_head_reads_by_hand():
    tasks = ("smile", "landmarks", "angles", "pose")
    cascade = Cascade(tasks, {"smile": ["landmarks", "angles", "pose"]})
    outputs = {
        "landmarks": torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]),
        "angles": torch.tensor([[30.0, -15.0, 0.0]]),
        "pose": torch.log(torch.tensor([[0.25, 0.75]])),
    }
    vector = torch.tensor([[7.0]])
    read = cascade.features("smile", vector, outputs)
    torch.testing.assert_close(read, torch.tensor([[7.0, 0.1, 0.2, 0.3, 0.4, 1.0, -0.5, 0.0, 0.25, 0.75]]))
    assert cascade.features("pose", vector, outputs) is vector


@pytest.mark.parametrize("gradients", [False, True])
def test_losses_go_back_through_what_was_read_only_if_they_may(gradients):
    cascade = Cascade(("smile", "pose"), {"smile": ["pose"]}, gradients)
    logits = torch.tensor([[1.0, 2.0]], requires_grad=True)
    vector = torch.ones(1, 1, requires_grad=True)
    cascade.features("smile", vector, {"pose": logits})[0, :2].sum().backward()
    assert (logits.grad is not None) == gradients
    assert vector.grad is not None
