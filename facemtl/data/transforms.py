"""Training augmentation: one jittered crop from each cached patch, then what cameras do to pictures.

Where the crop lies (box jitter, rotation, scale, mirror) is one affine map of :mod:`facemtl.geometry`, so that image
and points cannot disagree and the picture is resampled once. What happens to its pixels is albumentations.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for a newer version on import otherwise

import albumentations as A
import cv2
import numpy as np

from facemtl.data.cache import CropCache
from facemtl.data.targets import Targets, labelled_targets, moved_targets
from facemtl.geometry import crop_matrix, roll_of_five, warp_crop
from facemtl.landmarks import SCHEMAS


@dataclass(frozen=True, slots=True)
class Jitter:
    """How far the crop may lie from the true face box; standard deviations.

    Attributes:
        shift_x: of the centre, in box sides.
        shift_y: likewise.
        scale: of the logarithm of the side.
        roll: of the rotation, degrees.
        upright: whether rotation is measured from the face's own roll (a crop from known points) or the picture's.
    """

    shift_x: float
    shift_y: float
    scale: float
    roll: float
    upright: bool


# Measured between detector boxes and true boxes (datasets/mtfl/README.md), and rotation for heads that tilt more
# than those of the training set.
DETECTOR_JITTER = Jitter(shift_x=0.064, shift_y=0.035, scale=0.088, roll=10.0, upright=False)
# What is left after a first pass: the second crop is laid through predicted points.
REFINED_JITTER = Jitter(shift_x=0.025, shift_y=0.025, scale=0.04, roll=4.0, upright=True)
# A box drawn by hand, or by a detector that has all but missed the face.
ROUGH_JITTER = Jitter(shift_x=0.12, shift_y=0.12, scale=0.16, roll=12.0, upright=False)


def pixel_transform(channels: int) -> A.Compose:
    """Light, contrast, blur, low resolution, JPEG, noise, occlusion, each now and then; colour where there is any.

    None of them moves what a picture shows, on which albumentations' defaults do not insist.
    """
    steps: list[A.BasicTransform] = [
        A.RandomBrightnessContrast(brightness_limit=0.3, contrast_limit=0.3, p=0.3),
        A.RandomGamma(gamma_limit=(60, 160), p=0.2),
        A.OneOf([A.GaussianBlur(blur_limit=(3, 5)), A.MotionBlur(blur_limit=(3, 5), allow_shifted=False)], p=0.1),
        # By nearest neighbours, the default, everything would move by a pixel to the right and down.
        A.Downscale((0.4, 0.8), {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}, p=0.1),
        A.ImageCompression(quality_range=(30, 90), p=0.1),
        A.GaussNoise(std_range=(0.01, 0.05), p=0.15),
        A.CoarseDropout(
            num_holes_range=(1, 1),
            hole_height_range=(0.1, 0.35),
            hole_width_range=(0.1, 0.35),
            fill="random_uniform",
            p=0.2,
        ),
    ]
    if channels == 3:
        steps.insert(1, A.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=40, val_shift_limit=0, p=0.3))
        steps.append(A.ToGray(num_output_channels=3, p=0.1))
    return A.Compose(steps)


class Augmentation:
    """Random crops of cached patches; everything drawn comes from the generator of the call.

    Args:
        size: side of the crop that the network sees.
        channels: 1 or 3, as cached.
        crop_scale: side of the crop over the side of the face box.
        refined: share of crops that are jittered as a second pass sees them.
        rough: share of crops that are jittered as those of a poor box; the rest are those of a detector.
        mirror: share of mirrored crops.
        pixels: share of crops whose pixels are disturbed too (:func:`pixel_transform`).
        schema: of the main points of the network that learns.
        stretch: standard deviation of the logarithm by which crops are wider than high: faces seen from the side are
            narrower, and there are few of them.
        rolled: share of crops that lie at any angle, all equally likely: of faces upside down too.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        crop_scale: float,
        refined: float = 0.5,
        rough: float = 0.0,
        mirror: float = 0.5,
        pixels: float = 0.5,
        schema: str = "mtfl5",
        stretch: float = 0.0,
        rolled: float = 0.0,
    ) -> None:
        self.size = size
        self.crop_scale = crop_scale
        self.refined = refined
        self.rough = rough
        self.mirror = mirror
        self.pixels = pixels
        self.schema = schema
        self.stretch = stretch
        self.rolled = rolled
        self._disturb = pixel_transform(channels)

    def __call__(
        self, cache: CropCache, row: int, rng: np.random.Generator, cut: bool = True
    ) -> tuple[np.ndarray | None, Targets, Targets]:
        """A random crop of one patch.

        Args:
            cut: make the image; without, the same is drawn all the same.

        Returns:
            image uint8 (S, S) or (S, S, 3), None if not wanted; its targets, as far as the set has labels; those of the
            teacher.
        """
        matrix, targets, taught = self.draw(cache, row, rng)
        # A seed for each step: Compose would give all of them the same one, and they would strike together or not at
        # all.
        steps = self._disturb.transforms
        seeds = rng.integers(2**31, size=len(steps)).tolist() if rng.random() < self.pixels else None
        if not cut:
            return None, targets, taught
        image = warp_crop(cache.patches[row], matrix, self.size)
        if seeds is not None:
            for step, seed in zip(steps, seeds, strict=True):
                step.set_random_seed(seed)
            image = self._disturb(image=image)["image"]
        return image, targets, taught

    def draw(self, cache: CropCache, row: int, rng: np.random.Generator) -> tuple[np.ndarray, Targets, Targets]:
        """Where a random crop of one patch lies, to be cut elsewhere (:mod:`facemtl.data.device_transforms`).

        Returns:
            matrix (2, 3) float64, crop -> patch index coordinates; targets and teacher's targets of the crop.
        """
        matrix = self._sample(rng, cache.box, SCHEMAS[cache.schema].to_five(cache.points[row]))
        taught = {task: values[row] for task, values in cache.taught.items()}
        return (
            matrix,
            moved_targets(labelled_targets(cache, row, self.schema), matrix, self.size, self.schema),
            moved_targets(taught, matrix, self.size, self.schema),
        )

    def _sample(self, rng: np.random.Generator, box: np.ndarray, five: np.ndarray) -> np.ndarray:
        """Draw the matrix of one crop."""
        mirrored = bool(rng.random() < self.mirror)
        kind = rng.random()
        if kind < self.refined:
            jitter = REFINED_JITTER
        else:
            jitter = ROUGH_JITTER if kind < self.refined + self.rough else DETECTOR_JITTER
        # Clipped at two and a half deviations: beyond, the face would leave its patch.
        dx, dy, ds, dr = np.clip(rng.standard_normal(4), -2.5, 2.5).tolist()
        roll = math.radians(jitter.roll) * dr
        if jitter.upright and np.isfinite(five).all():
            roll += roll_of_five(five)
        if self.rolled and rng.random() < self.rolled:
            roll = rng.uniform(-math.pi, math.pi)
        matrix = jittered_crop(box, self.size, self.crop_scale, jitter, (dx, dy, ds), roll, mirrored)
        if self.stretch:
            matrix = stretched(matrix, self.size, self.stretch * float(np.clip(rng.standard_normal(), -2.5, 2.5)))
        return matrix


def jittered_crop(
    box: np.ndarray,
    size: int,
    crop_scale: float,
    jitter: Jitter,
    draws: tuple[float, float, float],
    roll: float,
    mirrored: bool,
) -> np.ndarray:
    """The crop matrix of ``box`` moved by ``draws`` (x, y, log scale) times the deviations of ``jitter``."""
    side = box[2] - box[0]
    shift = np.array([jitter.shift_x * draws[0], jitter.shift_y * draws[1]]) * side
    scale = crop_scale * math.exp(jitter.scale * draws[2])
    return crop_matrix(box + np.tile(shift, 2), size, scale, roll, mirrored)


def stretched(matrix: np.ndarray, size: int, logarithm: float) -> np.ndarray:
    """A crop matrix whose crop has the same middle and area, and is wider than high by exp(``logarithm``)."""
    half, middle = math.exp(logarithm / 2), np.full(2, (size - 1) / 2)
    linear = matrix[:, :2] * [half, 1 / half]
    return np.column_stack([linear, matrix[:, 2] + (matrix[:, :2] - linear) @ middle])


def plain_crops(cache: CropCache, size: int, crop_scale: float, schema: str) -> tuple[np.ndarray, list[Targets]]:
    """The crops uint8 (N, C, S, S) of the true face boxes, undisturbed, and the targets of each."""
    matrix = crop_matrix(cache.box, size, crop_scale)
    images = np.stack([warp_crop(patch, matrix, size) for patch in cache.patches])
    rows = range(len(cache))
    return to_nchw(images), [moved_targets(labelled_targets(cache, r, schema), matrix, size, schema) for r in rows]


def to_nchw(images: np.ndarray) -> np.ndarray:
    """(N, S, S) grey or (N, S, S, 3) -> contiguous (N, C, S, S)."""
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
