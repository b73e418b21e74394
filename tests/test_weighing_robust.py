"""Krum, the trimmed mean, CR-MOGM and ExcessMTL in our training: values by hand, too few tasks, wrong options."""

import math

import pytest
import torch
from torch import tensor
from weighing_toy import toy, toy_step

from facemtl.errors import ConfigError
from facemtl.training.recipe import recipe_from_dict
from facemtl.training.weighing.registry import WEIGHINGS

pytest.importorskip("torchjd.aggregation")
for solver in ("cvxpy", "ecos", "quadprog", "qpsolvers"):
    pytest.importorskip(solver)

THREE = [[0.0, 1.0], [1.0, 1.0], [5.0, 2.0]]
TASKS = ("smile", "glasses", "gender")


def weights_of(weighing) -> list[float]:
    return list(weighing.finish_epoch({}).values())


def test_krum_takes_the_gradient_nearest_to_its_neighbour():
    # The nearest neighbours of three are 1, 1 and 3 away; the library breaks the tie.
    model, weighing = toy("krum", [[0.0, 1.0], [0.0, 2.0], [0.0, 5.0]])
    assert toy_step(model, weighing)[1].item() in (pytest.approx(1), pytest.approx(2))
    model, weighing = toy("krum", THREE, n_selected=2)
    torch.testing.assert_close(toy_step(model, weighing), tensor([0.5, 1.0]))


def test_the_trimmed_mean_of_three_is_their_median():
    model, weighing = toy("trimmed_mean", THREE)
    torch.testing.assert_close(toy_step(model, weighing), tensor([1.0, 1.0]))


@pytest.mark.parametrize("name", ["krum", "trimmed_mean"])
def test_a_step_with_fewer_tasks_follows_their_mean(name):
    model, weighing = toy(name, THREE)
    torch.testing.assert_close(toy_step(model, weighing, missing=["glasses"]), tensor([2.5, 1.5]))
    torch.testing.assert_close(toy_step(model, weighing, missing=["smile", "glasses"]), tensor([5.0, 2.0]))
    assert toy_step(model, weighing, missing=TASKS) is None
    assert weights_of(weighing) == pytest.approx([0.5, 0.0, 0.75])


def test_cr_mogm_smooths_the_weights_of_mgda():
    # MGDA's weights of these rows, which are at right angles: 4 / 5 and 1 / 5, then 1 / 5 and 4 / 5.
    model, weighing = toy("cr_mogm", [[1.0, 0.0], [0.0, 2.0]], of="mgda", alpha=0.75)
    torch.testing.assert_close(toy_step(model, weighing), tensor([0.8, 0.4]), atol=1e-3, rtol=0)
    with torch.no_grad():
        model.heads["smile"].weight.copy_(tensor([[2.0, 0.0]]))
        model.heads["glasses"].weight.copy_(tensor([[0.0, 1.0]]))
    weighing.finish_epoch({})
    toy_step(model, weighing)
    assert weights_of(weighing) == pytest.approx([0.75 * 0.8 + 0.25 * 0.2, 0.75 * 0.2 + 0.25 * 0.8], abs=1e-3)


def test_excess_mtl_weighs_by_the_excess_risk():
    # After one step H is |g| in each coordinate: g H^-1 g = 7 and 1; weights are the softmax of log(1 / 2) and these.
    model, weighing = toy("excess_mtl", [[3.0, 4.0], [1.0, 0.0]])
    first = 1 / (1 + math.exp(-6))
    expected = first * tensor([3.0, 4.0]) + (1 - first) * tensor([1.0, 0.0])
    torch.testing.assert_close(toy_step(model, weighing), expected, atol=1e-4, rtol=0)


def test_excess_mtl_warms_up_with_equal_weights():
    model, weighing = toy("excess_mtl", [[3.0, 4.0], [1.0, 0.0]], n_warmup_steps=1)
    torch.testing.assert_close(toy_step(model, weighing), tensor([2.0, 2.0]))


@pytest.mark.parametrize(
    ("weighing", "options", "tasks", "message"),
    [
        ("krum", {"n_byzantine": 1}, TASKS, r"4 tasks or more, there are 3 .* or lower n_byzantine or n_selected"),
        ("krum", {"n_selected": 0}, TASKS, "n_selected must be a positive integer"),
        ("trimmed_mean", {}, TASKS[:2], "3 tasks or more, there are 2"),
        ("cr_mogm", {"of": "pcd"}, TASKS, "weighing_options.of = 'pcd', expected one of aligned_mtl, cagrad"),
        ("cr_mogm", {"alpha": 2.0}, TASKS, r"must be in \[0, 1\]"),
        ("excess_mtl", {"robust_step_size": 0.0}, TASKS, "must be positive"),
    ],
)
def test_what_cannot_work_is_refused_before_training(weighing, options, tasks, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict(
            {"name": "x", "tasks": list(tasks), "passes": 1, "weighing": weighing, "weighing_options": options}
        )


def test_every_method_of_the_library_has_a_name_or_a_reason():
    from torchjd import aggregation, scalarization

    ours = {name.replace("_", "") for name in WEIGHINGS}
    elsewhere = {"constant": "weights", "mean": "mean", "sum": "sum", "random": "random_gradient, random_loss"}
    bases = {"aggregator", "weightedaggregator", "gramianweightedaggregator", "scalarizer"}
    left_out = {"modo", "sdmgrad"}  # need two batches a step
    names = {name.removesuffix("Weighting").lower() for room in (aggregation, scalarization) for name in room.__all__}
    assert names - ours - set(elsewhere) - bases - left_out - {""} == set()
