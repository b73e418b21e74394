"""GradNorm (Chen, Badrinarayanan, Lee and Rabinovich, ICML 2018): tasks that lag behind get larger gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from facemtl.models.face_model import FaceModel
from facemtl.training.weighing.base import Weighing
from facemtl.training.weighing.shared import Shared

LEAST = 1e-3  # a weight never falls below: at 0 or under, a task would unlearn


class GradNorm(Weighing):
    """The sum of w_i L_i. With G_i = w_i |grad L_i|, its mean G over the tasks, and r_i = (L_i / L_i(0)) / their mean,
    each step descends sum_i |G_i - G r_i^alpha| in w (the second term held constant), then scales w back to its sum.

    Two things the paper leaves to the optimiser: the descent is plain, and its gradient is divided by G, so that
    ``rate`` does not depend on the unit of the losses. Tasks that take part exchange weight among themselves alone.
    L_i(0) is the loss of the first step that a task takes part in.

    Args:
        alpha: how strongly lagging tasks are pulled back; 0 makes all gradients equally long.
        rate: of the descent in w, a step.
        on: where gradients are measured, see :class:`facemtl.training.weighing.shared.Shared`; the paper takes the
            last shared layer, which ``features`` costs as little as.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        factors: Mapping[str, float],
        model: FaceModel,
        alpha: float,
        rate: float,
        on: str,
    ) -> None:
        super().__init__(tasks, factors, model)
        self.alpha, self.rate = alpha, rate
        self.shared = Shared(model, on)
        self.register_buffer("weights", torch.ones(len(self.tasks)))
        self.register_buffer("first", torch.full((len(self.tasks),), float("nan")))

    def combine(self, losses: dict[str, Tensor]) -> Tensor:
        places = self.places(losses)
        values = torch.stack(list(losses.values()))
        used = self.weights[places]
        lengths = self.shared.jacobian(list(losses.values())).norm(dim=1)
        (used * values).sum().backward()
        first = self.first[places]
        first = torch.where(torch.isnan(first), values.detach(), first)
        self.first[places] = first
        self.weights[places] = self.moved(used, lengths, values.detach() / first.clamp(min=1e-12))
        return used

    def moved(self, weights: Tensor, lengths: Tensor, left: Tensor) -> Tensor:
        """The weights (T,) after a step, from the lengths of the gradients and the shares of the losses left (T,)."""
        scaled = weights * lengths
        mean = scaled.mean().clamp(min=1e-12)
        aims = mean * (left / left.mean().clamp(min=1e-12)) ** self.alpha
        moved = (weights - self.rate * torch.sign(scaled - aims) * lengths / mean).clamp(min=LEAST)
        return moved * weights.sum() / moved.sum()
