"""What is trained and how: frozen modules, optimisers, the learning rate, the running average of the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from facemtl.errors import ConfigError
from facemtl.models.face_model import FaceModel
from facemtl.training.schedules.rates import parameter_groups

if TYPE_CHECKING:
    from facemtl.training.recipe import Recipe

OPTIMISERS: dict[str, Callable[[list[dict], Recipe], Optimizer]] = {
    "adamw": lambda groups, recipe: AdamW(groups, lr=recipe.learning_rate, foreach=True),
    "sgd": lambda groups, recipe: SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, foreach=True
    ),
}


def freeze(model: FaceModel, names: Sequence[str], thaws: Collection[str] = ()) -> dict[str, nn.Module]:
    """Take the parameters of these modules out of training, but for those that thaw later, and return the modules.

    Raises:
        ConfigError: a name of no module, or nothing is left to train.
    """
    modules = dict(model.named_modules())
    unknown = [name for name in names if name not in modules or not name]
    if unknown:
        heads = (f"heads.{task}" for task in model.heads)
        known = ", ".join([*dict(model.named_children()), *heads])
        raise ConfigError(f"frozen: the network has no module {unknown[0]!r}; it has, among others, {known}")
    frozen = {name: modules[name] for name in names}
    for thawing in (False, True):  # a stage may thaw inside of a module that stays as it is
        for name, module in frozen.items():
            if (name in thaws) == thawing:
                module.requires_grad_(thawing)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("frozen: nothing is left to train")
    return frozen


def create_optimiser(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Weight decay acts on weights only, not on biases and scales of normalisation."""
    groups = parameter_groups(model, recipe.tasks, recipe.weight_decay, recipe.learning_rates, recipe.thaws)
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
