"""Batches as a pure function of the step number: any step can be made again, by another worker or after a restart."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facemtl.data.cache import CropCache
from facemtl.data.sample import MISSING
from facemtl.data.targets import Targets, blank_target
from facemtl.data.transforms import Augmentation, plain_crops, to_nchw
from facemtl.errors import ConfigError
from facemtl.face import ATTRIBUTES
from facemtl.training.schedules.curriculum import Curriculum, easiest_first

PREFETCH = 8  # batches that every worker makes ahead
FETCHED = 2  # of them, those that have also come through the pipe
LONGEST = 8  # times that balancing may show a rare face in one epoch


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """N crops and what to say of them.

    Attributes:
        images: uint8 (N, C, S, S); where workers share the batch (:mod:`facemtl.training.distributed`), a worker's own;
            None where the device that trains cuts them, by ``rows`` and ``matrices``.
        targets: task -> labels of the data sets, see :mod:`facemtl.data.targets`.
        taught: task -> a teacher's targets; empty without one.
        rows: int64 (N,) patches to cut from, counted through all sets; None with ``images``.
        matrices: float32 (N, 2, 3), crop -> patch; None with ``images``.
    """

    images: Tensor | None
    targets: dict[str, Tensor]
    taught: dict[str, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None
    matrices: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; returns before it has arrived where it was pinned."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in memory that a GPU can fetch from by itself; the loader calls this."""
        return self._each(Tensor.pin_memory)

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple]:
        """Workers send a batch as arrays, in one message. Of tensors torch would share a file each, and for every one a
        thread of the worker has to answer, which waits for Python's lock while the worker makes its next batch."""
        arrays = self._each(Tensor.numpy)
        return _arrived, (arrays.images, arrays.targets, arrays.taught, arrays.rows, arrays.matrices)

    def split(self, size: int) -> Iterator[Batch]:
        """Parts of at most ``size`` crops."""
        count = len(self.rows if self.images is None else self.images)
        for first in range(0, count, size):
            part = slice(first, first + size)
            yield self._each(lambda values, part=part: values[part])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        images, rows, matrices = (
            None if values is None else change(values) for values in (self.images, self.rows, self.matrices)
        )
        targets, taught = (
            {task: change(values) for task, values in part.items()} for part in (self.targets, self.taught)
        )
        return Batch(images, targets, taught, rows, matrices)


def _arrived(*arrays: object) -> Batch:
    """The batch of :meth:`Batch.__reduce__`."""
    return Batch(*arrays)._each(torch.from_numpy)


def stack_targets(faces: Sequence[Targets], tasks: Sequence[str], schema: str, taught: bool = False) -> dict:
    """Task -> tensor of the faces' targets; a face without a label for a task has a missing one."""
    blanks = {task: blank_target(task, schema, taught) for task in tasks}
    return {
        task: torch.from_numpy(np.stack([face.get(task, blank) for face in faces])) for task, blank in blanks.items()
    }


def known_faces(targets: Tensor) -> Tensor:
    """How many faces of (N, ...) targets have any label: a whole number without dimensions, on their device."""
    known = torch.isfinite(targets) if targets.is_floating_point() else targets != MISSING
    return known.reshape(len(targets), -1).any(dim=1).sum()


def plain_batch(cache: CropCache, tasks: Sequence[str], size: int, crop_scale: float, schema: str) -> Batch:
    """Every face of a cache in its true box, undisturbed."""
    images, targets = plain_crops(cache, size, crop_scale, schema)
    return Batch(torch.from_numpy(images), stack_targets(targets, tasks, schema))


def balanced_rows(cache: CropCache, balance: float, task: str = "pose") -> np.ndarray:
    """Rows of a cache, those of rare classes of ``task`` several times.

    A class of n faces is repeated (n of the commonest class / n) ** ``balance`` times, rounded, at most ``LONGEST``
    times: 0 leaves the set as it is, 1 makes all classes equal. Faces without the label stay once.
    """
    rows = np.arange(len(cache))
    labels = cache.labels.get(task)
    if labels is None or not balance:
        return rows
    counts = np.bincount(labels[labels >= 0], minlength=len(ATTRIBUTES[task]))
    times = np.clip(np.rint((counts.max() / np.maximum(counts, 1)) ** balance), 1, LONGEST).astype(int)
    return np.repeat(rows, np.where(labels >= 0, times[labels], 1))


class StepDataset(Dataset):
    """Item ``i`` is the batch of training step ``i``.

    Args:
        caches: data set -> its patches; the first is the main set.
        augmentation: makes the crops.
        tasks: what the batch has targets for.
        batch_size, seed: as they say.
        mix: data set -> its share of the crops, relative to the others'; 1 where not named. An epoch shows the main
            set once, however many faces of the others that means.
        balance: of the classes of pose in every set that has them, see :func:`balanced_rows`.
        cut: whether to cut the crops, or only to say where they lie.
        part: the crops of each batch that are made; it has the targets of all.
        curriculum: draws from the easiest faces of every set at first, all of them without.

    Raises:
        ConfigError: a share so small that an epoch would not show a single face of its set.
    """

    def __init__(
        self,
        caches: Mapping[str, CropCache],
        augmentation: Augmentation,
        tasks: Sequence[str],
        batch_size: int,
        seed: int,
        mix: Mapping[str, float] | None = None,
        balance: float = 0.0,
        cut: bool = True,
        part: slice = slice(None),
        curriculum: Curriculum | None = None,
    ) -> None:
        self.caches = list(caches.values())
        self.augmentation = augmentation
        self.cut, self.part = cut, part
        self.tasks = tuple(tasks)
        self.batch_size = batch_size
        self.seed = seed
        self._starts = np.cumsum([0, *map(len, self.caches)])  # of the sets, where rows are counted through all
        self._rows = [balanced_rows(cache, balance) for cache in self.caches]
        shares = np.array([(mix or {}).get(name, 1.0) for name in caches])
        self._counts = np.rint(len(self._rows[0]) * shares / shares[0]).astype(int)
        for name, count in zip(caches, self._counts, strict=True):
            if not count:
                raise ConfigError(f"mix.{name} is too small: an epoch shows no face of it; raise it, or leave it out")
        self.steps_per_epoch = int(self._counts.sum()) // batch_size
        self._order: tuple[int, np.ndarray] | None = None
        self._curriculum = curriculum
        if curriculum:
            self._rows = [easiest_first(cache, rows) for cache, rows in zip(self.caches, self._rows, strict=True)]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """(M, 2) set and row of the crops of an epoch, in the order in which they are shown."""
        if self._order is None or self._order[0] != epoch:
            parts = [self._drawn(number, epoch) for number in range(len(self.caches))]
            order = np.random.default_rng((self.seed, epoch)).permutation(np.concatenate(parts))
            self._order = epoch, order
        return self._order[1]

    def _drawn(self, number: int, epoch: int) -> np.ndarray:
        """(n, 2) set and row: the next n of an endless series of shuffled passes through the set."""
        rows, count = self._rows[number], self._counts[number]
        places, passed = np.arange(epoch * count, (epoch + 1) * count), 0
        if self._curriculum and (easy := self._curriculum.admitted(len(rows), epoch)) < len(rows):
            # An epoch with faces of its own has passes of its own.
            rows, places, passed = rows[:easy], np.arange(count), epoch * count
        drawn = np.empty(count, dtype=int)
        for turn in np.unique(places // len(rows)):
            inside = places // len(rows) == turn
            shuffled = np.random.default_rng((self.seed, number, passed + int(turn))).permutation(rows)
            drawn[inside] = shuffled[places[inside] % len(rows)]
        return np.stack([np.full(count, number), drawn], axis=1)

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self.steps_per_epoch)
        first = position * self.batch_size
        rng = np.random.default_rng((self.seed, step))
        chosen = self._epoch_order(epoch)[first : first + self.batch_size]
        wanted = set(range(len(chosen))[self.part])
        made = (
            self.augmentation(self.caches[number], row, rng, place in wanted)
            if self.cut
            else self.augmentation.draw(self.caches[number], row, rng)
            for place, (number, row) in enumerate(chosen.tolist())
        )
        crops, targets, taught = zip(*made, strict=True)
        crops, chosen = crops[self.part], chosen[self.part]
        schema = self.augmentation.schema
        lessons = [task for task in self.tasks if any(task in face for face in taught)]
        labels = stack_targets(targets, self.tasks, schema), stack_targets(taught, lessons, schema, taught=True)
        if self.cut:
            return Batch(torch.from_numpy(to_nchw(np.stack(crops))), *labels)
        rows = self._starts[chosen[:, 0]] + chosen[:, 1]
        return Batch(None, *labels, torch.from_numpy(rows), torch.from_numpy(np.stack(crops)).float())


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one decides when to stop


def batch_loader(dataset: StepDataset, first: int, last: int, workers: int, pin: bool = False) -> Iterator[Batch]:
    """Batches of the steps ``first`` to ``last - 1``, in order; in pinned memory for a GPU, if wanted.

    Workers make them ahead, and a thread of this process fetches them from the workers; without workers each is made
    when it is asked for. Letting go of the iterator ends workers and thread.
    """
    batches = iter(
        DataLoader(
            dataset,
            batch_size=None,
            sampler=range(first, last),
            num_workers=workers,
            worker_init_fn=_start_worker,
            prefetch_factor=PREFETCH if workers else None,
            pin_memory=pin,
        )
    )
    # A loader that pins has a thread of its own, which fetches.
    yield from fetched_ahead(batches) if workers and not pin else batches


def fetched_ahead(batches: Iterator[Batch], count: int = FETCHED) -> Iterator[Batch]:
    """The same batches, of which a thread fetches ``count`` before they are asked for.

    To receive one takes the better part of a millisecond. Between two steps that would be lost; beside a step, which is
    in torch and without Python's lock for most of its time, it is not. What ``batches`` raises is raised in its place.
    """
    thread = ThreadPoolExecutor(1, "batches")
    try:
        coming = deque(thread.submit(next, batches, None) for _ in range(count))
        while (batch := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, batches, None))
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)
