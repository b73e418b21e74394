"""What each task minimises. A missing label is left out of the mean and has exactly zero gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from facemtl.data.sample import MISSING
from facemtl.face import ANGLES_TASK
from facemtl.landmarks import POINTS, SCHEMAS, schema_of
from facemtl.models.face_model import COARSE, LOGITS
from facemtl.models.heads import BINS, DEGREES, SPAN
from facemtl.training.robust import CLASS_LOSSES
from facemtl.weights import SIGMA

EYES = 0.25  # inter-ocular distance of a common face, in crop sides: faces with other ones are weighed relative to it
WEIGHED = (0.5, 3.0)  # the least and the most that a face's own scale may weigh
BLUR = 0.02  # of the target distribution of a place, crop sides (SimCC)


def squared_error(difference: Tensor) -> Tensor:
    """Half the square (Zhang et al., ECCV 2014, equation 4)."""
    return 0.5 * difference.square()


def smooth_l1(difference: Tensor) -> Tensor:
    """Huber's loss over its threshold of 2 % of the crop (Girshick, 2015): outliers pull with constant force."""
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), beta=0.02, reduction="none")


def wing(difference: Tensor) -> Tensor:
    """Small errors pull harder than large ones (Feng et al., CVPR 2018), with their width of 10 and curvature of 2
    pixels of 256."""
    return _wing(difference.abs(), width=10 / 256, curvature=2 / 256)


def soft_wing(difference: Tensor) -> Tensor:
    """Linear up to 2 pixels of 256, then a wider wing's logarithm (after Lin et al., "SoftWing", 2021): the smallest
    errors, which are those of the labels, do not pull harder."""
    size = difference.abs()
    near, width, curvature = 2 / 256, 20 / 256, 0.5 / 256
    offset = near - width * torch.log1p(torch.tensor(near / curvature))
    return torch.where(size < near, size, width * torch.log1p(size / curvature) + offset)


def _wing(size: Tensor, width: float, curvature: float) -> Tensor:
    offset = width - width * torch.log1p(torch.tensor(width / curvature))
    return torch.where(size < width, width * torch.log1p(size / curvature), size - offset)


# name -> loss of one coordinate's error in crop sides, element by element
POINT_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "squared": squared_error,
    "smooth_l1": smooth_l1,
    "l1": torch.abs,
    "wing": wing,
    "soft_wing": soft_wing,
}


def points_loss(predicted: Tensor, truth: Tensor, kind: str = "squared", weights: Tensor | None = None) -> Tensor:
    """Summed over a face's points, mean over the faces with at least one point; 0 if there is none.

    Args:
        predicted: (N, K, 2) network coordinates.
        truth: likewise, NaN where missing.
        kind: a key of :data:`POINT_LOSSES`.
        weights: (N,) of the faces, see :func:`eye_weights`.
    """
    known = torch.isfinite(truth)
    # Both sides are replaced before the subtraction: a NaN times a zero mask would still be a NaN in the gradient.
    difference = torch.where(known, predicted, 0) - torch.where(known, truth, 0)
    per_face = (POINT_LOSSES[kind](difference) * known).sum(dim=(1, 2))
    if weights is not None:
        per_face = per_face * weights
    return per_face.sum() / known.flatten(1).any(dim=1).sum().clamp(min=1)


def eye_weights(truth: Tensor, eye_pair: tuple[int, int]) -> Tensor:
    """(N,) weight of each face that makes its loss relative to its inter-ocular distance, as the error measure is.

    1 for a face of common size, within ``WEIGHED``; 1 where an eye is missing.
    """
    between = (truth[:, eye_pair[0]] - truth[:, eye_pair[1]]).norm(dim=1)
    return (EYES / between.clamp(min=1e-6)).nan_to_num(1.0).clamp(*WEIGHED)


def sigma_loss(sigma: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
    """Negative log-likelihood of the errors under Laplace distributions with these standard deviations.

    A Laplace distribution, because errors of points have heavier tails than a Gaussian. The points themselves get no
    gradient: a likelihood would trade their error on hard faces for a wider deviation (Seitzer et al., ICLR 2022).
    """
    known = torch.isfinite(truth)
    size = (torch.where(known, predicted.detach(), 0) - torch.where(known, truth, 0)).abs()
    scale = (sigma / 2**0.5).unsqueeze(-1)
    likelihood = (torch.log(2 * scale) + size / scale) * known
    return likelihood.sum() / known.sum().clamp(min=1)


def places_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of SimCC's distributions (N, K, 2, BINS) with a Gaussian of ``BLUR`` around the true place."""
    known = torch.isfinite(truth)
    places = torch.linspace(-SPAN, SPAN, BINS, device=logits.device)
    aims = (-0.5 * ((places - torch.where(known, truth, 0).unsqueeze(-1)) / BLUR).square()).softmax(dim=-1)
    return -((aims * logits.log_softmax(dim=-1)).sum(dim=-1) * known).sum() / known.sum().clamp(min=1)


def class_loss(
    logits: Tensor,
    labels: Tensor,
    smoothing: float = 0.0,
    kind: str = "cross_entropy",
    options: Mapping[str, float] | None = None,
) -> Tensor:
    """Mean loss of the labelled faces; 0 if there is none.

    Args:
        logits: (N, classes).
        labels: (N,) int64, -1 where missing.
        smoothing: share of the probability spread over all classes; of cross-entropy alone.
        kind, options: a key of :data:`facemtl.training.robust.CLASS_LOSSES`, and options of that loss.
    """
    known = labels != MISSING
    loss, defaults = CLASS_LOSSES[kind]
    if loss is None:
        total = F.cross_entropy(logits, labels, ignore_index=MISSING, reduction="sum", label_smoothing=smoothing)
    else:
        total = (loss(logits, labels.clamp(min=0), **{**defaults, **(options or {})}) * known).sum()
    return total / known.sum().clamp(min=1)


def shares_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Mean cross-entropy with a teacher's probabilities (N, classes), NaN where it says nothing; 0 without any."""
    known = torch.isfinite(shares).all(dim=1)
    per_face = -(torch.where(known[:, None], shares, 0) * logits.log_softmax(dim=1)).sum(dim=1)
    return per_face.sum() / known.sum().clamp(min=1)


def angles_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error over the known angles, both in degrees, in units of ``DEGREES``; 0 if there is none."""
    known = torch.isfinite(truth)
    size = (torch.where(known, predicted, 0) - torch.where(known, truth, 0)).abs() / DEGREES
    return size.sum() / known.sum().clamp(min=1)


def task_losses(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    schema: str = "mtfl5",
    points_kind: str = "squared",
    eye_scaled: bool = False,
    smoothing: float = 0.0,
    class_kind: str = "cross_entropy",
    class_options: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """One scalar an output, unweighted, in the order of ``outputs``.

    Args:
        outputs: of a :class:`facemtl.models.face_model.FaceModel`.
        targets: task -> targets of the batch, of data sets or of a teacher (:mod:`facemtl.data.targets`); a task
            without targets has no loss.
        schema: of the main points.
        points_kind: a key of :data:`POINT_LOSSES`.
        eye_scaled: weigh the points of a face by :func:`eye_weights`.
        smoothing, class_kind, class_options: of classes, as :func:`class_loss`.
    """
    losses: dict[str, Tensor] = {}
    for name, output in outputs.items():
        task = POINTS if name in (SIGMA, LOGITS, COARSE) else name
        if task not in targets:
            continue
        aim = targets[task]
        if name == SIGMA:
            losses[name] = sigma_loss(output, outputs[POINTS], aim)
        elif name == LOGITS:
            losses[name] = places_loss(output, aim)
        elif points := schema_of(task, schema):
            weights = eye_weights(aim, SCHEMAS[points].eye_pair) if eye_scaled else None
            losses[name] = points_loss(output, aim, points_kind, weights)
        elif task == ANGLES_TASK:
            losses[name] = angles_loss(output, aim)
        elif aim.is_floating_point():
            losses[name] = shares_loss(output, aim)
        else:
            losses[name] = class_loss(output, aim, smoothing, class_kind, class_options)
    return losses
