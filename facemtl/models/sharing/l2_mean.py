"""Soft sharing by the distance of each task's parameters to their mean over the tasks.

Evgeniou and Pontil, "Regularized Multi-Task Learning" (KDD 2004): w_t = w_0 + v_t with small v_t, whose optimal w_0 is
the mean for large weights on the common part.
"""

from __future__ import annotations

from torch import Tensor

from facemtl.models.sharing.soft import Soft


class ToTheMean(Soft):
    """sum_t |theta_t - mean_s theta_s|^2."""

    def of_stack(self, stack: Tensor) -> Tensor:
        return (stack - stack.mean(dim=0)).square().sum()
