"""Batches: every step has its own, the same whenever and by whomever it is made."""

import numpy as np
import torch

from facemtl.data.cache import CropCache
from facemtl.training.batches import Batch, StepDataset, batch_loader


class Recorder:
    """Stands for an augmentation: the picture is the number of the row, the points are the seed of the step."""

    def __call__(self, cache, rows, seed):
        images = np.broadcast_to(np.uint8(rows)[:, None, None, None], (len(rows), 1, 1, 1)).copy()
        points = np.broadcast_to(np.float32(seed), (len(rows), 1, 2)).copy()
        return images, points, {"smile": cache.labels["smile"][rows]}


def dataset(faces: int = 10, batch_size: int = 3, seed: int = 5) -> StepDataset:
    empty = np.zeros((faces, 1, 1), np.uint8)
    cache = CropCache(empty, np.zeros((faces, 1, 2), np.float32), {"smile": np.arange(faces) % 2}, "mtfl5")
    return StepDataset(cache, Recorder(), batch_size, seed)


def rows(batch: Batch) -> list[int]:
    return batch.images.flatten().tolist()


def test_an_epoch_shows_every_face_once_and_leaves_an_incomplete_batch_out():
    steps = dataset()
    assert steps.steps_per_epoch == 3
    for epoch in range(3):
        shown = [row for step in range(3) for row in rows(steps[3 * epoch + step])]
        assert len(set(shown)) == 9


def test_every_epoch_has_another_order_and_so_has_every_seed():
    orders = [
        [row for step in range(3) for row in rows(dataset(seed=seed)[first + step])]
        for seed, first in ((5, 0), (5, 3), (6, 0))
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_every_step_disturbs_its_faces_by_a_seed_of_its_own():
    steps = dataset(seed=7)
    assert [steps[step].points[0, 0].tolist() for step in (0, 1, 4)] == [[7, 0], [7, 1], [7, 4]]


def test_labels_are_those_of_the_faces_shown():
    batch = dataset()[4]
    assert batch.labels["smile"].tolist() == [row % 2 for row in rows(batch)]
    assert batch.labels["smile"].dtype == torch.int64


def test_a_step_is_the_same_in_whatever_order_steps_are_made():
    forwards, backwards = dataset(), dataset()
    there = [rows(forwards[step]) for step in range(9)]
    back = [rows(backwards[step]) for step in reversed(range(9))]
    assert there == back[::-1]


def test_the_loader_gives_the_steps_asked_for_in_order():
    steps = dataset()
    loaded = [rows(batch) for batch in batch_loader(steps, first=2, last=6, workers=0)]
    assert loaded == [rows(steps[step]) for step in (2, 3, 4, 5)]
    assert list(batch_loader(steps, first=6, last=6, workers=0)) == []
