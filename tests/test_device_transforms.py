"""Augmentation on the device: its crops are those of the workers, and its disturbances leave faces where they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from device_crops import BOX, CPU, CROP_SCALE, FIVE, PLACES, SIZE, P, cut, smooth_picture

from facemtl.data import device_transforms
from facemtl.data.cache import CropCache
from facemtl.data.device_transforms import (
    DISTURBANCES,
    DeviceAugmentation,
    Draws,
    brightness_contrast,
    disturb,
    gamma,
    grey,
    noise,
    occlusion,
)
from facemtl.data.transforms import Augmentation
from facemtl.geometry import apply_affine, crop_matrix, points_to_crop, warp_crop

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
