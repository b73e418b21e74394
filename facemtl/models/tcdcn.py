"""The networks of Zhang, Luo, Loy and Tang: ECCV 2014 (40 x 40) and TPAMI 2016 (60 x 60), as published."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AbsTanh(nn.Module):
    """The absolute hyperbolic tangent, |tanh x|."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x).abs()


class Abs(nn.Module):
    """|x|."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class LocallyConnected2d(nn.Module):
    """A convolution whose filters are not shared: every output position has its own. No padding, stride 1.

    Input (N, in_channels, H, W), output (N, out_channels, H - k + 1, W - k + 1).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, input_size: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.side = input_size - kernel + 1
        fan_in = in_channels * kernel * kernel
        self.weight = nn.Parameter(torch.empty(self.side**2, out_channels, fan_in))
        self.bias = nn.Parameter(torch.zeros(self.side**2, out_channels))
        bound = 1 / math.sqrt(fan_in)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.kernel)  # (N, fan_in, positions)
        out = torch.einsum("nfp,pof->nop", patches, self.weight) + self.bias.T
        return out.unflatten(2, (self.side, self.side))


class TCDCN(nn.Module):
    """Convolutions with |tanh| and 2 x 2 max pooling, then one fully connected layer shared by all tasks.

    Args:
        input_size: side of the grey input.
        stages: (channels, kernel, pooled) per convolution.
        features: width of the shared layer.
        shared_filters: False gives every position filters of its own, as the paper's network has them.
    """

    def __init__(
        self,
        input_size: int,
        stages: Sequence[tuple[int, int, bool]],
        features: int,
        shared_filters: bool = True,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.channels = 1
        self.features = features
        layers: list[nn.Module] = []
        width, side = 1, input_size
        for out, kernel, pooled in stages:
            conv = nn.Conv2d(width, out, kernel) if shared_filters else LocallyConnected2d(width, out, kernel, side)
            width, side = out, side - kernel + 1
            if pooled:
                # The largest |tanh x| is tanh of the largest |x|: pooled first, a quarter of the tanh are computed.
                layers += [conv, Abs(), nn.Sequential(nn.MaxPool2d(2), nn.Tanh())]
                side //= 2
            else:
                layers += [conv, AbsTanh()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, features), AbsTanh())

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) -> (N, features)."""
        return self.body(images)


def tcdcn_eccv2014(shared_filters: bool = True) -> TCDCN:
    """40 x 40 grey; 16@5x5, 48@3x3, 64@3x3, each pooled, 64@2x2; a shared layer of 100 (ECCV 2014, figure 2)."""
    stages = ((16, 5, True), (48, 3, True), (64, 3, True), (64, 2, False))
    return TCDCN(40, stages, features=100, shared_filters=shared_filters)


def tcdcn_tpami2016(shared_filters: bool = True) -> TCDCN:
    """60 x 60 grey; 20@5x5, 48@5x5, 64@3x3, each pooled, 80@3x3; a shared layer of 512 (TPAMI 2016)."""
    stages = ((20, 5, True), (48, 5, True), (64, 3, True), (80, 3, False))
    return TCDCN(60, stages, features=512, shared_filters=shared_filters)
