"""Which tasks a step has, which faces it draws, how fast what learns: by hand, then in whole trainings."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import (
    mixed_data,
    mixed_recipe,
    new_run,
    read_log,
    results,
    tiny_data,
    tiny_recipe,
    train_quietly,
)

from facemtl.data.cache import CropCache
from facemtl.errors import ConfigError
from facemtl.models.files import save_model
from facemtl.training.batches import StepDataset
from facemtl.training.early_stopping import TaskStopper
from facemtl.training.engine import MODEL, Run
from facemtl.training.recipe import Recipe, recipe_from_dict
from facemtl.training.schedules.curriculum import Curriculum, difficulty, easiest_first, self_paced, turned
from facemtl.training.schedules.rates import own_value, parameter_groups, set_rates
from facemtl.training.schedules.timetable import Timetable

nan = float("nan")


# --- which tasks a step has ---


def test_a_task_of_period_3_takes_part_in_steps_0_3_6():
    table = Timetable(("landmarks", "smile"), periods={"smile": 3})
    assert [step for step in range(10) if "smile" not in table.absent(step, 4)] == [0, 3, 6, 9]
    assert all("landmarks" not in table.absent(step, 4) for step in range(10))
    assert table.steps(0, 4) == {"landmarks": 4, "smile": 2}  # 0 and 3
    assert table.steps(1, 4) == {"landmarks": 4, "smile": 1}  # 6


def test_tasks_join_after_one_epoch_and_leave_after_two():
    table = Timetable(("landmarks", "smile", "pose"), joins={"smile": 1}, leaves={"pose": 2})
    assert [table.present(epoch) for epoch in range(3)] == [
        ("landmarks", "pose"),
        ("landmarks", "smile", "pose"),
        ("landmarks", "smile"),
    ]
    assert [sorted(table.absent(step, 2)) for step in range(6)] == [["smile"]] * 2 + [[]] * 2 + [["pose"]] * 2


def test_an_empty_timetable_keeps_nobody_out():
    table = Timetable(("landmarks", "smile"))
    assert not table
    assert table.absent(7, 4) == frozenset()


def heads_that_move(run: Run, steps: int) -> list[set[str]]:
    moved = []
    for step in range(steps):
        before = {task: [p.detach().clone() for p in head.parameters()] for task, head in run.model.heads.items()}
        run.step(run.dataset[step])
        after = {task: list(head.parameters()) for task, head in run.model.heads.items()}
        moved.append(
            {t for t in before if not all(torch.equal(a, b) for a, b in zip(before[t], after[t], strict=True))}
        )
    return moved


@pytest.mark.parametrize("weighing", ["fixed", "uw"])
def test_a_head_moves_in_the_steps_of_its_task_alone(tmp_path, data, weighing):
    tasks = ("landmarks", "smile", "pose")
    recipe = tiny_recipe(tasks=tasks, periods={"smile": 3}, joins={"pose": 1}, weighing=weighing, weight_decay=0.1)
    # 4 steps an epoch: smile in 0, 3 and 6, pose from 4 on
    moved = heads_that_move(new_run(recipe, data, tmp_path), 7)
    assert moved == [
        {"landmarks", "smile"},
        {"landmarks"},
        {"landmarks"},
        {"landmarks", "smile"},
        {"landmarks", "pose"},
        {"landmarks", "pose"},
        {"landmarks", "smile", "pose"},
    ]


def test_points_out_of_a_step_are_out_with_all_that_their_head_gives(tmp_path, folder, faces):
    recipe = mixed_recipe(periods={"landmarks": 2})
    run = new_run(recipe, mixed_data(recipe, faces, folder / "cache"), tmp_path)
    moved = heads_that_move(run, 2)
    assert "landmarks" in moved[0]
    assert "landmarks" not in moved[1]


def test_the_log_says_how_many_steps_a_task_had(tmp_path, data):
    recipe = tiny_recipe(tasks=("landmarks", "smile"), periods={"smile": 3}, leaves={"smile": 1})
    assert train_quietly(recipe, data, tmp_path)
    assert [(row["steps/landmarks"], row["steps/smile"]) for row in read_log(tmp_path)] == [("4", "2"), ("4", "0")]


def test_early_stopping_judges_a_task_from_when_it_joined():
    stopper = TaskStopper(k=3, threshold=-1e12, joined={"smile": 2})
    for _ in range(3):
        stopper.update({"smile": 1.0}, {"smile": 2.0})
    assert stopper.stopped == {"smile": 5}  # the third of its epochs is the fifth of the training


def test_a_late_task_is_stopped_late(tmp_path, data):
    recipe = tiny_recipe(
        tasks=("landmarks", "smile", "pose"), joins={"smile": 1}, early_stopping=True, stop_k=3, stop_threshold=-1e12
    )
    assert train_quietly(replace(recipe, epochs=5), data, tmp_path)
    assert [row["stopped/smile"] for row in read_log(tmp_path)] == ["0", "0", "0", "4", "4"]
    assert read_log(tmp_path)[2]["stopped/pose"] == "3"


# --- from easy to hard ---


def test_the_competence_is_a_square_root():
    curriculum = Curriculum("pose_size", start=0.6, epochs=4)
    assert [curriculum.share(epoch) for epoch in range(6)] == pytest.approx(
        [0.6, 0.52**0.5, 0.68**0.5, 0.84**0.5, 1, 1]  # 0.36 + 0.64 t / 4
    )
    assert [curriculum.admitted(10, epoch) for epoch in range(5)] == [6, 8, 9, 10, 10]
    assert Curriculum("pose_size", 0.3, 1).admitted(10, 0) == 3  # not 4, for 0.3 is a little more in binary


def faces_of(yaws, sides, classes=None) -> CropCache:
    count = len(yaws)
    return CropCache(
        np.zeros((count, 8, 8), np.uint8),
        np.full((count, 5, 2), np.nan, np.float32),
        {} if classes is None else {"pose": np.array(classes)},
        "mtfl5",
        np.float32([[yaw, 0, 0] for yaw in yaws]),
        sides=np.float32(sides),
    )


def test_turned_and_small_faces_are_hard():
    cache = faces_of([0, -30, 60, 0], [100, 50, 200, 25])
    # Ranks by yaw 1.5, 3, 4, 1.5 and by smallness 2, 3, 1, 4, each less a half and of 4; the mean of both.
    assert difficulty(cache).tolist() == [0.3125, 0.625, 0.5, 0.5625]
    assert easiest_first(cache, np.arange(4)).tolist() == [0, 2, 3, 1]
    assert easiest_first(cache, np.array([0, 1, 1, 3])).tolist() == [0, 3, 1, 1]


def test_what_nobody_knows_of_a_face_is_in_the_middle():
    cache = faces_of([nan, 10, 20], [nan, nan, nan])
    assert difficulty(cache).tolist() == [0.5, (0.25 + 0.5) / 2, (0.75 + 0.5) / 2]
    assert difficulty(replace(cache, sides=None)).tolist() == difficulty(cache).tolist()


def test_how_far_a_face_is_turned_is_in_its_angles_its_class_or_its_points():
    cache = faces_of([nan, nan, -12, nan], [1, 1, 1, 1], classes=[0, 3, 0, -1])
    cache.points[3] = [[30, 30], [60, 30], [45, 48], [33, 62], [57, 62]]  # looks into the camera
    assert turned(cache).tolist() == pytest.approx([60, 30, 12, 0], abs=1e-4)


def test_the_cache_knows_how_large_faces_are(data, faces):
    from facemtl.data.sample import face_box

    boxes = np.array([face_box(face) for face in faces[8:]])
    np.testing.assert_allclose(data.train["mtfl"].sides, (boxes[:, 2:] - boxes[:, :2]).max(axis=1), rtol=1e-4)


def shown(dataset: StepDataset, epoch: int) -> list[int]:
    return sorted(dataset._epoch_order(epoch)[:, 1].tolist())


def test_an_epoch_draws_from_the_admitted_faces_alone(data):
    cache = data.train["mtfl"]
    easy = easiest_first(cache, np.arange(32))
    recipe = tiny_recipe()
    make = recipe.augmentation(40, 1)
    dataset = StepDataset(data.train, make, recipe.tasks, 8, 3, curriculum=Curriculum("pose_size", 0.5, 2))
    assert shown(dataset, 0) == sorted([*easy[:16], *easy[:16]])  # 32 crops of 16 faces: each twice
    admitted = 26  # of 32: sqrt(0.25 + 0.75 / 2) = 0.79
    seen = shown(dataset, 1)
    assert set(seen) == set(easy[:admitted])
    assert len(seen) == 32
    assert shown(dataset, 2) == list(range(32))
    assert dataset.steps_per_epoch == 4


def test_the_smallest_losses_of_a_batch_count_task_by_task():
    outputs = {
        "landmarks": torch.tensor([1.0, 3.0, 2.0, 0.0]).reshape(4, 1, 1).expand(4, 5, 2),
        "landmark_sigma": torch.ones(4, 5),
        "smile": torch.tensor([[0.0, 0], [0, 1], [0, 2], [0, 3]]),
    }
    targets = {
        "landmarks": torch.tensor([0.0, 0, 0, nan]).reshape(4, 1, 1).repeat(1, 5, 2),
        "smile": torch.tensor([0, 0, 0, -1]),
    }
    from facemtl.training.losses import task_losses

    kept = self_paced(outputs, targets, 0.5, task_losses)
    # Three faces are labelled: two stay, those with the errors 1 and 2, and with the logits 0 and 1 against them.
    assert torch.isfinite(kept["landmarks"][:, 0, 0]).tolist() == [True, False, True, False]
    assert kept["smile"].tolist() == [0, 0, -1, -1]
    few = self_paced(outputs, targets, 0.01, task_losses)
    assert few["smile"].tolist() == [0, -1, -1, -1]
    everything = self_paced(outputs, targets, 1.0, task_losses)
    assert torch.equal(everything["landmarks"].nan_to_num(), targets["landmarks"].nan_to_num())
    none = self_paced(outputs, {"smile": torch.full((4,), -1)}, 0.5, task_losses)
    assert none["smile"].tolist() == [-1] * 4


def test_a_self_paced_step_has_the_gradient_of_the_easy_faces(tmp_path, data):
    recipe = tiny_recipe(tasks=("smile",), passes=1, curriculum={"by": "loss", "start": 0.5, "epochs": 2})
    run, plain = (new_run(r, data, tmp_path) for r in (recipe, replace(recipe, curriculum={})))
    batch = run.dataset[0]
    logits = run.model.train()(batch.images)["smile"]
    worst = torch.nn.functional.cross_entropy(logits, batch.targets["smile"], reduction="none").argsort()[4:]
    easy = batch.targets["smile"].clone()
    easy[worst] = -1
    run.step(batch)
    plain.step(replace(batch, targets={"smile": easy}))
    for (name, a), b in zip(run.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


# --- how fast what learns ---


def test_a_parameter_has_the_rate_of_its_task_or_of_its_innermost_module():
    rates = {"backbone": 0.1, "backbone.stages.1": 0.5, "smile": 2.0, "heads": 3.0}
    found = [
        own_value(name, rates, ("smile", "pose"), 1.0)
        for name in (
            "backbone.stem.weight",
            "backbone.stages.1.bias",
            "backbone.stages.10.bias",
            "heads.smile.weight",
            "tower.smile.0.weight",
            "heads.pose.weight",
            "backbones.weight",
        )
    ]
    assert found == [0.1, 0.5, 0.1, 2.0, 2.0, 3.0, 1.0]


def test_groups_have_their_factors_and_are_two_without():
    model = Recipe(name="x", tasks=("smile", "pose"), passes=1).create_model()
    plain = parameter_groups(model, model.tasks, 0.1, {}, {})
    assert [set(group) for group in plain] == [{"params", "weight_decay"}] * 2
    groups = parameter_groups(model, model.tasks, 0.1, {"smile": 0.5}, {"backbone": 2})
    found = {(g["weight_decay"], g["factor"], g["thaw"]): len(g["params"]) for g in groups}
    assert found[0.1, 0.5, 0.0] == found[0.0, 0.5, 0.0] == found[0.1, 1.0, 0.0] == found[0.0, 1.0, 0.0] == 1
    assert sum(found.values()) == len(list(model.parameters()))
    set_rates(groups, 0.2, epoch=1)
    assert {(g["factor"], g["thaw"]): g["lr"] for g in groups} == {(0.5, 0.0): 0.1, (1.0, 0.0): 0.2, (1.0, 2): 0.0}
    set_rates(groups, 0.2, epoch=2)
    assert {g["lr"] for g in groups if g["thaw"]} == {0.2}


def test_a_step_of_sgd_is_as_long_as_its_rate(tmp_path, data):
    recipe = tiny_recipe(tasks=("smile", "pose"), passes=1, optimiser="sgd", momentum=0.0, weight_decay=0.0)
    moves = []
    for rates in ({}, {"smile": 0.25}):
        run = new_run(replace(recipe, learning_rates=rates), data, tmp_path)
        before = {name: value.detach().clone() for name, value in run.model.named_parameters()}
        run.step(run.dataset[0])
        moves.append({name: value.detach() - before[name] for name, value in run.model.named_parameters()})
    for name, move in moves[0].items():
        torch.testing.assert_close(moves[1][name], move * (0.25 if "smile" in name else 1), atol=1e-7, rtol=1e-3)


def test_a_stage_thaws_inside_of_a_frozen_backbone(tmp_path, folder, faces):
    recipe = tiny_recipe(
        backbone="gridnet",
        backbone_options=mixed_recipe().backbone_options,
        tasks=("landmarks", "smile"),
        epochs=3,
    )
    data = tiny_data(recipe, faces, folder / "cache")
    save_model(folder / "start.safetensors", recipe.create_model(), recipe.spec(32, 3))
    inner = next(name for name, _ in recipe.create_model().named_modules() if name.count(".") == 2)
    outer = inner.rsplit(".", 1)[0]
    recipe = replace(recipe, init=str(folder / "start.safetensors"), frozen=("backbone", outer), thaws={outer: 1})
    run = new_run(recipe, data, tmp_path)
    start = {name: value.clone() for name, value in run.model.backbone.state_dict().items()}
    for step in range(8):
        run.step(run.dataset[step])
        moved = {n for n, value in run.model.backbone.state_dict().items() if not torch.equal(value, start[n])}
        if step < 4:
            assert moved == set()  # nor do batch statistics
        else:
            assert moved
            assert all(f"backbone.{name}".startswith(f"{outer}.") for name in moved)


# --- stopped and continued, refused ---


@pytest.mark.parametrize(
    "changes",
    [
        {
            "periods": {"smile": 3},
            "joins": {"gender": 1},
            "leaves": {"landmarks_ibug68": 1},
            "learning_rates": {"smile": 0.5, "backbone": 0.1},
            "curriculum": {"by": "loss", "start": 0.4},
            "weighing": "uw",
        },
        {"curriculum": {"by": "pose_size", "start": 0.4, "epochs": 2}, "early_stopping": True},
    ],
    ids=["by loss", "by pose and size"],
)
def test_a_scheduled_training_continues_bitwise(tmp_path, folder, faces, changes):
    recipe = mixed_recipe(epochs=3, **changes)
    data = mixed_data(recipe, faces, folder / "cache")
    assert train_quietly(recipe, data, tmp_path / "whole")
    for stop in (3, 10):
        assert not train_quietly(recipe, data, tmp_path / "parts", max_steps=stop)
    assert train_quietly(recipe, data, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert (tmp_path / "whole" / MODEL).is_file()
    assert json.loads((tmp_path / "whole" / "recipe.json").read_text()) == recipe.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"periods": {"age": 2}}, r"periods names \['age'\], expected some of its tasks: landmarks, smile"),
        ({"periods": {"smile": 1.5}}, "periods = {'smile': 1.5}, expected a whole number of steps from 1"),
        ({"joins": {"smile": 0}}, "expected a whole number of epochs from 1"),
        ({"periods": {"smile": 2, "landmarks": 2}}, "no task to some steps of epoch 1: keep one task of period 1"),
        ({"periods": {"landmarks": 2}, "leaves": {"smile": 4}}, "some steps of epoch 5"),
        ({"periods": {"landmarks": 2}, "weights": {"smile": 0.0}}, "some steps of epoch 1"),
        ({"joins": {"smile": 20}}, "joins.smile = 20 leaves no epoch"),
        ({"joins": {"smile": 5}, "leaves": {"smile": 5}}, "joins.smile = 5 leaves no epoch"),
        ({"leaves": {"smile": 20}}, "leaves.smile = 20 is not before the end of 20 epochs"),
        ({"leaves": {"landmarks": 5}, "early_stopping": True}, "early_stopping needs its main task"),
        ({"learning_rates": {"smile": 0}}, "learning_rates.smile = 0.0, expected over 0; frozen"),
        ({"thaws": {"backbone": 1}}, "thaws.backbone: only what is frozen can thaw"),
        ({"thaws": {"backbone": 20}, "frozen": ["backbone"], "init": "x"}, "expected whole epochs from 1 to 19"),
        ({"curriculum": {"by": "size"}}, "curriculum.by = 'size', expected one of pose_size, loss"),
        ({"curriculum": {"start": 0.5}}, "curriculum.by = None"),
        ({"curriculum": {"by": "loss", "end": 1}}, r"no options \['end'\], it has by, start, epochs"),
        ({"curriculum": {"by": "loss", "start": 0}}, "curriculum.start = 0, expected over 0, at most 1"),
        ({"curriculum": {"by": "loss", "epochs": 21}}, "curriculum.epochs = 21, expected over 0, at most 20"),
        ({"curriculum": {"by": "loss"}, "weighing": "famo"}, "famo.*set curriculum.by = 'pose_size', or another"),
        ({"frozen": ["backbone"]}, "empty without init or a pretrained backbone"),
    ],
)
def test_schedules_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict({"name": "x", "tasks": ["landmarks", "smile"], **changes})


def test_a_rate_of_no_parameter_is_refused_before_training(tmp_path, data):
    with pytest.raises(ConfigError, match=r"learning_rates\.backbome: the network trains no parameter of that name"):
        new_run(tiny_recipe(learning_rates={"backbome": 0.1}), data, tmp_path)


def test_the_recipes_of_the_page_are_recipes():
    page = (Path(__file__).parents[1] / "docs" / "schedules.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        keys = tomllib.loads(block)
        recipe = recipe_from_dict({"name": "x", **keys})
        for key in keys:
            assert recipe.to_dict()[key] != Recipe(name="x").to_dict()[key], key
