"""Soft sharing by block sparsity: a weight is used by all tasks or by none (group lasso, L1/Lq).

Argyriou, Evgeniou and Pontil, "Multi-Task Feature Learning" (NIPS 2006) and Obozinski, Taskar and Jordan (Statistics
and Computing 20, 2010) with q = 2; Turlach, Venables and Wright (Technometrics 47, 2005) with q = infinity. A group is
the same weight of all tasks' networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, linalg, nn

from facemtl.models.sharing.soft import Soft


def l1_lq(stack: Tensor, q: float) -> Tensor:
    """Sum over columns of the Lq norm of the column, of (T, numbers); q from 1 on, ``inf`` for the largest.

    A column of zeros has no slope.
    """
    return linalg.vector_norm(stack, q, dim=0).sum()


class GroupLasso(Soft):
    """sum over weights j of |(theta_1j, ..., theta_Tj)|_q.

    Args:
        backbone, make, tasks, split, strength: as :class:`facemtl.models.sharing.soft.Soft`.
        q: 1 or more, or ``inf``.
    """

    weights_only = True

    def __init__(
        self,
        backbone: nn.Module,
        make: Callable[[], nn.Module],
        tasks: Sequence[str],
        split: int = 0,
        strength: float = 1.0,
        q: float | str = 2.0,
    ) -> None:
        super().__init__(backbone, make, tasks, split, strength)
        self.q = float(q)

    def of_stack(self, stack: Tensor) -> Tensor:
        return l1_lq(stack, self.q)
