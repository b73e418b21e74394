"""Methods of torchjd in our training: closed forms, the library's own answers, missing labels, memory, bfloat16."""

import pytest
import torch
from tiny_training import SMALL_GRIDNET, read_log, results, tiny_data, tiny_recipe, train_quietly
from torch import tensor
from weighing_toy import toy, toy_batch, toy_losses, toy_step

from facemtl.errors import ConfigError, DependencyError
from facemtl.training.recipe import recipe_from_dict
from facemtl.training.weighing.library import Aggregated, OneATask, Scalarized
from facemtl.training.weighing.registry import WEIGHINGS, create_weighing

# The library and the solvers that some of its methods bring: pip install 'torchjd[full]'.
aggregation = pytest.importorskip("torchjd.aggregation")
scalarization = pytest.importorskip("torchjd.scalarization")
for solver in ("cvxpy", "ecos", "quadprog", "qpsolvers"):
    pytest.importorskip(solver)

# NashMTL's problem changes from step to step, and its solver says that this makes it no faster.
pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")

ROWS = [[3.0, 4.0], [1.0, 0.0]]
AGAINST = [[1.0, 0.0], [-0.5, 0.5]]  # gradients at an angle of 135 degrees
LOSSES = {name for name, method in WEIGHINGS.items() if method.kind in (OneATask, Scalarized)}
# Those that need three tasks are in test_weighing_robust.py.
GRADIENTS = {name for name, method in WEIGHINGS.items() if method.kind is Aggregated and not method.needs}
MEMORY = ["cr_mogm", "dwa", "excess_mtl", "famo", "gradvac", "imtl_l", "nash_mtl", "pcd", "uw"]


# --- closed forms ---


def weights_of(weighing) -> list[float]:
    return list(weighing.finish_epoch({}).values())


def test_uncertainty_weighting_by_hand():
    model, weighing = toy("uw", ROWS)
    torch.testing.assert_close(toy_step(model, weighing), tensor([2.0, 2.0]))  # half of the sum while s = 0
    learned = [part.log_var.grad.item() for part in weighing.scalarizers.values()]
    assert learned == [0.5 - 7 / 2, 0.5 - 1 / 2]  # d/ds of (L exp(-s) + s) / 2
    assert weights_of(weighing) == [0.5, 0.5]


def test_dwa_by_hand():
    model, weighing = toy("dwa", ROWS, temperature=2.0)
    for scale in (1.0, 0.5):
        torch.testing.assert_close(toy_step(model, weighing, scale=scale), scale * tensor([4.0, 4.0]))
        weighing.finish_epoch({})
    toy_step(model, weighing)
    assert weights_of(weighing) == pytest.approx([1, 1])  # both fell by half
    weighing.instance(("smile", "glasses"))._previous_averages = [tensor([2.0, 2.0]), tensor([2.0, 1.0])]
    toy_step(model, weighing)
    shares = torch.softmax(tensor([1.0, 0.5]) / 2, dim=0)
    assert weights_of(weighing) == pytest.approx((2 * shares).tolist())


@pytest.mark.parametrize("on", ["features", "parameters"])
def test_mgda_is_the_shortest_vector_between_two_gradients(on):
    model, weighing = toy("mgda", AGAINST, on=on)
    gradient = toy_step(model, weighing)
    # ((g2 - g1) . g2) / |g1 - g2|^2 = (1.5 * 0.5 + 0.5 * 0.5) / 2.5 of the first.
    torch.testing.assert_close(gradient, 0.4 * tensor([1.0, 0.0]) + 0.6 * tensor([-0.5, 0.5]))
    assert weights_of(weighing) == pytest.approx([0.4, 0.6], abs=1e-5)


def test_pcgrad_projects_each_gradient_off_the_other():
    model, weighing = toy("pcgrad", AGAINST)
    # g1 - (g1.g2 / |g2|^2) g2 = (0.5, 0.5); g2 - (g1.g2) g1 = (0, 0.5)
    torch.testing.assert_close(toy_step(model, weighing), tensor([0.5, 1.0]))


def test_upgrad_is_half_of_pcgrad_for_two_tasks():
    model, weighing = toy("upgrad", AGAINST)
    torch.testing.assert_close(toy_step(model, weighing), tensor([0.25, 0.5]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", sorted(GRADIENTS))
def test_an_aggregator_does_what_the_library_says_and_leaves_heads_the_sum(name):
    for on in ("features", "parameters"):
        model, weighing = toy(name, ROWS, on=on)
        torch.manual_seed(0)
        gradient = toy_step(model, weighing)
        instance = weighing._make(2)
        torch.manual_seed(0)
        # Two equal faces, each half of the loss: their features have a row of halves twice.
        rows = tensor(ROWS) if on == "parameters" else tensor(ROWS).repeat(1, 2) / 2
        expected = instance(rows)
        if on == "features":
            expected = expected.view(2, 2).sum(dim=0)
        torch.testing.assert_close(gradient, expected, atol=2e-3, rtol=1e-3)
        for task in model.tasks:
            torch.testing.assert_close(model.heads[task].weight.grad, tensor([[1.0, 1.0]]))
        if name not in ("graddrop",):
            weights = tensor(weights_of(weighing))
            torch.testing.assert_close(weights @ tensor(ROWS), gradient, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_scalarizer_does_what_the_library_says(name):
    model, weighing = toy(name, ROWS)
    torch.manual_seed(0)
    gradient = toy_step(model, weighing)
    values = tensor([7.0, 1.0], requires_grad=True)
    torch.manual_seed(0)
    if WEIGHINGS[name].kind is OneATask:
        parts = weighing._modules["scalarizers"].values()
        sum(part(value[None]) for part, value in zip(parts, values, strict=True)).backward()
    else:
        weighing._make(2)(values).backward()
    torch.testing.assert_close(gradient, values.grad @ tensor(ROWS))
    assert weights_of(weighing) == pytest.approx(values.grad.tolist())


# --- what holds for all ---


@pytest.mark.parametrize("name", sorted(LOSSES | GRADIENTS))
def test_a_task_without_a_label_leaves_no_trace(name):
    three, two = [*ROWS, [0.0, 2.0]], ROWS
    gradients = []
    for rows in (three, two):
        model, weighing = toy(name, rows)
        for _ in range(2):
            torch.manual_seed(0)
            gradients.append(toy_step(model, weighing, missing=["gender"] if rows is three else []))
        if rows is three:
            assert model.heads["gender"].weight.grad is None
            assert weighing.finish_epoch({})["weight/gender"] == 0
            assert all(parameter.grad is None for parameter in list(weighing.parameters())[2:])
    torch.testing.assert_close(gradients[:2], gradients[2:])


@pytest.mark.parametrize("name", sorted(LOSSES | GRADIENTS))
def test_one_task_and_none_in_a_batch(name):
    model, weighing = toy(name, ROWS)
    assert toy_step(model, weighing, missing=["smile", "glasses"]) is None
    gradient = toy_step(model, weighing, missing=["smile"])
    assert torch.isfinite(gradient).all()
    assert gradient[0] >= 0
    assert gradient[1] == 0
    if name in GRADIENTS:
        assert gradient.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["mgda", "pcgrad", "uw", "dwa"])
def test_bfloat16_changes_the_gradients_by_its_rounding_alone(name):
    gradients = []
    for enabled in (False, True):
        model, weighing = toy(name, AGAINST[::-1] if name in GRADIENTS else ROWS)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            gradients.append(toy_step(model, weighing))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.02, atol=0.01)


def test_famo_looks_at_the_batch_again_and_moves_no_running_mean():
    model, weighing = toy("famo", ROWS)
    toy_step(model, weighing)
    seen = model.backbone.seen.num_batches_tracked.item()
    weighing.look_again(lambda: toy_losses(model, scale=0.5), toy_batch(model), [])
    assert model.backbone.seen.num_batches_tracked.item() == seen == 1
    own = scalarization.FAMO(2)
    own(tensor([7.0, 1.0]))
    own.update(tensor([3.5, 0.5]))
    torch.testing.assert_close(weighing.instance(("smile", "glasses"))._w, own._w)


def test_the_points_are_the_first_row(folder, faces):
    recipe = tiny_recipe(tasks=("smile", "landmarks", "pose"), weighing="pcd")
    model = recipe.create_model()
    weighing = create_weighing(recipe, model)
    images = torch.randint(0, 255, (4, 1, 40, 40), dtype=torch.uint8)
    losses = {task: output.square().mean() for task, output in model(images).items()}
    losses = {task: losses[task] for task in recipe.tasks}
    weighing.combine(losses)
    assert list(weighing._instances) == [("landmarks", "smile", "pose")]


@pytest.mark.parametrize("name", MEMORY)
def test_a_resumed_training_is_bitwise_the_whole_one(tmp_path, folder, faces, name):
    recipe = tiny_recipe(
        backbone="gridnet", backbone_options=SMALL_GRIDNET, tasks=("landmarks", "smile"), weighing=name, epochs=3
    )
    data = tiny_data(recipe, faces, folder / "cache")
    assert train_quietly(recipe, data, tmp_path / "whole")
    for stop in (2, 10):
        assert not train_quietly(recipe, data, tmp_path / "parts", max_steps=stop)
    assert train_quietly(recipe, data, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert all(f"weight/{task}" in row for row in read_log(tmp_path / "whole") for task in recipe.tasks)


@pytest.mark.parametrize(
    ("weighing", "options", "message"),
    [
        ("stch", {"mu": 0.0}, "`mu` should be strictly positive"),
        ("aligned_mtl", {"scale_mode": "max"}, "Invalid scale_mode"),
        ("pcd", {"tau": 2.0}, r"must be in \[0, 1\]"),
        ("nash_mtl", {"update_weights_every": 0}, "positive integer"),
    ],
)
def test_what_the_library_refuses_is_refused_before_training(weighing, options, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict({"name": "x", "weighing": weighing, "weighing_options": options})


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchjd.aggregation", None)
    with pytest.raises(DependencyError, match=r"weighing = 'mgda': .* not installed: pip install"):
        recipe_from_dict({"name": "x", "weighing": "mgda"})
