"""Batches cut on the device: a function of seed and step, in trainings too, and nothing is waited for on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from device_crops import CPU, CROP_SCALE, FIVE, PLACES, SIZE, P, cut, smooth_picture
from tiny_training import read_log, results, tiny_recipe, train_quietly
from torch.utils._python_dispatch import TorchDispatchMode

from facemtl.data import device_transforms
from facemtl.data.cache import CropCache
from facemtl.data.device_transforms import DeviceAugmentation
from facemtl.data.transforms import Augmentation
from facemtl.errors import ConfigError
from facemtl.training.batches import StepDataset, batch_loader
from facemtl.training.engine import Run, train
from facemtl.training.training_data import TrainingData


@pytest.fixture(scope="module")
def cache() -> CropCache:
    patches = np.stack([np.roll(smooth_picture(), shift, axis=0) for shift in range(12)])
    return CropCache(patches, np.float32([FIVE] * 12), {"smile": np.arange(12) % 2}, "mtfl5")


def made(cache: CropCache, seed: int = 0, step: int = 0, pixels: float = 1.0) -> torch.Tensor:
    device = DeviceAugmentation([cache], SIZE, CROP_SCALE, pixels, seed, CPU)
    device(torch.arange(3), torch.from_numpy(np.stack(list(PLACES.values())[:3])).float(), 99)  # leaves no trace
    return device(torch.arange(12), torch.from_numpy(np.stack([PLACES["rotated"]] * 12)).float(), step)


def test_a_batch_is_a_function_of_seed_and_step(cache):
    first = made(cache)
    assert first.shape == (12, 3, SIZE, SIZE)
    assert first.dtype == torch.uint8
    assert torch.equal(made(cache), first)
    for seed, step in ((1, 0), (0, 1), (1, 1)):
        assert not torch.equal(made(cache, seed, step), first)
    plain = made(cache, pixels=0.0)
    assert torch.equal(plain, made(cache, seed=1, step=1, pixels=0.0))
    np.testing.assert_allclose(plain[5].permute(1, 2, 0), cut(cache.patches[5], PLACES["rotated"]), atol=0.51)


def test_rows_count_through_all_sets(cache):
    """As they leave the loader, from two sets of which the second has points of another schema."""
    other = CropCache(255 - cache.patches[:5], np.full((5, 68, 2), np.nan, np.float32), {}, "ibug68")
    augmentation = Augmentation(SIZE, 3, CROP_SCALE, pixels=0.0)
    sets = {"a": cache, "b": other}
    steps = StepDataset(sets, augmentation, ["landmarks", "smile"], 16, seed=0, mix={"a": 1, "b": 1 / 3}, cut=False)
    device = DeviceAugmentation(steps.caches, SIZE, CROP_SCALE, 0.0, 0, CPU)
    assert device.patches.shape == (17, P, P, 3)
    (batch,) = batch_loader(steps, 0, 1, workers=0)
    assert batch.images is None
    assert (batch.rows.dtype, batch.matrices.dtype) == (torch.int64, torch.float32)
    assert (batch.rows < 12).sum() == 12
    assert (batch.targets["smile"][batch.rows >= 12] == -1).all()
    labels = torch.from_numpy(cache.labels["smile"])
    assert torch.equal(batch.targets["smile"][batch.rows < 12], labels[batch.rows[batch.rows < 12]])
    patches = np.concatenate([cache.patches, other.patches])
    for row, matrix, image in zip(
        batch.rows, batch.matrices.numpy(), device(batch.rows, batch.matrices, 0), strict=True
    ):
        np.testing.assert_allclose(image.permute(1, 2, 0), cut(patches[row], matrix.astype(float)), atol=0.51)


def test_the_parts_of_a_batch_are_moved_and_split_together(cache):
    steps = StepDataset({"a": cache}, Augmentation(SIZE, 3, CROP_SCALE), ["smile"], 12, seed=0, cut=False)
    whole = steps[0].to(CPU)
    parts = list(whole.split(5))
    assert [len(part.rows) for part in parts] == [5, 5, 2]
    assert torch.equal(torch.cat([part.matrices for part in parts]), whole.matrices)
    assert torch.equal(torch.cat([part.targets["smile"] for part in parts]), whole.targets["smile"])


def test_a_coarse_recipe_averages_over_as_many_pixels_as_warp_crop(cache):
    def samples(size: int) -> int:
        return DeviceAugmentation([cache], size, CROP_SCALE, 0.0, 0, CPU).samples

    assert [samples(size) for size in (96, 57, 40, 28, 19, 14)] == [1, 1, 1, 2, 3, 4]  # crops of 57.6 patch pixels


def test_patches_that_do_not_fit_are_an_error_that_says_what_to_do(monkeypatch, cache):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(device_transforms.torch, "empty", full)
    with pytest.raises(ConfigError, match=r'0\.0 GB of patches do not fit on the device: set augment_on = "workers"'):
        DeviceAugmentation([cache], SIZE, CROP_SCALE, 0.0, 0, CPU)


# --- training ---


def learned(recipe, data: TrainingData, out: Path, device: str = "cpu") -> bool:
    """Whether the points' error of the log fell to less than half."""
    train(recipe, data, out, device, progress=False)
    errors = [float(row["augmented/landmarks"]) for row in read_log(out)]
    return errors[-1] < errors[0] / 2


def test_a_training_learns_resumes_and_does_not_mind_workers(tmp_path, data):
    recipe = tiny_recipe(epochs=12, augment_on="device")
    assert learned(recipe, data, tmp_path / "whole")
    for stop in (3, 6, None):
        train_quietly(recipe, data, tmp_path / "stopped", max_steps=stop)
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_recipe_says_workers_or_device():
    assert tiny_recipe().augment_on == "workers"
    with pytest.raises(ConfigError, match="augment_on = 'gpu', expected one of workers, device"):
        tiny_recipe(augment_on="gpu")


class NoReading(TorchDispatchMode):
    """Within, nothing may ask for a value, which on a GPU would wait for everything that was ordered before."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in self.WAITS, function
        return function(*args, **(kwargs or {}))


def test_a_step_reads_nothing_from_the_device(tmp_path, data):
    run = Run(tiny_recipe(augment_on="device"), data, tmp_path, CPU)
    batch = run.dataset[0]
    with NoReading():
        run.backward(run.images(batch), batch)
    with pytest.raises(AssertionError, match="scalar"), NoReading():
        torch.ones(()).item()


# --- on a GPU ---

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@on_gpu
def test_cpu_and_gpu_cut_the_same(cache):
    matrices = torch.from_numpy(np.stack(list(PLACES.values()) * 3)).float()
    crops = [
        DeviceAugmentation([cache], SIZE, CROP_SCALE, 0.0, 0, torch.device(device))(
            torch.arange(12, device=device), matrices.to(device), 0
        ).cpu()
        for device in ("cpu", "cuda")
    ]
    assert (crops[0].int() - crops[1].int()).abs().max() <= 1


@pytest.mark.gpu
@on_gpu
def test_a_batch_is_a_function_of_seed_and_step_on_a_gpu(cache):
    device = DeviceAugmentation([cache], SIZE, CROP_SCALE, 1.0, 3, torch.device("cuda"))
    rows = torch.arange(12, device="cuda")
    matrices = torch.from_numpy(np.stack([PLACES["rotated"]] * 12)).float().cuda()
    first = device(rows, matrices, 0)
    assert not torch.equal(device(rows, matrices, 1), first)
    assert torch.equal(device(rows, matrices, 0), first)


@pytest.mark.gpu
@on_gpu
def test_a_gpu_learns_and_is_not_waited_for(tmp_path, data):
    recipe = tiny_recipe(epochs=12, augment_on="device", workers=1)
    assert learned(recipe, data, tmp_path / "learned", "cuda")
    run = Run(recipe, data, tmp_path / "steps", torch.device("cuda"))
    batches = [batch.to(run.device) for batch in batch_loader(run.dataset, 0, 3, workers=0, pin=True)]
    run.step(batches[0])  # the first one makes handles and workspaces
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            run.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
