"""Points looked at again: a small window of fine maps around each, and what it says of where the point really lies.

The last map of a backbone has forgotten where exactly an iris is; the first ones have not. Cascaded refinement from
local windows is as old as the field (Sun, Wang and Tang, "Deep Convolutional Network Cascade for Facial Point
Detection", CVPR 2013); here it is one more part of the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facemtl.models.gridnet import ConvBlock

# In training points are moved by noise first: a head is so good on the faces it was trained on that little would be
# learned. The largest standard deviations in crop sides, of all points of a face together and of each by itself; most
# faces have far less, as points that are off by much are rare where it is used.
TOGETHER, APART = 0.016, 0.02
WINDOW = 24  # side of a window in pixels of the crop: about the distance between the eyes in a crop of 80
DROPPED = 0.3  # share of the numbers that the layers about all points together do without at a time, in training


class LocalRefiner(nn.Module):
    """Moves each of K points by what two maps of the backbone show around it, of half and a quarter of the crop's side.

    The convolution is shared, the two layers after it a point's own. Windows of maps that are there anyway cost
    about half of windows of pixels, and say as much (weights/facemtl-s/README.md). What is seen in all of them and what
    the backbone says of the whole face are then weighed against each other: a window alone knows neither the other
    points nor how much its own is to be believed.

    Args:
        points: K.
        channels: of the two maps.
        features: F, of the whole face.
        width: channels of the convolution that brings the finer windows to the side of the others.
        hidden: width of each point's own hidden layer.
        joint: width of the hidden layer about all points.

    Attributes:
        noise: share of the noise by which points are moved in training. Once a network is good, without any it learns
            best how far its own windows are to be believed.
    """

    def __init__(
        self, points: int, channels: tuple[int, int], features: int, width: int = 32, hidden: int = 32, joint: int = 64
    ) -> None:
        super().__init__()
        self.noise = 1.0
        fine, coarse = channels
        self.halve = ConvBlock(fine, width, stride=2)
        inputs = (width + coarse) * (WINDOW // 4) ** 2
        self.inner = nn.Parameter(torch.randn(points, inputs, hidden) * math.sqrt(2 / inputs))
        self.inner_bias = nn.Parameter(torch.zeros(points, 1, hidden))
        # Starts near zero: the points stay where they are.
        self.outer = nn.Parameter(torch.randn(points, hidden, 2) * 0.01)
        self.outer_bias = nn.Parameter(torch.zeros(points, 1, 2))
        last = nn.Linear(joint, 2 * points)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.joint = nn.Sequential(
            nn.Dropout(DROPPED), nn.Linear(points * hidden + features, joint), nn.ReLU(), last, nn.Unflatten(1, (-1, 2))
        )

    def forward(self, maps: Sequence[Tensor], face: Tensor, points: Tensor) -> Tensor:
        """Maps (N, C, S / 2, S / 2) and (N, C', S / 4, S / 4), features of the face (N, F), points (N, K, 2) in network
        coordinates -> the moved points."""
        if self.training:
            points = points + self.noise * _noise(points)
        half, quarter = maps
        near, around = self.halve(windows(half, points, WINDOW // 2)), windows(quarter, points, WINDOW // 4)
        seen = torch.cat([near, around], dim=1).flatten(1)
        seen = seen.reshape(-1, points.shape[1], seen.shape[1]).transpose(0, 1)  # (K, N, features)
        hidden = torch.relu(seen @ self.inner + self.inner_bias)
        own = (hidden @ self.outer + self.outer_bias).transpose(0, 1)
        return points + own + self.joint(torch.cat([hidden.transpose(0, 1).flatten(1), face], dim=1))


def windows(maps: Tensor, points: Tensor, side: int) -> Tensor:
    """(N * K, C, side, side) of maps (N, C, M, M) around points (N, K, 2) in network coordinates; bilinear, at the
    scale of the map, 0 outside of it."""
    count, channels, size = points.shape[1], maps.shape[1], maps.shape[-1]
    steps = (torch.arange(side, device=maps.device) - (side - 1) / 2) / size
    around = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)  # (side, side, 2), constant
    # torch's coordinates are -1 and 1 at the edges of a picture, network coordinates -1/2 and 1/2.
    grid = 2 * points[:, :, None, None] + 2 * around  # (N, K, side, side, 2)
    found = F.grid_sample(maps, grid.flatten(1, 2), align_corners=False)  # (N, C, K * side, side)
    found = found.reshape(-1, channels, count, side, side).transpose(1, 2)
    return found.reshape(-1, channels, side, side)


def _noise(points: Tensor) -> Tensor:
    """(N, K, 2), what training moves points by."""
    noise = TOGETHER * torch.randn_like(points[:, :1]) + APART * torch.randn_like(points)
    return noise * torch.rand_like(points[:, :1, :1]) ** 3
