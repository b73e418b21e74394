"""Watching: what a snapshot says, by hand on two tasks; and that it leaves no trace in the training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import copy_run, mixed_data, mixed_recipe, results, tiny_recipe, train_quietly
from weighing_toy import toy, toy_batch, toy_losses

from facemtl.errors import ConfigError, DataError
from facemtl.training.engine import Run
from facemtl.training.losses import task_losses
from facemtl.training.negative_transfer import WINDOW, NegativeTransfer, interval
from facemtl.training.watching import WARNINGS, WATCH, Watch, affinities, columns_of, read_watch, relations

FIVE = ("landmarks", "glasses", "smile", "gender", "pose")


@pytest.fixture(scope="module")
def watched(folder, data):
    assert train_quietly(tiny_recipe(affinity=True), data, folder / "watched")
    return folder / "watched"


# --- by hand ---


def test_what_gradients_say_by_hand():
    rows = torch.tensor([[1.0, 0.0], [-3.0, 4.0], [0.0, 2.0]])
    found = relations(["landmarks", "smile", "pose"], rows, {"landmarks": 2.0, "smile": 0.5, "pose": 1.0})
    assert found == {
        **{"gradient/landmarks": 1, "gradient/smile": 5, "gradient/pose": 2},
        **{"cosine/landmarks/smile": pytest.approx(-0.6), "cosine/landmarks/pose": 0},
        "cosine/smile/pose": pytest.approx(0.8),
        "conflict": pytest.approx(1 / 3),
        # The points' own part moves them by 2 * 1; that of smile by 0.5 * -3.
        **{"undone/smile": pytest.approx(0.75), "undone/pose": 0},
    }


def test_a_gradient_of_length_zero_has_no_direction():
    found = relations(["smile", "pose"], torch.tensor([[1.0], [0.0]]), {"smile": 1.0, "pose": 1.0})
    assert found == {"gradient/smile": 1, "gradient/pose": 0}


def test_affinity_by_hand_on_two_quadratics():
    # L_a = (w - 3)^2 / 2 and L_b = (w + 1)^2 / 2 at w = 1: losses 2 and 2, gradients -2 and 2.
    w = torch.nn.Parameter(torch.tensor([1.0]))

    def losses():
        return {"a": (w - 3).square().sum() / 2, "b": (w + 1).square().sum() / 2}

    rows = {"a": torch.tensor([-2.0]), "b": torch.tensor([2.0])}
    found = affinities([w], rows, 0.25, losses(), losses)
    # Along a: w = 1.5, losses 1.125 and 3.125; along b: w = 0.5, the other way round.
    assert found == {
        ("a", "a"): pytest.approx(1 - 1.125 / 2),
        ("a", "b"): pytest.approx(1 - 3.125 / 2),
        ("b", "a"): pytest.approx(1 - 3.125 / 2),
        ("b", "b"): pytest.approx(1 - 1.125 / 2),
    }
    assert w.item() == 1


def test_a_toy_step_is_watched_with_the_weights_of_its_weighing(tmp_path):
    model, weighing = toy("gradnorm", [[3.0, 4.0], [1.0, 0.0]], rate=0.1)
    recipe = tiny_recipe(tasks=("smile", "glasses"), passes=1)
    watch = Watch(recipe, model, weighing, steps=3, out=tmp_path)
    with watch.opened(0):
        for step in range(3):
            missing = ["glasses"] if step == 2 else []
            losses, batch = toy_losses(model, missing), toy_batch(model, missing)
            used = weighing.weights.tolist()
            with watch.step(step, losses, batch, (), 0.1, dict):
                weighing.backward(losses, batch, ())
            assert weighing.latest["smile"] == pytest.approx(used[0])
    first, second, third = read_watch(tmp_path / WATCH)
    assert [first[f"{what}/smile"] for what in ("loss", "gradient", "weight", "labelled")] == [7, 5, 1, 2]
    assert first["cosine/smile/glasses"] == pytest.approx(0.6)
    assert second["weight/smile"] < 1 < second["weight/glasses"]
    assert third["labelled/glasses"] == 0
    assert all(math.isnan(third[name]) for name in ("loss/glasses", "weight/glasses", "cosine/smile/glasses"))
    assert "undone/smile" not in first  # there is no main task


# --- in a training ---


def test_a_run_has_a_row_a_snapshot_and_every_cell_is_filled(watched):
    rows = read_watch(watched / WATCH)
    assert list(rows[0]) == columns_of(FIVE, affinity=True)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert np.isfinite([list(row.values()) for row in rows]).all()
    assert {row[f"labelled/{task}"] for row in rows for task in FIVE} == {8}
    events = EventAccumulator(str(watched / "tensorboard" / "watch")).Reload()
    shown = events.Scalars("watch/cosine/landmarks/pose")
    assert [event.step for event in shown] == list(range(1, 9))
    assert [event.value for event in shown] == pytest.approx([row["cosine/landmarks/pose"] for row in rows])


@pytest.mark.parametrize(("steps", "snapshots", "every", "taken"), [(100, 30, 3, 33), (90, 30, 3, 30), (8, 30, 1, 8)])
def test_snapshots_are_at_least_as_many_as_asked_for(tmp_path, steps, snapshots, every, taken):
    model, weighing = toy("fixed", [[1.0, 0.0]])
    watch = Watch(tiny_recipe(snapshots=snapshots), model, weighing, steps, tmp_path)
    assert (watch.every, steps // watch.every) == (every, taken)


def test_none_are_taken_without_any(tmp_path, data):
    train_quietly(tiny_recipe(snapshots=0), data, tmp_path)
    assert not (tmp_path / WATCH).exists()
    with pytest.raises(ConfigError, match="snapshots = -1, expected at least 0"):
        tiny_recipe(snapshots=-1)


def test_a_snapshot_says_what_a_separate_computation_says(tmp_path, data):
    recipe = tiny_recipe(affinity=True, weights={"smile": 0.5}, warmup_epochs=0)
    torch.manual_seed(recipe.seed)
    run = Run(recipe, data, tmp_path, torch.device("cpu"))
    batch = run.dataset[0]
    shared = list(run.model.backbone.parameters())
    run.model.train()
    before = task_losses(run.model(batch.images), batch.targets)
    gradient = torch.autograd.grad(0.5 * before["smile"], shared)
    with torch.no_grad():
        for parameter, part in zip(shared, gradient, strict=True):
            parameter -= recipe.learning_rate * part
        after = task_losses(run.model(batch.images), batch.targets)
        for parameter, part in zip(shared, gradient, strict=True):
            parameter += recipe.learning_rate * part
    with run.watch.opened(0):
        run.step(batch)
    (row,) = read_watch(tmp_path / WATCH)
    assert row["loss/smile"] == pytest.approx(0.5 * before["smile"].item(), rel=1e-4)
    length = torch.cat([part.flatten() for part in gradient]).norm().item()
    assert row["gradient/smile"] == pytest.approx(length, rel=1e-4)
    expected = 1 - after["gender"].item() / before["gender"].item()
    assert row["affinity/smile/gender"] == pytest.approx(expected, rel=1e-2, abs=1e-6)


EVERYTHING = {"dropout": 0.2, "uncertainty": True}  # with batch normalisation, missing labels, several outputs a task


@pytest.mark.parametrize(
    "changes",
    [
        {"weighing": "fixed"},
        {"weighing": "graddrop"},  # draws random numbers
        {"weighing": "pcgrad", "weighing_options": {"on": "features"}},
        {"weighing": "famo", "uncertainty": False},  # looks a second time
    ],
    ids=lambda changes: changes["weighing"],
)
def test_a_watched_training_is_bitwise_an_unwatched_one(tmp_path, folder, faces, changes):
    recipe = mixed_recipe(epochs=1, **{**EVERYTHING, **changes})
    sets = mixed_data(recipe, faces, folder / "cache")
    for name, watching in {"unwatched": {"snapshots": 0}, "watched": {"affinity": True}}.items():
        assert train_quietly(replace(recipe, **watching), sets, tmp_path / name)
    assert results(tmp_path / "watched") == results(tmp_path / "unwatched")
    rows = read_watch(tmp_path / "watched" / WATCH)
    cosines = [value for row in rows for name, value in row.items() if name.startswith("cosine/")]
    assert np.isfinite(cosines).any()
    for row in rows:
        for task in recipe.tasks:
            assert math.isnan(row[f"loss/{task}"]) == (row[f"labelled/{task}"] == 0)


def test_where_nothing_shared_is_trained_losses_are_still_watched(tmp_path, folder, data, watched):
    recipe = tiny_recipe(init=str(watched / "model.safetensors"), frozen=("backbone",))
    train_quietly(recipe, data, tmp_path)
    rows = read_watch(tmp_path / WATCH)
    assert all(math.isfinite(row["loss/pose"]) and math.isnan(row["gradient/pose"]) for row in rows)


# --- stopping and continuing ---


def test_a_stopped_training_has_each_row_once(tmp_path, data, watched):
    for stop in (3, 5, None):
        train_quietly(tiny_recipe(affinity=True), data, tmp_path, max_steps=stop)
    assert (tmp_path / WATCH).read_text() == (watched / WATCH).read_text()
    assert results(tmp_path) == results(watched)


def test_rows_and_warnings_after_the_last_checkpoint_are_taken_again(tmp_path, data, watched):
    recipe = tiny_recipe(affinity=True)
    train_quietly(recipe, data, tmp_path, max_steps=5)
    written = (watched / WATCH).read_text().splitlines(keepends=True)
    # As a killed process leaves it: seven steps watched, the line of the last one half written.
    (tmp_path / WATCH).write_text("".join(written[:7]) + written[7][:20])
    (tmp_path / WARNINGS).write_text("step 4: a costs b\nstep 6: a costs b\n")
    train_quietly(recipe, data, tmp_path)
    assert (tmp_path / WATCH).read_text() == "".join(written)
    assert (tmp_path / WARNINGS).read_text() == "step 4: a costs b\n"


def test_watching_may_change_between_two_starts(tmp_path, data, watched):
    train_quietly(tiny_recipe(affinity=True), data, tmp_path, max_steps=4)
    train_quietly(tiny_recipe(snapshots=4), data, tmp_path)
    assert [row["step"] for row in read_watch(tmp_path / WATCH)] == [1, 2, 3, 4, 6, 8]
    assert results(tmp_path) == results(watched)


def test_a_new_training_in_the_folder_of_a_lost_one_starts_a_new_file(tmp_path, data, watched):
    out = copy_run(watched, tmp_path / "run")
    (out / "checkpoint.safetensors").unlink()
    train_quietly(tiny_recipe(affinity=True), data, out)
    assert (out / WATCH).read_text() == (watched / WATCH).read_text()


@pytest.mark.parametrize("text", ["no,steps\n1,2\n", "step,loss/smile\none,2\n"])
def test_what_is_no_watch_file_is_named(tmp_path, text):
    (tmp_path / WATCH).write_text(text)
    with pytest.raises(DataError, match=r"watch\.csv cannot be read as the watch file of a run"):
        read_watch(tmp_path / WATCH)
    with pytest.raises(DataError, match=r"none\.csv cannot be read"):
        read_watch(tmp_path / "none.csv")


# --- negative transfer ---


def snapshot(step: int, cosine: float, **more: float) -> dict[str, float]:
    return {"step": step, "cosine/landmarks/smile": cosine, "weight/smile": 1.0, "undone/smile": 0.25, **more}


def test_students_interval_by_hand():
    # Mean 2, deviation 1, t(2 degrees of freedom, 95 %) = 4.303.
    low, mean, high = interval([1.0, 2.0, 3.0], 0.95)
    assert (low, mean, high) == pytest.approx((2 - 4.303 / 3**0.5, 2, 2 + 4.303 / 3**0.5), abs=1e-3)


def test_a_task_that_keeps_pointing_against_the_points_is_named_with_the_evidence():
    watch = NegativeTransfer(("landmarks", "smile"), snapshots=10)
    ahead = {"affinity/smile/landmarks": -0.02}
    found = [watch.add(snapshot(10 * i, -0.3 - 0.01 * (i % 2), **ahead)) for i in range(10)]
    assert found[:-1] == [[]] * 9
    assert found[-1] == [
        "step 90: smile costs landmarks: over 10 snapshots since step 0 the mean cosine of their gradients was -0.30, "
        "90.0 % interval [-0.31, -0.30]; its part of a step undid 25.0 % of what their own gained; a step along smile "
        "alone changed their loss by +2.000 %; lower weights.smile, set another weighing, or leave smile out"
    ]


@pytest.mark.parametrize(
    "row",
    [snapshot(1, 0.3), snapshot(1, math.nan), {**snapshot(1, -0.3), "weight/smile": 0.0}],
    ids=["helps", "no labels", "no weight"],
)
def test_a_task_that_helps_or_is_not_there_is_not_named(row):
    watch = NegativeTransfer(("landmarks", "smile"), snapshots=10)
    assert [watch.add(row) for _ in range(3 * WINDOW)] == [[]] * (3 * WINDOW)


def test_without_points_nothing_is_judged():
    watch = NegativeTransfer(("smile", "pose"), snapshots=10)
    assert [watch.add(snapshot(1, -1.0)) for _ in range(WINDOW)] == [[]] * WINDOW


def test_at_most_one_training_in_twenty_is_warned_about_without_a_reason():
    rng, warned, runs = np.random.default_rng(0), 0, 200
    for _ in range(runs):
        watch = NegativeTransfer(FIVE, snapshots=30)
        lines = []
        for step in range(30):
            cosines = rng.normal(0, 0.1, 4)
            lines += watch.add(
                {f"cosine/landmarks/{task}": value for task, value in zip(FIVE[1:], cosines, strict=True)}
                | {f"weight/{task}": 1.0 for task in FIVE}
                | {"step": step}
            )
        warned += bool(lines)
    assert 0 < warned <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5


def test_a_warning_reaches_the_log_and_a_file(tmp_path, caplog):
    model, weighing = toy("fixed", [[1.0, 0.5], [-1.0, 0.0]])
    recipe = tiny_recipe(tasks=("landmarks", "glasses"))
    weighing.tasks = recipe.tasks
    watch = Watch(recipe, model, weighing, steps=WINDOW, out=tmp_path)
    with watch.opened(0):
        for step in range(WINDOW):
            with torch.no_grad():
                model.heads["smile"].weight[0, 1] = 0.5 + 0.01 * step
            batch, losses = toy_batch(model), toy_losses(model)
            batch.targets["landmarks"] = torch.zeros(2, 5, 2)
            losses = {"landmarks": losses["smile"], "glasses": losses["glasses"]}
            with watch.step(step, losses, batch, (), 0.1, dict):
                weighing.backward(losses, batch, ())
    (line,) = (tmp_path / WARNINGS).read_text().splitlines()
    assert line.startswith("step 10: glasses costs landmarks: over 10 snapshots since step 1 the mean cosine")
    assert [record.getMessage() for record in caplog.records] == [line]
    events = EventAccumulator(str(tmp_path / "tensorboard" / "watch")).Reload()
    (shown,) = events.Tensors("warning/text_summary")
    assert shown.tensor_proto.string_val[0].decode() == line
