"""Hard sharing up to a split point, then a branch a task; from the first stage on, task-specific networks.

Caruana, "Multitask Learning" (Machine Learning 28, 1997), for the trunk; where to branch off is the question of Misra
et al., "Cross-stitch Networks for Multi-task Learning" (CVPR 2016, section 1), who find that it depends on the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from facemtl.models.sharing.base import Read, Sharing, split_at
from facemtl.models.sharing.stages import run, stages_of


class Branches(Sharing):
    """The first stages for all tasks, the others once a task, each begun anew.

    Args:
        backbone: the network of the trunk and of the first task.
        make: builds another one.
        tasks: of the network.
        split: how many stages are shared; negative numbers count from the end.

    Raises:
        ModelError: there are not so many stages.
    """

    def __init__(
        self, backbone: nn.Module, make: Callable[[], nn.Module], tasks: Sequence[str], split: int = 0
    ) -> None:
        super().__init__(backbone, tasks)
        stages = stages_of(backbone)
        first = split_at(stages, split)
        self.trunk = nn.Sequential(*stages.modules[:first])
        for task in tasks:
            self.own[task] = nn.Sequential(*stages.modules[first:])
            if task != tasks[-1]:
                stages = stages_of(make())

    def by_task(self, images: Tensor) -> dict[str, Read]:
        *before, shared = run(self.trunk, images)
        return {task: [*before, *run(self.own[task], shared)] for task in self.tasks}
