"""Training from a recipe: one loop for one task or five, resumable at any step."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from facemtl.data.cache import CropCache, build_cache
from facemtl.data.sample import FaceSample
from facemtl.data.sets import data_root, read_split
from facemtl.data.transforms import plain_crops
from facemtl.errors import ConfigError, DataError, OutputError
from facemtl.files import write_beside
from facemtl.landmarks import SCHEMAS
from facemtl.models.face_model import FaceModel
from facemtl.models.factory import create_model
from facemtl.models.files import save_model
from facemtl.models.session import resolve_device
from facemtl.training.batches import Batch, StepDataset, batch_loader
from facemtl.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from facemtl.training.early_stopping import TaskStopper
from facemtl.training.losses import task_losses
from facemtl.training.optimisers import create_optimiser, learning_rate, update_average
from facemtl.training.recipe import Recipe

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
MONITORED = 1000  # training faces on which the training error is measured, undisturbed as the held-out ones are


class Interrupted(Exception):
    """Ctrl-C: the state was saved and the same command continues from it."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The faces a training reads: those it learns from and those it only looks at."""

    train: CropCache
    heldout: CropCache

    @classmethod
    def read(
        cls, recipe: Recipe, channels: int, cache: Path, root: Path | None = None, progress: bool = True
    ) -> TrainingData:
        """Read and cut a recipe's data set; ``cache`` is where patches are kept."""
        root = data_root(recipe.data, root)
        train, heldout = (read_split(recipe.data, split, root) for split in ("train", "heldout"))
        return cls.of(recipe, channels, cache, train, heldout, progress)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        channels: int,
        cache: Path,
        train: list[FaceSample],
        heldout: list[FaceSample],
        progress: bool = True,
    ) -> TrainingData:
        """The same from samples, of which the recipe may use a share and shuffle labels."""
        for part, samples in (("training", train), ("held-out", heldout)):
            if not samples:
                raise DataError(f"there are no {part} faces")
            first = samples[0]
            if first.schema != recipe.schema:
                raise ConfigError(f"the {part} data has {first.schema!r} points, the recipe asks for {recipe.schema!r}")
            pointed = any(np.isfinite(s.points).any() for s in samples)
            missing = set(recipe.tasks) - set(first.labels) - ({"landmarks"} if pointed else set())
            if missing:
                raise ConfigError(f"the {part} data has no labels for {sorted(missing)}: leave them out of tasks")
        patches = build_cache(train, cache, recipe.patch_size, channels, progress)
        rng = np.random.default_rng(0)  # the same rows for every seed, so that seeds differ by training alone
        rows = np.sort(rng.permutation(len(patches))[: max(1, round(recipe.fraction * len(patches)))])
        if len(rows) < recipe.batch_size:
            raise DataError(f"{len(rows)} training faces do not fill one batch of {recipe.batch_size}")
        used = patches if len(rows) == len(patches) else patches.subset(rows)
        labels = {
            task: rng.permutation(values) if task in recipe.shuffled_labels else values
            for task, values in used.labels.items()
        }
        return cls(replace(used, labels=labels), build_cache(heldout, cache, recipe.patch_size, channels, progress))


def train(
    recipe: Recipe,
    data: TrainingData,
    out: Path,
    device: str = "auto",
    progress: bool = True,
    max_steps: int | None = None,
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

    Returns:
        The path of the model.

    Raises:
        Interrupted: stopped before the end; nothing is lost.
        ConfigError: ``out`` holds a run of another recipe, or the training diverges.
        ModelError: the checkpoint in ``out`` is damaged.
        OutputError: ``out`` cannot be written.
        DeviceError: as :func:`facemtl.models.session.resolve_device`.
    """
    where = resolve_device(device)
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(recipe.seed)
    run = Run(recipe, data, out, where)
    if (out / CHECKPOINT).is_file():
        run.progress = load_checkpoint(out / CHECKPOINT, recipe.to_dict(), run.model, run.average, run.optimiser)
    if run.progress.step < run.steps:
        _write_text(out / "recipe.json", json.dumps(recipe.to_dict(), indent=1))
        run.loop(progress, max_steps)
    save_model(out / MODEL, run.average, recipe.spec(run.size, run.channels))
    return out / MODEL


class Run:
    """The moving parts of one training; :func:`train` is the way in."""

    def __init__(self, recipe: Recipe, data: TrainingData, out: Path, device: torch.device) -> None:
        self.recipe, self.data, self.out, self.device = recipe, data, out, device
        model = create_model(recipe.backbone, recipe.tasks, recipe.schema, **recipe.backbone_options)
        self.size, self.channels = model.backbone.input_size, model.backbone.channels
        # Channels last is what the CPU's convolution kernels are fastest with (1.4 times here).
        self.model: FaceModel = model.to(device, memory_format=torch.channels_last)
        self.average: FaceModel = copy.deepcopy(self.model).eval()
        self.optimiser = create_optimiser(self.model, recipe)
        self.dataset = StepDataset(
            data.train, recipe.augmentation(self.size, self.channels), recipe.batch_size, recipe.seed
        )
        self.steps = recipe.epochs * self.dataset.steps_per_epoch
        stopper = TaskStopper(recipe.stop_k, recipe.stop_threshold, dict(recipe.stop_importance))
        self.progress = Progress(stopper=stopper if recipe.early_stopping else None)
        rows = np.random.default_rng(1).permutation(len(data.train))[:MONITORED]
        self.looked_at = {
            "train": Batch.of(*plain_crops(data.train.subset(np.sort(rows)), self.size, recipe.crop_scale)),
            "heldout": Batch.of(*plain_crops(data.heldout, self.size, recipe.crop_scale)),
        }

    def loop(self, show: bool, max_steps: int | None) -> None:
        state, per_epoch = self.progress, self.dataset.steps_per_epoch
        last = self.steps if max_steps is None else min(max_steps, self.steps)
        loader = batch_loader(self.dataset, state.step, last, self.recipe.workers)
        writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=len(state.history) + 1)
        bar = tqdm(total=self.steps, initial=state.step, desc=self.recipe.name, unit="step", disable=not show)
        started, since = time.perf_counter(), state.step
        with _interrupt_flag() as interrupted, bar, writer:
            for batch in loader:
                self.step(batch.to(self.device))
                bar.update()
                if state.step % per_epoch == 0:
                    seconds, done = time.perf_counter() - started, state.step - since
                    row = self._finish_epoch(done * self.recipe.batch_size / seconds)
                    for key, value in row.items():
                        writer.add_scalar(key, value, row["epoch"])
                    bar.set_postfix_str(f"held-out NME {row['heldout/nme']:.2f} %" if "heldout/nme" in row else "")
                    self.save()
                    started, since = time.perf_counter(), state.step
                if interrupted():
                    break
            if state.step < self.steps:
                self.save()
                raise Interrupted(
                    f"stopped at step {state.step} of {self.steps}; the same command continues from {self.out}"
                )

    def save(self) -> None:
        save_checkpoint(
            self.out / CHECKPOINT, self.recipe.to_dict(), self.progress, self.model, self.average, self.optimiser
        )

    def step(self, batch: Batch) -> None:
        recipe, state = self.recipe, self.progress
        warmup = round(recipe.warmup_epochs * self.dataset.steps_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(state.step, self.steps, warmup, recipe.learning_rate)
        # Dropout too is a function of seed and step; torch's generator takes 32 bits.
        torch.manual_seed(int(np.random.SeedSequence((recipe.seed, state.step)).generate_state(1)[0]))
        self.model.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            outputs = self.model(batch.images)
        losses = task_losses(
            {task: output.float() for task, output in outputs.items()}, batch.points, batch.labels, recipe.points_loss
        )
        stopped = state.stopper.stopped if state.stopper else {}
        total = sum(recipe.weights.get(task, 1.0) * loss for task, loss in losses.items() if task not in stopped)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        with torch.no_grad():
            update_average(self.average.state_dict().values(), self.model.state_dict().values(), recipe.ema, state.step)
        state.step += 1
        for task, loss in losses.items():
            state.sums[task] = state.sums.get(task, 0.0) + loss.item()

    def _finish_epoch(self, images_per_second: float) -> dict[str, Any]:
        state, steps = self.progress, self.dataset.steps_per_epoch
        errors = {name: self._look(batch) for name, batch in self.looked_at.items()}
        lost = [task for task in self.recipe.tasks if not all(math.isfinite(errors[name][task]) for name in errors)]
        if lost:
            raise ConfigError(
                f"step {state.step}: the loss of {', '.join(lost)} is not finite: lower learning_rate, in a new --out"
            )
        row: dict[str, Any] = {"epoch": len(state.history) + 1, "images_per_second": round(images_per_second, 1)}
        row |= {f"augmented/{task}": total / steps for task, total in state.sums.items()}
        row |= {f"{name}/{key}": value for name, figures in errors.items() for key, value in figures.items()}
        if state.stopper:
            auxiliary = [task for task in self.recipe.tasks if task != "landmarks"]
            state.stopper.update(*({t: errors[name][t] for t in auxiliary} for name in ("train", "heldout")))
            row |= {f"stopped/{task}": state.stopper.stopped.get(task, 0) for task in auxiliary}
        state.sums = {}
        state.history.append(row)
        _write_text(self.out / "log.csv", _as_csv(state.history))
        return row

    @torch.no_grad()
    def _look(self, batch: Batch) -> dict[str, float]:
        """Losses, and figures that people read, of the averaged network on undisturbed crops."""
        outputs: dict[str, list[torch.Tensor]] = {}
        for images in batch.images.split(256):
            for task, output in self.average(images.to(self.device)).items():
                outputs.setdefault(task, []).append(output.float().cpu())
        joined = {task: torch.cat(parts) for task, parts in outputs.items()}
        losses = task_losses(joined, batch.points, batch.labels, self.recipe.points_loss)
        figures = {task: loss.item() for task, loss in losses.items()}
        for task, output in joined.items():
            if task == "landmarks":
                left, right = SCHEMAS[self.recipe.schema].eye_pair
                between = (batch.points[:, left] - batch.points[:, right]).norm(dim=1)
                error = (output - batch.points).norm(dim=2).mean(dim=1) / between
                figures["nme"] = 100 * error.nanmean().item()
            else:
                known = batch.labels[task] >= 0
                hits = (output.argmax(dim=1) == batch.labels[task])[known]
                figures[f"{task}_accuracy"] = 100 * hits.float().mean().item()
        return figures


@contextmanager
def _interrupt_flag() -> Iterator[Any]:
    """Within, Ctrl-C sets a flag instead of breaking a step in the middle; the function given tells whether it did."""
    hits: list[int] = []
    try:
        previous = signal.signal(signal.SIGINT, lambda *_: hits.append(1))
    except ValueError:  # not in the main thread: whoever runs the thread handles Ctrl-C
        yield lambda: False
        return
    try:
        yield lambda: bool(hits)
    finally:
        signal.signal(signal.SIGINT, previous)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_text(path: Path, text: str) -> None:
    try:
        write_beside(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from None
