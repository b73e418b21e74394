"""Batches as a pure function of the step number: any step can be made again, by another worker or after a restart."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facemtl.data.cache import CropCache
from facemtl.data.transforms import Augmentation


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images uint8 (N, C, S, S), points float32 (N, K, 2) with NaN where missing, labels task -> int64 (N,) with -1."""

    images: Tensor
    points: Tensor
    labels: dict[str, Tensor]

    @classmethod
    def of(cls, images: np.ndarray, points: np.ndarray, labels: dict[str, np.ndarray]) -> Batch:
        tensors = {task: torch.from_numpy(np.ascontiguousarray(values)) for task, values in labels.items()}
        return cls(torch.from_numpy(images), torch.from_numpy(points), tensors)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        moved = {task: values.to(device, non_blocking=True) for task, values in self.labels.items()}
        return Batch(self.images.to(device, non_blocking=True), self.points.to(device, non_blocking=True), moved)


class StepDataset(Dataset):
    """Item ``i`` is the batch of training step ``i``."""

    def __init__(self, cache: CropCache, augmentation: Augmentation, batch_size: int, seed: int) -> None:
        self.cache = cache
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = len(cache) // batch_size
        self._order: tuple[int, np.ndarray] | None = None

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.cache))
        return self._order[1]

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self.steps_per_epoch)
        first = position * self.batch_size
        rows = self._epoch_order(epoch)[first : first + self.batch_size]
        return Batch.of(*self.augmentation(self.cache, rows, seed=(self.seed, step)))


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one decides when to stop


def batch_loader(dataset: StepDataset, first: int, last: int, workers: int) -> DataLoader:
    """Batches of the steps ``first`` to ``last - 1``, in order."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        worker_init_fn=_start_worker,
        prefetch_factor=8 if workers else None,
    )
