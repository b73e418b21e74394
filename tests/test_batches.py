"""Batches: every step has its own, the same whenever and by whomever it is made; sets come in their shares."""

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from multiprocessing.reduction import ForkingPickler

import cv2
import numpy as np
import pytest
import torch

from facemtl.data.cache import CropCache
from facemtl.errors import ConfigError
from facemtl.training.batches import (
    Batch,
    StepDataset,
    balanced_rows,
    batch_loader,
    fetched_ahead,
    known_faces,
    plain_batch,
    stack_targets,
)

NAN = float("nan")


class Recorder:
    """Stands for an augmentation: the picture is the number of the row and the set, the points are a random draw."""

    schema = "mtfl5"

    def __call__(self, cache, row, rng, cut=True):
        targets = {"landmarks": np.full((5, 2), rng.integers(1000), np.float32)}
        if cache.labels:
            targets["smile"] = cache.labels["smile"][row]
        taught = {task: values[row] for task, values in cache.taught.items()}
        return np.array([[[row, cache.patches[row, 0, 0], 0]]], np.uint8), targets, taught


def cache_of(faces: int, number: int = 0, **labels) -> CropCache:
    """Patches that show the number of their set."""
    patches = np.full((faces, 1, 1), number, np.uint8)
    return CropCache(patches, np.zeros((faces, 5, 2), np.float32), labels, "mtfl5")


def dataset(faces: int = 10, batch_size: int = 3, seed: int = 5) -> StepDataset:
    cache = cache_of(faces, smile=np.arange(faces) % 2)
    return StepDataset({"main": cache}, Recorder(), ("landmarks", "smile"), batch_size, seed)


def mixed(sizes: Mapping[str, int], mix: Mapping[str, float], batch_size: int = 4, seed: int = 5) -> StepDataset:
    caches = {name: cache_of(faces, number) for number, (name, faces) in enumerate(sizes.items())}
    return StepDataset(caches, Recorder(), ("landmarks",), batch_size, seed, mix)


def rows(batch: Batch) -> list[int]:
    return batch.images[:, 0].flatten().tolist()


def shown(steps: StepDataset, number: int, epochs: range) -> list[int]:
    """The rows of one set in the order in which these epochs show them."""
    first, last = (steps.steps_per_epoch * epoch for epoch in (epochs.start, epochs.stop))
    crops = torch.cat([steps[step].images[:, :2].flatten(1) for step in range(first, last)]).tolist()
    return [row for row, of in crops if of == number]


def test_an_epoch_shows_every_face_once_and_leaves_an_incomplete_batch_out():
    steps = dataset()
    assert steps.steps_per_epoch == 3
    for epoch in range(3):
        seen = [row for step in range(3) for row in rows(steps[3 * epoch + step])]
        assert len(set(seen)) == 9


def test_every_epoch_has_another_order_and_so_has_every_seed():
    orders = [
        [row for step in range(3) for row in rows(dataset(seed=seed)[first + step])]
        for seed, first in ((5, 0), (5, 3), (6, 0))
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_every_step_disturbs_its_faces_by_a_generator_of_its_own():
    steps = dataset(seed=7)
    for step in (0, 1, 4):
        drawn = np.random.default_rng((7, step)).integers(1000, size=3).tolist()
        assert steps[step].targets["landmarks"][:, 0, 0].tolist() == drawn


def test_labels_are_those_of_the_faces_shown():
    batch = dataset()[4]
    assert batch.targets["smile"].tolist() == [row % 2 for row in rows(batch)]
    assert batch.targets["smile"].dtype == torch.int64
    assert batch.taught == {}


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


# --- from a worker to the training ---


def test_a_batch_comes_from_a_worker_as_it_was_made_and_in_one_message():
    steps = taught_dataset()
    (batch,) = batch_loader(steps, first=1, last=2, workers=1)
    made = steps[1]
    assert list(batch.taught) == ["smile"]
    for here, there in (
        (batch.images, made.images),
        *((batch.targets[task], made.targets[task]) for task in ("landmarks", "smile")),
        (batch.taught["smile"], made.taught["smile"]),
    ):
        assert here.dtype == there.dtype
        assert torch.equal(here, there)
        assert not here.is_shared()  # as what torch sends in a file of its own is
        here[:] = 0  # it can be written to
    assert (batch.rows, batch.matrices) == (None, None)


def test_a_batch_without_images_comes_with_its_places():
    sent = Batch(None, {}, {}, torch.arange(3), torch.rand(3, 2, 3))
    batch = ForkingPickler.loads(ForkingPickler.dumps(sent))
    assert (batch.images, batch.targets, batch.taught) == (None, {}, {})
    assert torch.equal(batch.rows, sent.rows)
    assert torch.equal(batch.matrices, sent.matrices)


def taught_dataset() -> StepDataset:
    steps = dataset()
    steps.caches[0].taught["smile"] = np.random.default_rng(0).random((10, 2), np.float32)
    return steps


def endless(fetched: list[int]) -> Iterator[int]:
    while True:
        fetched.append(len(fetched))
        yield fetched[-1]


def await_that(condition) -> None:
    """Within ten seconds, however busy the machine."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_batches_are_fetched_before_they_are_asked_for_but_no_more_than_that():
    fetched = []
    ahead = fetched_ahead(endless(fetched), count=2)
    assert [next(ahead), next(ahead)] == [0, 1]
    await_that(lambda: len(fetched) == 4)  # two were taken, two are ahead
    time.sleep(0.02)
    assert len(fetched) == 4
    ahead.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_what_comes_after_the_last_batch_ends_or_raises_in_its_place():
    assert list(fetched_ahead(iter(range(5)), count=3)) == [0, 1, 2, 3, 4]
    assert list(fetched_ahead(iter([]), count=3)) == []

    def broken():
        yield 0
        yield 1
        raise ValueError("the worker is gone")

    ahead = fetched_ahead(broken(), count=3)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="the worker is gone"):
        next(ahead)
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_a_loader_that_is_left_in_the_middle_leaves_no_process():
    batches = batch_loader(dataset(), first=0, last=50, workers=2)
    assert rows(next(batches)) == rows(dataset()[0])
    assert len(multiprocessing.active_children()) == 2
    del batches
    await_that(lambda: not multiprocessing.active_children())


# --- several sets ---

SIZES = {"main": 12, "large": 40, "small": 5}
MIX = {"main": 0.5, "large": 0.25, "small": 0.25}


def test_an_epoch_shows_the_main_set_once_and_of_the_others_their_shares():
    steps = mixed(SIZES, MIX)
    assert steps.steps_per_epoch == (12 + 6 + 6) / 4
    for epoch in range(3):
        one = range(epoch, epoch + 1)
        assert sorted(shown(steps, 0, one)) == list(range(12))
        assert [len(shown(steps, number, one)) for number in (1, 2)] == [6, 6]


def test_a_share_that_shows_no_face_is_an_error():
    with pytest.raises(ConfigError, match=r"mix.b is too small: an epoch shows no face of it"):
        mixed({"a": 10, "b": 10}, {"a": 1.0, "b": 0.04})
    assert len(shown(mixed({"a": 10, "b": 10}, {"a": 1.0, "b": 0.06}, batch_size=1), 1, range(1))) == 1


def test_shares_are_relative_and_a_set_that_is_not_named_has_as_many_crops_as_the_main_set():
    assert mixed(SIZES, {"main": 4, "large": 1, "small": 1}).steps_per_epoch == (12 + 3 + 3) // 4
    assert mixed(SIZES, {}).steps_per_epoch == 36 // 4
    assert mixed(SIZES, {"main": 1, "large": 2.5}).steps_per_epoch == (12 + 30 + 12) // 4


def test_the_other_sets_are_walked_through_in_endless_passes_without_loss_or_repetition():
    steps = mixed(SIZES, MIX)
    # Six crops an epoch: 40 faces take 6 2/3 epochs, 5 faces take less than one. Within an epoch the order is shuffled
    # once more, so that passes are told apart only where an epoch ends with them, or by how often a face was seen.
    large = shown(steps, 1, range(20))
    assert set(Counter(large).values()) == {3}
    for first in range(0, 20, 7):
        assert len(set(shown(steps, 1, range(first, first + 3)))) >= 17  # only the end of a pass may meet the next
    small = shown(steps, 2, range(5))
    assert Counter(small) == dict.fromkeys(range(5), 6)
    for epoch in range(5):
        assert set(Counter(shown(steps, 2, range(epoch, epoch + 1))).values()) <= {1, 2}


def test_every_pass_has_an_order_of_its_own():
    steps = mixed({"main": 6, "other": 6}, {}, batch_size=12)
    orders = [tuple(steps._drawn(1, epoch)[:, 1].tolist()) for epoch in range(4)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(6)) for order in orders)


def test_a_step_of_several_sets_is_the_same_in_another_order_and_another_process():
    # 20 steps of 6 an epoch, which cross the ends of epochs and of passes
    there = [mixed(SIZES, MIX)[step] for step in range(20)]
    steps = mixed(SIZES, MIX)
    back = [steps[step] for step in reversed(range(20))][::-1]
    cv2.setNumThreads(1)  # as training does: a worker cannot leave threads that it has lost by forking
    elsewhere = list(batch_loader(mixed(SIZES, MIX), first=7, last=20, workers=1))
    for others, first in ((back, 0), (elsewhere, 7)):
        for one, other in zip(there[first:], others, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets["landmarks"], other.targets["landmarks"])


# --- balance ---


@pytest.mark.parametrize(
    ("balance", "times"),
    [
        (0.0, (1, 1, 1)),
        (0.5, (1, 2, 4)),  # the commonest class has 16 faces: the roots of 16 / 4 and 16 / 1
        (1.0, (1, 4, 8)),  # 16 / 1 would be 16 times: 8 are the most
        (0.3, (1, 2, 2)),  # 4 ** 0.3 = 1.5157, 16 ** 0.3 = 2.2974
    ],
)
def test_rare_poses_are_repeated(balance, times):
    pose = np.array([2] * 16 + [0] * 4 + [4])
    chosen = balanced_rows(cache_of(21, pose=pose), balance)
    assert Counter(chosen.tolist()) == dict(zip(range(21), np.repeat(times, (16, 4, 1)).tolist(), strict=True))


def test_faces_without_the_label_and_sets_without_it_stay_once():
    assert balanced_rows(cache_of(4, pose=np.array([-1, 2, 2, 0])), 1.0).tolist() == [0, 1, 2, 3, 3]
    assert balanced_rows(cache_of(3, pose=np.full(3, -1)), 1.0).tolist() == [0, 1, 2]
    assert balanced_rows(cache_of(3, smile=np.array([0, 0, 1])), 1.0).tolist() == [0, 1, 2]


def test_an_epoch_of_a_balanced_set_shows_its_rare_faces_as_often_as_that():
    cache = cache_of(6, pose=np.array([2, 2, 2, 2, 0, -1]))
    steps = StepDataset({"main": cache}, Placeless(), ("landmarks",), 1, seed=0, balance=1.0)
    assert steps.steps_per_epoch == 9
    assert Counter(shown(steps, 0, range(1))) == {0: 1, 1: 1, 2: 1, 3: 1, 4: 4, 5: 1}


class Placeless(Recorder):
    def __call__(self, cache, row, rng, cut=True):
        image, targets, taught = super().__call__(cache_of(len(cache)), row, rng, cut)
        return image, targets, taught


# --- targets ---


def test_a_face_without_a_label_for_a_task_has_a_missing_one():
    faces = [
        {"landmarks": np.ones((5, 2), np.float32), "smile": np.int64(1), "unasked": np.int64(7)},
        {"landmarks_ibug68": np.ones((68, 2), np.float32)},
        {"angles": np.float32([1, NAN, 3])},
    ]
    tasks = ("smile", "landmarks", "landmarks_ibug68", "angles")
    stacked = stack_targets(faces, tasks, "mtfl5")
    assert tuple(stacked) == tasks
    assert stacked["smile"].tolist() == [1, -1, -1]
    assert stacked["smile"].dtype == torch.int64
    for task, shape, known in (
        ("landmarks", (3, 5, 2), [True, False, False]),
        ("landmarks_ibug68", (3, 68, 2), [False, True, False]),
        ("angles", (3, 3), [False, False, True]),
    ):
        assert (tuple(stacked[task].shape), stacked[task].dtype) == (shape, torch.float32)
        assert stacked[task].isfinite().flatten(1).any(dim=1).tolist() == known
        assert known_faces(stacked[task]) == 1
    assert known_faces(stacked["smile"]) == 1


def test_what_is_taught_of_an_attribute_is_the_probability_of_every_class():
    faces = [{"pose": np.float32([0, 0.5, 0.5, 0, 0])}, {}]
    taught = stack_targets(faces, ("pose",), "mtfl5", taught=True)["pose"]
    assert taught[0].tolist() == [0, 0.5, 0.5, 0, 0]
    assert taught[1].isnan().all()
    assert (taught.dtype, int(known_faces(taught))) == (torch.float32, 1)


def test_a_batch_has_lessons_for_the_tasks_of_the_student_that_a_teacher_taught():
    taught = {"smile": np.float32([[0.25, 0.75]] * 4), "angles": np.zeros((4, 3), np.float32)}
    caches = {"one": cache_of(4), "two": cache_of(4, 1)}
    caches["one"].taught.update(taught)
    batch = StepDataset(caches, Recorder(), ("landmarks", "smile"), 8, seed=0)[0]
    assert list(batch.taught) == ["smile"]
    of = batch.images[:, 1].flatten()
    assert (batch.taught["smile"][of == 0] == torch.tensor([0.25, 0.75])).all()
    assert batch.taught["smile"][of == 1].isnan().all()
    assert set(batch.targets) == {"landmarks", "smile"}
    assert known_faces(batch.targets["smile"]) == 0


def test_a_batch_splits_into_parts_of_all_it_has():
    taught = {"smile": torch.rand(5, 2)}
    batch = Batch(torch.arange(5).reshape(5, 1, 1, 1), {"pose": torch.arange(5)}, taught)
    parts = list(batch.split(2))
    assert [len(part.images) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert torch.equal(torch.cat([part.targets["pose"] for part in parts]), batch.targets["pose"])
    assert torch.equal(torch.cat([part.taught["smile"] for part in parts]), taught["smile"])


def test_a_plain_batch_is_every_face_in_order():
    patches = np.arange(3, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    cache = CropCache(patches, np.full((3, 5, 2), 3.5, np.float32), {"smile": np.array([1, -1, 0])}, "mtfl5")
    batch = plain_batch(cache, ("landmarks", "smile", "angles"), size=4, crop_scale=1.0, schema="mtfl5")
    assert batch.images.shape == (3, 1, 4, 4)
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert batch.targets["smile"].tolist() == [1, -1, 0]
    assert not batch.targets["landmarks"].any()  # the middle of the patch is the middle of the crop
    assert known_faces(batch.targets["angles"]) == 0
