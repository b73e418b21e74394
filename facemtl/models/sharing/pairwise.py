"""Soft sharing by the distance of every pair of tasks.

Duong, Cohn, Bird and Cook (ACL 2015) tie two networks by the squared distance of their parameters; with more tasks it
is the graph regularisation of Evgeniou, Micchelli and Pontil, "Learning Multiple Tasks with Kernel Methods" (JMLR 6,
2005), whose graph joins all tasks equally. Its value is T times that to the mean; the two are searched over by name.
"""

from __future__ import annotations

from torch import Tensor

from facemtl.models.sharing.soft import Soft


class Pairwise(Soft):
    """sum over pairs s < t of |theta_s - theta_t|^2."""

    def of_stack(self, stack: Tensor) -> Tensor:
        return sum((stack[s] - stack[s + 1 :]).square().sum() for s in range(len(stack) - 1))
