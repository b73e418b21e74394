"""The pictures of a comparison, each as a matplotlib figure."""

from __future__ import annotations

from matplotlib.figure import Figure

from facemtl.training.verdicts import ALL, Verdicts

COLOURS = {"helped": "#2a8f4a", "hurt": "#c23b3b", "undecided": "#777777"}


def forest_plot(verdicts: Verdicts, task: str = "") -> Figure:
    """Relative differences with their intervals, a line for each method and task; left of zero is better.

    Args:
        task: leave the others out.
    """
    rows = [row for row in verdicts.rows if row.part == ALL and task in ("", row.task)]
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
