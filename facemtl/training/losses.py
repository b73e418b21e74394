"""What each task minimises. A missing label is left out of the mean and has exactly zero gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from facemtl.data.sample import MISSING


def squared_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Half the squared distance, summed over a face's points (Zhang et al., ECCV 2014, equation 4)."""
    return 0.5 * (predicted - truth).square().sum(dim=(1, 2))


def smooth_l1(predicted: Tensor, truth: Tensor) -> Tensor:
    """Huber's loss over its threshold of 2 % of the crop (Girshick, 2015): outliers pull with constant force."""
    return F.smooth_l1_loss(predicted, truth, beta=0.02, reduction="none").sum(dim=(1, 2))


POINT_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": squared_error,
    "smooth_l1": smooth_l1,
}


def points_loss(predicted: Tensor, truth: Tensor, kind: str = "squared") -> Tensor:
    """Mean over the faces with at least one point; 0 if there is none.

    Args:
        predicted: (N, K, 2) network coordinates.
        truth: likewise, NaN where missing.
        kind: a key of :data:`POINT_LOSSES`.
    """
    known = torch.isfinite(truth)
    # Both sides are replaced before the subtraction: a NaN times a zero mask would still be a NaN in the gradient.
    per_face = POINT_LOSSES[kind](torch.where(known, predicted, 0), torch.where(known, truth, 0))
    faces = known.flatten(1).any(dim=1).sum()
    return per_face.sum() / faces.clamp(min=1)


def class_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the labelled faces; 0 if there is none.

    Args:
        logits: (N, classes).
        labels: (N,) int64, -1 where missing.
        smoothing: share of the probability spread over all classes.
    """
    total = F.cross_entropy(logits, labels, ignore_index=MISSING, reduction="sum", label_smoothing=smoothing)
    return total / (labels != MISSING).sum().clamp(min=1)


def task_losses(
    outputs: Mapping[str, Tensor], points: Tensor, labels: Mapping[str, Tensor], points_kind: str = "squared"
) -> dict[str, Tensor]:
    """One scalar a task, unweighted, in the order of ``outputs``."""
    return {
        task: points_loss(output, points, points_kind) if task == "landmarks" else class_loss(output, labels[task])
        for task, output in outputs.items()
    }
