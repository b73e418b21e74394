"""Multi-gate mixture of experts: shared experts, of which each task takes its own mixture, face by face.

Ma, Zhao, Yi, Chen, Hong and Chi, "Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts" (KDD 2018). An expert is the stages from a split point on, begun anew; with one it is hard sharing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from facemtl.models.sharing.base import Read, Sharing, split_at
from facemtl.models.sharing.gate import Gate, mixed
from facemtl.models.sharing.stages import run, stages_of


class MMoE(Sharing):
    """A trunk, experts on it, and a gate a task.

    Args:
        backbone: the network of the trunk and of the first expert.
        make: builds another one.
        tasks: of the network.
        experts: how many.
        split: how many stages are the trunk; negative numbers count from the end.
    """

    def __init__(
        self,
        backbone: nn.Module,
        make: Callable[[], nn.Module],
        tasks: Sequence[str],
        experts: int = 4,
        split: int = -1,
    ) -> None:
        super().__init__(backbone, tasks)
        stages = stages_of(backbone)
        first = split_at(stages, split)
        self.stem = nn.Sequential(*stages.modules[:first])
        tails = [stages.modules[first:], *(stages_of(make()).modules[first:] for _ in range(experts - 1))]
        self.experts = nn.ModuleList(nn.Sequential(*tail) for tail in tails)
        for task in tasks:
            self.own[task] = Gate(stages.shapes[first], experts)

    def by_task(self, images: Tensor) -> dict[str, Read]:
        shared = run(self.stem, images)
        _, *answers = zip(*(run(expert, shared[-1]) for expert in self.experts), strict=True)  # stage by stage
        found = {}
        for task in self.tasks:
            shares = self.own[task](shared[-1])
            found[task] = [*shared, *(mixed(shares, stage) for stage in answers)]
        return found
