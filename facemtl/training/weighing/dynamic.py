"""Dynamic task coefficients with a task covariance (Zhang, Luo, Loy and Tang, TPAMI 2016).

The paper gives every auxiliary task's likelihood an exponent lambda_t with a Gaussian prior, and the weights W of the
last layer of all tasks a matrix normal prior whose column covariance Y says which outputs are related. From memory of
it, its text not being at hand here, so this is what is implemented, all of it once an epoch:

* prior mean: mu_t = rho (E_val(t - tau) - E_val(t)) / E_val(t - tau), how far the held-out loss has fallen over tau
  epochs: a task that no longer generalises better is let go of, one that does is kept;
* lambda_t minimises lambda E + (lambda - mu)^2 / (2 sigma^2) over lambda >= 0, with E the mean training loss of the
  epoch: lambda_t = max(0, mu_t - sigma^2 E). That is the maximum of the posterior of such a model; where the paper's
  own update differs, this one is meant. The main task keeps 1, and the others have 1 until tau epochs have gone by;
* Y = (W'W)^(1/2) / tr (W'W)^(1/2), the closed form of Zhang and Yeung (UAI 2010) for that prior; the loss gains
  covariance / 2 * tr(W Y^-1 W'). Y starts as I / outputs, and ``RIDGE`` I is added to it before it is inverted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from facemtl.landmarks import POINTS
from facemtl.models.face_model import FaceModel
from facemtl.training.weighing.base import Weighing

RIDGE = 1e-2  # of the eigenvalues' mean, 1 / outputs


def last_layer(head: nn.Module) -> nn.Linear | None:
    """The layer between the shared features and a task's outputs, if it is one fully connected layer."""
    layer = getattr(head, "linear", head)
    return layer if isinstance(layer, nn.Linear) else None


def task_covariance(weights: Tensor) -> Tensor:
    """(C, C) float64 with trace 1 of the weights (C, F) of C outputs."""
    values, vectors = torch.linalg.eigh(weights.double() @ weights.double().T)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root / root.diagonal().sum().clamp(min=1e-12)


class Dynamic(Weighing):
    """As the file says.

    Args:
        rho, tau, sigma2: of the coefficients; ``tau`` in epochs.
        covariance: factor of the prior of the last layers; 0 leaves it out.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        factors: Mapping[str, float],
        model: FaceModel,
        rho: float,
        tau: int,
        sigma2: float,
        covariance: float,
    ) -> None:
        super().__init__(tasks, factors, model)
        self.rho, self.tau, self.sigma2, self.covariance = rho, tau, sigma2, covariance
        count = len(self.tasks)
        self.register_buffer("coefficients", torch.ones(count))
        self.register_buffer("fallen", torch.full((tau + 1, count), float("nan"), dtype=torch.float64))  # oldest first
        self.register_buffer("sums", torch.zeros(count, dtype=torch.float64))
        if covariance:
            outputs = sum(last_layer(head).out_features for head in model.heads.values())
            self.register_buffer("precision", outputs * torch.eye(outputs))

    def combine(self, losses: dict[str, Tensor]) -> Tensor:
        places = self.places(losses)
        values = torch.stack(list(losses.values()))
        used = self.coefficients[places]
        total = (used * values).sum()
        if self.covariance:
            total = total + self.covariance / 2 * self.tied(losses)
        total.backward()
        self.sums.index_add_(0, places, values.detach().double())
        return used

    def tied(self, tasks: Mapping[str, Tensor]) -> Tensor:
        """tr(W Y^-1 W') of the outputs of some tasks."""
        heads = self.model.heads
        rows = [last_layer(head).weight for task, head in heads.items() if task in tasks]
        marks = [torch.full((last_layer(head).out_features,), task in tasks) for task, head in heads.items()]
        chosen = torch.cat(marks).to(self.precision.device)
        weights = torch.cat(rows).float()
        return (self.precision[chosen][:, chosen] * (weights @ weights.T)).sum()

    def finish_epoch(self, heldout: Mapping[str, float]) -> dict[str, float]:
        errors = [heldout.get(task, float("nan")) for task in self.tasks]
        self.fallen.copy_(torch.cat([self.fallen[1:], self.fallen.new_tensor([errors])]))
        trained = self.sums / self.weight_counts.clamp(min=1)
        mean = self.rho * (self.fallen[0] - self.fallen[-1]) / self.fallen[0].clamp(min=1e-12)
        found = (mean - self.sigma2 * trained).clamp(min=0)
        kept = torch.tensor([task == POINTS for task in self.tasks], device=found.device)
        # Without held-out labels, or without a step this epoch, nothing was learned about the task.
        kept |= torch.isnan(found) | (self.weight_counts == 0)
        self.coefficients.copy_(torch.where(kept, self.coefficients.double(), found))
        self.sums.zero_()
        if self.covariance:
            with torch.no_grad():
                weights = torch.cat([last_layer(head).weight for head in self.model.heads.values()])
                found = task_covariance(weights)
                ridge = RIDGE / len(found) * torch.eye(len(found), dtype=found.dtype, device=found.device)
                self.precision.copy_(torch.linalg.inv(found + ridge))
        return super().finish_epoch(heldout)
