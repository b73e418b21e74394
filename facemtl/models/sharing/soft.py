"""Soft sharing: every task has a network of its own, and a penalty on their parameters ties them together.

After Duong, Cohn, Bird and Cook, "Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural Network
Parser" (ACL 2015), and the regularised multi-task learning of Evgeniou and Pontil (KDD 2004) before it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence

import torch
from torch import Tensor, nn

from facemtl.models.sharing.branches import Branches


class Soft(Branches):
    """Branches whose stacked parameters are penalised; what is penalised is a subclass's.

    A task that takes no part in a step is a constant of the penalty: the others are drawn to where it is, and it has
    no gradient. L1-like penalties are followed by their subgradients, so that numbers come near to 0 and seldom are.

    Args:
        backbone, make, tasks, split: as :class:`facemtl.models.sharing.branches.Branches`.
        strength: factor of the penalty, which is a sum over all penalised numbers.
    """

    weights_only = False  # whether parameters of less than two dimensions (biases, normalisation) are left alone

    def __init__(
        self,
        backbone: nn.Module,
        make: Callable[[], nn.Module],
        tasks: Sequence[str],
        split: int = 0,
        strength: float = 1.0,
    ) -> None:
        super().__init__(backbone, make, tasks, split)
        self.strength = strength

    def penalty(self, present: Container[str]) -> Tensor:
        """The term of the loss, a scalar; only the networks of tasks that are present have a gradient."""
        return self.strength * sum(self.of_stack(stack) for stack in self.stacks(present))

    def stacks(self, present: Container[str], ending: str = "") -> Iterator[Tensor]:
        """Every penalised parameter of all networks, a row a task: (T, numbers); those whose names end so."""
        networks = [dict(self.own[task].named_parameters()) for task in self.tasks]
        for name, first in networks[0].items():
            if not name.endswith(ending) or (self.weights_only and first.ndim < 2):
                continue
            rows = [network[name].flatten() for network in networks]
            yield torch.stack([r if t in present else r.detach() for t, r in zip(self.tasks, rows, strict=True)])

    def of_stack(self, stack: Tensor) -> Tensor:
        """Penalty of one stacked parameter (T, numbers)."""
        raise NotImplementedError
