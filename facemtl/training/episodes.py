"""Few labelled faces as a task: those of a new task, and the many small tasks that a known data set can be cut into.

An episode of the meta-training stands for the new task without its labels: for an attribute, the classes of a random
other attribute, put together at random into as many groups; for points, a random scheme, each point of which is a sum
of the known points with weights that sum to one, so that it moves, turns and grows with the face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from facemtl.data.cache import CropCache
from facemtl.data.sample import MISSING
from facemtl.data.transforms import Augmentation
from facemtl.errors import ConfigError
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import POINTS, SCHEMAS, points_task, schema_of
from facemtl.training.batches import Batch, StepDataset

LARGEST = 32  # faces of a batch
SPREAD = 0.5  # standard deviation of how far the weights of a random scheme are from an average of known points


@dataclass(frozen=True, slots=True)
class Episode:
    """Attributes:
    cache: the set.
    rows: its faces that are labelled, of each class as many for an attribute.
    task: of the set.
    relabel: that task's targets of a batch -> the targets of what is learned.
    """

    cache: CropCache
    rows: np.ndarray
    task: str
    relabel: Callable[[Tensor], Tensor]

    def batches(self, augmentation: Augmentation, steps: int, learned: str, seed: int) -> Iterator[Batch]:
        """So many batches of random crops, whose only target is that of the task ``learned``."""
        part = self.cache.subset(self.rows)
        dataset = StepDataset({"shots": part}, augmentation, (self.task,), min(len(part), LARGEST), seed)
        for step in range(steps):
            batch = dataset[step]
            yield replace(batch, targets={learned: self.relabel(batch.targets[self.task])}, taught={})


def shots_of(cache: CropCache, task: str, shots: int, among: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random rows among some, with a label for a task: ``shots`` of each class, or so many with points.

    Raises:
        ConfigError: there are not enough.
    """
    if task not in ATTRIBUTES:
        known = among[np.isfinite(cache.points[among]).all(axis=(1, 2))]
        groups = {task: known}
    else:
        groups = {name: among[cache.labels[task][among] == i] for i, name in enumerate(ATTRIBUTES[task])}
    if few := {name: len(rows) for name, rows in groups.items() if len(rows) < shots}:
        raise ConfigError(f"{shots} labelled faces are wanted of each class or scheme, and there are only {few}")
    return np.concatenate([rng.permutation(rows)[:shots] for rows in groups.values()])


def random_episodes(cache: CropCache, task: str, schema: str, shots: int, seed: int) -> Iterator[Episode]:
    """An endless series of small tasks, from a set's labels for other tasks than ``task``.

    Args:
        cache: the set, with the main points of ``schema``.
        task: what they stand for: its number of points or classes is theirs.
        schema: of the main points.
        shots: labelled faces of an episode, of each class for an attribute.
        seed: of everything drawn.

    Raises:
        ConfigError: the set labels nothing of this kind.
    """
    rng = np.random.default_rng((seed, 2))
    rows = np.arange(len(cache))
    if points := schema_of(task, schema):
        known = POINTS if cache.schema == schema else points_task(cache.schema)
        if not np.isfinite(cache.points).all(axis=(1, 2)).any():
            raise ConfigError(f"the source's data has no points, of which schemes like {task} could be made")
        if known == task:
            raise ConfigError(
                f"episodes would be made of the labels for {task} itself: take source data of other points"
            )
        while True:
            weights = random_scheme(len(SCHEMAS[points]), cache.points.shape[1], rng)
            yield Episode(cache, shots_of(cache, known, shots, rows, rng), known, _combined(weights))
    classes = len(ATTRIBUTES[task])
    others = [
        other
        for other, labels in cache.labels.items()
        if other != task
        and len(ATTRIBUTES[other]) >= classes
        and min((labels == i).sum() for i in range(len(ATTRIBUTES[other]))) >= shots
    ]
    if not others:
        raise ConfigError(
            f"episodes that stand for {task} need another attribute in the source's data with {classes} classes or "
            f"more, each with {shots} labelled faces or more, and there is none"
        )
    while True:
        other = others[rng.integers(len(others))]
        groups = random_groups(len(ATTRIBUTES[other]), classes, rng)
        labels = np.append(groups, MISSING)[cache.labels[other]]  # index -1, a missing label, stays missing
        regrouped = replace(cache, labels={**cache.labels, task: labels})
        chosen = shots_of(regrouped, task, shots, rows, rng)
        yield Episode(cache, chosen, other, _regrouped(groups))


def random_scheme(points: int, known: int, rng: np.random.Generator) -> np.ndarray:
    """(points, known) float32 weights; each row sums to 1."""
    away = rng.normal(0, SPREAD, (points, known))
    return np.float32(rng.dirichlet(np.ones(known), points) + away - away.mean(axis=1, keepdims=True))


def random_groups(classes: int, groups: int, rng: np.random.Generator) -> np.ndarray:
    """(classes,) int64 the group of each class; every group has one."""
    found = np.concatenate([np.arange(groups), rng.integers(groups, size=classes - groups)])
    return rng.permutation(found)


def _combined(weights: np.ndarray) -> Callable[[Tensor], Tensor]:
    return lambda points: torch.from_numpy(weights) @ points


def _regrouped(groups: Sequence[int]) -> Callable[[Tensor], Tensor]:
    table = torch.from_numpy(np.append(groups, MISSING))
    return lambda labels: table[labels]
