"""Progressive layered extraction: experts of each task beside shared ones, separated level by level.

Tang, Liu, Zhao and Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
Recommendations" (RecSys 2020). At every level a task's gate mixes its own experts and the shared ones, and the shared
gate, at all levels but the last, mixes all experts; experts and gates of a level read the mixture of the level before.
A level is one stage of the backbone, and an expert that stage, begun anew; with one level it is CGC of the same paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from facemtl.models.sharing.base import Read, Sharing, split_at
from facemtl.models.sharing.gate import Gate, mixed
from facemtl.models.sharing.stages import run, stages_of

SHARED = "shared"  # beside the tasks' names: what no task owns


class Level(nn.Module):
    """Experts and gates of one level, of who is not given them by the outside: task, or :data:`SHARED`, -> module."""

    def __init__(self, experts: dict[str, nn.Module], gates: dict[str, Gate]) -> None:
        super().__init__()
        self.experts, self.gates = nn.ModuleDict(experts), nn.ModuleDict(gates)


class PLE(Sharing):
    """A trunk, and every stage after it as a level of experts.

    Args:
        backbone: the network of the trunk and of the first shared expert.
        make: builds another one.
        tasks: of the network.
        shared_experts, task_experts: how many at each level, the latter for each task.
        split: how many stages are the trunk; negative numbers count from the end.
    """

    def __init__(
        self,
        backbone: nn.Module,
        make: Callable[[], nn.Module],
        tasks: Sequence[str],
        shared_experts: int = 1,
        task_experts: int = 1,
        split: int = -2,
    ) -> None:
        super().__init__(backbone, tasks)
        stages = stages_of(backbone)
        first = split_at(stages, split)
        self.stem = nn.Sequential(*stages.modules[:first])
        networks = [stages.modules]

        def experts(count: int) -> list[Sequence[nn.Module]]:
            while len(networks) < count:
                networks.append(stages_of(make()).modules)
            taken = networks[:count]
            del networks[:count]
            return taken

        of = {SHARED: experts(shared_experts)} | {task: experts(task_experts) for task in tasks}
        self.levels = nn.ModuleList()
        last = len(stages.modules) - 1
        for stage in range(first, last + 1):
            here = {who: nn.ModuleList(network[stage] for network in taken) for who, taken in of.items()}
            gates = {task: Gate(stages.shapes[stage], shared_experts + task_experts) for task in tasks}
            if stage < last:
                gates[SHARED] = Gate(stages.shapes[stage], shared_experts + len(tasks) * task_experts)
                self.levels.append(Level(here, gates))
                continue
            # What a task has at the last level is read by nobody else.
            for task in tasks:
                self.own[task] = Level({task: here.pop(task)}, {task: gates.pop(task)})
            self.levels.append(Level(here, gates))

    def by_task(self, images: Tensor) -> dict[str, Read]:
        shared = run(self.stem, images)
        x = dict.fromkeys((SHARED, *self.tasks), shared[-1])
        read = {task: list(shared) for task in self.tasks}
        for level in self.levels:
            parts = {who: level if who in level.experts else self.own[who] for who in (SHARED, *self.tasks)}
            answers = {who: [expert(x[who]) for expert in part.experts[who]] for who, part in parts.items()}
            everything = [answer for given in answers.values() for answer in given]
            mixtures = {
                task: mixed(parts[task].gates[task](x[task]), answers[SHARED] + answers[task]) for task in self.tasks
            }
            if SHARED in level.gates:
                mixtures[SHARED] = mixed(level.gates[SHARED](x[SHARED]), everything)
            for task in self.tasks:
                read[task].append(mixtures[task])
            x = mixtures
        return read
