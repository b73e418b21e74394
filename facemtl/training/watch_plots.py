"""A picture of what the tasks of a training did to each other, from its watch file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from facemtl.landmarks import POINTS
from facemtl.training.watching import Row

INK, FAINT = "#333333", "#bbbbbb"
SMOOTHED = 5  # snapshots that a line is the mean of; single snapshots are dots


def watch_figure(rows: Sequence[Row], title: str) -> Figure:
    """Losses, gradients, weights, conflict, cost to the points and mean cosines; ``rows`` as
    :func:`facemtl.training.watching.read_watch` gives them, at least one."""
    tasks = [name.removeprefix("loss/") for name in rows[0] if name.startswith("loss/")]
    colours = {task: f"C{place}" for place, task in enumerate(tasks)}
    steps = column(rows, "step")
    figure = Figure(figsize=(11.0, 9.5), layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(3, 2)

    def lines(axes: Axes, what: str, label: str, log: bool = False, among: Sequence[str] = tasks) -> None:
        for task in among:
            values = column(rows, f"{what}/{task}")
            if np.isfinite(values).any():
                axes.plot(steps, values, ".", color=colours[task], alpha=0.3, markersize=4)
                axes.plot(steps, smoothed(values), color=colours[task], linewidth=1.4, label=task)
        if log and axes.lines:
            axes.set_yscale("log")
        axes.set_title(label, fontsize=10)

    lines(grid[0, 0], "loss", "loss, times the recipe's factor", log=True)
    lines(grid[0, 1], "gradient", "length of the gradient on what is shared", log=True)
    lines(grid[1, 0], "weight", "weight of the weighing")
    lines(grid[1, 1], "undone", f"progress of {POINTS} undone (over 0) or added (under 0), share", among=tasks)
    grid[1, 1].axhline(0, color=INK, linewidth=0.8)
    conflict = column(rows, "conflict")
    grid[2, 0].plot(steps, conflict, ".", color=FAINT, markersize=4)
    grid[2, 0].plot(steps, smoothed(conflict), color=INK, linewidth=1.4)
    grid[2, 0].set_ylim(-0.02, 1.02)
    grid[2, 0].set_title("conflict: share of pairs of gradients with a cosine under 0", fontsize=10)
    for axes in grid.flat[:5]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eeeeee", linewidth=0.8)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("step", fontsize=8)
    grid[0, 0].legend(frameon=False, fontsize=8)
    _matrix(grid[2, 1], mean_cosines(rows, tasks), tasks)
    return figure


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """(R,) float64 of one column; NaN where it says nothing or is not there."""
    return np.array([row.get(name, np.nan) for row in rows], dtype=float)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Mean of the known values among the last ``SMOOTHED``; NaN where there is none."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - SMOOTHED, 0)
    count = counts[ends] - counts[starts]
    return np.where(count > 0, (sums[ends] - sums[starts]) / np.maximum(count, 1), np.nan)


def mean_cosines(rows: Sequence[Row], tasks: Sequence[str]) -> np.ndarray:
    """(T, T) mean over the snapshots that know them, 1 on the diagonal; NaN where no snapshot does."""
    matrix = np.eye(len(tasks))
    for (i, a), (j, b) in combinations(enumerate(tasks), 2):
        values = column(rows, f"cosine/{a}/{b}")
        known = values[np.isfinite(values)]
        matrix[i, j] = matrix[j, i] = known.mean() if known.size else np.nan
    return matrix


def _matrix(axes: Axes, cosines: np.ndarray, tasks: Sequence[str]) -> None:
    axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1)
    for (i, j), value in np.ndenumerate(cosines):
        if i != j and np.isfinite(value):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=INK)
    names = [task.replace("_", " ") for task in tasks]
    axes.set_xticks(range(len(tasks)), names, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(tasks)), names, fontsize=8)
    axes.set_title("mean cosine between gradients", fontsize=10)
