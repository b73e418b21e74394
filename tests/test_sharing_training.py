"""Ways of sharing in a training: penalties, missing labels, weighings, resume, and a model that predicts."""

import numpy as np
import pytest
import torch
from tiny_training import SMALL_GRIDNET, new_run, results, tiny_recipe, train_quietly

from facemtl.errors import ConfigError, ModelError
from facemtl.models.files import load_model
from facemtl.models.sharing.registry import SHARINGS, shares_nothing
from facemtl.predictor import Predictor
from facemtl.training.engine import MODEL, Run
from facemtl.training.export import export_onnx
from facemtl.training.recipe import recipe_from_dict
from facemtl.training.sharing import PENALTY

TASKS = ("landmarks", "smile", "pose")
CASCADE = {"landmarks": ["pose"], "smile": ["landmarks"]}
SOFT = [name for name in SHARINGS if name.startswith("soft")]


def recipe_of(**changes):
    return tiny_recipe(**{"tasks": TASKS, "snapshots": 0, **changes})


def batch_of(run: Run, missing: str = ""):
    batch = run.dataset[0]
    if missing:
        batch.targets[missing] = torch.full_like(batch.targets[missing], -1)
    return batch


def gradients(run: Run, missing: str = "") -> dict[str, torch.Tensor | None]:
    batch = batch_of(run, missing)
    run.backward(batch.images, batch)
    return {name: p.grad for name, p in run.model.named_parameters()}


# --- penalties ---


@pytest.mark.parametrize("sharing", SOFT)
def test_the_penalty_adds_its_gradient_and_stands_in_the_log(tmp_path, data, sharing):
    strengths = [key for key in SHARINGS[sharing].options if key in ("strength", "block", "sparse")]
    without, with_it = (
        new_run(recipe_of(sharing=sharing, sharing_options=dict.fromkeys(strengths, s)), data, tmp_path)
        for s in (0.0, 0.01)
    )
    plain, tied = gradients(without), gradients(with_it)
    with_it.model.zero_grad()
    penalty = with_it.model.backbone.penalty(TASKS)
    penalty.backward()
    for name, p in with_it.model.named_parameters():
        expected = plain[name] if p.grad is None else plain[name] + p.grad
        torch.testing.assert_close(tied[name], expected, rtol=1e-4, atol=1e-6)
    assert with_it.progress.sums[PENALTY].item() == pytest.approx(penalty.item(), rel=1e-5)
    assert without.progress.sums[PENALTY].item() == 0


def test_what_is_tied_comes_nearer(tmp_path, data):
    distances = []
    for strength in (0.0, 10.0):
        recipe = recipe_of(sharing="soft_mean", sharing_options={"strength": strength}, weight_decay=0.0)
        run = new_run(recipe, data, tmp_path)
        for step in range(4):
            run.step(run.dataset[step])
        model = run.model.backbone
        distances.append(sum(model.of_stack(stack) for stack in model.stacks(())).item())
    assert distances[1] < distances[0] / 1.05


# --- missing labels, tasks that have left ---


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_task_without_a_label_has_no_gradient(tmp_path, data, sharing):
    run = new_run(recipe_of(sharing=sharing, cascade=CASCADE), data, tmp_path)
    found = gradients(run, missing="pose")
    mine = [grad for name, grad in found.items() if name.startswith(("backbone.own.pose.", "heads.pose."))]
    assert len(mine) >= 2
    assert all(grad is None or not grad.any() for grad in mine)
    assert all(grad.isfinite().all() for grad in found.values() if grad is not None)
    assert found["heads.landmarks.linear.weight"].any()


def test_gradients_of_a_cascade_reach_the_task_that_is_read_only_if_they_may(tmp_path, data):
    for allowed in (False, True):
        run = new_run(recipe_of(cascade=CASCADE, cascade_gradients=allowed), data, tmp_path)
        grad = gradients(run, missing="pose")["heads.pose.weight"]
        assert (grad is not None and bool(grad.any())) == allowed


@pytest.mark.parametrize("sharing", ["separate", "soft_pairwise", "mtan"])
def test_a_task_that_has_left_stays_where_it_is(tmp_path, data, sharing):
    recipe = recipe_of(sharing=sharing, early_stopping=True, optimiser="sgd", momentum=0.0)
    run = new_run(recipe, data, tmp_path)
    run.progress.stopper.stopped["smile"] = 1
    names = ("backbone.own.smile.", "heads.smile.")
    before = {name: p.clone() for name, p in run.model.named_parameters() if name.startswith(names)}
    run.step(batch_of(run))
    after = dict(run.model.named_parameters())
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert after["heads.pose.weight"].grad.any()


# --- weighings ---

SHARING_SOMETHING = [
    *((name, {}) for name in SHARINGS if not shares_nothing(name, {})),
    ("hard", {"split": 2}),
    ("soft_trace", {"split": 3}),
]


@pytest.mark.parametrize(("sharing", "options"), SHARING_SOMETHING)
@pytest.mark.parametrize("on", ["parameters", "features"])
def test_the_sum_of_gradients_on_what_is_shared_is_the_gradient_of_the_sum(tmp_path, data, sharing, options, on):
    changes = {"sharing": sharing, "sharing_options": options, "cascade": CASCADE}
    if on == "features" and sharing in ("cross_stitch", "mtan", "mmoe", "ple"):
        with pytest.raises(ConfigError, match=r"do not read the same features: set weighing_options.on = 'parameters'"):
            recipe_of(**changes, weighing="sum", weighing_options={"on": on})
        return
    plain = gradients(new_run(recipe_of(**changes), data, tmp_path))
    run = new_run(recipe_of(**changes, weighing="sum", weighing_options={"on": on}), data, tmp_path)
    for name, grad in gradients(run).items():
        torch.testing.assert_close(grad, plain[name], rtol=1e-4, atol=1e-5)


def test_an_aggregator_changes_what_is_shared_alone(tmp_path, data):
    changes = {"sharing": "hard", "sharing_options": {"split": 2}}
    plain = gradients(new_run(recipe_of(**changes), data, tmp_path))
    other = gradients(new_run(recipe_of(**changes, weighing="mgda"), data, tmp_path))
    for name, grad in other.items():
        same = torch.allclose(grad, plain[name], rtol=1e-4, atol=1e-6)
        assert same == (not name.startswith("backbone.trunk.")), name


@pytest.mark.parametrize("cascade", [CASCADE, {"smile": ["landmarks"]}, {"landmarks": ["smile", "pose"]}])
@pytest.mark.parametrize("on", ["parameters", "features"])
def test_a_mean_is_a_third_of_the_sum_of_three_tasks_also_in_a_cascade(tmp_path, data, cascade, on):
    plain = gradients(new_run(recipe_of(cascade=cascade), data, tmp_path))
    run = new_run(recipe_of(cascade=cascade, weighing="mean", weighing_options={"on": on}), data, tmp_path)
    for name, grad in gradients(run).items():
        expected = plain[name] if name.startswith("heads.") else plain[name] / 3
        torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-5)


# --- whole trainings ---


@pytest.mark.parametrize(
    ("sharing", "changes"),
    [
        ("mtan", {"cascade": CASCADE}),
        pytest.param("soft_dirty", {}, marks=pytest.mark.slow),
        pytest.param("cross_stitch", {"weighing": "upgrad"}, marks=pytest.mark.slow),
        pytest.param("soft_trace", {"early_stopping": True}, marks=pytest.mark.slow),
        pytest.param("ple", {"weighing": "gradnorm", "weighing_options": {"on": "parameters"}}, marks=pytest.mark.slow),
        pytest.param("mmoe", {"uncertainty": True, "cascade": CASCADE}, marks=pytest.mark.slow),
        pytest.param("soft_group", {"sharing_options": {"q": "inf"}}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_training_is_bitwise_the_whole_one(tmp_path, data, sharing, changes):
    recipe = recipe_of(sharing=sharing, **changes)
    assert train_quietly(recipe, data, tmp_path / "whole")
    assert not train_quietly(recipe, data, tmp_path / "parts", max_steps=3)
    assert train_quietly(recipe, data, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    model, spec = load_model(tmp_path / "whole" / MODEL)
    assert (spec.sharing, dict(spec.sharing_options)) == (sharing, dict(recipe.sharing_options))
    assert model.tasks == TASKS


@pytest.mark.slow
def test_a_shared_model_predicts_the_same_from_both_files(tmp_path, faces, data):
    recipe = recipe_of(sharing="mtan", cascade=CASCADE, epochs=1)
    assert train_quietly(recipe, data, tmp_path)
    export_onnx(tmp_path / MODEL, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    box = [[10.0, 10.0, 80.0, 80.0]]
    one, other = (Predictor(tmp_path / name)(images, boxes=box)[0] for name in (MODEL, "model.onnx"))
    np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-2)
    assert one.attributes.keys() == other.attributes.keys() == {"smile", "pose"}
    for name, attribute in one.attributes.items():
        assert attribute.confidence == pytest.approx(other.attributes[name].confidence, abs=1e-3)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_heat_maps_are_read_from_a_grid_of_the_task(sharing):
    options = {"split": -2} if "split" in SHARINGS[sharing].options else {}
    recipe = recipe_of(
        sharing=sharing,
        sharing_options=options,
        backbone="gridnet",
        backbone_options=SMALL_GRIDNET,
        points_head="heatmap",
        uncertainty=True,
    )
    model = recipe.create_model().eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    outputs = model(images)
    assert outputs["landmarks"].shape == (2, 5, 2)
    assert not torch.equal(outputs["landmarks"][0], outputs["landmarks"][1])


# --- recipes ---


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sharing": "mtam"}, "recipe 'x': sharing = 'mtam', expected one of hard, separate"),
        (
            {"sharing": "mmoe", "sharing_options": {"experts": 0}},
            "sharing_options.experts = 0, expected a whole number",
        ),
        ({"sharing": "soft_mean", "tasks": ["landmarks"]}, "needs two tasks or more"),
        ({"sharing": "separate", "weighing": "mgda"}, "shares nothing: set weighing = 'fixed', or another sharing"),
        ({"sharing": "soft_mean", "weighing": "gradnorm"}, "shares nothing"),
        ({"sharing": "mtan", "weighing": "gradnorm"}, r"set weighing_options.on = 'parameters'"),
        ({"sharing": "mtan", "weighing": "dynamic"}, r"set weighing_options.covariance = 0"),
        ({"cascade": CASCADE, "weighing": "dynamic"}, r"set weighing_options.covariance = 0"),
        ({"cascade": {"pose": ["landmarks"], "landmarks": ["pose"]}}, "the cascade goes round in a circle"),
        ({"cascade": {"pose": "landmarks"}}, "cascade.pose = 'landmarks', expected a list of tasks"),
        ({"cascade": {"angles": ["pose"]}}, "'angles' is not among the tasks"),
        (
            {"cascade": {"landmarks": ["pose"]}, "points_head": "heatmap", "backbone": "gridnet"},
            "reads the grid alone: leave landmarks out of cascade",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_change(values, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict({"name": "x", **values})


def test_all_stages_shared_by_their_number_are_the_plain_network():
    torch.manual_seed(0)
    plain = recipe_of().create_model()
    torch.manual_seed(0)
    counted = recipe_of(sharing_options={"split": 5}).create_model()
    assert plain.state_dict().keys() == counted.state_dict().keys()
    assert all(torch.equal(value, counted.state_dict()[key]) for key, value in plain.state_dict().items())


def test_a_split_beyond_the_backbone_is_an_error_before_training():
    with pytest.raises(ModelError, match=r"split = 9: the backbone has 5 stages, expected .* from -5 to 5 or 'end'"):
        recipe_of(sharing="hard", sharing_options={"split": 9}).create_model()
    with pytest.raises(ModelError, match="from -5 to 4: 1 or more must be left to the tasks"):
        recipe_of(sharing="mmoe", sharing_options={"split": 5}).create_model()
