"""The pictures of a comparison, each as a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from facemtl.landmarks import POINTS
from facemtl.training.overview import Line
from facemtl.training.verdicts import ALL, Ranks, Row, Verdicts

COLOURS = {"helped": "#2a8f4a", "hurt": "#c23b3b", "undecided": "#777777"}
INK, FAINT = "#333333", "#dddddd"


def forest_plot(verdicts: Verdicts, task: str = "") -> Figure:
    """Relative differences with their intervals, a line for each method and task; left of zero is better.

    Args:
        task: of this one alone, the best method on top.
    """
    rows = [row for row in verdicts.rows if row.part == ALL and task in ("", row.task)]
    if task:
        rows = sorted(rows, key=lambda row: row.difference.estimate / (row.baseline or float("nan")))
    figure, axes = _figure(7.5, 1.2 + 0.26 * len(rows))
    for place, row in enumerate(rows):
        low, middle, high = _relative(row)
        colour = COLOURS[row.difference.verdict]
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(middle, place, "o", color=colour, markersize=5)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [row.method if task else f"{row.method}: {row.task}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(
        f"change of {f'the error of {task}' if task else 'error'} against {verdicts.against}, % (left is better)"
    )
    axes.set_title(f"{verdicts.split}: {verdicts.faces} faces, {verdicts.seeds} seeds, 95 % intervals")
    axes.grid(axis="x", color=FAINT)
    axes.spines["left"].set_visible(False)
    return figure


def rank_diagram(ranks: Ranks) -> Figure:
    """Mean ranks on a line; bars join methods that cannot be told apart (critical difference, Demsar 2006)."""
    order = sorted(ranks.mean, key=ranks.mean.get)
    places = [ranks.mean[name] for name in order]
    bars = joined(places, ranks.critical)
    half = (len(order) + 1) // 2
    top = 0.35 * len(bars) + 0.6
    figure = Figure(figsize=(9.0, 1.1 + 0.16 * len(bars) + 0.28 * half), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.axis("off")
    first, last = 1, len(order)
    axes.plot([first, last], [0, 0], color=INK, linewidth=1)
    for rank in range(first, last + 1):
        axes.plot([rank, rank], [0, 0.25], color=INK, linewidth=1)
        axes.text(rank, 0.35, str(rank), ha="center", va="bottom", fontsize=8)
    axes.plot([first, first + ranks.critical], [1.6, 1.6], color=INK, linewidth=2)
    axes.text(first, 1.75, f"critical difference {ranks.critical:.1f}", ha="left", va="bottom", fontsize=8)
    for number, (low, high) in enumerate(bars):
        height = -0.35 * (number + 1)
        axes.plot([low - 0.05, high + 0.05], [height, height], color="#2f6db5", linewidth=4, solid_capstyle="round")
    for number, (name, place) in enumerate(zip(order, places, strict=True)):
        left = number < half
        depth = -top - 0.8 * (number if left else len(order) - 1 - number)
        edge = first - 0.3 if left else last + 0.3
        axes.plot([place, place, edge], [0, depth, depth], color="#999999", linewidth=0.8)
        text = f"{name}  {place:.1f}" if left else f"{place:.1f}  {name}"
        axes.text(
            edge, depth, text + " " if left else " " + text, ha="right" if left else "left", va="center", fontsize=9
        )
    reach = 0.32 * (last - first)
    axes.set_xlim(first - reach, last + reach)
    return figure


def joined(places: Sequence[float], critical: float) -> list[tuple[float, float]]:
    """Of sorted mean ranks, the longest stretches within the critical difference, of two or more."""
    bars: list[tuple[int, int]] = []
    for low, place in enumerate(places):
        high = max(i for i, other in enumerate(places) if other - place <= critical)
        if high > low and not (bars and bars[-1][1] >= high):
            bars.append((low, high))
    return [(places[low], places[high]) for low, high in bars]


def size_plot(sizes: Mapping[float, Verdicts], methods: Sequence[str], task: str = POINTS) -> Figure:
    """Multi-task minus single-task over the share of the training rows, with intervals; below zero is better."""
    figure, axes = _figure(6.4, 3.8)
    shares = sorted(sizes)
    for number, method in enumerate(methods):
        found = {share: _rows(sizes[share], method, task).get(ALL) for share in shares}
        kept = [(share, _relative(row)) for share, row in found.items() if row]
        shift = 1 + 0.06 * (number - (len(methods) - 1) / 2)
        _bars(axes, [share * shift for share, _ in kept], [values for _, values in kept], f"C{number}", method)
    axes.axhline(0, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(shares)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.set_xlabel("share of the training rows")
    axes.set_ylabel(f"change of error against\n{sizes[shares[-1]].against}, %")
    axes.grid(axis="y", color=FAINT)
    figure.legend(loc="outside upper center", frameon=False, fontsize=9, ncols=4)
    return figure


def pose_plot(verdicts: Verdicts, methods: Sequence[str], task: str = POINTS) -> Figure:
    """Multi-task minus single-task by pose class, with intervals; below zero is better."""
    parts = [part for part in verdicts.parts if part != ALL]
    figure, axes = _figure(7.2, 3.8)
    for number, method in enumerate(methods):
        rows = _rows(verdicts, method, task)
        kept = [(place, _relative(rows[part])) for place, part in enumerate(parts) if part in rows]
        shift = 0.6 * ((number + 0.5) / len(methods) - 0.5)
        _bars(axes, [place + shift for place, _ in kept], [values for _, values in kept], f"C{number}", method, line="")
    axes.axhline(0, color=INK, linewidth=1)
    axes.set_xticks(
        range(len(parts)), [f"{part.replace('_', ' ')}\n{verdicts.parts[part]} faces" for part in parts], fontsize=9
    )
    axes.set_ylabel(f"change of error against\n{verdicts.against}, %")
    axes.grid(axis="y", color=FAINT)
    figure.legend(loc="outside upper center", frameon=False, fontsize=9, ncols=4)
    return figure


def cost_plot(lines: Sequence[Line], task: str = POINTS) -> Figure:
    """Time of a training step against the change of one task's error, a dot a method."""
    figure, axes = _figure(6.8, 4.2)
    for line in lines:
        if line.step is None or task not in line.rows:
            continue
        row = line.rows[task]
        _, change, _ = _relative(row)
        axes.plot(line.step, change, "o", color=COLOURS[row.difference.verdict], markersize=6)
        axes.annotate(line.method, (line.step, change), (5, 3), textcoords="offset points", fontsize=8, color=INK)
    axes.axhline(0, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 3, 5])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g} x")
    axes.margins(x=0.15)
    axes.set_xlabel("time of a training step beside plain summing")
    axes.set_ylabel(f"change of the error of {task}, %")
    axes.grid(color=FAINT)
    return figure


def _bars(
    axes: Axes,
    places: Sequence[float],
    values: Sequence[tuple[float, float, float]],
    colour: str,
    name: str,
    line: str = "-",
) -> None:
    lows, middles, highs = zip(*values, strict=True) if values else ((), (), ())
    axes.vlines(places, lows, highs, color=colour, linewidth=2)
    axes.plot(places, middles, "o" + line, color=colour, linewidth=1, markersize=5, label=name)


def _rows(verdicts: Verdicts, method: str, task: str) -> dict[str, Row]:
    """Part -> row."""
    return {row.part: row for row in verdicts.rows if (row.method, row.task) == (method, task)}


def _relative(row: Row) -> tuple[float, float, float]:
    """Low end, estimate and high end of a difference in percent of the baseline's error."""
    base = row.baseline or float("nan")
    low, middle, high = (100 * v / base for v in (row.difference.low, row.difference.estimate, row.difference.high))
    return low, middle, high


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes
