"""Soft sharing by a sparse and a block-sparse part: A = B + S.

Jalali, Ravikumar, Sanghavi and Ruan, "A Dirty Model for Multi-task Learning" (NIPS 2010): the weights of all tasks are
the sum of B, penalised by L1/Linf (a weight is used by all tasks or by none), and S, penalised by L1 (whatever a task
needs for itself). Theirs are linear models; here every weight of the tasks' networks is such a sum. Both parts are
trained and stored; networks are run with their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from facemtl.models.sharing.group_lasso import l1_lq
from facemtl.models.sharing.soft import Soft

BLOCK, SPARSE = ".original0", ".original1"  # how torch calls the two parts of a parametrised weight


class _Sum(nn.Module):
    """B + S; S starts at 0."""

    def forward(self, block: Tensor, sparse: Tensor) -> Tensor:
        return block + sparse

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight, torch.zeros_like(weight)


class Dirty(Soft):
    """block * sum_j max_t |B_tj| + sparse * sum_tj |S_tj|, over the weights of two or more dimensions.

    Args:
        backbone, make, tasks, split: as :class:`facemtl.models.sharing.branches.Branches`.
        block, sparse: strengths. As far as the penalty alone goes S is 0 where ``sparse`` is over ``block``, and B
            where it is under ``block`` / T: useful values lie between.
    """

    weights_only = True

    def __init__(
        self,
        backbone: nn.Module,
        make: Callable[[], nn.Module],
        tasks: Sequence[str],
        split: int = 0,
        block: float = 1.0,
        sparse: float = 1.0,
    ) -> None:
        super().__init__(backbone, make, tasks, split)
        self.block, self.sparse = block, sparse
        for module in list(self.own.modules()):
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.ndim >= 2:
                    parametrize.register_parametrization(module, name, _Sum())

    def penalty(self, present: Container[str]) -> Tensor:
        block = sum(l1_lq(stack, float("inf")) for stack in self.stacks(present, BLOCK))
        sparse = sum(stack.abs().sum() for stack in self.stacks(present, SPARSE))
        return self.block * block + self.sparse * sparse
