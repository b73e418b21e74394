"""Attention of each task on one shared network.

Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention" (CVPR 2019): at every stage j a task reads
a_j * p_j, where p_j is what the shared stage gives, a_j = sigmoid(h(g([p_j; f(a_(j-1) * p_(j-1))]))), g and h are 1 x 1
convolutions with normalisation, and f is a 3 x 3 convolution with normalisation and ReLU that brings what the task read
at the stage before to this stage's side. The paper gives g the first and multiplies the last layer of a stage; a stage
here is one layer or one block, whose last is its first. Maps are halved by interpolation instead of pooling, as sides
need not be halves; where a stage gives tokens or a vector, convolutions are fully connected layers and the
normalisation is that of the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facemtl.models.sharing.base import Read, Sharing
from facemtl.models.sharing.stages import channels_of, run, stages_of

Shape = tuple[int, ...]


class Layer(nn.Module):
    """A linear map over channels of maps, tokens or vectors, with normalisation.

    Args:
        inputs, outputs: channels.
        maps: whether it is a convolution; else channels stand last.
        kernel: odd, of the convolution.
    """

    def __init__(self, inputs: int, outputs: int, maps: bool, kernel: int = 1) -> None:
        super().__init__()
        if maps:
            linear: nn.Module = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            norm: nn.Module = nn.BatchNorm2d(outputs)
        else:
            linear, norm = nn.Linear(inputs, outputs, bias=False), nn.LayerNorm(outputs)
        self.linear, self.norm = linear, norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class Attention(nn.Module):
    """What one task reads of one stage.

    Args:
        before: shape of what it read of the stage before, for one face; None at the first.
        shape: of what the stage gives.
        reduction: by which factor g narrows the channels; 1 in the paper's SegNet, 4 in its authors' residual networks.
    """

    def __init__(self, before: Shape | None, shape: Shape, reduction: int) -> None:
        super().__init__()
        channels, maps = channels_of(shape), len(shape) == 3
        self.side = shape[1] if maps else 0
        # Between a map and a vector, or other numbers of tokens, nothing has a place: its mean is handed on.
        self.mean = before is not None and (len(before) != len(shape) or (len(shape) == 2 and before[0] != shape[0]))
        self.mean_over = {3: (2, 3), 2: (1,), 1: ()}[len(before)] if before is not None else ()
        self.spread = len(shape) - 1
        self.bring = None
        if before is not None:
            self.bring = Layer(channels_of(before), channels, maps and not self.mean, kernel=3)
        narrow = max(2, channels // reduction)  # the scale of a single channel is undone by the next normalisation
        self.narrow = Layer(channels * (1 if before is None else 2), narrow, maps)
        self.widen = Layer(narrow, channels, maps)
        self.maps = maps

    def forward(self, given: Tensor, before: Tensor | None) -> Tensor:
        """What the stage gives, and what the task read of the stage before -> what it reads of this one."""
        seen = given
        if self.bring is not None:
            seen = torch.cat([given, self._brought(before, given)], dim=1 if self.maps else -1)
        return torch.sigmoid(self.widen(torch.relu(self.narrow(seen)))) * given

    def _brought(self, before: Tensor, given: Tensor) -> Tensor:
        if not self.mean:
            brought = torch.relu(self.bring(before))
            if self.maps and brought.shape[-1] != self.side:
                brought = F.interpolate(brought, (self.side, self.side), mode="bilinear")
            return brought
        brought = torch.relu(self.bring(before.mean(dim=self.mean_over) if self.mean_over else before))
        if self.maps:
            return brought[:, :, None, None].expand_as(given)
        return brought[:, None].expand_as(given) if self.spread else brought


class MTAN(Sharing):
    """One shared network, whose stages each task attends to.

    Args:
        backbone: the shared network.
        make: not needed: there is one network.
        tasks: of the network.
        reduction: as :class:`Attention`.
    """

    def __init__(
        self, backbone: nn.Module, make: Callable[[], nn.Module], tasks: Sequence[str], reduction: int = 4
    ) -> None:
        super().__init__(backbone, tasks)
        stages = stages_of(backbone)
        self.stages = nn.ModuleList(stages.modules)
        shapes = stages.shapes[1:]
        for task in tasks:
            before = [None, *shapes[:-1]]
            self.own[task] = nn.ModuleList(Attention(b, s, reduction) for b, s in zip(before, shapes, strict=True))

    def by_task(self, images: Tensor) -> dict[str, Read]:
        _, *given = run(self.stages, images)
        found = {}
        for task in self.tasks:
            read, before = [images], None
            for attention, x in zip(self.own[task], given, strict=True):
                before = attention(x, before)
                read.append(before)
            found[task] = read
        return found
