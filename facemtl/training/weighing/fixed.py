"""The sum of the losses, each times its fixed factor."""

from __future__ import annotations

from collections.abc import Container, Mapping

from torch import Tensor

from facemtl.landmarks import POINTS
from facemtl.training.batches import Batch
from facemtl.training.weighing.base import Weighing


class Fixed(Weighing):
    """Keeps nothing and logs nothing: the weights stand in the recipe.

    A task without a label in the batch has a loss of zero without a gradient, so it need not be left out; nothing is
    read from the device.
    """

    def backward(self, losses: Mapping[str, Tensor], batch: Batch, stopped: Container[str]) -> None:
        here = {n: loss for n, loss in losses.items() if (n if n in self.tasks else POINTS) not in stopped}
        sum(self.factors.get(name, 1.0) * loss for name, loss in here.items()).backward()

    def finish_epoch(self, heldout: Mapping[str, float]) -> dict[str, float]:
        return {}

    def memory(self) -> dict[str, Tensor]:
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        return
