"""Training augmentation on the device that trains: all crops of a batch cut at once, then disturbed at once.

The counterpart of :mod:`facemtl.data.transforms` for a GPU, which would wait for workers that cut one crop after the
other. Workers still draw where each crop lies; its pixels never leave the device. Crops are those of
:func:`facemtl.geometry.warp_crop`; the disturbances are those of :func:`facemtl.data.transforms.pixel_transform` in
kind, strength and frequency, though not number by number, and there is none for JPEG. Nothing here waits for the
device: every shape is known beforehand, and what a picture is spared is computed and thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facemtl.data.cache import PATCH_SCALE, CropCache
from facemtl.errors import ConfigError

CHUNK = 1024  # patches that are uploaded at a time


def cut_crops(patches: Tensor, matrices: Tensor, size: int, samples: int = 1) -> Tensor:
    """The crops that ``matrices`` describe, bilinear, black outside of the patch.

    Args:
        patches: uint8 (N, P, P) grey or (N, P, P, 3) BGR.
        matrices: float32 (N, 2, 3), crop -> patch index coordinates (:func:`facemtl.geometry.crop_matrix`).
        size: S, side of a crop in pixels.
        samples: along each axis of a crop's pixel, averaged; more than 1 where crops are coarser than patches.

    Returns:
        float32 (N, C, S, S), 0 to 255.
    """
    images = patches[:, None] if patches.ndim == 3 else patches.permute(0, 3, 1, 2)
    side = patches.shape[1]
    linear = matrices[:, :, :2]
    middle = matrices[:, :, 2] + linear.sum(dim=2) * ((size - 1) / 2)
    # torch's coordinates are 0 in the middle of a picture and 1 at its edge, half a pixel beyond the last centre.
    into_patch = torch.cat([linear * (size / side), ((2 * middle + 1) / side - 1).unsqueeze(2)], dim=2)
    shape = [len(patches), images.shape[1], size * samples, size * samples]
    grid = F.affine_grid(into_patch, shape, align_corners=False)
    crops = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(crops, samples) if samples > 1 else crops


class Draws:
    """Random numbers for the N pictures of one batch, all from one generator and on its device."""

    def __init__(self, generator: torch.Generator, count: int) -> None:
        self.generator = generator
        self.count = count

    def uniform(self, low: float, high: float, channels: int = 1) -> Tensor:
        """float32 (N, channels, 1, 1)."""
        shape = (self.count, channels, 1, 1)
        return torch.rand(shape, generator=self.generator, device=self.generator.device) * (high - low) + low

    def normal(self, shape: torch.Size) -> Tensor:
        """float32 of any shape, mean 0, variance 1."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)


# Each of the following takes float32 (N, C, S, S) from 0 to 255 and returns what may leave that range.


def brightness_contrast(images: Tensor, draws: Draws) -> Tensor:
    """Grey levels times 0.7 to 1.3, plus or minus up to 0.3 of the range."""
    return images * draws.uniform(0.7, 1.3) + 255 * draws.uniform(-0.3, 0.3)


def colour(images: Tensor, draws: Draws) -> Tensor:
    """Hue turned by up to 16 degrees about the grey axis, and saturation times 0.7 to 1.3."""
    turn = draws.uniform(-math.radians(16), math.radians(16))
    across = (images.roll(1, dims=1) - images.roll(2, dims=1)) / 3**0.5
    mean = images.mean(dim=1, keepdim=True)
    turned = mean + (images - mean) * turn.cos() + across * turn.sin()  # Rodrigues about (1, 1, 1)
    luma = _luma(turned)
    return luma + (turned - luma) * draws.uniform(0.7, 1.3)


def gamma(images: Tensor, draws: Draws) -> Tensor:
    """Exponents from 0.6 to 1.6."""
    return 255 * (images / 255) ** draws.uniform(0.6, 1.6)


def blur(images: Tensor, draws: Draws) -> Tensor:
    """Gaussians of 0.3 to 1.4 pixels, of each axis its own: very different ones look like motion."""
    down, along = (_gaussian(images.shape[-1], draws.uniform(0.3, 1.4)) for _ in range(2))
    return down @ images @ along.transpose(2, 3)


def low_resolution(images: Tensor, draws: Draws) -> Tensor:
    """Averaged down to 0.4 to 0.8 of its size, and interpolated up again."""
    resampled = _coarse(images.shape[-1], 1 / draws.uniform(0.4, 0.8))
    return resampled @ images @ resampled.transpose(2, 3)


def noise(images: Tensor, draws: Draws) -> Tensor:
    """Gaussian, with a deviation of 1 to 5 % of the range."""
    return images + 255 * draws.uniform(0.01, 0.05) * draws.normal(images.shape)


def occlusion(images: Tensor, draws: Draws) -> Tensor:
    """A rectangle of one colour, with sides of 0.1 to 0.35 of the picture's."""
    size = images.shape[-1]
    places = (torch.arange(size, device=images.device) + 0.5) / size
    within = []
    for _ in range(2):
        length = draws.uniform(0.1, 0.35)
        start = draws.uniform(0, 1) * (1 - length)
        within.append((places >= start) & (places < start + length))  # (N, 1, 1, S)
    down, along = within
    return torch.where(down.transpose(2, 3) & along, draws.uniform(0, 255, images.shape[1]), images)


def grey(images: Tensor, _: Draws) -> Tensor:
    """Without colour: the luma of ITU-R BT.601."""
    return _luma(images).expand_as(images)


# how often among the disturbed pictures, and what; in the order in which they follow each other
DISTURBANCES: dict[Callable[[Tensor, Draws], Tensor], float] = {
    brightness_contrast: 0.3,
    colour: 0.3,
    gamma: 0.2,
    blur: 0.1,
    low_resolution: 0.1,
    noise: 0.15,
    occlusion: 0.2,
    grey: 0.1,
}
COLOURED = (colour, grey)


def disturb(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """What cameras do to pictures, each now and then.

    Args:
        images: float32 (N, C, S, S), 0 to 255, on the generator's device.
        share: of the pictures that anything happens to.
        generator: of everything drawn.

    Returns:
        The same shape and range.
    """
    draws = Draws(generator, len(images))
    chosen = draws.uniform(0, 1) < share
    for change, probability in DISTURBANCES.items():
        if images.shape[1] == 1 and change in COLOURED:
            continue
        changed = change(images, draws).clamp(0, 255)
        images = torch.where(chosen & (draws.uniform(0, 1) < probability), changed, images)
    return images


def _luma(images: Tensor) -> Tensor:
    """(N, 1, S, S) of BGR."""
    blue, green, red = images.split(1, dim=1)  # a tensor of the three factors would be a wait for its upload
    return 0.114 * blue + 0.587 * green + 0.299 * red


def _gaussian(size: int, sigma: Tensor) -> Tensor:
    """(N, 1, S, S) matrix that blurs along one axis, for ``sigma`` (N, 1, 1, 1) in pixels; edges keep their mean."""
    places = torch.arange(size, device=sigma.device)
    weights = (-0.5 * ((places[:, None] - places) / sigma).square()).exp()
    return weights / weights.sum(dim=3, keepdim=True)


def _coarse(size: int, width: Tensor) -> Tensor:
    """(N, 1, S, S) matrix that turns pixels into ones of ``width`` (N, 1, 1, 1), at least 1, and back, along one axis.

    The coarse pixels lie evenly about the middle; each is the mean of what it covers, and the fine ones are
    interpolated between them.
    """
    places = torch.arange(size, device=width.device) - (size - 1) / 2
    distance = (places[:, None] - width * places).abs()  # (N, 1, S fine, S coarse)
    covered = ((width + 1) / 2 - distance).clamp(0, 1)
    between = (1 - distance / width).clamp(min=0)
    weights = between @ covered.transpose(2, 3)
    return weights / weights.sum(dim=3, keepdim=True)


class DeviceAugmentation:
    """Cuts and disturbs the crops of a batch; the patches of all sets stay on the device (20,000 of 128 pixels: 1 GB).

    Args:
        caches: the sets, in the order in which the rows of a batch count them.
        size: side of the crop that the network sees.
        crop_scale: side of a crop over the side of the face box, about which the crops are jittered.
        pixels: share of crops whose pixels are disturbed.
        seed: of everything drawn here.
        device: where it happens.

    Raises:
        ConfigError: the patches do not fit on the device.
    """

    def __init__(
        self, caches: Sequence[CropCache], size: int, crop_scale: float, pixels: float, seed: int, device: torch.device
    ) -> None:
        self.patches = _upload(caches, device)
        self.size = size
        self.pixels = pixels
        self.seed = seed
        # As many whole patch pixels as lie along one of a common crop's, so that its crops are as sharp as
        # warp_crop's, which averages over as many.
        self.samples = max(1, int(self.patches.shape[1] / PATCH_SCALE * crop_scale / size))
        self._generator = torch.Generator(device)

    def __call__(self, rows: Tensor, matrices: Tensor, step: int) -> Tensor:
        """The crops of one step; on one kind of device a function of seed, step and arguments alone.

        Args:
            rows: int64 (N,) patches, counted through all sets.
            matrices: float32 (N, 2, 3), crop -> patch.
            step: of the training.

        Returns:
            uint8 (N, C, S, S).
        """
        # The 1 keeps what is drawn here apart from the training's dropout, which is drawn by seed and step too.
        state = np.random.SeedSequence((self.seed, step, 1)).generate_state(1, np.uint64)
        self._generator.manual_seed(int(state[0]))
        images = cut_crops(self.patches[rows], matrices, self.size, self.samples)
        return disturb(images, self.pixels, self._generator).round().to(torch.uint8)


def _upload(caches: Sequence[CropCache], device: torch.device) -> Tensor:
    """All patches, one set after the other."""
    shape = (sum(map(len, caches)), *caches[0].patches.shape[1:])
    try:
        patches = torch.empty(shape, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"{math.prod(shape) / 1e9:.1f} GB of patches do not fit on the device: "
            'set augment_on = "workers", or a smaller patch_size'
        ) from None
    start = 0
    for cache in caches:
        for first in range(0, len(cache), CHUNK):
            part = np.array(cache.patches[first : first + CHUNK])  # a copy: a cache's file is not to be written to
            patches[start + first : start + first + len(part)] = torch.from_numpy(part)
        start += len(cache)
    return patches
