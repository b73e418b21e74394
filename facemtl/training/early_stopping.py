"""Task-wise early stopping (Zhang et al., ECCV 2014, section 3.3): an auxiliary task leaves once it gave its best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


def stop_score(train: Sequence[float], validation: float, k: int, importance: float) -> float:
    """The criterion of one task: large when its training error no longer falls and its validation error is far above.

    The first factor is ``k med / (sum - k med)`` over the last k training errors, the second
    ``(validation - min train) / (importance * min train)``. A training error that stands still makes the first
    denominator zero: the score is then infinite with the sign of the second factor.

    Args:
        train: training errors of the epochs so far, at least k, positive.
        validation: validation error of the last epoch.
        k: how many epochs the trend looks back.
        importance: the paper's lambda; the larger, the longer the task stays.
    """
    last = train[-k:]
    scaled_median = k * median(last)
    spread = sum(last) - scaled_median
    best = max(min(train), 1e-12)
    generalisation = (validation - best) / (importance * best)
    if abs(spread) <= 1e-9 * max(scaled_median, 1e-12):
        return math.copysign(math.inf, generalisation) if generalisation else 0.0
    return scaled_median / spread * generalisation


@dataclass(slots=True)
class TaskStopper:
    """Which auxiliary tasks still train.

    Attributes:
        k: epochs of the trend; nothing stops before that many.
        threshold: the paper's epsilon.
        importance: task -> lambda, 1 where not named.
        train: task -> training errors so far.
        stopped: task -> the epoch, counted from 1, after which it left.
        joined: task -> epochs of the training that it missed at first; 0 where not named.
    """

    k: int
    threshold: float
    importance: Mapping[str, float] = field(default_factory=dict)
    train: dict[str, list[float]] = field(default_factory=dict)
    stopped: dict[str, int] = field(default_factory=dict)
    joined: Mapping[str, float] = field(default_factory=dict)

    def update(self, train: Mapping[str, float], validation: Mapping[str, float]) -> list[str]:
        """Take the errors of one epoch, of the auxiliary tasks only; returns the tasks that stop now."""
        leaving = []
        for task, error in train.items():
            history = self.train.setdefault(task, [])
            history.append(error)
            if task in self.stopped or len(history) < self.k:
                continue
            if stop_score(history, validation[task], self.k, self.importance.get(task, 1.0)) > self.threshold:
                self.stopped[task] = len(history) + int(self.joined.get(task, 0))
                leaving.append(task)
        return leaving
