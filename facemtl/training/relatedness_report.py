"""How tasks are related, as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from facemtl.training.relatedness import Pair, Relatedness
from facemtl.training.statistics import Interval

INK = "#333333"
DARK = 0.6  # share of the widest value beyond which a cell is too dark for ink
COLUMNS = 3  # matrices in a row of the picture


def as_markdown(related: Relatedness) -> str:
    """The tables, the measures and how well these predict those, of one split."""
    lines = [f"### {related.split}"]
    for name, table in related.tables.items():
        lines += [
            "",
            f"**{name}**: change of the error of the column's task by the row's, % of it [95 %]; negative helps, bold "
            "is told from 0.",
            *_matrix(related.tasks, table, _interval),
        ]
    for name, values in related.measures.items():
        lines += ["", f"**{name}** of the row's task onto the column's; positive helps."]
        lines += _matrix(related.tasks, values, "{:+.3g}".format)
    lines += [
        "",
        "**Prediction**: Spearman's rank correlation between a measure and the gain in a table, over pairs of tasks.",
        "",
        "| measure | table | pairs | rank correlation [95 %] |",
        "| --- | --- | --- | --- |",
    ]
    for (measure, table), (pairs, rho) in related.predictions.items():
        found = "too few pairs" if np.isnan(rho.estimate) else f"{rho.estimate:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}]"
        lines.append(f"| {measure} | {table} | {pairs} | {found} |")
    return "\n".join(lines) + "\n"


def _interval(value: Interval) -> str:
    text = f"{value.estimate:+.1f} [{value.low:+.1f}, {value.high:+.1f}]"
    return f"**{text}**" if value.verdict != "undecided" else text


def _matrix(tasks: Sequence[str], values: Mapping[Pair, object], text: Callable[[object], str]) -> list[str]:
    rows = [
        f"| {a} | " + " | ".join(text(values[a, b]) if (a, b) in values else "" for b in tasks) + " |" for a in tasks
    ]
    return ["", f"| | {' | '.join(tasks)} |", "| --- " * (len(tasks) + 1) + "|", *rows]


def relatedness_figure(related: Relatedness) -> Figure:
    """A matrix for each table and measure, blue where the row's task helps the column's; a cross is not told from 0."""
    count = len(related.tables) + len(related.measures)
    side = 1.4 + 0.75 * len(related.tasks)
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(side * columns, (side + 0.2) * rows + 0.3), layout="constrained", dpi=110)
    figure.suptitle(related.split, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    gains = {
        f"{name}\n(gain, % of the error)": (
            {pair: -value.estimate for pair, value in table.items()},
            {pair for pair, value in table.items() if value.verdict == "undecided"},
        )
        for name, table in related.tables.items()
    }
    gains |= {name: (values, set()) for name, values in related.measures.items()}
    names = [task.replace("_", " ") for task in related.tasks]
    for axes, (name, (values, undecided)) in zip(grid[:count], gains.items(), strict=True):
        matrix = np.array([[values.get((a, b), np.nan) for b in related.tasks] for a in related.tasks])
        widest = np.nanmax(np.abs(matrix)) or 1.0
        axes.imshow(matrix, cmap="RdBu", vmin=-widest, vmax=widest)
        for (i, j), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                cross = " x" if (related.tasks[i], related.tasks[j]) in undecided else ""
                shown = f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}"
                colour = "white" if abs(value) > DARK * widest else INK
                axes.text(j, i, f"{shown}{cross}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("onto", fontsize=8)
        axes.set_ylabel("from", fontsize=8)
    return figure
