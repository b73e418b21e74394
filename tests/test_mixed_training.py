"""Training from several sets that each label some tasks, from given parameters, and with teachers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import (
    copy_run,
    mixed_data,
    mixed_recipe,
    new_run,
    read_log,
    results,
    tiny_data,
    tiny_recipe,
    tiny_sets,
    train_quietly,
)

from facemtl.data.turning import with_turned
from facemtl.errors import ConfigError, ModelError
from facemtl.models.files import load_model, save_model
from facemtl.training.batches import Batch
from facemtl.training.engine import MODEL, Run, train
from facemtl.training.looking import look, readable_figures
from facemtl.training.losses import task_losses
from facemtl.training.training_data import TrainingData


@pytest.fixture(scope="module")
def data(folder, faces) -> TrainingData:
    """For :func:`mixed_recipe`."""
    return mixed_data(mixed_recipe(), faces, folder / "cache")


@pytest.fixture(scope="module")
def teacher(folder) -> Path:
    """An untrained model with all tasks, which answers differently from face to face."""
    torch.manual_seed(9)
    recipe = mixed_recipe(name="teacher")
    model = recipe.create_model()
    for head in model.heads.parameters():
        torch.nn.init.normal_(head, std=0.1)
    save_model(folder / "teacher.safetensors", model, recipe.spec(32, 3))
    return folder / "teacher.safetensors"


# --- several sets ---


def test_a_small_gridnet_can_learn_all_tasks_of_eight_faces_by_heart(tmp_path, folder, faces):
    plain = {"balance": 0.0, "dropout": 0.0, "smoothing": 0.0, "ema": 0.0, "weight_decay": 0.0}
    weights = {"landmark_sigma": 0.05, "landmarks_ibug68": 0.1}
    recipe = mixed_recipe(epochs=150, learning_rate=5e-3, weights=weights, **plain)
    data = TrainingData.of(recipe, 3, folder / "cache", tiny_sets(faces[8:16]), tiny_sets(faces[:8]), progress=False)
    run = new_run(recipe, data, tmp_path)
    assert run.steps == 300  # 8 + 4 + 4 crops an epoch
    seen = Run(recipe, replace(data, heldout=data.train), tmp_path, torch.device("cpu")).looked_at
    parts = [seen["heldout"], seen["heldout_genki4k"], seen["heldout_udacity68"]]
    everything = Batch(
        torch.cat([part.images for part in parts]),
        {task: torch.cat([part.targets[task] for part in parts]) for task in recipe.tasks},
    )
    before = look(run.average, everything, run.recipe)
    for _ in range(300):
        run.step(everything)
    after = look(run.average, everything, run.recipe)
    assert after["nme"] < 3
    assert after["landmarks_ibug68_nme"] < 5
    assert after["angles_error"] < 2  # degrees; it starts at over 10
    assert before["angles_error"] > 10
    for task in ("glasses", "smile", "gender", "pose"):
        assert after[f"{task}_accuracy"] == 100, task
    assert after["landmark_sigma"] < before["landmark_sigma"] - 1
    with torch.no_grad():
        outputs = run.average(parts[0].images)
    error = (outputs["landmarks"] - parts[0].targets["landmarks"]).abs().mean()
    assert error < outputs["landmark_sigma"].mean() < 0.007  # a third of the 0.021 that it starts with


def test_the_log_tells_every_set_and_how_many_labels_there_were(tmp_path, data):
    recipe = mixed_recipe(balance=0.0)
    assert train_quietly(recipe, data, tmp_path)
    assert load_model(tmp_path / MODEL)[1] == recipe.spec(32, 3)
    first, _ = read_log(tmp_path)
    counts = {key.removeprefix("labelled/"): int(v) for key, v in first.items() if key.startswith("labelled/")}
    # 32 faces of the main set, and half as many of the others: angles and smile in one, 68 points in the other
    attributes = {"glasses": 32, "smile": 32 + 16, "gender": 32, "pose": 32}
    assert counts == {"landmarks": 32, "landmarks_ibug68": 16, "angles": 16, **attributes}
    assert {key for key in first if key.startswith("augmented/")} == {
        *(f"augmented/{name}" for name in (*recipe.tasks, "landmark_sigma"))
    }
    main = {*("landmarks", "landmark_sigma", "nme", *attributes), *(f"{task}_accuracy" for task in attributes)}
    for prefix, figures in (
        ("train/", main),
        ("heldout/", main),
        ("heldout_genki4k/", {"smile", "smile_accuracy", "angles", "angles_error"}),
        ("heldout_udacity68/", {"landmarks_ibug68", "landmarks_ibug68_nme"}),
    ):
        assert {key.removeprefix(prefix) for key in first if key.startswith(prefix)} == figures
    assert all(np.isfinite(float(value)) for value in first.values())


def test_copies_of_turned_faces_are_learned_from(tmp_path, folder, faces):
    recipe = tiny_recipe(turned=1.0, epochs=1)
    data = tiny_data(recipe, faces, folder / "cache")
    copies = len(with_turned(data.train["mtfl"], 1.0, "mtfl5", recipe.seed)) - 32
    assert copies >= 8
    assert train_quietly(recipe, data, tmp_path)
    (row,) = read_log(tmp_path)
    seen = (32 + copies) // 8 * 8  # whole batches
    assert int(row["labelled/landmarks"]) == int(row["labelled/smile"]) == seen
    assert seen - copies <= int(row["labelled/pose"]) <= 32


def test_readable_figures_by_hand():
    nan = float("nan")
    aim = torch.zeros(2, 5, 2)
    aim[:, 1, 0] = torch.tensor([0.5, nan])  # the eyes are half a crop apart; one eye of the second face is missing
    output = aim.clone().nan_to_num()
    output[0, 2] += torch.tensor([0.03, 0.04])  # one of five points is off by a twentieth
    assert readable_figures("landmarks", output, aim, "mtfl5") == {"nme": pytest.approx(100 * 0.01 / 0.5)}
    angles = torch.tensor([[1.0, 2, nan], [nan, nan, nan]])
    assert readable_figures("angles", torch.tensor([[2.0, -1, 5], [1, 1, 1]]), angles, "mtfl5") == {"angles_error": 2}
    smile = readable_figures("smile", torch.tensor([[1.0, 0], [1, 0], [1, 0]]), torch.tensor([0, 1, -1]), "mtfl5")
    assert smile == {"smile_accuracy": 50}


def test_the_main_set_comes_first_however_sets_are_given(folder, faces):
    recipe = mixed_recipe()
    sets = dict(reversed(tiny_sets(faces).items()))
    data = TrainingData.of(recipe, 3, folder / "cache", sets, sets, progress=False)
    assert next(iter(data.train)) == next(iter(data.heldout)) == "mtfl"
    assert set(data.train) == set(sets)


def test_a_task_that_the_main_set_does_not_label_never_leaves_early(tmp_path, data):
    recipe = mixed_recipe(early_stopping=True, stop_k=3, stop_threshold=-1e12, epochs=4, balance=0.0)
    assert train_quietly(recipe, data, tmp_path)
    last = read_log(tmp_path)[-1]
    stopped = {key.removeprefix("stopped/"): last[key] for key in last if key.startswith("stopped/")}
    main = dict.fromkeys(("glasses", "smile", "gender", "pose"), "3")
    assert stopped == {**main, "angles": "0", "landmarks_ibug68": "0"}


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_every_head_trains_and_what_only_training_sees_is_not_looked_at(tmp_path, data, head):
    recipe = mixed_recipe(points_head=head, epochs=1)
    assert train_quietly(recipe, data, tmp_path)
    (row,) = read_log(tmp_path)
    assert ("augmented/landmarks_logits" in row) == (head == "simcc")
    assert not {"train/landmarks_logits", "heldout/landmarks_logits"} & set(row)


# --- given parameters ---


def test_a_training_starts_from_the_parameters_it_is_given(tmp_path, data, teacher):
    run = new_run(mixed_recipe(init=str(teacher)), data, tmp_path)
    expected = load_model(teacher)[0].state_dict()
    for network in (run.model, run.average):
        for key, value in network.state_dict().items():
            assert torch.equal(value, expected[key]), key


def test_parameters_that_do_not_fit_are_refused(tmp_path, data, teacher):
    with pytest.raises(ModelError, match=r"teacher\.safetensors holds the parameters of another model"):
        train(mixed_recipe(init=str(teacher), uncertainty=False), data, tmp_path, "cpu", progress=False)
    with pytest.raises(ModelError, match=r"gone\.safetensors is missing or damaged"):
        train(mixed_recipe(init="gone.safetensors"), data, tmp_path, "cpu", progress=False)


# --- teachers ---


def gradients(run: Run) -> dict[str, torch.Tensor]:
    return {key: parameter.grad.clone() for key, parameter in run.model.named_parameters()}


@pytest.mark.parametrize("lesson", [0.0, 0.25, 1.0])
def test_a_lesson_has_its_share_of_the_loss(tmp_path, data, lesson):
    recipe = mixed_recipe(lesson=lesson, dropout=0.0, smoothing=0.1)
    run = new_run(recipe, data, tmp_path)
    batch = run.dataset[0]
    generator = torch.Generator().manual_seed(0)
    taught = {
        "landmarks": 0.2 * torch.randn(8, 5, 2, generator=generator),
        "pose": torch.randn(8, 5, generator=generator).softmax(dim=1),
        "angles": 20 * torch.randn(8, 3, generator=generator),
    }
    outputs = run.model.train()(batch.images)

    labels, lessons = (
        task_losses(outputs, targets, "mtfl5", "l1", eye_scaled=True, smoothing=0.1)
        for targets in (batch.targets, taught)
    )
    del lessons["landmark_sigma"]  # of which a teacher's points say nothing
    mixed = {
        name: (1 - lesson) * loss + lesson * lessons[name] if name in lessons else loss for name, loss in labels.items()
    }
    sum(recipe.weights.get(name, 1.0) * loss for name, loss in mixed.items()).backward()
    expected = gradients(run)
    run.step(replace(batch, taught=taught))
    for key, gradient in gradients(run).items():
        torch.testing.assert_close(gradient, expected[key], msg=key)
    assert expected["heads.landmarks.spread.weight"].any()
    assert expected["heads.smile.weight"].any()  # not taught here: its labels are all of its loss
    assert expected["heads.pose.weight"].any()


def test_without_teachers_the_labels_are_the_whole_loss(tmp_path, data):
    runs = [new_run(mixed_recipe(lesson=lesson), data, tmp_path) for lesson in (0.0, 0.9)]
    for run in runs:
        run.step(run.dataset[0])
    first, second = (gradients(run) for run in runs)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_student_learns_what_no_label_says(tmp_path, folder, faces, teacher):
    # The points of the main set are labelled, nothing else; the teacher's angles are all there is of angles.
    recipe = tiny_recipe(
        tasks=("landmarks", "angles"),
        backbone="gridnet",
        backbone_options=mixed_recipe().backbone_options,
        teachers=(str(teacher),),
        lesson=1.0,
        epochs=1,
        ema=0.0,
    )
    unlabelled = [replace(face, angles=np.full(3, np.nan, np.float32)) for face in faces]
    labelled = [replace(unlabelled[0], angles=np.zeros(3, np.float32)), *unlabelled[1:8], *unlabelled[8:]]
    labelled[8] = replace(labelled[8], angles=np.zeros(3, np.float32))  # one on either side, or the recipe is refused
    data = tiny_data(recipe, labelled, folder / "cache")
    assert train_quietly(recipe, data, tmp_path)
    (row,) = read_log(tmp_path)
    assert row["labelled/angles"] == "1"
    assert len(list(tmp_path.glob("taught-*.npz"))) == 1
    untaught = replace(recipe, teachers=(), epochs=1)
    train_quietly(untaught, data, tmp_path / "untaught")
    heads = [load_model(path / MODEL)[0].heads["angles"].linear for path in (tmp_path, tmp_path / "untaught")]
    assert not torch.equal(heads[0].weight, heads[1].weight)


def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, folder, faces, teacher):
    recipe = tiny_recipe(teachers=(str(teacher),))
    with pytest.raises(ConfigError, match=r"mtfl5 points and 3 channels; the student needs mtfl5 and 1"):
        train(recipe, tiny_data(recipe, faces, folder / "cache"), tmp_path / "run", "cpu", progress=False)
    assert not (tmp_path / "run").exists()


# --- stopped and continued ---


def test_a_training_of_several_sets_with_a_teacher_continues_bitwise(tmp_path, data, teacher):
    recipe = mixed_recipe(teachers=(str(teacher),), lesson=0.5, turned=0.25)
    assert train_quietly(recipe, data, tmp_path / "whole")
    for stop in (3, 9, 11):
        assert not train_quietly(recipe, data, tmp_path / "stopped", max_steps=stop)
    copy_run(tmp_path / "stopped", tmp_path / "other lesson")
    assert train_quietly(recipe, data, tmp_path / "stopped")
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    with pytest.raises(ConfigError, match="trained with other values of lesson; use another --out"):
        train(replace(recipe, lesson=0.4), data, tmp_path / "other lesson", "cpu", progress=False)
