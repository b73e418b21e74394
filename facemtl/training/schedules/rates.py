"""Learning rates of their own for tasks and modules, and frozen modules that thaw: factors of parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from facemtl.errors import ConfigError

FACTOR = "factor"  # keys of a parameter group of the optimiser
THAW = "thaw"


def belongs_to(parameter: str, key: str, tasks: Sequence[str]) -> bool:
    """Whether the parameter of this dotted name is of a task, or of a module.

    A task's are all with its name as a part, such as ``heads.smile.weight``, wherever a network keeps them.
    """
    if key in tasks:
        return key in parameter.split(".")
    return parameter == key or parameter.startswith(f"{key}.")


def own_value(parameter: str, values: Mapping[str, float], tasks: Sequence[str], default: float) -> float:
    """The value of a parameter among those of tasks and modules: the longest module name counts, and a task more."""
    keys = [key for key in values if belongs_to(parameter, key, tasks)]
    return values[max(keys, key=lambda key: (key in tasks, len(key)))] if keys else default


def parameter_groups(
    model: nn.Module,
    tasks: Sequence[str],
    weight_decay: float,
    rates: Mapping[str, float],
    thaws: Mapping[str, float],
) -> list[dict]:
    """The trained parameters in groups of equal decay, factor of the learning rate and epoch of thawing.

    Without rates and thaws there are two: weights, which decay, and the others, which do not.

    Raises:
        ConfigError: a key that is no task and no module of the network, or names no trained parameter.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for option, values in (("learning_rates", rates), ("thaws", thaws)):
        for key in values:
            if not any(belongs_to(name, key, tasks) for name, _ in named):
                known = ", ".join([*tasks, *dict(model.named_children())])
                raise ConfigError(
                    f"{option}.{key}: the network trains no parameter of that name; it has, among others, {known}"
                )
    groups: dict[tuple[float, float], list[dict]] = {}
    for name, parameter in named:
        kind = own_value(name, rates, tasks, 1.0), own_value(name, thaws, tasks, 0.0)
        if kind not in groups:
            own = {FACTOR: kind[0], THAW: kind[1]} if rates or thaws else {}
            groups[kind] = [{"params": [], "weight_decay": decay, **own} for decay in (weight_decay, 0.0)]
        groups[kind][parameter.ndim < 2]["params"].append(parameter)
    pairs = list(groups.values())
    return pairs[0] if not (rates or thaws) else [group for pair in pairs for group in pair if group["params"]]


def set_rates(groups: Iterable[dict], rate: float, epoch: int) -> None:
    """Give every group its learning rate: 0 until it thaws, then its factor of ``rate``.

    With a rate of 0 an optimiser moves nothing; its running means of the gradients are those of the thawed network.
    """
    for group in groups:
        group["lr"] = rate * group.get(FACTOR, 1.0) if epoch >= group.get(THAW, 0) else 0.0


def set_modes(model: nn.Module, frozen: Mapping[str, nn.Module], thaws: Mapping[str, float], epoch: int) -> None:
    """Training mode, but for what is frozen in this epoch: its batch statistics stay too."""
    model.train()
    thawed = {name for name in frozen if epoch >= thaws.get(name, math.inf)}
    for training in (False, True):  # a stage may thaw inside of a module that stays as it is
        for name, module in frozen.items():
            if (name in thawed) == training:
                module.train(training)
