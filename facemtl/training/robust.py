"""Losses of classes that wrong labels pull less, and wrong labels on purpose to study them with."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from facemtl.data.cache import CropCache
from facemtl.data.sample import MISSING
from facemtl.errors import ConfigError
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import POINTS, points_task, schema_of

if TYPE_CHECKING:
    from facemtl.training.recipe import Recipe

LOG_ZERO = -4.0  # what symmetric cross-entropy puts in the place of log 0: the authors' A


def generalised(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """(N,) generalised cross-entropy, (1 - p^q) / q of the label's probability p (Zhang and Sabuncu, NeurIPS 2018).

    Nears cross-entropy as q nears 0; at 1 it is 1 - p, which every wrong label pulls alike.
    """
    shares = logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
    return -torch.expm1(q * shares) / q


def symmetric(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """(N,) alpha times cross-entropy and beta times its reverse, -sum p log y with log 0 = -4 (Wang et al., ICCV
    2019)."""
    logs = logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
    return -alpha * logs + beta * LOG_ZERO * torch.expm1(logs)


# name -> its loss of each face, and its options with the authors' defaults; cross-entropy is torch's own
CLASS_LOSSES: dict[str, tuple[Callable[..., Tensor] | None, dict[str, float]]] = {
    "cross_entropy": (None, {}),
    "generalised": (generalised, {"q": 0.7}),
    "symmetric": (symmetric, {"alpha": 0.1, "beta": 1.0}),
}


def with_wrong_labels(cache: CropCache, rates: Mapping[str, float], schema: str) -> CropCache:
    """A set some of whose labels are wrong, the same ones for every seed of a training.

    Args:
        cache: the set; its own arrays are left as they are.
        rates: attribute -> share of its labelled faces (rounded) that get one of the other classes; points -> share
            of a set's points that move to anywhere in the face box.
        schema: of the main points.
    """
    labels, points = dict(cache.labels), cache.points
    for task, rate in rates.items():
        rng = np.random.default_rng((1, zlib.crc32(task.encode())))  # each task's wrong labels whatever others have
        if task in labels:
            labels[task] = values = labels[task].copy()
            known = np.flatnonzero(values != MISSING)
            wrong = rng.permutation(known)[: round(rate * len(known))]
            classes = len(ATTRIBUTES[task])
            values[wrong] = (values[wrong] + rng.integers(1, classes, len(wrong))) % classes
        elif task == (POINTS if cache.schema == schema else points_task(cache.schema)):
            points = points.copy()
            known = np.flatnonzero(np.isfinite(points).all(axis=2))
            wrong = rng.permutation(known)[: round(rate * len(known))]
            low, high = cache.box[:2], cache.box[2:]
            points.reshape(-1, 2)[wrong] = rng.uniform(low, high, (len(wrong), 2))
    return replace(cache, labels=labels, points=points)


def check_robust(recipe: Recipe) -> None:
    """Raise unless the losses and the wrong labels of a recipe can work.

    Raises:
        ConfigError: what has to be changed.
    """
    start = f"recipe {recipe.name!r}:"
    if recipe.class_loss not in CLASS_LOSSES:
        raise ConfigError(f"{start} class_loss = {recipe.class_loss!r}, expected one of {', '.join(CLASS_LOSSES)}")
    options: Mapping[str, Any] = recipe.class_loss_options
    known = CLASS_LOSSES[recipe.class_loss][1]
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(
            f"{start} class_loss = {recipe.class_loss!r} has no options {unknown}, it has {', '.join(known) or 'none'}"
        )
    for key, value in options.items():
        highest = 1 if key == "q" else 1000
        if not 0 < value <= highest:
            raise ConfigError(f"{start} class_loss_options.{key} = {value}, expected over 0, at most {highest}")
    if recipe.smoothing and recipe.class_loss != "cross_entropy":
        raise ConfigError(
            f"{start} smoothing is of cross-entropy: set smoothing = 0, or class_loss = 'cross_entropy' instead of "
            f"{recipe.class_loss!r}"
        )
    noisy = [task for task in recipe.tasks if task in ATTRIBUTES or schema_of(task, recipe.schema)]
    for task, rate in recipe.label_noise.items():
        if task not in noisy:
            raise ConfigError(f"{start} label_noise.{task}: expected some of its tasks {', '.join(noisy)}")
        if not 0 <= rate < 1:
            raise ConfigError(f"{start} label_noise.{task} = {rate}, expected at least 0, under 1")
