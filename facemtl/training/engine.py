"""Training from a recipe: one loop for one task or five, resumable at any step."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from facemtl.data.device_transforms import DeviceAugmentation
from facemtl.data.turning import with_turned
from facemtl.errors import ConfigError
from facemtl.files import write_beside
from facemtl.landmarks import POINTS
from facemtl.models.face_model import FaceModel
from facemtl.models.files import load_spec, save_model
from facemtl.models.session import resolve_device
from facemtl.training.batches import Batch, StepDataset, batch_loader, known_faces, plain_batch
from facemtl.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from facemtl.training.distillation import teach
from facemtl.training.distributed import current_world
from facemtl.training.early_stopping import TaskStopper
from facemtl.training.initial import start_from
from facemtl.training.interrupts import interrupt_flag
from facemtl.training.looking import Losses, look, losses_of
from facemtl.training.optimisers import create_optimiser, freeze, learning_rate, update_average
from facemtl.training.recipe import Recipe
from facemtl.training.schedules.checks import curriculum_of, timetable_of
from facemtl.training.schedules.curriculum import self_paced
from facemtl.training.schedules.rates import set_modes, set_rates
from facemtl.training.sharing import tie
from facemtl.training.training_data import TrainingData
from facemtl.training.watching import Watch
from facemtl.training.weighing.base import Weighing
from facemtl.training.weighing.registry import create_weighing
from facemtl.weights import SIGMA

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
MONITORED = 1000  # training faces on which the training error is measured, undisturbed as the held-out ones are


class Interrupted(Exception):
    """Ctrl-C: the state was saved and the same command continues from it."""


def train(
    recipe: Recipe,
    data: TrainingData,
    out: Path,
    device: str = "auto",
    progress: bool = True,
    max_steps: int | None = None,
    after_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train, or continue the training that stands in ``out``; a finished one is left as it is.

    Writes ``recipe.json``, ``log.csv``, TensorBoard events, ``checkpoint.safetensors`` after every epoch and at
    Ctrl-C, and at the end ``model.safetensors``: the averaged parameters with their description.

    Args:
        recipe: what to do.
        data: what with.
        out: folder of the run, made if missing.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: show a bar.
        max_steps: save and stop after this many steps of the whole training, as Ctrl-C would.
        after_epoch: is given each row of the log once it is saved; what it raises ends the training there.

    Returns:
        The path of the model.

    Raises:
        Interrupted: stopped before the end; nothing is lost.
        ConfigError: ``out`` holds a run of another recipe, or the training diverges.
        ModelError: the checkpoint in ``out`` is damaged.
        OutputError: ``out`` cannot be written.
        DeviceError: as :func:`facemtl.models.session.resolve_device`.
        WorkerLost: one of several processes has ended (:mod:`facemtl.training.distributed`).
    """
    where = resolve_device(device)
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(recipe.seed)
    world = current_world()
    if recipe.teachers:
        with world.first():
            lessons = {
                name: teach(cache, recipe.teachers, recipe.taught or recipe.tasks, recipe.schema, out, where, progress)
                for name, cache in data.train.items()
            }
        data = replace(data, train=lessons)
    if recipe.turned:  # after the teachers, who know a face best as it was taken
        turned = {n: with_turned(cache, recipe.turned, recipe.schema, recipe.seed) for n, cache in data.train.items()}
        data = replace(data, train=turned)
    run = Run(recipe, data, out, where)
    if (out / CHECKPOINT).is_file():
        run.progress = load_checkpoint(out / CHECKPOINT, recipe.to_dict(), *run.parts())
    if run.progress.step < run.steps:
        if world.leads:
            text = json.dumps(recipe.to_dict(), indent=1)
            write_beside(out / "recipe.json", lambda partial: partial.write_text(text, encoding="utf-8"))
        run.loop(progress, max_steps, after_epoch)
    if world.leads:
        save_model(out / MODEL, run.average, recipe.spec(run.size, run.channels))
    world.wait()
    return out / MODEL


class Run:
    """The moving parts of one training; :func:`train` is the way in."""

    def __init__(self, recipe: Recipe, data: TrainingData, out: Path, device: torch.device) -> None:
        self.recipe, self.data, self.out, self.device = recipe, data, out, device
        self.world = current_world()
        model = recipe.create_model()
        if recipe.init:
            start_from(model, recipe)
        self.frozen = freeze(model, recipe.frozen, recipe.thaws)
        self.timetable, self.curriculum = timetable_of(recipe), curriculum_of(recipe)
        self.self_paced = bool(self.curriculum) and self.curriculum.by == "loss"
        self.size, self.channels = model.backbone.input_size, model.backbone.channels
        # Channels last is what the CPU's convolution kernels are fastest with (1.4 times here).
        self.model: FaceModel = model.to(device, memory_format=torch.channels_last)
        self.average: FaceModel = copy.deepcopy(self.model).eval()
        self.optimiser = create_optimiser(self.model, recipe)
        self.weighing = create_weighing(recipe, self.model).to(device)
        if learned := list(self.weighing.parameters()):
            self.optimiser.add_param_group({"params": learned, "weight_decay": 0.0})
        # How far a teacher's points are from the truth it does not know: deviations learn from labels only, and so does
        # a refiner, which is there to see what teachers without one do not.
        refined = not recipe.refine or all(load_spec(Path(teacher)).refine for teacher in recipe.teachers)
        self.untaught = {SIGMA} if refined else {SIGMA, POINTS}
        self.dataset = StepDataset(
            data.train,
            recipe.augmentation(self.size, self.channels),
            recipe.tasks,
            recipe.batch_size,
            recipe.seed,
            recipe.mix,
            recipe.balance,
            cut=recipe.augment_on == "workers",
            part=self.world.part(recipe.batch_size),
            curriculum=None if self.self_paced else self.curriculum,
        )
        self.augment: DeviceAugmentation | None = None
        if recipe.augment_on == "device":
            self.augment = DeviceAugmentation(
                self.dataset.caches, self.size, recipe.crop_scale, recipe.pixels, recipe.seed + self.world.rank, device
            )
        self.steps = recipe.epochs * self.dataset.steps_per_epoch
        self.watch = Watch(recipe, self.model, self.weighing, self.steps, out)
        stopper = TaskStopper(
            recipe.stop_k, recipe.stop_threshold, dict(recipe.stop_importance), joined=dict(recipe.joins)
        )
        self.progress = Progress(stopper=stopper if recipe.early_stopping else None)
        main = data.train[recipe.data]
        rows = np.random.default_rng(1).permutation(len(main))[:MONITORED]
        looked_at = {"train": main.subset(np.sort(rows))}
        looked_at |= {"heldout" if n == recipe.data else f"heldout_{n}": cache for n, cache in data.heldout.items()}
        self.looked_at = {
            name: plain_batch(cache, recipe.tasks, self.size, recipe.crop_scale, recipe.schema)
            for name, cache in looked_at.items()
        }

    def loop(
        self, show: bool, max_steps: int | None, after_epoch: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        state, per_epoch = self.progress, self.dataset.steps_per_epoch
        last = self.steps if max_steps is None else min(max_steps, self.steps)
        leads, first = self.world.leads, len(state.history) + 1
        writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=first) if leads else nullcontext()
        show = show and leads
        bar = tqdm(total=self.steps, initial=state.step, desc=self.recipe.name, unit="step", disable=not show)
        started, since = time.perf_counter(), state.step
        with interrupt_flag() as interrupted, bar, writer, self.watch.opened(state.step, leads):
            for batch in batch_loader(self.dataset, state.step, last, self.recipe.workers, self.device.type == "cuda"):
                self.step(batch.to(self.device))
                bar.update()
                if state.step % per_epoch == 0:
                    self._fetch_sums()  # waits for the device, so that the epoch's time is its own
                    seconds, done = time.perf_counter() - started, state.step - since
                    row = self._finish_epoch(done * self.recipe.batch_size / seconds)
                    for key, value in row.items() if leads else ():
                        writer.add_scalar(key, value, row["epoch"])
                    bar.set_postfix_str(f"held-out NME {row['heldout/nme']:.2f} %" if "heldout/nme" in row else "")
                    self.save()
                    if after_epoch:
                        after_epoch(row)
                    started, since = time.perf_counter(), state.step
                if self.world.any(interrupted()):
                    break
            if state.step < self.steps:
                self.save()
                raise Interrupted(
                    f"stopped at step {state.step} of {self.steps}; the same command continues from {self.out}"
                )

    def save(self) -> None:
        self._fetch_sums()
        if self.world.leads:
            save_checkpoint(self.out / CHECKPOINT, self.recipe.to_dict(), self.progress, *self.parts())
        self.world.wait()  # or another worker could go on from the checkpoint before

    def parts(self) -> tuple[FaceModel, FaceModel, torch.optim.Optimizer, Weighing]:
        """What a checkpoint keeps the tensors of."""
        return self.model, self.average, self.optimiser, self.weighing

    def step(self, batch: Batch) -> None:
        """One step, which on a GPU is ordered and not waited for: nothing here may read a value from the device."""
        recipe, state = self.recipe, self.progress
        warmup = round(recipe.warmup_epochs * self.dataset.steps_per_epoch)
        rate = learning_rate(state.step, self.steps, warmup, recipe.learning_rate)
        set_rates(self.optimiser.param_groups, rate, state.step // self.dataset.steps_per_epoch)
        out = self._stopped
        self._seed()
        images = self.images(batch)
        self.backward(images, batch)
        self.update()
        if self.weighing.looks_again:
            self.weighing.look_again(lambda: self._learned(images, batch)[1], batch, out)

    def _seed(self) -> None:
        """Dropout too is a function of seed and step; torch's generator takes 32 bits."""
        torch.manual_seed(int(np.random.SeedSequence((self.recipe.seed, self.progress.step)).generate_state(1)[0]))

    def images(self, batch: Batch) -> torch.Tensor:
        """The crops uint8 (N, C, S, S) of a batch, cut here if nobody did."""
        return self.augment(batch.rows, batch.matrices, self.progress.step) if batch.images is None else batch.images

    def backward(self, images: torch.Tensor, batch: Batch) -> None:
        """Forward and backward pass: leaves gradients, and counts what the log says of the epoch."""
        state = self.progress
        set_modes(self.model, self.frozen, self.recipe.thaws, state.step // self.dataset.steps_per_epoch)
        losses, learned = self._learned(images, batch)
        self.optimiser.zero_grad(set_to_none=True)
        rate = self.optimiser.param_groups[0]["lr"]
        with self.watch.step(state.step, learned, batch, self._stopped, rate, lambda: self._again(images, batch)):
            self.weighing.backward(learned, batch, self._stopped)
        losses = {**losses, **tie(self.model, self.weighing, learned, batch, self._stopped)}
        for name, value in losses.items():
            state.sums[name] = state.sums.get(name, 0.0) + value.detach().double()
        for task in self.recipe.tasks:
            state.labelled[task] = state.labelled.get(task, 0) + known_faces(batch.targets[task])

    def _again(self, images: torch.Tensor, batch: Batch) -> Losses:
        self._seed()
        return self._learned(images, batch)[1]

    def _learned(self, images: torch.Tensor, batch: Batch) -> tuple[Losses, Losses]:
        """Output -> loss by the labels, and what is learned from: the same, or mixed with what teachers say."""
        halves = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")
        with halves, self.world.own_draws(self.device):
            outputs = self.model(images)
        outputs = self.world.gathered({name: output.float() for name, output in outputs.items()})
        targets = self._easy(outputs, batch.targets) if self.self_paced else batch.targets
        losses = losses_of(self.recipe, outputs, targets)
        answers = {name: output for name, output in outputs.items() if name not in self.untaught}
        lessons = losses_of(self.recipe, answers, batch.taught)
        return losses, {
            name: torch.lerp(loss, lessons[name], self.recipe.lesson) if name in lessons else loss
            for name, loss in losses.items()
        }

    def _easy(self, outputs: Losses, targets: Losses) -> Losses:
        share = self.curriculum.share(self.progress.step / self.dataset.steps_per_epoch)
        return targets if share == 1 else self_paced(outputs, targets, share, partial(losses_of, self.recipe))

    @torch.no_grad()
    def update(self) -> None:
        """Move the parameters along their gradients, and the average after them."""
        self.world.agree([p for group in self.optimiser.param_groups for p in group["params"]], [*self.model.buffers()])
        self.optimiser.step()
        average, current = self.average.state_dict().values(), self.model.state_dict().values()
        update_average(average, current, self.recipe.ema, self.progress.step)
        self.progress.step += 1

    def _fetch_sums(self) -> None:
        """What the steps summed up on the device, as numbers."""
        state = self.progress
        state.sums = {name: float(total) for name, total in state.sums.items()}
        state.labelled = {task: int(count) for task, count in state.labelled.items()}

    @property
    def _stopped(self) -> Collection[str]:
        """The tasks that take no part in the next step."""
        early = self.progress.stopper.stopped if self.progress.stopper else {}
        return self.timetable.absent(self.progress.step, self.dataset.steps_per_epoch).union(early)

    def _finish_epoch(self, images_per_second: float) -> dict[str, Any]:
        state, steps = self.progress, self.dataset.steps_per_epoch
        errors = self.world.from_first(
            lambda: {name: look(self.average, batch, self.recipe) for name, batch in self.looked_at.items()}
        )
        # Of the losses alone: where no face of a set has all its points, the NME is not a number.
        outputs = {*self.recipe.tasks, SIGMA}
        lost = {name for part in errors.values() for name in outputs & part.keys() if not math.isfinite(part[name])}
        if lost:
            raise ConfigError(
                f"step {state.step}: the loss of {', '.join(sorted(lost))} is not finite: lower learning_rate, in a "
                "new --out"
            )
        row: dict[str, Any] = {"epoch": len(state.history) + 1, "images_per_second": round(images_per_second, 1)}
        row |= {f"augmented/{name}": total / steps for name, total in state.sums.items()}
        row |= {f"labelled/{task}": count for task, count in state.labelled.items()}
        if self.timetable:
            row |= {f"steps/{task}": n for task, n in self.timetable.steps(len(state.history), steps).items()}
        if self.curriculum:
            row["curriculum"] = self.curriculum.share(len(state.history))
        row |= self.weighing.finish_epoch(errors["heldout"])
        row |= {f"{name}/{key}": value for name, figures in errors.items() for key, value in figures.items()}
        if state.stopper:
            auxiliary = [task for task in self.recipe.tasks if task != POINTS]
            # A task that the main set does not label cannot be judged: it stays.
            judged = [task for task in auxiliary if task in errors["train"] and task in errors["heldout"]]
            judged = [task for task in judged if task in self.timetable.present(len(state.history))]
            state.stopper.update(*({t: errors[name][t] for t in judged} for name in ("train", "heldout")))
            row |= {f"stopped/{task}": state.stopper.stopped.get(task, 0) for task in auxiliary}
        state.sums, state.labelled = {}, {}
        state.history.append(row)
        if self.world.leads:
            text = _as_csv(state.history)
            write_beside(self.out / "log.csv", lambda partial: partial.write_text(text, encoding="utf-8"))
        return row


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
