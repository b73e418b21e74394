"""Cross-stitch units: after every stage each task goes on with a learned mixture of what all tasks' networks gave.

Misra, Shrivastava, Gupta and Hebert, "Cross-stitch Networks for Multi-task Learning" (CVPR 2016). The paper trains the
tasks' networks alone first and then stitches them; here they are stitched from the start, with its initial values
(0.9 to a task itself, 0.1 divided among the others). The paper lets units learn faster than the rest: with AdamW, whose
steps do not depend on the size of gradients, that is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from facemtl.models.sharing.base import Read, Sharing
from facemtl.models.sharing.stages import channels_of, stages_of


class Stitch(nn.Module):
    """x_t becomes sum_s a_ts x_s.

    Args:
        tasks: T.
        channels: 1 for one number a pair of tasks, else one for every channel of theirs.
        own: a_tt at the start; the other numbers of a row are equal, and all of it sums to 1.
    """

    def __init__(self, tasks: int, channels: int, own: float) -> None:
        super().__init__()
        self.tasks = tasks
        rest = (1 - own) / max(1, tasks - 1)
        start = own * torch.eye(tasks) + rest * (1 - torch.eye(tasks))
        # Flat, as decay acts on parameters of two dimensions and would pull the mixture to nothing.
        self.mixture = nn.Parameter(start[..., None].repeat(1, 1, channels).flatten())

    def forward(self, x: Tensor) -> Tensor:
        """(T, N, C, ...) maps or vectors, or (T, N, places, C) tokens -> mixed, of the same shape."""
        mixture = self.mixture.view(self.tasks, self.tasks, -1)
        if mixture.shape[2] == 1:
            return torch.einsum("ts,s...->t...", mixture[..., 0], x)
        if x.ndim == 4:  # tokens
            return torch.einsum("tsc,snpc->tnpc", mixture, x)
        return torch.einsum("tsc,snc...->tnc...", mixture, x)


class CrossStitch(Sharing):
    """A network a task, stitched after every stage.

    Args:
        backbone: the first task's network.
        make: builds another one.
        tasks: two or more.
        own: what a task keeps of its own at the start; 1 makes the networks separate ones.
        per_channel: whether every channel is mixed by numbers of its own.
    """

    def __init__(
        self,
        backbone: nn.Module,
        make: Callable[[], nn.Module],
        tasks: Sequence[str],
        own: float = 0.9,
        per_channel: bool = True,
    ) -> None:
        super().__init__(backbone, tasks)
        stages = stages_of(backbone)
        others = [stages_of(make()).modules for _ in tasks[1:]]
        # Stage by stage the networks of all tasks: every one of them is reached by the losses of all.
        self.stages = nn.ModuleList(
            nn.ModuleDict(zip(tasks, same, strict=True)) for same in zip(stages.modules, *others, strict=True)
        )
        self.units = nn.ModuleList(
            Stitch(len(tasks), channels_of(shape) if per_channel else 1, own) for shape in stages.shapes[1:]
        )

    def by_task(self, images: Tensor) -> dict[str, Read]:
        read = {task: [images] for task in self.tasks}
        for networks, unit in zip(self.stages, self.units, strict=True):
            given = [networks[task](read[task][-1]) for task in self.tasks]
            for task, mixture in zip(self.tasks, unit(torch.stack(given)), strict=True):
                read[task].append(mixture)
        return read
