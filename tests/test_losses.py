"""Losses: values by hand, and what a missing label must not do."""

import math

import pytest
import torch

from facemtl.models.face_model import LOGITS
from facemtl.models.heads import BINS, SPAN
from facemtl.training.losses import (
    POINT_LOSSES,
    angles_loss,
    class_loss,
    eye_weights,
    places_loss,
    points_loss,
    shares_loss,
    sigma_loss,
    task_losses,
)

NAN = math.nan
EVERY_POINT_LOSS = pytest.mark.parametrize("kind", POINT_LOSSES)


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


# The difference in crop sides, and the loss: pixels are those of a crop of 256.
@pytest.mark.parametrize(
    ("kind", "pixels", "expected"),
    [
        ("squared", 128, 0.5 * 0.5**2),
        ("squared", -64, 0.5 * 0.25**2),
        ("l1", -64, 0.25),
        ("l1", 0, 0.0),
        ("wing", 2, 10 * math.log(2) / 256),  # within the width of 10: 10 ln(1 + 2 / 2)
        ("wing", -6, 10 * math.log(4) / 256),
        ("wing", 30, (30 - 10 + 10 * math.log(6)) / 256),  # beyond: straight on from 10 ln(1 + 10 / 2)
        ("soft_wing", 1, 1 / 256),  # linear up to 2
        ("soft_wing", -1.5, 1.5 / 256),
        ("soft_wing", 14.5, (2 + 20 * math.log(30 / 5)) / 256),  # 20 ln((1 + 14.5 / 0.5) / (1 + 2 / 0.5)) above 2
    ],
)
def test_the_losses_of_one_coordinate(kind, pixels, expected):
    assert POINT_LOSSES[kind](torch.tensor(pixels / 256)).item() == pytest.approx(expected, rel=1e-5)


@EVERY_POINT_LOSS
def test_losses_of_a_coordinate_are_symmetric_continuous_and_rise_with_the_error(kind):
    size = torch.linspace(0, 0.5, 20001, dtype=torch.float64)  # in steps of 0.0064 pixels, across all joints
    loss = POINT_LOSSES[kind](size)
    assert loss[0] == 0
    torch.testing.assert_close(POINT_LOSSES[kind](-size), loss)
    steps = loss.diff()
    assert (steps > 0).all()
    assert steps.max() < 0.5 / 20000 * 8.01  # no jump: the steepest is soft_wing just over 2 pixels, 20 / (0.5 + 2)


def test_the_losses_of_a_face_are_summed_and_weighed():
    predicted = points([[0.5, 0.0], [0.25, 0.0]], [[0.0, 0.125], [0.0, 0.0]])
    truth = torch.zeros(2, 2, 2)
    assert points_loss(predicted, truth, "l1").item() == pytest.approx((0.75 + 0.125) / 2)
    assert points_loss(predicted, truth, "l1", torch.tensor([1.0, 3.0])).item() == pytest.approx((0.75 + 0.375) / 2)


def test_eye_weights_are_those_of_the_error_relative_to_the_eyes():
    def eyes(distance: float) -> list[list[float]]:
        return [[-0.6 * distance, 0.0], [0.0, 0.8 * distance]]  # 3, 4, 5

    truth = points(eyes(0.25), eyes(0.125), eyes(0.4), eyes(0.05), eyes(0.8), eyes(0.0), [[NAN, NAN], [0.1, 0.1]])
    found = eye_weights(truth, (0, 1))
    # 0.25 is common; then 0.25 / 0.125 and 0.25 / 0.4; more than 3 and less than 0.5 there is not; an eye is missing
    assert found.tolist() == pytest.approx([1, 2, 0.625, 3, 0.5, 3, 1])


# --- deviations ---


def test_the_loss_of_a_deviation_is_the_likelihood_of_laplace():
    # Deviation sqrt(2) has the scale 1: ln 2 + |r|, of the two coordinates of one point; the other is unknown.
    sigma = torch.full((1, 2), math.sqrt(2))
    predicted, truth = points([[3.0, 0.0], [5.0, 5.0]]), points([[1.0, 0.5], [NAN, NAN]])
    assert sigma_loss(sigma, predicted, truth).item() == pytest.approx(math.log(2) + (2 + 0.5) / 2)


def test_the_best_deviation_is_that_of_the_errors():
    # Of a Laplace distribution with deviation s the mean of |r| is s / sqrt(2).
    predicted = torch.tensor([0.01, -0.03, 0.05, -0.03]).reshape(4, 1, 1).expand(4, 1, 2)
    best = 0.03 * math.sqrt(2)
    losses = [
        sigma_loss(torch.full((4, 1), best * factor), predicted, torch.zeros(4, 1, 2)).item()
        for factor in (0.5, 0.98, 1.0, 1.02, 2.0)
    ]
    assert losses.index(min(losses)) == 2
    sigma = torch.full((1, 1), best, requires_grad=True)
    sigma_loss(sigma.expand(4, 1), predicted, torch.zeros(4, 1, 2)).backward()
    assert sigma.grad.item() == pytest.approx(0, abs=1e-4)


def test_deviations_do_not_move_the_points():
    predicted = torch.rand(3, 5, 2, requires_grad=True)
    sigma = torch.full((3, 5), 0.1, requires_grad=True)
    sigma_loss(sigma, predicted, torch.zeros(3, 5, 2)).backward()
    assert predicted.grad is None
    assert (sigma.grad != 0).all()


# --- places (SimCC) ---


def test_the_best_distribution_over_places_is_a_gaussian_around_the_true_one():
    truth = points([[0.1, -0.25]])
    places = torch.linspace(-SPAN, SPAN, BINS)
    aims = torch.stack([-0.5 * ((places - place) / 0.02).square() for place in (0.1, -0.25)]).reshape(1, 1, 2, BINS)
    at_best = places_loss(aims, truth)
    shares = aims.softmax(dim=-1)
    entropy = -(shares * aims.log_softmax(dim=-1)).sum(dim=-1).mean()
    assert at_best.item() == pytest.approx(entropy.item(), rel=1e-5)
    for other in (0.9 * aims, 1.1 * aims, aims.roll(1, dims=-1), aims.flip(2)):
        assert places_loss(other, truth) > at_best
    assert places_loss(torch.zeros(1, 1, 2, BINS), truth).item() == pytest.approx(math.log(BINS), rel=1e-5)


def test_the_loss_of_places_is_the_mean_over_known_coordinates():
    logits = torch.randn(2, 3, 2, BINS, generator=torch.Generator().manual_seed(0))
    truth = points([[0.1, 0.2], [NAN, 0.3], [0.0, 0.0]], [[NAN, NAN]] * 3)
    known = [(0, 0, 0, 0.1), (0, 0, 1, 0.2), (0, 1, 1, 0.3), (0, 2, 0, 0.0), (0, 2, 1, 0.0)]
    alone = [places_loss(logits[n, k, a].expand(1, 1, 2, BINS), points([[t, t]])) for n, k, a, t in known]
    torch.testing.assert_close(places_loss(logits, truth), torch.stack(alone).mean())


# --- classes ---


def test_the_class_loss_is_the_cross_entropy():
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0], [0.0, 0.0]])  # probabilities 3/4 1/4, 1/2 1/2
    labels = torch.tensor([0, 1, 1])
    assert class_loss(logits, labels).item() == pytest.approx(-math.log(3 / 4 * 1 / 4 * 1 / 2) / 3)


def test_label_smoothing_spreads_a_share_over_all_classes():
    logits, labels = torch.tensor([[math.log(3), 0.0]]), torch.tensor([0])
    expected = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    assert class_loss(logits, labels, smoothing=0.2).item() == pytest.approx(expected)


@EVERY_POINT_LOSS
def test_a_missing_point_has_exactly_zero_gradient_and_the_others_keep_theirs(kind):
    predicted = points([[0.3, 0.1], [0.2, 0.4]], [[0.5, 0.5], [0.1, 0.1]]).requires_grad_()
    truth = points([[0.0, 0.0], [NAN, NAN]], [[0.2, NAN], [0.0, 0.0]])
    points_loss(predicted, truth, kind).backward()
    assert (predicted.grad != 0).tolist() == [[[True, True], [False, False]], [[True, False], [True, True]]]
    assert predicted.grad.isfinite().all()


@EVERY_POINT_LOSS
def test_a_batch_without_points_costs_nothing(kind):
    predicted = torch.rand(3, 5, 2, requires_grad=True)
    loss = points_loss(predicted, torch.full((3, 5, 2), NAN), kind)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(predicted.grad, torch.zeros(3, 5, 2))


@EVERY_POINT_LOSS
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


def test_the_loss_of_a_teachers_answer_is_the_cross_entropy_with_it():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0], [5.0, 0.0]])
    shares = torch.tensor([[0.5, 0.5], [0.25, 0.75], [NAN, NAN]])
    expected = (-0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4) + math.log(2)) / 2
    assert shares_loss(logits, shares).item() == pytest.approx(expected)
    certain = torch.tensor([[0.0, 1.0], [1.0, 0.0], [NAN, NAN]])
    torch.testing.assert_close(shares_loss(logits, certain), class_loss(logits, torch.tensor([1, 0, -1])))


def test_the_loss_of_angles_is_their_mean_error_in_units_of_30_degrees():
    predicted, truth = torch.tensor([[10.0, 0, 0], [0, 50, 0]]), torch.tensor([[-5.0, 15, NAN], [NAN, 20, NAN]])
    assert angles_loss(predicted, truth).item() == pytest.approx((0.5 + 0.5 + 1) / 3)


# --- what is missing ---

# What each loss is given: outputs with gradient, targets of which the second face has none, targets without any
MASKED = {
    "sigma": (sigma_loss, [(3, 5), (3, 5, 2)], lambda: torch.rand(3, 5, 2)),
    "places": (places_loss, [(3, 5, 2, BINS)], lambda: torch.rand(3, 5, 2)),
    "angles": (angles_loss, [(3, 3)], lambda: torch.rand(3, 3)),
    "shares": (shares_loss, [(3, 5)], lambda: torch.rand(3, 5).softmax(dim=1)),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_is_missing_has_exactly_zero_gradient_and_the_others_keep_theirs(name):
    loss, shapes, make = MASKED[name]
    outputs = [torch.rand(shape) + 0.1 for shape in shapes]
    first = outputs[0].clone().requires_grad_()
    target = make()
    target[1] = NAN
    loss(first, *outputs[1:], target).backward()
    assert first.grad.isfinite().all()
    assert torch.equal(first.grad[1], torch.zeros_like(first.grad[1]))
    others = outputs[0][[0, 2]].requires_grad_()
    loss(others, *(output[[0, 2]] for output in outputs[1:]), target[[0, 2]]).backward()
    torch.testing.assert_close(first.grad[[0, 2]], others.grad)
    assert (others.grad != 0).any(dim=-1).all()


@pytest.mark.parametrize("name", MASKED)
def test_a_batch_of_which_nothing_is_known_costs_nothing(name):
    loss, shapes, make = MASKED[name]
    outputs = [torch.rand(shape) + 0.1 for shape in shapes]
    first = outputs[0].requires_grad_()
    value = loss(first, *outputs[1:], torch.full_like(make(), NAN))
    value.backward()
    assert value.item() == 0
    assert torch.equal(first.grad, torch.zeros_like(first))


@pytest.mark.parametrize("name", ["sigma", "places", "angles"])
def test_a_single_missing_number_has_exactly_zero_gradient(name):
    loss, shapes, make = MASKED[name]
    first, *others = [torch.rand(shape) + 0.1 for shape in shapes]
    first.requires_grad_()
    target = make()
    hole = (0, 1) if name == "angles" else (0, 1, 0)
    target[hole] = NAN
    loss(first, *others, target).backward()
    assert first.grad.isfinite().all()
    if name == "sigma":  # the deviation of both coordinates learns from the one that is known
        assert first.grad[0, 1] != 0
    else:
        assert not first.grad[hole].any()
        assert first.grad.count_nonzero() == first.numel() - first[hole].numel()


# --- all tasks ---


def test_task_losses_are_those_of_the_outputs_in_their_order():
    outputs = {"smile": torch.zeros(2, 2), "landmarks": torch.ones(2, 5, 2), "pose": torch.zeros(2, 5)}
    targets = {task: torch.tensor([1, -1]) for task in ("pose", "smile", "gender")}
    targets["landmarks"] = torch.zeros(2, 5, 2)
    losses = task_losses(outputs, targets)
    assert {task: loss.item() for task, loss in losses.items()} == pytest.approx(
        {"smile": math.log(2), "landmarks": 5.0, "pose": math.log(5)}
    )
    assert list(losses) == list(outputs)
    huber = task_losses(outputs, {"landmarks": torch.zeros(2, 5, 2)}, points_kind="smooth_l1")
    assert {task: loss.item() for task, loss in huber.items()} == pytest.approx({"landmarks": 10 * 0.99})


def test_every_output_has_the_loss_of_its_kind():
    generator = torch.Generator().manual_seed(0)
    outputs = {
        "landmarks": torch.randn(2, 5, 2, generator=generator),
        "landmark_sigma": torch.rand(2, 5, generator=generator) + 0.1,
        LOGITS: torch.randn(2, 5, 2, BINS, generator=generator),
        "landmarks_ibug68": torch.randn(2, 68, 2, generator=generator),
        "smile": torch.randn(2, 2, generator=generator),
        "angles": torch.randn(2, 3, generator=generator),
    }
    five, many = torch.rand(2, 5, 2, generator=generator), torch.rand(2, 68, 2, generator=generator)
    targets = {
        "landmarks": five,
        "landmarks_ibug68": many,
        "smile": torch.tensor([1, 0]),
        "angles": torch.zeros(2, 3),
    }
    losses = task_losses(outputs, targets, points_kind="l1", eye_scaled=True, smoothing=0.1)
    expected = {
        "landmarks": points_loss(outputs["landmarks"], five, "l1", eye_weights(five, (0, 1))),
        "landmark_sigma": sigma_loss(outputs["landmark_sigma"], outputs["landmarks"], five),
        LOGITS: places_loss(outputs[LOGITS], five),
        "landmarks_ibug68": points_loss(outputs["landmarks_ibug68"], many, "l1", eye_weights(many, (36, 45))),
        "smile": class_loss(outputs["smile"], targets["smile"], 0.1),
        "angles": angles_loss(outputs["angles"], targets["angles"]),
    }
    assert list(losses) == list(expected)
    assert {k: v.item() for k, v in losses.items()} == pytest.approx({k: v.item() for k, v in expected.items()})
    lesson = {"smile": torch.tensor([[0.25, 0.75], [0.5, 0.5]])}  # a teacher is not smoothed
    taught = task_losses(outputs, lesson, smoothing=0.1)
    assert {k: v.item() for k, v in taught.items()} == {"smile": shares_loss(outputs["smile"], lesson["smile"]).item()}


def test_points_of_another_main_schema_have_their_own_eyes():
    outputs, many = {"landmarks": torch.zeros(1, 68, 2)}, torch.rand(1, 68, 2)
    found = task_losses(outputs, {"landmarks": many}, "ibug68", eye_scaled=True)["landmarks"]
    torch.testing.assert_close(found, points_loss(outputs["landmarks"], many, weights=eye_weights(many, (36, 45))))
