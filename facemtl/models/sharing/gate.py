"""Gates of mixtures of experts: how much a task takes of each, face by face."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLACES = 4  # a map is read by a gate as about so many places along a side


class Gate(nn.Module):
    """Shares (N, experts), over 0 and of sum 1, by a linear map of what the experts are given and a softmax.

    Maps are averaged over windows and flattened, tokens averaged.

    Args:
        shape: of what the experts are given, for one face.
        experts: how many.
    """

    def __init__(self, shape: tuple[int, ...], experts: int) -> None:
        super().__init__()
        self.window = max(1, shape[1] // PLACES) if len(shape) == 3 else 0
        width = shape[0] * (shape[1] // self.window) ** 2 if self.window else shape[-1]
        self.linear = nn.Linear(width, experts)

    def forward(self, x: Tensor) -> Tensor:
        if self.window:
            x = F.avg_pool2d(x, self.window).flatten(1)
        elif x.ndim == 3:
            x = x.mean(dim=1)
        return self.linear(x).softmax(dim=1)


def mixed(shares: Tensor, answers: Sequence[Tensor]) -> Tensor:
    """sum over experts of (N, experts) times what each gave (N, ...)."""
    weights = shares.T.reshape(len(answers), -1, *[1] * (answers[0].ndim - 1))
    return (weights * torch.stack(tuple(answers))).sum(dim=0)
