"""Points looked at again: a small window of the crop around each, and what it says of where the point really lies.

The last map of a backbone has forgotten where exactly an iris is; the pixels have not. Cascaded refinement from local
windows is as old as the field (Sun, Wang and Tang, "Deep Convolutional Network Cascade for Facial Point Detection",
CVPR 2013); here it is one more part of the same graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facemtl.models.gridnet import ConvBlock

# In training points are moved by noise first: a head is so good on the faces it was trained on that nothing would be
# learned. Standard deviations in crop sides, of all points of a face together and of each by itself; a share of the
# faces has it twice.
TOGETHER, APART, TWICE = 0.008, 0.01, 0.3
WINDOW = 24  # side of a window in pixels of the crop: about the distance between the eyes in a crop of 80


class LocalRefiner(nn.Module):
    """Moves each of K points by what its window shows; convolutions are shared, the last two layers a point's own.

    Args:
        points: K.
        channels: of the crop.
        widths: channels of the three convolutions, of which the second and third halve the window.
        hidden: width of each point's own hidden layer.
    """

    def __init__(
        self, points: int, channels: int, widths: tuple[int, int, int] = (16, 32, 32), hidden: int = 32
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.trunk = nn.Sequential(
            ConvBlock(channels, first), ConvBlock(first, second, stride=2), ConvBlock(second, third, stride=2)
        )
        features = third * (WINDOW // 4) ** 2
        self.inner = nn.Parameter(torch.randn(points, features, hidden) * math.sqrt(2 / features))
        self.inner_bias = nn.Parameter(torch.zeros(points, 1, hidden))
        # Starts near zero: the points stay where they are.
        self.outer = nn.Parameter(torch.randn(points, hidden, 2) * 0.01)
        self.outer_bias = nn.Parameter(torch.zeros(points, 1, 2))
        self.register_buffer("offsets", torch.arange(WINDOW) - (WINDOW - 1) / 2, persistent=False)

    def forward(self, images: Tensor, points: Tensor) -> Tensor:
        """Standardised crops (N, C, S, S) and points (N, K, 2) in network coordinates -> the moved points."""
        if self.training:
            points = points + _noise(points)
        seen = self.trunk(self.windows(images, points)).flatten(1)
        seen = seen.reshape(-1, points.shape[1], seen.shape[1]).transpose(0, 1)  # (K, N, features)
        hidden = torch.relu(seen @ self.inner + self.inner_bias)
        return points + (hidden @ self.outer + self.outer_bias).transpose(0, 1)

    def windows(self, images: Tensor, points: Tensor) -> Tensor:
        """(N * K, C, WINDOW, WINDOW) around the points, bilinear, at the scale of the crop; black outside of it."""
        count, channels, size = points.shape[1], images.shape[1], images.shape[-1]
        steps = self.offsets / size
        x, y = points[..., 0, None, None] + steps, points[..., 1, None, None] + steps[:, None]
        # torch's coordinates are -1 and 1 at the edges of a picture, network coordinates -1/2 and 1/2.
        grid = 2 * torch.stack(torch.broadcast_tensors(x, y), dim=-1)  # (N, K, WINDOW, WINDOW, 2)
        found = F.grid_sample(images, grid.flatten(1, 2), align_corners=False)  # (N, C, K * WINDOW, WINDOW)
        found = found.reshape(-1, channels, count, WINDOW, WINDOW).transpose(1, 2)
        return found.reshape(-1, channels, WINDOW, WINDOW)


def _noise(points: Tensor) -> Tensor:
    """(N, K, 2), what training moves points by."""
    noise = TOGETHER * torch.randn_like(points[:, :1]) + APART * torch.randn_like(points)
    return noise * (1 + (torch.rand_like(points[:, :1, :1]) < TWICE))
