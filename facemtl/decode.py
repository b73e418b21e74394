"""From what the network gives for a crop to what is said of the face: image pixels, degrees, probabilities.

This runs for every face, beside a network of a millisecond. Hence plain floats where numbers are few: an array of five
costs ten times more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from facemtl.errors import ModelError
from facemtl.face import ANGLES_TASK, Attribute, Pose
from facemtl.geometry import apply_affine, crop_roll, crop_side, points_to_crop
from facemtl.landmarks import SCHEMAS, schema_of
from facemtl.weights import SIGMA, ModelSpec

MIRROR = np.float32([-1, 1])  # of x and y in network coordinates
MIRROR_ANGLES = np.float32([-1, 1, -1])  # of yaw, pitch and roll
LARGEST = 1e6  # crops, degrees, logits: no working network gives that


def check_outputs(outputs: Mapping[str, np.ndarray], spec: ModelSpec) -> None:
    """Nothing may go on from numbers that are none.

    Raises:
        ModelError: an output that is not finite, or far too large.
    """
    for name, output in outputs.items():
        if not np.vdot(output, output) < LARGEST**2:  # the cheapest look at all of them; comparisons with NaN are false
            raise ModelError(f"{spec.name} is damaged: its {name} are not finite, or far too large")


def average_mirrored(outputs: Mapping[str, np.ndarray], spec: ModelSpec) -> dict[str, np.ndarray]:
    """Outputs for N crops and then for their N mirror images -> outputs for the N crops, what both say averaged."""
    averaged = {}
    for name, output in outputs.items():
        count = len(output) // 2
        plain, mirrored = output[:count], _unmirrored(name, output[count:], spec)
        # Variances are what averages.
        averaged[name] = np.sqrt((plain**2 + mirrored**2) / 2) if name == SIGMA else (plain + mirrored) / 2
    return averaged


def _unmirrored(name: str, output: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """What an output for mirrored crops says of the crops themselves."""
    schema = schema_of(name, spec.schema)
    if schema is not None:
        return output[:, SCHEMAS[schema].flip_order] * MIRROR
    if name == SIGMA:
        return output[:, SCHEMAS[spec.schema].flip_order]
    if name == ANGLES_TASK:
        return output * MIRROR_ANGLES
    return output[:, ::-1] if name == "pose" else output


def image_points(found: np.ndarray, matrices: Sequence[np.ndarray], size: int) -> np.ndarray:
    """(N, K, 2) points in network coordinates, of crops that N matrices describe -> float32 image pixels."""
    crop_points = points_to_crop(found.astype(np.float64), size)
    return np.float32([apply_affine(m, points) for m, points in zip(matrices, crop_points, strict=True)])


def image_sigmas(found: np.ndarray, matrices: Sequence[np.ndarray], spec: ModelSpec) -> list[np.ndarray]:
    """(N, K) standard deviations in crop sides -> for each face (K,) float32 image pixels, by the model's own scale.

    Raises:
        ModelError: a negative one.
    """
    if found.min(initial=0) < 0:
        raise ModelError(f"{spec.name} is damaged: its {SIGMA} are negative")
    sides = [spec.sigma_scale * crop_side(matrix, spec.input_size) for matrix in matrices]
    return [row * np.float32(side) for row, side in zip(found, sides, strict=True)]


def image_poses(found: np.ndarray, matrices: Sequence[np.ndarray]) -> list[Pose]:
    """(N, 3) yaw, pitch, roll of the head in its crop -> in the image, where the crop's own roll comes on top."""
    return [
        Pose(yaw, pitch, math.remainder(roll + math.degrees(crop_roll(matrix)), 360))
        for (yaw, pitch, roll), matrix in zip(found.tolist(), matrices, strict=True)
    ]


def face_attributes(outputs: Mapping[str, np.ndarray], count: int, spec: ModelSpec) -> list[dict[str, Attribute]]:
    """Name -> attribute, for each of ``count`` faces, of those outputs that are attributes, in their order."""
    faces: list[dict[str, Attribute]] = [{} for _ in range(count)]
    for task, output in outputs.items():
        labels = spec.attributes.get(task)
        if labels is None:
            continue
        temperature, threshold = spec.temperatures.get(task, 1.0), spec.thresholds.get(task, 0.0)
        prior = spec.priors.get(task)
        shifted = output + np.asarray(spec.offsets[task]) if task in spec.offsets else output
        for face, logits in zip(faces, shifted.tolist(), strict=True):
            shares = softmax(logits, temperature)
            relative = relative_shares(shares, prior)
            best = relative.index(max(relative))
            confidence = shares[best]
            face[task] = Attribute(
                labels[best], confidence, dict(zip(labels, shares, strict=True)), confidence >= threshold
            )
    return faces


def relative_shares(shares: list[float], prior: Sequence[float] | None) -> list[float]:
    """Probabilities had all classes been equally common, which ``prior`` says they are not: a label is the greatest."""
    if prior is None:
        return shares
    relative = [share / common for share, common in zip(shares, prior, strict=True)]
    total = sum(relative)
    return [value / total for value in relative]


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Probabilities of one face's classes; logits are divided by ``temperature`` first."""
    largest = max(logits)
    powers = [math.exp((value - largest) / temperature) for value in logits]
    total = sum(powers)
    return [power / total for power in powers]
