"""Soft sharing by a low rank: the trace norm of the stacked parameters of all tasks.

Argyriou, Evgeniou and Pontil, "Convex Multi-Task Feature Learning" (Machine Learning 73, 2008) for linear models;
Yang and Hospedales, "Trace Norm Regularised Deep Multi-Task Learning" (ICLR 2017 workshop) for networks, whose tensors
are flattened here to one row a task (their "last axis flattening").
"""

from __future__ import annotations

from torch import Tensor, linalg

from facemtl.models.sharing.soft import Soft

NEAR = 1e-12  # under the root, as a singular value of 0 has no slope


def trace_norm(stack: Tensor) -> Tensor:
    """Sum of the singular values of (T, numbers), from the (T, T) products of its rows, in float64."""
    exact = stack.double()
    return (linalg.eigvalsh(exact @ exact.T).clamp(min=0) + NEAR).sqrt().sum().to(stack.dtype)


class TraceNorm(Soft):
    """Sum over weights' tensors of the trace norm of their stack."""

    weights_only = True

    def of_stack(self, stack: Tensor) -> Tensor:
        return trace_norm(stack)
