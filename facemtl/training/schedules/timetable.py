"""Which tasks a step has: a task every n steps, tasks that join late and tasks that leave.

A task that is out behaves as one without a label in the batch: no gradient comes from it, its head stays where it is,
and what a weighing remembers of it too. Its loss keeps its factor whatever its period: a task of period 3 moves the
shared parameters a third as often as others; raise its weight where it should not count less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timetable:
    """Steps and epochs are counted from 0, over the whole training.

    Attributes:
        tasks: of the training.
        periods: task -> n: it takes part in the steps that n divides; 1 where not named.
        joins: task -> epochs that pass before it takes part; 0 where not named.
        leaves: task -> epochs after which it takes no part any more; never where not named.
    """

    tasks: Sequence[str]
    periods: Mapping[str, float] = field(default_factory=dict)
    joins: Mapping[str, float] = field(default_factory=dict)
    leaves: Mapping[str, float] = field(default_factory=dict)

    def present(self, epoch: int) -> tuple[str, ...]:
        """The tasks that have joined and not left."""
        return tuple(t for t in self.tasks if self.joins.get(t, 0) <= epoch < self.leaves.get(t, math.inf))

    def absent(self, step: int, steps_per_epoch: int) -> frozenset[str]:
        """The tasks that have no part in a step."""
        here = (t for t in self.present(step // steps_per_epoch) if step % self.periods.get(t, 1) == 0)
        return frozenset(self.tasks) - frozenset(here)

    def steps(self, epoch: int, steps_per_epoch: int) -> dict[str, int]:
        """Task -> steps of an epoch that it takes part in, whether or not they have a label for it."""
        out = [
            self.absent(step, steps_per_epoch) for step in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch)
        ]
        return {task: sum(task not in absent for absent in out) for task in self.tasks}

    def __bool__(self) -> bool:
        """Whether it keeps any task out of any step."""
        return bool(self.periods or self.joins or self.leaves)
