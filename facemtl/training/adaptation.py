"""Adaptation of a trained model to a new task or landmark scheme from few labelled faces: which start goes how far?

Four starts are compared, from the same faces, draw by draw:

* ``scratch``: the network untrained;
* ``head``: the source model's backbone, which stays, and a new head;
* ``fine-tuning``: the same, and all of it learns;
* ``reptile``: as fine-tuning, from parameters that Reptile has meta-trained from the source model on small tasks
  cut from the source's data, which never include the new one (:mod:`facemtl.training.episodes`).

All have the same number of steps and the same choice of learning rates. A rate is chosen for each start and number of
faces on training rows of the target set that are never drawn; the held-out rows are looked at once a draw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from facemtl.data.cache import CropCache
from facemtl.errors import ConfigError
from facemtl.face import ATTRIBUTES
from facemtl.files import write_beside
from facemtl.landmarks import POINTS, points_task
from facemtl.models.face_model import FaceModel
from facemtl.models.files import load_model, read_tensors, save_model
from facemtl.training.batches import Batch, plain_batch
from facemtl.training.episodes import Episode, random_episodes, shots_of
from facemtl.training.initial import start_from
from facemtl.training.looking import look, losses_of
from facemtl.training.metrics import attribute_metrics
from facemtl.training.recipe import Recipe
from facemtl.training.reptile import fit, reptile

STARTS = ("scratch", "head", "fine-tuning", "reptile")
RESULTS = "adaptation.json"
META = "reptile.safetensors"
VALIDATED = 300  # training rows on which rates are chosen, at most half of all


@dataclass(frozen=True, slots=True)
class Plan:
    """Attributes:
    source: file of the trained model.
    data: name of the target data set.
    task: what is new to the model: an attribute, or points of a scheme.
    shots: numbers of labelled faces, of each class for an attribute.
    draws: of the faces, for each number.
    steps: of adaptation.
    rates: learning rates to choose from.
    tuning: further draws on which a rate is chosen.
    rounds, meta_rate, inner_steps, inner_rate, meta_shots: of Reptile.
    seed: of everything drawn.
    """

    source: Path
    data: str
    task: str
    shots: tuple[int, ...] = (5, 20, 80)
    draws: int = 10
    steps: int = 100
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    tuning: int = 2
    rounds: int = 300
    meta_rate: float = 0.5
    inner_steps: int = 10
    inner_rate: float = 1e-3
    meta_shots: int = 10
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()} | {
            "source": str(self.source)
        }


def adapted_recipe(plan: Plan) -> Recipe:
    """The network that adapts: the source's, with the new task alone.

    Raises:
        ConfigError: the source knows the task already.
        ModelError: the file is missing or damaged.
    """
    _, spec = load_model(plan.source)
    if plan.task in spec.tasks:
        raise ConfigError(f"{plan.source} has learned {plan.task} already: take a model trained without that task")
    if spec.sharing != "hard":
        raise ConfigError(f"{plan.source} shares by {spec.sharing!r}: a new task has no place there; take a hard one")
    return Recipe(
        name=f"{spec.name}-{plan.task}",
        data=plan.data,
        backbone=spec.backbone,
        backbone_options=spec.backbone_options,
        tasks=(plan.task,),
        schema=spec.schema,
        passes=1,
        crop_scale=spec.crop_scale,
        init=str(plan.source),
        points_loss="l1",
        mirror=0.0,  # a random scheme has no mirror image
        pixels=0.0,
    )


class Adaptation:
    """A plan and what it needs; :meth:`run` is the way in."""

    def __init__(self, plan: Plan, target: CropCache, heldout: CropCache, source: CropCache, out: Path) -> None:
        self.plan, self.target, self.source, self.out = plan, target, source, out
        self.recipe = adapted_recipe(plan)
        self.points = POINTS if target.schema == self.recipe.schema else points_task(target.schema)
        if plan.task not in (*target.labels, self.points):
            raise ConfigError(
                f"task = {plan.task!r}: {plan.data} labels {', '.join([self.points, *target.labels])}; take one of them"
            )
        torch.set_num_threads(self.recipe.threads)
        self.model = self.recipe.create_model()
        size, schema = self.model.backbone.input_size, self.recipe.schema
        self.augmentation = self.recipe.augmentation(size, self.model.backbone.channels)
        rows = np.random.default_rng((plan.seed, 3)).permutation(len(target))
        validated = min(VALIDATED, len(target) // 2)
        self.drawn_from = np.sort(rows[validated:])
        looked_at = {"validation": target.subset(np.sort(rows[:validated])), "heldout": heldout}
        self.looked_at = {
            name: plain_batch(cache, self.recipe.tasks, size, self.recipe.crop_scale, schema)
            for name, cache in looked_at.items()
        }
        for shots in plan.shots:  # too few faces are told before anything is trained
            shots_of(target, plan.task, shots, self.drawn_from, np.random.default_rng(0))
        next(random_episodes(source, plan.task, schema, plan.meta_shots, plan.seed))
        self.meta: dict[str, Tensor] = {}

    def run(self, progress: bool = True) -> dict[str, dict[str, list[float]]]:
        """Adapt and measure, or continue: shots -> start -> error in percent of each draw.

        An error is the NME of points, or the mean over the classes of the share of their faces that are missed.

        Raises:
            ConfigError: the folder holds the results of another plan.
        """
        plan, path = self.plan, self.out / RESULTS
        kept: dict[str, Any] = {"plan": plan.to_dict(), "rates": {}, "errors": {}}
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["plan"] != plan.to_dict():
                raise ConfigError(f"{path} is of another plan; use another --out")
        self.out.mkdir(parents=True, exist_ok=True)
        write_beside(path, lambda partial: partial.write_text(json.dumps(kept, indent=1)))
        self.meta_train(progress)
        bar = tqdm(total=len(plan.shots) * len(STARTS) * plan.draws, desc="adapting", disable=not progress)
        with bar:
            for shots in plan.shots:
                for start in STARTS:
                    errors = kept["errors"].setdefault(str(shots), {}).setdefault(start, [])
                    rates = kept["rates"].setdefault(str(shots), {})
                    if start not in rates:
                        rates[start] = self.best_rate(start, shots)
                    bar.update(len(errors))
                    while len(errors) < plan.draws:
                        errors.append(self.error(start, shots, len(errors), rates[start], "heldout"))
                        write_beside(path, lambda partial: partial.write_text(json.dumps(kept, indent=1)))
                        bar.update()
        return kept["errors"]

    def meta_train(self, progress: bool) -> None:
        """Reptile's parameters, from their file if they stand in one."""
        path = self.out / META
        if not path.is_file():
            model, plan = self.new_model("fine-tuning", 0), self.plan
            found = random_episodes(self.source, plan.task, self.recipe.schema, plan.meta_shots, plan.seed)
            rounds = tqdm(enumerate(found), total=plan.rounds, desc="meta-training", disable=not progress)

            def learned(number: int, episode: Episode) -> None:
                batches = episode.batches(self.augmentation, plan.inner_steps, plan.task, seed=number)
                fit(model.train(), batches, self.loss, plan.inner_rate)

            episodes = (lambda _, n=number, e=episode: learned(n, e) for number, episode in rounds)
            reptile(model, episodes, plan.rounds, plan.meta_rate)
            save_model(path, model, self.recipe.spec(model.backbone.input_size, model.backbone.channels))
        self.meta = read_tensors(path)[0]

    def best_rate(self, start: str, shots: int) -> float:
        """The rate with the least mean error on validation rows, over draws that no result is of."""
        draws = range(self.plan.draws, self.plan.draws + self.plan.tuning)
        errors = {
            rate: np.mean([self.error(start, shots, draw, rate, "validation") for draw in draws])
            for rate in self.plan.rates
        }
        return min(errors, key=errors.__getitem__)

    def error(self, start: str, shots: int, draw: int, rate: float, rows: str) -> float:
        """Percent, after the adaptation of one draw: its faces are the same for every start and rate."""
        plan = self.plan
        rng = np.random.default_rng((plan.seed, 4, shots, draw))
        chosen = shots_of(self.target, plan.task, shots, self.drawn_from, rng)
        episode = Episode(self.target, chosen, plan.task, lambda targets: targets)
        model = self.new_model(start, draw)
        if start == "head":
            model.requires_grad_(False)
            model.heads.requires_grad_(True)
        model.train(start != "head")
        fit(model, episode.batches(self.augmentation, plan.steps, plan.task, seed=draw), self.loss, rate)
        return error_of(model.eval(), self.looked_at[rows], self.recipe)

    def new_model(self, start: str, draw: int) -> FaceModel:
        """A start; what of it is random is the same for all of a draw."""
        torch.manual_seed(int(np.random.SeedSequence((self.plan.seed, 5, draw)).generate_state(1)[0]))
        model = self.recipe.create_model()
        if start == "reptile":
            model.load_state_dict(self.meta)
        elif start != "scratch":
            start_from(model, self.recipe)
        return model

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return sum(losses_of(self.recipe, outputs, batch.targets).values())


@torch.no_grad()
def error_of(model: FaceModel, batch: Batch, recipe: Recipe) -> float:
    """Percent: the NME of a model's only points, or the balanced error of its only attribute."""
    (task,) = recipe.tasks
    if task not in ATTRIBUTES:
        figures = look(model, batch, recipe)
        return figures["nme" if task == POINTS else f"{task}_nme"]
    shares = torch.cat([model(part.images)[task].softmax(dim=1) for part in batch.split(256)])
    return 100 * (1 - attribute_metrics(batch.targets[task].numpy(), shares.numpy())["balanced_accuracy"])


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the ends of its 95 % interval by Student's t over draws; NaN ends with one draw."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return float(array.mean()), float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5
    return float(array.mean()), float(array.mean() - half), float(array.mean() + half)


def as_markdown(plan: Plan, errors: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """A table: numbers of faces against starts, and the paired difference of Reptile's to fine-tuning."""
    unit = "faces of each class" if plan.task in ATTRIBUTES else "faces"
    measure = "balanced error" if plan.task in ATTRIBUTES else "NME"
    lines = [
        f"{measure} in percent of {plan.task} on the held-out rows of {plan.data}: mean over {plan.draws} draws, with "
        "its 95 % interval",
        "",
        f"| {unit} | {' | '.join(STARTS)} | reptile minus fine-tuning |",
        f"| ---: |{' ---: |' * (len(STARTS) + 1)}",
    ]
    for shots, found in errors.items():
        pairs = [a - b for a, b in zip(found["reptile"], found["fine-tuning"], strict=True)]
        cells = ["{:.2f} [{:.2f}, {:.2f}]".format(*interval(values)) for values in [*map(found.get, STARTS), pairs]]
        lines.append(f"| {shots} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
