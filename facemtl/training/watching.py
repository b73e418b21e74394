"""Watching a training: what the tasks do to each other, at a set interval, without a trace in the result.

A snapshot is taken inside of a step, from the graph that the step has built anyway: gradients are read before the
weighing takes its backward pass, weights after it. Nothing is drawn, no batch statistic moves, no parameter keeps a
change: a watched training gives bitwise what an unwatched one gives. ``watch.csv`` has one row a snapshot; a cell is
empty where there is nothing to say (a task without labels in the batch, a gradient of length 0):

* ``step``: steps done, this one included;
* ``loss/<task>``: as the weighing sees it, that is times the recipe's factors and with the teachers' share;
* ``gradient/<task>``: length of its gradient on the shared parameters (:mod:`facemtl.training.weighing.shared`);
* ``cosine/<a>/<b>``: between two of these gradients;
* ``conflict``: share of the known cosines under 0;
* ``weight/<task>``: of the weighing in this step, on top of the recipe's factors (1 with ``fixed``);
* ``labelled/<task>``: faces of the batch that the task learned from, 0 if it took no part;
* ``undone/<task>``: what the task's part of the step takes away from the progress that the points' own part makes for
  the points, as a share of it, to first order and for plain descent: - w_t <g_t, g_p> / (w_p <g_p, g_p>); negative
  where it adds;
* ``affinity/<a>/<b>`` with ``affinity = true``: of task a onto task b, 1 - L_b after / L_b before a step along the
  gradient of a alone on the shared parameters, with the step's learning rate and the same batch (TAG: Fifty et al.,
  "Efficiently Identifying Task Groupings for Multi-Task Learning", NeurIPS 2021, equation 1). Positive helps.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import combinations, permutations
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from facemtl.errors import ConfigError, DataError, OutputError
from facemtl.files import write_beside
from facemtl.landmarks import POINTS
from facemtl.models.face_model import FaceModel
from facemtl.training.batches import Batch, known_faces
from facemtl.training.negative_transfer import NegativeTransfer
from facemtl.training.recipe import Recipe
from facemtl.training.weighing.base import Weighing
from facemtl.training.weighing.shared import Shared

WATCH = "watch.csv"
WARNINGS = "warnings.txt"
Row = dict[str, float]

log = logging.getLogger("facemtl.training")


class Watch:
    """The snapshots of one training.

    Args:
        recipe: ``snapshots`` says how many at least, evenly spread (fewer only where there are fewer steps); 0 none.
        model: the network in training.
        weighing: of its tasks.
        steps: of the whole training.
        out: folder of the run.
    """

    def __init__(self, recipe: Recipe, model: FaceModel, weighing: Weighing, steps: int, out: Path) -> None:
        self.recipe, self.model, self.weighing, self.out = recipe, model, weighing, out
        self.every = max(1, steps // recipe.snapshots) if recipe.snapshots else 0
        self.columns = columns_of(recipe.tasks, recipe.affinity)
        self._total = steps // self.every if self.every else 0
        self._open = False
        self._writer: SummaryWriter | None = None
        self._transfer: NegativeTransfer | None = None

    @contextmanager
    def opened(self, done: int, write: bool = True) -> Iterator[None]:
        """Within, steps are watched. What a training that stops here would take again is first taken out of the files.

        Args:
            done: steps done before.
            write: whether this process writes the files.

        Raises:
            OutputError: they cannot be written.
            DataError: the watch file of the run is damaged.
        """
        if not self.every:
            yield
            return
        self._transfer = NegativeTransfer(self.recipe.tasks, self._total)
        path = self.out / WATCH
        kept = [row for row in read_watch(path) if row["step"] <= done] if done and path.is_file() else []
        for row in kept:
            self._transfer.add(row)
        if write:
            _write(path, as_csv(self.columns, kept))
            warned = self.out / WARNINGS
            if warned.is_file():
                lines = warned.read_text(encoding="utf-8").splitlines(keepends=True)
                _write(warned, "".join(line for line in lines if int(line.split()[1].rstrip(":")) <= done))
            self._writer = SummaryWriter(str(self.out / "tensorboard" / "watch"), purge_step=done + 1)
        self._open = True
        try:
            with self._writer or nullcontext():
                yield
        finally:
            self._open, self._writer = False, None

    @contextmanager
    def step(
        self,
        done: int,
        losses: Mapping[str, Tensor],
        batch: Batch,
        stopped: Container[str],
        rate: float,
        again: Callable[[], Mapping[str, Tensor]],
    ) -> Iterator[None]:
        """Around the backward pass of one step, which may be one to look at.

        Args:
            done: steps done before this one.
            losses: output -> loss that is learned from, with its graph.
            batch: what they were computed on.
            stopped: tasks that have left early.
            rate: learning rate of the step.
            again: computes the same losses anew, with the same random numbers.
        """
        if not self._open or (done + 1) % self.every:
            yield
            return
        here = self.weighing.taking_part(losses, batch, stopped)
        rows = gradients(self.model, list(here.values())) if here else None
        yield
        row = dict.fromkeys(self.columns, math.nan) | {"step": done + 1}
        row |= {f"labelled/{task}": faces_of(batch, task) if task in here else 0 for task in self.recipe.tasks}
        if here:
            weights = {task: float(self.weighing.latest.get(task, 1.0)) for task in here}
            row |= {f"loss/{task}": value.item() for task, value in here.items()}
            row |= {f"weight/{task}": weight for task, weight in weights.items()}
            if rows is not None:
                row |= relations(list(here), rows, weights)
                if self.recipe.affinity:
                    row |= self._affinities(here, rows, rate, again, batch, stopped)
        self._note({name: value if name == "step" else float(f"{value:.6g}") for name, value in row.items()})

    def _affinities(
        self,
        here: Mapping[str, Tensor],
        rows: Tensor,
        rate: float,
        again: Callable[[], Mapping[str, Tensor]],
        batch: Batch,
        stopped: Container[str],
    ) -> Row:
        shared = Shared(self.model, "parameters").parameters
        device = rows.device
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            found = affinities(
                shared, dict(zip(here, rows, strict=True)), rate, here, lambda: self._again(again, batch, stopped)
            )
        for buffer, value in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(value)
        return {f"affinity/{a}/{b}": value for (a, b), value in found.items() if a != b}

    def _again(
        self, again: Callable[[], Mapping[str, Tensor]], batch: Batch, stopped: Container[str]
    ) -> dict[str, Tensor]:
        return self.weighing.taking_part(again(), batch, stopped)

    def _note(self, row: Row) -> None:
        lines = self._transfer.add(row)
        if self._writer is None:
            return
        _append(self.out / WATCH, _line(self.columns, row))
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                self._writer.add_scalar(f"watch/{name}", value, row["step"])
        for text in lines:
            _append(self.out / WARNINGS, f"{text}\n")
            self._writer.add_text("warning", text, row["step"])
            with tqdm.external_write_mode(file=sys.stderr):  # a bar is not written into
                log.warning(text)


def columns_of(tasks: tuple[str, ...], affinity: bool = False) -> list[str]:
    """The columns of a watch file, in their order."""
    names = ["step", *(f"{what}/{task}" for what in ("loss", "gradient", "weight", "labelled") for task in tasks)]
    names += ["conflict", *(f"cosine/{a}/{b}" for a, b in combinations(tasks, 2))]
    if POINTS in tasks:
        names += [f"undone/{task}" for task in tasks if task != POINTS]
    if affinity:
        names += [f"affinity/{a}/{b}" for a, b in permutations(tasks, 2)]
    return names


def gradients(model: FaceModel, losses: list[Tensor]) -> Tensor | None:
    """float32 (losses, shared parameters), the graph stays; None where nothing that tasks share is trained."""
    try:
        return Shared(model, "parameters").jacobian(losses)
    except ConfigError:
        return None


def faces_of(batch: Batch, task: str) -> int:
    """Faces of a batch with a label for a task, or with a teacher's word for it, whichever are more."""
    return max(int(known_faces(aims[task])) for aims in (batch.targets, batch.taught) if task in aims)


def relations(tasks: list[str], rows: Tensor, weights: Mapping[str, float]) -> Row:
    """What the gradients (T, P) of tasks with these weights say: the columns but those of losses and labels."""
    products = (rows @ rows.T).double().cpu()
    lengths = products.diagonal().sqrt()
    cosines = products / (lengths[:, None] * lengths)  # 0 / 0 is NaN: a gradient of length 0 has no direction
    row = {f"gradient/{task}": length.item() for task, length in zip(tasks, lengths, strict=True)}
    pairs = {
        f"cosine/{a}/{b}": max(-1.0, min(1.0, cosines[i, j].item()))
        for (i, a), (j, b) in combinations(enumerate(tasks), 2)
        if math.isfinite(cosines[i, j])
    }
    row |= pairs
    if pairs:
        row["conflict"] = sum(value < 0 for value in pairs.values()) / len(pairs)
    if POINTS in tasks:
        main = tasks.index(POINTS)
        own = weights[POINTS] * products[main, main].item()
        if own > 0:
            row |= {
                f"undone/{task}": -weights[task] * products[i, main].item() / own
                for i, task in enumerate(tasks)
                if i != main
            }
    return row


@torch.no_grad()
def affinities(
    parameters: list[Tensor],
    rows: Mapping[str, Tensor],
    rate: float,
    before: Mapping[str, Tensor],
    again: Callable[[], Mapping[str, Tensor]],
) -> dict[tuple[str, str], float]:
    """(a, b) -> 1 - L_b(parameters - rate * gradient of a) / L_b(parameters); the parameters are put back bitwise.

    Args:
        parameters: what the tasks share.
        rows: task -> its gradient, as many numbers as the parameters have.
        rate: length of the step.
        before: task -> loss where the parameters are.
        again: task -> loss where they have been moved to.
    """
    kept = [parameter.clone() for parameter in parameters]
    sizes = [parameter.numel() for parameter in parameters]
    found = {}
    for task, row in rows.items():
        for parameter, value, part in zip(parameters, kept, row.split(sizes), strict=True):
            parameter.copy_(value - rate * part.view(value.shape).to(value.dtype))
        found |= {
            (task, other): 1 - loss.double().item() / before[other].double().item()
            for other, loss in again().items()
            if before[other] != 0
        }
    for parameter, value in zip(parameters, kept, strict=True):
        parameter.copy_(value)
    return found


def read_watch(path: Path) -> list[Row]:
    """The rows of a watch file; NaN where a cell is empty. A last line that was not written whole is left out.

    Raises:
        DataError: missing, or no watch file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = [
            {name: float(cell) if cell else math.nan for name, cell in row.items()}
            for row in csv.DictReader(io.StringIO(whole))
        ]
        if any("step" not in row for row in rows):
            raise ValueError("no column step")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as the watch file of a run: {error}") from None
    return [row | {"step": int(row["step"])} for row in rows]


def as_csv(columns: list[str], rows: list[Row]) -> str:
    """The text of a watch file."""
    return ",".join(columns) + "\n" + "".join(_line(columns, row) for row in rows)


def _line(columns: list[str], row: Row) -> str:
    values = (row.get(name, math.nan) for name in columns)
    return ",".join("" if math.isnan(value) else f"{value:.6g}" for value in values) + "\n"


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from None


def _write(path: Path, text: str) -> None:
    write_beside(path, lambda partial: partial.write_text(text, encoding="utf-8"))
