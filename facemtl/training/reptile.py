"""Reptile (Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", 2018): an initialisation from which
few steps on few examples go far.

Each round takes an episode, goes some steps of plain training from the parameters as they are, and moves them a part
of the way to where that ended. The rate of that falls linearly to 0, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam

from facemtl.training.batches import Batch


def fit(
    model: nn.Module, batches: Iterable[Batch], loss: Callable[[Mapping[str, Tensor], Batch], Tensor], rate: float
) -> None:
    """A step of Adam without momentum a batch, as the paper has it within episodes and after; what is frozen stays.

    Args:
        model: in the mode, training or not, that its modules are in.
        batches: what to learn from.
        loss: outputs of the network and their batch -> a scalar.
        rate: the learning rate.
    """
    optimiser = Adam([p for p in model.parameters() if p.requires_grad], lr=rate, betas=(0.0, 0.999))
    for batch in batches:
        optimiser.zero_grad(set_to_none=True)
        loss(model(batch.images), batch).backward()
        optimiser.step()


@torch.no_grad()
def move_towards(model: nn.Module, start: Mapping[str, Tensor], share: float) -> None:
    """Put start + share (model - start) into the model: parameters and running means; counters stay the model's."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.lerp(start[name], value, share))


def reptile(model: nn.Module, episodes: Iterable[Callable[[nn.Module], None]], rounds: int, rate: float) -> None:
    """Meta-train a model in place.

    Args:
        model: from where to start.
        episodes: each trains the model it is given, in place; at least ``rounds``.
        rounds: how many are taken.
        rate: the share of the way, from 0 to 1, in the first round.
    """
    for number, episode in zip(range(rounds), episodes, strict=False):
        start = {name: value.clone() for name, value in model.state_dict().items()}
        episode(model)
        move_towards(model, start, rate * (1 - number / rounds))
