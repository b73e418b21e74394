"""How outputs are read off a backbone: points in three ways to compare, attributes, head angles.

A points head maps (vector, grid) to points (N, K, 2) in network coordinates (0 is the middle of the crop, 1 its side),
to their standard deviation (N, K) if it is asked for, else None, and to what only its training needs, else None.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPAN = 0.7  # the heads that choose among places know those from -SPAN to SPAN: points may lie outside of the crop
BINS = 140  # places along an axis (SimCC)
SMALLEST = 1e-3  # standard deviation in crop sides: a tenth of a pixel
DEGREES = 30.0  # an output of 1 of the angles' last layer

PointsOutput = tuple[Tensor, Tensor | None, Tensor | None]


class DirectHead(nn.Module):
    """Coordinates by regression from the features, as TCDCN has them; deviations likewise, through an exponential."""

    def __init__(self, features: int, grid_channels: int, points: int, uncertainty: bool = False) -> None:
        super().__init__()
        self.linear = _small_linear(features, 2 * points)
        self.spread = _small_linear(features, points) if uncertainty else None

    def forward(self, vector: Tensor, grid: Tensor | None) -> PointsOutput:
        points = self.linear(vector).unflatten(1, (-1, 2))
        if self.spread is None:
            return points, None, None
        return points, SMALLEST + 0.02 * torch.exp(self.spread(vector).clamp(-6, 6)), None


class SimCCHead(nn.Module):
    """Each coordinate as a distribution over places along its axis (Li et al., "SimCC", ECCV 2022).

    The point is the mean of the distribution and the deviation its own. In training the logits (N, K, 2, BINS) are
    given too: the loss compares them with a Gaussian around the true place.
    """

    def __init__(self, features: int, grid_channels: int, points: int, uncertainty: bool = False) -> None:
        super().__init__()
        self.linear = _small_linear(features, 2 * points * BINS)
        self.uncertainty = uncertainty
        self.register_buffer("places", torch.linspace(-SPAN, SPAN, BINS), persistent=False)

    def forward(self, vector: Tensor, grid: Tensor | None) -> PointsOutput:
        logits = self.linear(vector).unflatten(1, (-1, 2, BINS))
        shares = logits.softmax(dim=-1)
        points = shares @ self.places
        sigma = None
        if self.uncertainty:
            variance = (shares * (self.places - points[..., None]).square()).sum(dim=-1)
            sigma = SMALLEST + variance.mean(dim=-1).clamp(min=1e-12).sqrt()
        return points, sigma, logits if self.training else None


class HeatmapHead(nn.Module):
    """A heat map a point, up-sampled from the grid; the point is its mean place (soft-argmax; Sun et al., "Integral
    Human Pose Regression", ECCV 2018) and the deviation its spread."""

    def __init__(self, features: int, grid_channels: int, points: int, uncertainty: bool = False) -> None:
        super().__init__()
        width = max(grid_channels // 2, 16)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(grid_channels, width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, points, 1),
        )
        self.uncertainty = uncertainty

    def forward(self, vector: Tensor, grid: Tensor | None) -> PointsOutput:
        maps = self.up(grid)
        side = maps.shape[-1]
        shares = maps.flatten(2).softmax(dim=-1).unflatten(2, (side, side))
        places = torch.linspace(-SPAN, SPAN, side, device=maps.device, dtype=maps.dtype)
        x, y = shares.sum(dim=2) @ places, shares.sum(dim=3) @ places
        sigma = None
        if self.uncertainty:
            squares = places.square()
            variance = (shares.sum(dim=2) @ squares - x.square() + shares.sum(dim=3) @ squares - y.square()) / 2
            sigma = SMALLEST + variance.clamp(min=1e-12).sqrt()
        return torch.stack([x, y], dim=2), sigma, None


POINT_HEADS: dict[str, Callable[..., nn.Module]] = {
    "direct": DirectHead,
    "simcc": SimCCHead,
    "heatmap": HeatmapHead,
}
NEEDS_GRID = ("heatmap",)


class ClassHead(nn.Linear):
    """Logits of one attribute; in training, features are dropped at random, of which small data sets need some."""

    def __init__(self, features: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__(features, classes)
        self.dropout = dropout

    def forward(self, vector: Tensor) -> Tensor:
        return super().forward(F.dropout(vector, self.dropout, self.training))


class AnglesHead(nn.Module):
    """Yaw, pitch and roll (N, 3) of the head in the crop's frame, degrees."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = _small_linear(features, 3)

    def forward(self, vector: Tensor) -> Tensor:
        return DEGREES * self.linear(vector)


def _small_linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer that starts near zero: in the middle of the crop, upright, undecided."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
