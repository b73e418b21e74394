"""GridNet: a small convolutional backbone for face crops, whose last map is read as a grid and not pooled away.

Its blocks are re-parameterised (Ding et al., "RepVGG", CVPR 2021): trained with batch normalisation and an identity
branch, run as one 3 x 3 convolution and a ReLU each (:func:`fuse`), which is what CPUs are fastest with. Points need to
know *where* on the grid something is, so the last map is narrowed and flattened into a fully connected layer;
attributes also get its mean, which does not care.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from facemtl.errors import ModelError


class ConvBlock(nn.Module):
    """relu(norm(conv3x3(x)) [+ x]); the identity only where input and output have the same shape."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(outputs)
        self.identity = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        if self.identity:
            y = y + x
        return torch.relu(y)

    def fuse(self, identity: bool = True) -> None:
        """Fold normalisation (of evaluation), and the identity if so wished, into the convolution, in place; the
        function is the same."""
        if self.norm is None:
            return
        conv, norm = self.conv, self.norm
        with torch.no_grad():
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight = conv.weight * scale[:, None, None, None]
            if self.identity and identity:
                channels = torch.arange(len(weight))
                weight[channels, channels, 1, 1] += 1
                self.identity = False
            fused = nn.Conv2d(conv.in_channels, conv.out_channels, 3, conv.stride, padding=1)
            fused.weight.copy_(weight)
            fused.bias.copy_(norm.bias - norm.running_mean * scale)
        self.conv, self.norm = fused, None


class GridNet(nn.Module):
    """Colour crops to (N, features).

    Args:
        input_size: side S of the crop.
        stem: channels after the first convolution, at S / 2.
        widths: channels of the stages, each at half the side of the one before.
        depths: further blocks in each stage.
        neck: channels to which the last map is narrowed before it is flattened.
        hidden: width of the fully connected layer on the flattened map.
    """

    def __init__(
        self,
        input_size: int = 80,
        stem: int = 20,
        widths: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] = (1, 3, 2),
        neck: int = 48,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.channels = 3
        blocks, channels, side = [ConvBlock(3, stem, 2)], stem, -(-input_size // 2)
        for width, depth in zip(widths, depths, strict=True):
            blocks += [ConvBlock(channels, width, 2), *(ConvBlock(width, width) for _ in range(depth))]
            channels, side = width, -(-side // 2)
        self.trunk = nn.Sequential(*blocks)
        self.neck = nn.Sequential(
            nn.Conv2d(channels, neck, 1), nn.ReLU(), nn.Flatten(), nn.Linear(neck * side**2, hidden), nn.ReLU()
        )
        self.depths = tuple(depths)
        self.fine_ends = (1, 2 + depths[0])  # blocks after which maps have half and a quarter of the side
        self.fine_channels = (stem, widths[0])
        self.grid_channels = channels
        self.features = hidden + channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Standardised crops (N, 3, S, S) -> two fine maps (N, fine_channels, S / 2, S / 2) and (..., S / 4, S / 4),
        and the last (N, grid_channels, G, G)."""
        half, quarter = self.fine_ends
        first = self.trunk[:half](images)
        second = self.trunk[half:quarter](first)
        return first, second, self.trunk[quarter:](second)

    def vector(self, grid: Tensor) -> Tensor:
        """The last map -> (N, features): what is where on the grid, and its mean."""
        return torch.cat([self.neck(grid), grid.mean(dim=(2, 3))], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Standardised crops (N, 3, S, S) -> (N, features)."""
        return self.vector(self.maps(images)[-1])


def shallower(model: nn.Module, depths: Sequence[int]) -> dict[str, Tensor]:
    """The tensors of a network with a GridNet ``backbone`` that one with fewer further blocks a stage has, by its
    names. A block adds to what it is given, so that without the last ones a network is disturbed and not lost.

    Raises:
        ModelError: another number of stages, or a stage with more blocks than there are.
    """
    had = model.backbone.depths
    if len(depths) != len(had) or any(not 0 <= new <= old for new, old in zip(depths, had, strict=True)):
        raise ModelError(f"depths {list(depths)}: expected {len(had)}, at most {list(had)}")
    kept, first = [0], 1  # the stem
    for new, old in zip(depths, had, strict=True):
        kept += range(first, first + 1 + new)
        first += 1 + old
    trunk = "backbone.trunk."
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(trunk)}
    for place, block in enumerate(kept):
        tensors |= {f"{trunk}{place}.{name}": t for name, t in model.backbone.trunk[block].state_dict().items()}
    return tensors


def fuse(model: nn.Module, identity: bool = True) -> nn.Module:
    """A copy of a network in evaluation mode whose blocks are single convolutions; it computes the same.

    Args:
        identity: whether identity branches become part of the convolutions too. The ones that they add are ten times as
            large as other weights, which leaves few steps for these in whole numbers.
    """
    fused = copy.deepcopy(model)
    for module in fused.modules():
        if isinstance(module, ConvBlock):
            module.fuse(identity)
    return fused.eval()
