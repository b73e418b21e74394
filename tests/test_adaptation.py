"""Few labelled faces: Reptile by hand, episodes, and the four starts side by side."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import run_script
from tiny_training import HELDOUT, SMALL_GRIDNET, tiny_faces, tiny_set, tiny_sets
from torch import nn

from facemtl.data.cache import CropCache, build_cache
from facemtl.errors import ConfigError
from facemtl.models.files import save_model
from facemtl.training.adaptation import Adaptation, Plan, as_markdown, interval
from facemtl.training.batches import Batch
from facemtl.training.episodes import random_episodes, random_groups, random_scheme, shots_of
from facemtl.training.recipe import Recipe
from facemtl.training.reptile import fit, move_towards, reptile


class Number(nn.Module):
    """One parameter, and a counter as batch normalisation has it."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.0]))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, _: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"theta": self.theta}


def descends(target: float):
    """Two steps of rate 1/2 down (theta - target)^2 / 2: each halves what is left."""

    def episode(model: Number) -> None:
        with torch.no_grad():
            for _ in range(2):
                model.theta -= 0.5 * (model.theta - target)
                model.seen += 1

    return episode


def test_reptile_on_a_quadratic_by_hand():
    model = Number()
    # From 0, two steps towards 4 lead to 3; 0.4 of the way is 1.2. Then the rate is half: from 1.2 two steps towards 0
    # lead to 0.3, and 0.2 of the way to 1.2 - 0.18.
    reptile(model, [descends(4.0), descends(0.0), descends(9.0)], rounds=2, rate=0.4)
    assert model.theta.item() == pytest.approx(1.02)
    assert model.seen == 4


def test_moving_all_the_way_and_none():
    for share, expected in ((0.0, 2.0), (0.25, 3.0), (1.0, 6.0)):
        model = Number()
        with torch.no_grad():
            model.theta.fill_(6.0)
        move_towards(model, {"theta": torch.tensor([2.0]), "seen": torch.tensor(7)}, share)
        assert model.theta.item() == expected


def test_reptile_ends_between_tasks_where_few_steps_reach_both():
    model, targets = Number(), [1.0, 3.0] * 100
    reptile(model, map(descends, targets), rounds=200, rate=0.2)
    assert model.theta.item() == pytest.approx(2.0, abs=0.1)


def test_the_first_step_of_adam_without_momentum_is_as_long_as_its_rate():
    model = Number()
    batch = Batch(torch.zeros(1), {})
    fit(model, [batch], lambda outputs, _: 5 * outputs["theta"].sum(), rate=0.1)
    assert model.theta.item() == pytest.approx(-0.1)
    model.theta.requires_grad_(False)
    other = nn.Linear(1, 1)
    model.other = other
    fit(model, [batch], lambda outputs, _: other.bias.sum() + outputs["theta"].sum(), rate=0.1)
    assert model.theta.item() == pytest.approx(-0.1)  # frozen


# --- episodes ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("adaptation")


@pytest.fixture(scope="module")
def caches(folder) -> dict[str, tuple[CropCache, CropCache]]:
    """The three tiny sets, each training and held out; attributes of 40 faces are made to alternate."""
    faces = [
        replace(
            face, labels={**face.labels, "smile": i % 2, "glasses": i // 2 % 2, "gender": i // 4 % 2, "pose": i % 5}
        )
        for i, face in enumerate(tiny_faces(folder))
    ]
    sets = tiny_sets(faces[HELDOUT:]), tiny_sets(faces[:HELDOUT])
    return {
        name: tuple(build_cache(part[name], folder / "cache", 64, 3, progress=False) for part in sets)
        for name in sets[0]
    }


def test_shots_are_so_many_of_each_class(caches):
    cache = caches["mtfl"][0]
    rng = np.random.default_rng(0)
    rows = shots_of(cache, "pose", 3, np.arange(len(cache)), rng)
    assert np.bincount(cache.labels["pose"][rows]).tolist() == [3] * 5
    assert len(set(rows.tolist())) == 15
    assert len(shots_of(cache, "landmarks", 7, np.arange(len(cache)), rng)) == 7
    with pytest.raises(ConfigError, match=r"9 labelled faces are wanted of each class.* only {'left_profile': "):
        shots_of(cache, "pose", 9, np.arange(len(cache)), rng)


def test_a_random_scheme_moves_with_the_face():
    weights = random_scheme(68, 5, np.random.default_rng(0))
    assert weights.shape == (68, 5)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    points = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    turn = np.float32([[0.0, -2.0], [2.0, 0.0]])
    np.testing.assert_allclose(weights @ (points @ turn.T + 3), (weights @ points) @ turn.T + 3, atol=1e-4)


def test_random_groups_are_never_empty():
    rng = np.random.default_rng(0)
    found = {tuple(random_groups(5, 2, rng)) for _ in range(300)}
    assert all(set(groups) == {0, 1} for groups in found)
    assert len(found) == 2**5 - 2


def test_episodes_never_are_the_new_task(caches):
    cache = caches["mtfl"][0]
    episodes = random_episodes(cache, "smile", "mtfl5", 2, seed=0)
    seen = set()
    for _ in range(20):
        episode = next(episodes)
        seen.add(episode.task)
        labels = episode.relabel(torch.from_numpy(cache.labels[episode.task][episode.rows]))
        assert torch.bincount(labels).tolist() == [2, 2]
        assert episode.relabel(torch.tensor([-1])).item() == -1
    assert seen == {"glasses", "gender", "pose"}
    points = next(random_episodes(cache, "landmarks_ibug68", "mtfl5", 4, seed=0))
    recipe = Recipe(name="x", mirror=0.0, pixels=0.0)
    (batch,) = points.batches(recipe.augmentation(32, 3), 1, "landmarks_ibug68", seed=0)
    assert batch.targets["landmarks_ibug68"].shape == (4, 68, 2)
    assert set(batch.targets) == {"landmarks_ibug68"}


def test_episodes_that_cannot_be_made_are_refused(caches):
    with pytest.raises(ConfigError, match="another attribute in the source's data with 2 classes"):
        next(random_episodes(caches["genki4k"][0], "smile", "mtfl5", 2, seed=0))
    with pytest.raises(ConfigError, match="has no points, of which schemes"):
        next(random_episodes(caches["genki4k"][0], "landmarks_ibug68", "mtfl5", 2, seed=0))
    with pytest.raises(ConfigError, match="made of the labels for landmarks itself"):
        next(random_episodes(caches["mtfl"][0], "landmarks", "mtfl5", 2, seed=0))


# --- four starts ---


def source_model(folder: Path, tasks: tuple[str, ...]) -> Path:
    torch.manual_seed(0)
    recipe = Recipe(name="source", backbone="gridnet", backbone_options=SMALL_GRIDNET, tasks=tasks, passes=1)
    path = folder / f"{'-'.join(tasks)}.safetensors"
    save_model(path, recipe.create_model(), recipe.spec(32, 3))
    return path


def quick_plan(source: Path, data: str, task: str, **changes) -> Plan:
    values = {"shots": (2,), "draws": 2, "steps": 3, "rates": (1e-3, 1e-2), "tuning": 1, "rounds": 3}
    return Plan(source, data, task, **{**values, "inner_steps": 2, "meta_shots": 2, **changes})


@pytest.mark.parametrize(("data", "task"), [("udacity68", "landmarks_ibug68"), ("mtfl", "smile")])
def test_every_start_is_measured_on_the_same_draws_and_continues(tmp_path, folder, caches, monkeypatch, data, task):
    plan = quick_plan(source_model(folder, ("landmarks", "pose")), data, task)
    study = (*caches[data], caches["mtfl"][0])
    errors = Adaptation(plan, *study, tmp_path / "whole").run(progress=False)
    assert {shots: set(found) for shots, found in errors.items()} == {
        shots: {"scratch", "head", "fine-tuning", "reptile"} for shots in ("2",)
    }
    values = [value for found in errors.values() for draws in found.values() for value in draws]
    assert len(values) == 8
    assert all(0 <= value < 1000 for value in values)

    measure, calls = Adaptation.error, []

    def dies(self, *arguments):
        calls.append(arguments)
        if len(calls) == 7:  # two rates and two draws of the first start, and the rates of the second
            raise KeyboardInterrupt
        return measure(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Adaptation, "error", dies)
        Adaptation(plan, *study, tmp_path / "parts").run(progress=False)
    again = Adaptation(plan, *study, tmp_path / "parts").run(progress=False)
    assert again == errors
    kept = json.loads((tmp_path / "parts" / "adaptation.json").read_text())
    assert kept["plan"] == plan.to_dict()
    assert {rate for found in kept["rates"].values() for rate in found.values()} <= {1e-3, 1e-2}
    with pytest.raises(ConfigError, match="is of another plan; use another --out"):
        Adaptation(replace(plan, steps=4), *study, tmp_path / "parts").run(progress=False)
    table = as_markdown(plan, errors)
    assert table.splitlines()[2].endswith("| scratch | head | fine-tuning | reptile | reptile minus fine-tuning |")
    assert len(table.splitlines()) == 5


def test_the_backbone_stays_where_only_the_head_learns(tmp_path, folder, caches, monkeypatch):
    plan = quick_plan(source_model(folder, ("landmarks", "pose")), "mtfl", "smile")
    study = Adaptation(plan, *caches["mtfl"], caches["mtfl"][0], tmp_path)
    start = study.new_model("head", 0).state_dict()
    ends = {}
    for name in ("head", "fine-tuning"):
        monkeypatch.setattr(
            "facemtl.training.adaptation.error_of",
            lambda model, *_, name=name: ends.setdefault(name, model.state_dict()) and 0.0,
        )
        study.error(name, 2, 0, 1e-2, "validation")
    for name, value in start.items():
        same = torch.equal(value, ends["head"][name])
        assert same == (not name.startswith("heads.")), name
    assert any(not torch.equal(value, ends["fine-tuning"][n]) for n, value in start.items() if "backbone" in n)


def test_rows_that_choose_a_rate_are_never_drawn(tmp_path, folder, caches):
    plan = quick_plan(source_model(folder, ("landmarks", "pose")), "mtfl", "smile")
    study = Adaptation(plan, *caches["mtfl"], caches["mtfl"][0], tmp_path)
    assert len(study.drawn_from) == 16  # half of 32
    assert len(study.looked_at["validation"].images) == 16
    assert len(study.looked_at["heldout"].images) == HELDOUT


def test_the_interval_of_three_draws():
    # Standard deviation 1, t of 2 degrees 4.3027: 2 +- 4.3027 / sqrt(3)
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 2.4841, 2 + 2.4841), abs=1e-3)
    mean, low, high = interval([5.0])
    assert mean == 5
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize(
    ("data", "task", "changes", "message"),
    [
        ("mtfl", "pose", {}, "has learned pose already: take a model trained without that task"),
        ("udacity68", "smile", {}, "udacity68 labels landmarks_ibug68; take one of them"),
        ("mtfl", "angles", {}, "mtfl labels landmarks, "),
        ("mtfl", "smile", {"shots": (200,)}, "200 labelled faces are wanted of each class"),
        ("mtfl", "smile", {"meta_shots": 50}, "each with 50 labelled faces or more, and there is none"),
    ],
)
def test_plans_that_cannot_work_are_refused(tmp_path, folder, caches, data, task, changes, message):
    plan = quick_plan(source_model(folder, ("landmarks", "pose")), data, task, **changes)
    with pytest.raises(ConfigError, match=message):
        Adaptation(plan, *caches[data], caches["mtfl"][0], tmp_path)


def test_the_tool_prints_and_keeps_the_table(tmp_path, monkeypatch, capsys):
    tiny_set(tmp_path / "set")
    source = source_model(tmp_path, ("landmarks",))
    monkeypatch.chdir(tmp_path)

    def run(task: str) -> int:
        sets = ("--data", "mtfl_layout", "--data-root", "set", "--source-data", "mtfl_layout", "--source-root", "set")
        numbers = ("--shots", "1", "--draws", "1", "--steps", "1", "--rounds", "1", "--meta-shots", "1")
        options = (*sets, *numbers, "--patch-size", "64", "--quiet")
        return run_script("tools/adapt.py", monkeypatch, source, task, *options)

    assert run("landmarks") == 2
    assert "has learned landmarks already" in capsys.readouterr().err
    assert run("smile") == 0
    table = capsys.readouterr().out
    assert table.startswith("balanced error in percent of smile on the held-out rows of mtfl_layout: mean over 1 draws")
    assert (tmp_path / "runs" / "adapt-smile" / "adaptation.md").read_text() == table
