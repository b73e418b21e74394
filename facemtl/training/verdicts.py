"""From the errors of a comparison's runs to tables, verdicts and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from facemtl.data.sample import MISSING, FaceSample
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES
from facemtl.training.comparison import Comparison
from facemtl.training.statistics import Interval, delta_m, group_error, paired_difference

COLOURS = {"helped": "#2a8f4a", "hurt": "#c23b3b", "undecided": "#777777"}


@dataclass(frozen=True, slots=True)
class Row:
    """One method against the baseline of one task, on all faces or on those of one pose class.

    Attributes:
        error: of the method, in percent: NME for landmarks, balanced error elsewhere (plain error within a pose class).
        spread: standard deviation of ``error`` over the seeds.
        baseline: error of the method that it is compared with.
        difference: ``error`` minus ``baseline`` with its interval, percentage points.
    """

    method: str
    task: str
    part: str
    error: float
    spread: float
    baseline: float
    difference: Interval


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Everything that a comparison says about one split; ``against`` is what all methods are compared with."""

    split: str
    faces: int
    seeds: int
    rows: tuple[Row, ...]
    deltas: Mapping[str, Interval]
    against: str = "single-task"


def judge(
    comparison: Comparison, errors: Mapping[str, Mapping[str, np.ndarray]], samples: list[FaceSample], split: str
) -> Verdicts:
    """Judge every method and task against its baseline.

    Args:
        comparison: the methods.
        errors: method -> task -> (S, N), as :func:`facemtl.training.comparison.load_errors`.
        samples: the N faces of the split.
        split: its name.

    Raises:
        DataError: the errors are about another number of faces.
        ConfigError: no method is the baseline of a task.
    """
    for method, task in ((m, t) for m in errors for t in errors[m]):
        if (found := errors[method][task].shape[1]) != len(samples):
            raise DataError(f"{split}: {method!r} was judged on {found} faces, but the data set has {len(samples)}")
    labels = {task: np.array([s.labels.get(task, MISSING) for s in samples]) for task in ATTRIBUTES}
    groups = {"landmarks": np.zeros(len(samples), dtype=int), **labels}
    parts = {"all": np.ones(len(samples), dtype=bool)}
    parts |= {label: labels["pose"] == i for i, label in enumerate(ATTRIBUTES["pose"])}
    rows, deltas = [], {}
    for method in comparison.methods:
        tasks = comparison.judged_tasks(method)
        baselines = {task: comparison.baseline(task) for task in tasks}
        if set(baselines.values()) == {method}:
            continue
        for task in tasks:
            ours, base = errors[method][task], errors[baselines[task]][task]
            for part, chosen in parts.items():
                group = groups[task] if part == "all" else np.zeros(len(samples), dtype=int)
                if chosen.any():
                    rows.append(_row(method, task, part, ours[:, chosen], base[:, chosen], group[chosen]))
        if len(tasks) > 1:
            deltas[method] = delta_m(
                {task: errors[method][task] for task in tasks},
                {task: errors[baselines[task]][task] for task in tasks},
                groups,
            )
    against = comparison.against or "single-task"
    return Verdicts(split, len(samples), len(comparison.seeds), tuple(rows), deltas, against)


def _row(method: str, task: str, part: str, ours: np.ndarray, base: np.ndarray, group: np.ndarray) -> Row:
    per_seed = 100 * group_error(ours, group)
    return Row(
        method,
        task,
        part,
        error=float(per_seed.mean()),
        spread=float(per_seed.std(ddof=1)) if len(per_seed) > 1 else float("nan"),
        baseline=float(100 * group_error(base, group).mean()),
        difference=_percent(paired_difference(ours, base, group)),
    )


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high)


def as_markdown(verdicts: Verdicts) -> str:
    """The tables, as Markdown that also reads well in a terminal."""
    columns = f"error (sd over seeds) | {verdicts.against} | difference [95 %] | verdict"
    deltas = [
        f"| {method} | {d.estimate:+.1f} % [{d.low:+.1f}, {d.high:+.1f}] | {d.verdict} |"
        for method, d in verdicts.deltas.items()
    ]
    lines = [
        f"### {verdicts.split}: {verdicts.faces} faces, {verdicts.seeds} seeds",
        "",
        "Error is NME for landmarks and balanced error for attributes, in percent; within a pose class plain error.",
        f"Difference: method minus {verdicts.against}, percentage points, paired bootstrap 95 % over seeds and faces.",
        *_table(f"method | task | {columns}", [_line(r, r.task) for r in verdicts.rows if r.part == "all"]),
        *_table("method | Delta-m: mean relative change of error over its tasks [95 %] | verdict", deltas),
        *_table(
            f"method | task, pose class | {columns}",
            [_line(r, f"{r.task}, {r.part}") for r in verdicts.rows if r.part != "all"],
        ),
    ]
    return "\n".join(lines) + "\n"


def _table(columns: str, lines: list[str]) -> list[str]:
    """A blank line, the head and the lines; nothing if there are none."""
    return ["", f"| {columns} |", "| --- " * (columns.count("|") + 1) + "|", *lines] if lines else []


def _line(row: Row, what: str) -> str:
    d = row.difference
    return (
        f"| {row.method} | {what} | {row.error:.2f} ({row.spread:.2f}) | {row.baseline:.2f} "
        f"| {d.estimate:+.2f} [{d.low:+.2f}, {d.high:+.2f}] | {d.verdict} |"
    )


def forest_plot(verdicts: Verdicts) -> Figure:
    """Relative differences with their intervals, a line for each method and task; left of zero is better."""
    rows = [row for row in verdicts.rows if row.part == "all"]
    figure = Figure(figsize=(7.5, 1.2 + 0.26 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        low, middle, high = (
            100 * v / (row.baseline or float("nan"))
            for v in (row.difference.low, row.difference.estimate, row.difference.high)
        )
        colour = COLOURS[row.difference.verdict]
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(middle, place, "o", color=colour, markersize=5)
    axes.axvline(0, color="#333333", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row.method}: {row.task}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"change of error against {verdicts.against}, % (left is better)")
    axes.set_title(f"{verdicts.split}: {verdicts.faces} faces, {verdicts.seeds} seeds, 95 % intervals")
    axes.grid(axis="x", color="#dddddd")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure
