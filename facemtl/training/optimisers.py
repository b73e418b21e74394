"""Optimisers, the learning-rate schedule and the running average of the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

if TYPE_CHECKING:
    from facemtl.training.recipe import Recipe

OPTIMISERS: dict[str, Callable[[list[dict], Recipe], Optimizer]] = {
    "adamw": lambda groups, recipe: AdamW(groups, lr=recipe.learning_rate, foreach=True),
    "sgd": lambda groups, recipe: SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, foreach=True
    ),
}


def create_optimiser(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Weight decay acts on weights only, not on biases and scales of normalisation."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return OPTIMISERS[recipe.optimiser](groups, recipe)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Of step ``step`` (from 0) of ``steps``: linear up to ``peak``, then half a cosine down to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def update_average(average: Iterable[torch.Tensor], current: Iterable[torch.Tensor], decay: float, step: int) -> None:
    """Move a running average of tensors in place; early steps count more, so that it forgets the start.

    Integer tensors, such as counters of normalisation, are copied.
    """
    rate = 1 - min(decay, (1 + step) / (10 + step))
    pairs = list(zip(average, current, strict=True))
    floats = [(a, c) for a, c in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [c for _, c in floats], rate)
    for a, c in pairs:
        if not a.is_floating_point():
            a.copy_(c)
