"""Weighing of tasks: our methods by hand on a two-task toy, then what holds for every one of them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import SMALL_GRIDNET, copy_run, read_log, results, tiny_data, tiny_recipe, train_quietly
from weighing_toy import toy, toy_step

from facemtl.errors import ConfigError
from facemtl.training.engine import CHECKPOINT, Run
from facemtl.training.recipe import Recipe, recipe_from_dict
from facemtl.training.weighing.dynamic import task_covariance
from facemtl.training.weighing.registry import WEIGHINGS, create_weighing

ROWS = [[3.0, 4.0], [1.0, 0.0]]  # gradients of length 5 and 1; losses 7 and 1
OURS = ["dynamic", "gradnorm"]


# --- fixed ---


def test_fixed_is_the_sum():
    model, weighing = toy("fixed", ROWS)
    assert toy_step(model, weighing).tolist() == [4, 4]
    assert toy_step(model, weighing, stopped=["smile"]).tolist() == [1, 0]
    weighing.factors = {"smile": 2.0, "glasses": 0.5}
    assert toy_step(model, weighing).tolist() == [6.5, 8]
    assert (weighing.finish_epoch({}), weighing.memory()) == ({}, {})


# --- GradNorm ---


def test_gradnorm_by_hand():
    model, weighing = toy("gradnorm", ROWS, alpha=1.5, rate=0.1)
    torch.testing.assert_close(toy_step(model, weighing), torch.tensor([4.0, 4.0]))  # with the weights 1 and 1
    # G = 5 and 1, mean 3; nothing is learned yet, so both aim at 3: w moves by -0.1 * 5 / 3 and +0.1 * 1 / 3.
    moved = torch.tensor([1 - 0.5 / 3, 1 + 0.1 / 3])
    moved *= 2 / moved.sum()
    torch.testing.assert_close(weighing.weights, moved)
    torch.testing.assert_close(toy_step(model, weighing), moved @ torch.tensor(ROWS))


def test_a_task_that_lags_behind_gains_weight_by_the_power_alpha():
    _, weighing = toy("gradnorm", ROWS, alpha=1.0, rate=0.1)
    # Left: 0.5 and 1.5 of the losses, whose mean is 1: with gradients of 2 and 2 the aims are 1 and 3.
    moved = weighing.moved(torch.ones(2), torch.tensor([2.0, 2.0]), torch.tensor([0.5, 1.5]))
    torch.testing.assert_close(moved, torch.tensor([0.9, 1.1]))


def test_gradnorm_makes_gradients_equally_long_without_alpha():
    _, weighing = toy("gradnorm", ROWS, alpha=0.0, rate=0.01)
    weights, lengths = torch.ones(2), torch.tensor([5.0, 1.0])
    for _ in range(200):
        weights = weighing.moved(weights, lengths, torch.tensor([0.1, 2.0]))
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 5 / 3]), atol=0.02, rtol=0)  # 5 w1 = w2


def test_gradnorm_on_parameters_sees_what_it_sees_on_features_here():
    weights = []
    for on in ("features", "parameters"):
        model, weighing = toy("gradnorm", ROWS, on=on, alpha=0.0)
        toy_step(model, weighing)
        weights.append(weighing.weights)
    # An input of one for both faces: the features' gradients are those of the weights, halved for each face.
    torch.testing.assert_close(*weights)


# --- dynamic coefficients ---


def dynamic(**options):
    values = {"rho": 2.0, "tau": 1, "sigma2": 0.1, "covariance": 0.0}
    recipe = tiny_recipe(tasks=("landmarks", "smile"), weighing="dynamic", weighing_options={**values, **options})
    model = recipe.create_model()
    return model, create_weighing(recipe, model)


def test_coefficients_by_hand():
    _, weighing = dynamic()
    for heldout, trained, expected in [
        (4.0, 2.0, 1.0),  # one epoch says no trend
        (3.0, 2.0, 2 * (4 - 3) / 4 - 0.1 * 2),
        (3.0, 1.0, 0.0),  # falls no longer: 0 - 0.1, which is under 0
        (1.5, 1.0, 2 * 0.5 - 0.1),
    ]:
        weighing.sums += torch.tensor([9.0, trained * 4])
        weighing.weight_counts += 4
        weighing.finish_epoch({"landmarks": 1.0, "smile": heldout})
        assert weighing.coefficients.tolist() == [1.0, pytest.approx(expected)]


def test_an_epoch_without_the_task_leaves_its_coefficient():
    _, weighing = dynamic()
    weighing.weight_counts += torch.tensor([4.0, 0.0])
    weighing.coefficients[1] = 0.7
    for _ in range(3):
        weighing.finish_epoch({"landmarks": 1.0})
    assert weighing.coefficients.tolist() == [1.0, pytest.approx(0.7)]


def test_the_covariance_of_tasks_by_hand():
    # W'W = diag(9, 1), its root diag(3, 1).
    torch.testing.assert_close(
        task_covariance(torch.tensor([[3.0, 0.0], [0.0, 1.0]])),
        torch.tensor([[0.75, 0.0], [0.0, 0.25]], dtype=torch.float64),
    )
    same = task_covariance(torch.tensor([[1.0, 2.0], [1.0, 2.0]]))  # two outputs that are one
    torch.testing.assert_close(same, torch.full((2, 2), 0.5, dtype=torch.float64))


def test_the_prior_adds_its_gradient_to_the_last_layers_alone_and_not_to_absent_tasks():
    model, weighing = dynamic(covariance=2.0)
    both = weighing.tied({"landmarks": None, "smile": None})
    parts = [model.heads["landmarks"].linear.weight, model.heads["smile"].weight]
    outputs = 12
    torch.testing.assert_close(both, outputs * sum(p.square().sum() for p in parts))
    weighing.tied({"landmarks": None}).backward()
    torch.testing.assert_close(parts[0].grad, 2 * outputs * parts[0])
    assert parts[1].grad is None
    weighing.finish_epoch({})
    covariance = task_covariance(torch.cat(parts))
    ridge = 0.01 / outputs * torch.eye(outputs, dtype=torch.float64)
    torch.testing.assert_close(
        weighing.precision.double() @ (covariance + ridge), torch.eye(12).double(), atol=1e-3, rtol=0
    )


# --- every method of ours ---


def test_a_task_without_a_label_neither_moves_nor_is_remembered():
    model, weighing = toy("gradnorm", [*ROWS, [0.0, 2.0]])
    toy_step(model, weighing)
    before = weighing.memory()
    before = {name: value.clone() for name, value in before.items()}
    gradient = toy_step(model, weighing, missing=["gender"])
    torch.testing.assert_close(gradient, before["weights"][:2] @ torch.tensor(ROWS))
    assert weighing.weights[2] == before["weights"][2]
    assert weighing.first[2] == before["first"][2]
    assert model.heads["gender"].weight.grad is None
    assert weighing.weights.sum().item() == pytest.approx(3)
    assert weighing.weight_counts.tolist() == [2, 2, 1]


def test_a_batch_without_any_label_is_a_step_that_does_nothing():
    model, weighing = toy("gradnorm", ROWS)
    assert toy_step(model, weighing, missing=["smile", "glasses"]) is None
    assert weighing.weight_counts.tolist() == [0, 0]


def test_a_task_that_has_left_or_has_a_factor_of_0_takes_no_part():
    model, weighing = toy("gradnorm", ROWS)
    assert toy_step(model, weighing, stopped=["smile"]).tolist() == [1, 0]
    weighing.factors = {"smile": 0.0, "glasses": 3.0}  # the factor comes first
    assert toy_step(model, weighing).tolist() == [3, 0]


def test_bfloat16_changes_the_gradients_by_its_rounding_alone():
    for on in ("features", "parameters"):
        gradients = []
        for enabled in (False, True):
            model, weighing = toy("gradnorm", ROWS, on=on)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                gradients += [toy_step(model, weighing) for _ in range(3)][-1:]
            assert weighing.weights.dtype == torch.float32
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0.02, atol=0)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("backbone", ["tcdcn", "gridnet"])
def test_a_resumed_training_is_bitwise_the_whole_one_and_the_log_has_weights(tmp_path, folder, faces, name, backbone):
    options = SMALL_GRIDNET if backbone == "gridnet" else {}
    recipe = tiny_recipe(
        backbone=backbone, backbone_options=options, weighing=name, epochs=3, tasks=("landmarks", "smile", "pose")
    )
    if name == "dynamic":
        recipe = replace(recipe, weighing_options={"tau": 1})
    data = tiny_data(recipe, faces, folder / "cache")
    assert train_quietly(recipe, data, tmp_path / "whole")
    for stop in (3, 9):
        assert not train_quietly(recipe, data, tmp_path / "parts", max_steps=stop)
    assert train_quietly(recipe, data, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    rows = read_log(tmp_path / "whole")
    weights = [[float(row[f"weight/{task}"]) for task in recipe.tasks] for row in rows]
    assert weights[-1] != weights[0]
    assert all(weight >= 0 for row in weights for weight in row)
    if name == "gradnorm":
        assert [sum(row) for row in weights] == pytest.approx([3, 3, 3])


def test_a_checkpoint_holds_the_state_of_the_weighing_and_of_fixed_none(tmp_path, folder, faces):
    recipe = tiny_recipe(epochs=1)
    data = tiny_data(recipe, faces, folder / "cache")
    for name in ("fixed", "gradnorm"):
        train_quietly(replace(recipe, weighing=name), data, tmp_path / name, max_steps=2)
    kept = {name: load_file(tmp_path / name / CHECKPOINT) for name in ("fixed", "gradnorm")}
    assert not [key for key in kept["fixed"] if key.startswith("weighing.")]
    assert kept["gradnorm"]["weighing.weights"].shape == (5,)
    with pytest.raises(ConfigError, match="trained with other values of weighing; use another --out"):
        train_quietly(recipe, data, copy_run(tmp_path / "gradnorm", tmp_path / "other"))


def test_a_task_that_leaves_early_leaves_the_weighing(tmp_path, folder, faces):
    recipe = tiny_recipe(
        weighing="gradnorm", early_stopping=True, stop_k=3, stop_threshold=-1e12, epochs=4, tasks=("landmarks", "smile")
    )
    assert train_quietly(recipe, tiny_data(recipe, faces, folder / "cache"), tmp_path)
    rows = read_log(tmp_path)
    assert rows[-1]["stopped/smile"] == "3"
    assert (float(rows[2]["weight/smile"]) > 0, float(rows[3]["weight/smile"])) == (True, 0)


def test_a_grid_that_a_head_reads_is_where_features_are_shared(tmp_path, folder, faces):
    recipe = tiny_recipe(
        backbone="gridnet", backbone_options=SMALL_GRIDNET, points_head="heatmap", weighing="gradnorm", workers=0
    )
    run = Run(recipe, tiny_data(recipe, faces, folder / "cache"), tmp_path, torch.device("cpu"))
    run.step(run.dataset[0])
    assert run.weighing.shared._features[0].ndim == 4
    assert (run.weighing.weights != 1).all()


# --- recipes ---


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weighing": "gradnrom"}, "weighing = 'gradnrom', expected one of fixed, dynamic, gradnorm, uw,"),
        ({"weighing_options": {"alpha": 1.0}}, r"weighing = 'fixed' has no options \['alpha'\], it has none"),
        ({"weighing": "gradnorm", "weighing_options": {"beta": 1}}, r"no options \['beta'\], it has alpha, rate, on"),
        ({"weighing": "gradnorm", "weighing_options": {"alpha": -1}}, "alpha = -1, expected a number, at least 0"),
        ({"weighing": "gradnorm", "weighing_options": {"alpha": True}}, "alpha = True, expected a number"),
        ({"weighing": "gradnorm", "weighing_options": {"on": "heads"}}, "on = 'heads', expected one of features, par"),
        ({"weighing": "dynamic", "weighing_options": {"tau": 1.5}}, "tau = 1.5, expected a whole number"),
        ({"weighing": "dynamic", "weighing_options": {"tau": 0}}, "tau = 0, expected 1 epoch or more"),
        ({"weighing": "gradnorm", "tasks": ["landmarks"]}, "needs two tasks or more with weights over 0, there is"),
        ({"weighing": "mgda", "tasks": ["landmarks"]}, "needs two tasks .*: add tasks, or set weighing = 'fixed'"),
        ({"weighing": "gradnorm", "tasks": ["landmarks", "smile"], "weights": {"smile": 0.0}}, "needs two tasks"),
        ({"weighing": "gradnorm", "uncertainty": True}, "landmark_sigma can be under: set uncertainty = false, or wei"),
        ({"weighing": "dynamic", "tasks": ["smile", "pose"], "passes": 1}, "needs landmarks, its main task"),
        (
            {"weighing": "dynamic", "points_head": "heatmap", "backbone": "gridnet"},
            "no last layer .*: set weighing_options.covariance = 0, or another points_head",
        ),
    ],
)
def test_a_weighing_that_cannot_work_is_refused_with_what_to_change(values, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict({"name": "x", **values})


def test_the_default_is_fixed_and_every_name_of_the_issue_is_there():
    assert Recipe(name="x").weighing == "fixed"
    assert {"fixed", "dynamic", "gradnorm", "uw", "dwa", "imtl_l", "famo", "stch"} <= set(WEIGHINGS)
    assert {"mgda", "pcgrad", "cagrad", "nash_mtl", "imtl_g", "aligned_mtl", "graddrop", "upgrad", "pcd"} <= set(
        WEIGHINGS
    )
