"""Augmentation on the device: its crops are those of the workers, and its disturbances leave faces where they are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import read_log, results, tiny_data, tiny_faces, tiny_recipe, train_quietly
from torch.utils._python_dispatch import TorchDispatchMode

from facemtl.data import device_transforms
from facemtl.data.cache import CropCache
from facemtl.data.device_transforms import (
    DISTURBANCES,
    DeviceAugmentation,
    Draws,
    brightness_contrast,
    cut_crops,
    disturb,
    gamma,
    grey,
    noise,
    occlusion,
)
from facemtl.data.sample import FaceSample
from facemtl.data.transforms import Augmentation
from facemtl.errors import ConfigError
from facemtl.geometry import BOX_SIDE, apply_affine, crop_matrix, points_to_crop, warp_crop
from facemtl.training.batches import StepDataset, batch_loader
from facemtl.training.engine import Run, train
from facemtl.training.training_data import TrainingData

CPU = torch.device("cpu")
P, SIZE, CROP_SCALE = 96, 40, 1.2
# A face in the middle half of a patch, as a cache holds it.
SHAPE = np.array([[-20.0, -20], [20, -20], [0, 2], [-15, 20], [15, 18]])
SHAPE -= SHAPE.mean(axis=0)
FIVE = SHAPE / np.hypot(*SHAPE.T).mean() * (P / 2 / BOX_SIDE) + (P - 1) / 2
BOX = np.array([23.5, 23.5, 71.5, 71.5])
PLACES = {
    "plain": crop_matrix(BOX, SIZE, CROP_SCALE),
    "rotated": crop_matrix(BOX + 1.3, SIZE, CROP_SCALE, roll=math.radians(17)),
    "mirrored": crop_matrix(BOX - 2.4, SIZE, 1.05, roll=-0.2, mirror=True),
    "over the edge": crop_matrix(BOX + 40, SIZE, 1.3, roll=0.1),
}
EVERY_PLACE = pytest.mark.parametrize("matrix", PLACES.values(), ids=PLACES.keys())
NAMES = {change.__name__: change for change in DISTURBANCES}


def all_but(*names: str) -> pytest.MarkDecorator:
    changes = {name: change for name, change in NAMES.items() if name not in names}
    return pytest.mark.parametrize("change", changes.values(), ids=changes.keys())


def blobs(points: np.ndarray, size: int = P, sigma: float = 2.5, height: float = 200.0) -> np.ndarray:
    """(K, size, size) float pictures with one soft dot each."""
    y, x = np.mgrid[:size, :size]
    return np.stack([height * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points])


def centroids(pictures: np.ndarray) -> np.ndarray:
    """(..., S, S) of bright on black -> (..., 2) index coordinates of the middle of the light."""
    places, mass = np.arange(pictures.shape[-1]), pictures.sum(axis=(-2, -1))
    x, y = pictures.sum(axis=-2) @ places / mass, pictures.sum(axis=-1) @ places / mass
    return np.stack([x, y], axis=-1)


def smooth_picture(size: int = P) -> np.ndarray:
    """(size, size, 3) uint8: waves, of another direction in every channel."""
    y, x = np.mgrid[:size, :size] * (2 * math.pi / 24)
    waves = np.stack([np.sin(x + 0.4 * y), np.sin(y - 0.3 * x), np.sin(0.5 * x + y)], axis=2)
    return np.round(127 + 100 * waves).astype(np.uint8)


def cut(patch: np.ndarray, matrix: np.ndarray, size: int = SIZE, samples: int = 1) -> np.ndarray:
    """One crop by torch, (S, S[, 3]) float."""
    (crop,) = cut_crops(torch.from_numpy(patch)[None], torch.from_numpy(matrix)[None].float(), size, samples)
    return crop.permute(1, 2, 0).numpy() if patch.ndim == 3 else crop[0].numpy()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- crops ---


def test_the_identity_cuts_the_patch_itself():
    patch = smooth_picture()
    np.testing.assert_allclose(cut(patch, np.eye(2, 3), P), patch, atol=1e-2)


def test_crops_by_hand():
    patch = np.arange(36, dtype=np.uint8).reshape(6, 6)  # 6 y + x
    shifted = cut(patch, np.array([[1.0, 0, 2], [0, 1, -1]]), 4)
    np.testing.assert_allclose(shifted, [[0, 0, 0, 0], [2, 3, 4, 5], [8, 9, 10, 11], [14, 15, 16, 17]], atol=1e-4)
    mirrored = cut(patch, np.array([[-1.0, 0, 5], [0, 1, 0]]), 2)
    np.testing.assert_allclose(mirrored, [[5, 4], [11, 10]], atol=1e-4)
    between = cut(patch, np.array([[1.0, 0, 0.5], [0, 1, 0.25]]), 2)
    np.testing.assert_allclose(between, [[2, 3], [8, 9]], atol=1e-4)  # 0.5 to the right, a quarter of 6 down
    half_outside = cut(patch, np.array([[1.0, 0, -0.5], [0, 1, 1]]), 2)
    np.testing.assert_allclose(half_outside, [[3, 6.5], [6, 12.5]], atol=1e-4)


def test_a_coarse_crop_averages_what_it_covers():
    patch = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    coarse = cut(patch, np.array([[2.0, 0, 0.5], [0, 2, 0.5]]), 4, samples=2)
    np.testing.assert_allclose(coarse, patch.reshape(4, 2, 4, 2).mean(axis=(1, 3)), atol=1e-3)


@EVERY_PLACE
def test_crops_are_those_of_warp_crop(matrix):
    patch = smooth_picture()
    difference = np.abs(cut(patch, matrix) - warp_crop(patch, matrix, SIZE))
    assert difference.mean() < 1  # of 255; OpenCV rounds places to 1/32 pixel and values to whole ones
    single = patch[..., 0].copy()
    assert np.abs(cut(single, matrix) - warp_crop(single, matrix, SIZE)).mean() < 1


@pytest.mark.parametrize("matrix", [crop_matrix(BOX, 20, 1.2), crop_matrix(BOX, 16, 1.2, roll=0.3, mirror=True)])
def test_coarse_crops_are_those_of_warp_crop(matrix):
    size = 20 if matrix[0, 0] > 0 else 16
    patch = smooth_picture()
    samples = int(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    assert samples >= 2
    assert np.abs(cut(patch, matrix, size, samples) - warp_crop(patch, matrix, size)).mean() < 3.5


@EVERY_PLACE
@pytest.mark.parametrize("samples", [1, 2])
def test_markers_move_as_points_do(matrix, samples):
    in_crop = np.array([[8.0, 8.5], [14.3, 11.0]])  # far enough from the edges of crop and patch to be seen whole
    for blob, there in zip(blobs(apply_affine(matrix, in_crop)), in_crop, strict=True):
        patch = np.round(blob).astype(np.uint8)
        np.testing.assert_allclose(centroids(cut(patch, matrix, SIZE, samples)), there, atol=0.1)
        np.testing.assert_allclose(centroids(warp_crop(patch, matrix, SIZE).astype(float)), there, atol=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_points_of_both_pipelines_are_the_same_and_lie_on_the_markers(channels):
    patches = np.round(blobs(FIVE)).astype(np.uint8)  # one face five times, of which each patch shows one point
    patches = patches if channels == 1 else np.repeat(patches[..., None], 3, axis=3)
    cache = CropCache(patches, np.float32([FIVE] * 5), {}, "mtfl5")
    augmentation = Augmentation(SIZE, channels, CROP_SCALE, pixels=0.0)
    device = DeviceAugmentation([cache], SIZE, CROP_SCALE, 0.0, 0, CPU)
    seen, mirrors = 0, set()
    for seed in range(40):
        for k in range(5):
            image, targets, _ = augmentation(cache, k, np.random.default_rng(seed))
            matrix, same, _ = augmentation.draw(cache, k, np.random.default_rng(seed))
            np.testing.assert_array_equal(same["landmarks"], targets["landmarks"])
            mirrored = np.linalg.det(matrix[:, :2]) < 0
            x, y = points_to_crop(same["landmarks"][(1, 0, 2, 4, 3)[k] if mirrored else k], SIZE)
            if not (7 < x < SIZE - 8 and 7 < y < SIZE - 8):
                continue
            seen, mirrors = seen + 1, mirrors | {mirrored}
            crop = device(torch.tensor([k]), torch.from_numpy(matrix)[None].float(), seed)[0, 0].numpy()
            np.testing.assert_allclose(centroids(crop.astype(float)), (x, y), atol=0.1)
            theirs = image if channels == 1 else image[..., 0]
            np.testing.assert_allclose(centroids(theirs.astype(float)), (x, y), atol=0.1)
    assert seen > 50
    assert mirrors == {True, False}


# --- disturbances ---


def dotted(count: int, place: tuple[float, float] = (18.3, 21.8)) -> torch.Tensor:
    """(count, 3, SIZE, SIZE): an orange dot, of 3 pixels deviation, on dark blue."""
    (blob,) = blobs(np.array([place]), SIZE, sigma=3.0, height=1.0)
    ground, light = np.array([80.0, 60, 50]), np.array([30.0, 70, 120])
    picture = ground[:, None, None] + light[:, None, None] * blob
    return torch.from_numpy(picture).float().expand(count, 3, SIZE, SIZE)


@all_but()
def test_every_disturbance_changes_pixels_of_every_picture_differently(change):
    images = dotted(8)
    changed = change(images, Draws(seeded(), 8))
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert torch.isfinite(changed).all()
    assert ((changed - images).abs().amax(dim=(1, 2, 3)) > 0.5).all()
    if change is not grey:  # nothing about it is drawn
        assert ((changed - changed.roll(1, dims=0)).abs().amax(dim=(1, 2, 3)) > 0.1).all()
    torch.testing.assert_close(change(images, Draws(seeded(), 8)), changed, rtol=0, atol=0)


@all_but("occlusion")  # which hides, see below
def test_no_disturbance_moves_a_marker(change):
    changed = change(dotted(200), Draws(seeded(), 200)).clamp(0, 255).numpy()
    corner = changed[:, :, :3, :3].mean(axis=(2, 3), keepdims=True)
    far = np.hypot(*(np.mgrid[:SIZE, :SIZE] - np.array([21.8, 18.3])[:, None, None])) > 12
    light = np.where(far, 0, changed - corner).sum(axis=1)
    moved = np.hypot(*(centroids(light) - [18.3, 21.8]).T)
    single = 0.1 if change is not noise else 1.0  # noise has a middle of its own in every picture
    assert moved.max() < single
    assert np.hypot(*(centroids(light).mean(axis=0) - [18.3, 21.8])) < 0.05


def test_an_occlusion_is_one_rectangle_of_one_colour():
    images = dotted(50)
    changed = occlusion(images, Draws(seeded(), 50))
    for before, after in zip(images, changed, strict=True):
        hidden = (before != after).any(dim=0)
        rows, columns = hidden.any(dim=1).nonzero()[:, 0], hidden.any(dim=0).nonzero()[:, 0]
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert hidden[top:bottom, left:right].all()
        assert hidden.sum() == (bottom - top) * (right - left)
        assert 0.1 * SIZE - 1 <= bottom - top <= 0.35 * SIZE + 1
        assert 0.1 * SIZE - 1 <= right - left <= 0.35 * SIZE + 1
        inside = after[:, top:bottom, left:right].flatten(1)
        assert (inside == inside[:, :1]).all()
        assert inside.min() >= 0 and inside.max() <= 255


@all_but("occlusion", "noise")  # which add something of their own
def test_what_is_of_one_grey_stays_flat(change):
    flat = torch.full((20, 3, SIZE, SIZE), 90.0)
    changed = change(flat, Draws(seeded(), 20))
    assert (changed - changed[:, :1, :1, :1]).abs().max() < 1e-2  # also at the edges
    if change not in (brightness_contrast, gamma):
        torch.testing.assert_close(changed, flat, rtol=0, atol=1e-2)


def test_grey_is_luma():
    bgr = torch.tensor([200.0, 100.0, 50.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    expected = torch.full((1, 3, 2, 2), 0.114 * 200 + 0.587 * 100 + 0.299 * 50)
    torch.testing.assert_close(grey(bgr, Draws(seeded(), 1)), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_extreme_pictures_stay_in_range(channels):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.choice([0.0, 255.0], (256, channels, 16, 16))).float()
    changed = disturb(images, 1.0, seeded())
    assert changed.min() >= 0 and changed.max() <= 255
    assert torch.isfinite(changed).all()


@all_but()
def test_each_comes_as_often_as_it_should(monkeypatch, change):
    """Of 4,000 pictures, within four deviations."""
    monkeypatch.setattr(device_transforms, "DISTURBANCES", {change: DISTURBANCES[change]})
    images = dotted(4000)[:, :, 16:24, 16:24] + torch.arange(3.0).reshape(1, 3, 1, 1)
    if change is occlusion:
        images = images * 0 - 1  # so that every colour of it is seen
    changed = (disturb(images, 0.5, seeded()) != images).flatten(1).any(dim=1).float().mean().item()
    expected = 0.5 * DISTURBANCES[change]
    # An occlusion may be narrower than a pixel of these small pictures, and fall between two centres.
    low = 0.6 if change is occlusion else 1.0
    deviation = 4 * math.sqrt(expected * (1 - expected) / 4000)
    assert low * expected - deviation < changed < expected + deviation


def test_without_a_share_nothing_happens():
    assert torch.equal(disturb(dotted(4), 0.0, seeded()), dotted(4))


# --- batches ---


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def faces(folder) -> list[FaceSample]:
    return tiny_faces(folder)


@pytest.fixture(scope="module")
def data(folder, faces) -> TrainingData:
    return tiny_data(tiny_recipe(), faces, folder / "cache")


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
