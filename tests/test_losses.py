"""Losses: values by hand, and what a missing label must not do."""

import math

import pytest
import torch

from facemtl.training.losses import class_loss, points_loss, task_losses

NAN = math.nan


def points(*faces) -> torch.Tensor:
    return torch.tensor(faces, dtype=torch.float32)


def test_the_squared_loss_is_half_the_squared_distance_averaged_over_faces():
    predicted = points([[0.5, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]])
    truth = points([[0.0, 0.0], [0.0, 0.25]], [[0.0, 0.0], [0.0, 0.0]])
    # (0.25 + 0.0625) / 2 = 0.15625 and 1 / 2; their mean
    assert points_loss(predicted, truth).item() == pytest.approx(0.328125)


def test_the_smooth_l1_loss_is_quadratic_within_2_percent_of_the_crop_and_linear_beyond():
    predicted = points([[0.01, 0.0], [0.5, 0.0]])
    # 0.01^2 / (2 * 0.02) = 0.0025 and 0.5 - 0.02 / 2 = 0.49
    assert points_loss(predicted, torch.zeros(1, 2, 2), "smooth_l1").item() == pytest.approx(0.4925)


def test_the_class_loss_is_the_cross_entropy():
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0], [0.0, 0.0]])  # probabilities 3/4 1/4, 1/2 1/2
    labels = torch.tensor([0, 1, 1])
    assert class_loss(logits, labels).item() == pytest.approx(-math.log(3 / 4 * 1 / 4 * 1 / 2) / 3)


def test_label_smoothing_spreads_a_share_over_all_classes():
    logits, labels = torch.tensor([[math.log(3), 0.0]]), torch.tensor([0])
    expected = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    assert class_loss(logits, labels, smoothing=0.2).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["squared", "smooth_l1"])
def test_a_missing_point_has_exactly_zero_gradient_and_the_others_keep_theirs(kind):
    predicted = points([[0.3, 0.1], [0.2, 0.4]], [[0.5, 0.5], [0.1, 0.1]]).requires_grad_()
    truth = points([[0.0, 0.0], [NAN, NAN]], [[0.2, NAN], [0.0, 0.0]])
    points_loss(predicted, truth, kind).backward()
    assert (predicted.grad != 0).tolist() == [[[True, True], [False, False]], [[True, False], [True, True]]]
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["squared", "smooth_l1"])
def test_a_batch_without_points_costs_nothing(kind):
    predicted = torch.rand(3, 5, 2, requires_grad=True)
    loss = points_loss(predicted, torch.full((3, 5, 2), NAN), kind)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(predicted.grad, torch.zeros(3, 5, 2))


@pytest.mark.parametrize("kind", ["squared", "smooth_l1"])
def test_a_face_without_points_does_not_change_the_loss_of_the_others(kind):
    predicted, truth = torch.rand(4, 5, 2), torch.rand(4, 5, 2)
    truth[2] = NAN
    others = [0, 1, 3]
    expected = points_loss(predicted[others], truth[others], kind)
    torch.testing.assert_close(points_loss(predicted, truth, kind), expected)


def test_a_missing_label_has_exactly_zero_gradient_and_the_others_keep_theirs():
    logits = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]], requires_grad=True)
    class_loss(logits, torch.tensor([0, -1, 1])).backward()
    assert (logits.grad != 0).all(dim=1).tolist() == [True, False, True]
    assert torch.equal(logits.grad[1], torch.zeros(2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_without_labels_costs_nothing(smoothing):
    logits = torch.rand(3, 5, requires_grad=True)
    loss = class_loss(logits, torch.full((3,), -1), smoothing)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_face_without_label_does_not_change_the_loss_of_the_others(smoothing):
    logits, labels = torch.rand(4, 5), torch.tensor([3, 1, -1, 0])
    others = [0, 1, 3]
    expected = class_loss(logits[others], labels[others], smoothing)
    torch.testing.assert_close(class_loss(logits, labels, smoothing), expected)


def test_task_losses_are_those_of_the_outputs_in_their_order():
    outputs = {"smile": torch.zeros(2, 2), "landmarks": torch.ones(2, 5, 2), "pose": torch.zeros(2, 5)}
    labels = {task: torch.tensor([1, -1]) for task in ("pose", "smile", "gender")}
    losses = task_losses(outputs, torch.zeros(2, 5, 2), labels)
    assert {task: loss.item() for task, loss in losses.items()} == pytest.approx(
        {"smile": math.log(2), "landmarks": 5.0, "pose": math.log(5)}
    )
    assert list(losses) == list(outputs)
    huber = task_losses({"landmarks": outputs["landmarks"]}, torch.zeros(2, 5, 2), {}, "smooth_l1")
    assert huber["landmarks"].item() == pytest.approx(10 * 0.99)
