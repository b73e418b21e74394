"""Does a task's presence cost the main task? Decided from the snapshots of a training, with the evidence in the line.

A task costs the points where its part of the steps keeps pointing against theirs: the mean cosine between the two
gradients over a window of snapshots lies under 0 by its Student interval. Windows do not overlap, and the level of the
intervals is such that a training in which no task costs anything is warned about in 5 % of cases at most (Bonferroni
over its windows and tasks). Gradients of one batch are noisy, and noise pulls a cosine towards 0: what is found is
there, what is not found may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from statistics import fmean, median, stdev

from scipy import stats

from facemtl.landmarks import POINTS

WINDOW = 10  # snapshots in which a task and the points both took part
FALSE_ALARM = 0.05  # chance that a training without any cost is warned about


class NegativeTransfer:
    """Takes the snapshots of a training one after the other.

    Args:
        tasks: of the network, in its order.
        snapshots: that the whole training will have.
    """

    def __init__(self, tasks: tuple[str, ...], snapshots: int) -> None:
        self.others = [task for task in tasks if task != POINTS] if POINTS in tasks else []
        # The order in which a cosine's tasks are named is that of the network.
        self.names = {task: "cosine/" + "/".join(sorted((POINTS, task), key=tasks.index)) for task in self.others}
        self.tests = max(1, snapshots // WINDOW * len(self.others))
        self.seen: dict[str, list[Mapping[str, float]]] = {task: [] for task in self.others}

    @property
    def level(self) -> float:
        """Of the two-sided intervals; only their upper ends are read."""
        return 1 - 2 * FALSE_ALARM / self.tests

    def add(self, row: Mapping[str, float]) -> list[str]:
        """Take one row of a watch file; returns the warnings that are due now, one a task."""
        lines = []
        for task in self.others:
            if not math.isfinite(row.get(self.names[task], math.nan)) or not row.get(f"weight/{task}", 0.0) > 0:
                continue
            self.seen[task].append(row)
            if len(self.seen[task]) == WINDOW:
                lines += self._judge(task, self.seen[task])
                self.seen[task] = []
        return lines

    def _judge(self, task: str, rows: list[Mapping[str, float]]) -> list[str]:
        low, mean, high = interval([row[self.names[task]] for row in rows], self.level)
        if high >= 0:
            return []
        undone = [row[f"undone/{task}"] for row in rows if math.isfinite(row.get(f"undone/{task}", math.nan))]
        cost = f"; its part of a step undid {100 * median(undone):.1f} % of what their own gained" if undone else ""
        ahead = [v for row in rows if math.isfinite(v := row.get(f"affinity/{task}/{POINTS}", math.nan))]
        if ahead:
            cost += f"; a step along {task} alone changed their loss by {-100 * fmean(ahead):+.3f} %"
        return [
            f"step {rows[-1]['step']}: {task} costs {POINTS}: over {len(rows)} snapshots since step {rows[0]['step']} "
            f"the mean cosine of their gradients was {mean:.2f}, {100 * self.level:.1f} % interval [{low:.2f}, "
            f"{high:.2f}]{cost}; lower weights.{task}, set another weighing, or leave {task} out"
        ]


def interval(values: list[float], level: float) -> tuple[float, float, float]:
    """Low end, mean and high end of Student's interval for the mean of two or more values."""
    mean = fmean(values)
    width = _student(level, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean - width, mean, mean + width


@lru_cache(maxsize=32)
def _student(level: float, freedom: int) -> float:
    return float(stats.t.ppf((1 + level) / 2, freedom))
