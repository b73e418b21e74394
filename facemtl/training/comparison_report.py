"""What a person reads of a comparison: one HTML file that needs nothing else, Markdown, CSV and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from facemtl.data.sets import read_split
from facemtl.files import write_beside
from facemtl.landmarks import POINTS
from facemtl.training import comparison_plots as plots
from facemtl.training.comparison_runs import load_costs, load_errors
from facemtl.training.overview import Line, overview, overview_csv, overview_markdown, tasks_of, words
from facemtl.training.pages import data_uri, page
from facemtl.training.study import Settled, size_results
from facemtl.training.verdicts import Verdicts, as_csv, as_markdown, judge, sizes_markdown

MANY = 6  # methods that a picture with several bars a place can hold
CAPTIONS = {
    "forest": "Change of the error of the points, best method on top; bars are 95 % intervals over seeds and faces. "
    "Green and red are differences that hold for all methods at once (Holm).",
    "ranks": "Mean ranks over tasks and seeds, 1 the best. Methods under one blue bar cannot be told apart.",
    "costs": "What a training step costs, and what it brings for the points: lower left is best.",
    "sizes": "Multi-task minus single-task over the share of the training rows: below zero, auxiliary tasks help.",
    "poses": "Multi-task minus single-task by pose: below zero, auxiliary tasks help.",
}


def write_tables(settled: Settled, results: Path, root: Path | None, command: str) -> str:
    """Rebuild everything that is read of a comparison from its kept results.

    Writes ``<name>.html``, ``<name>.md``, ``<name>.csv`` (a line a method), ``<name>-details.csv`` (a line for each
    method, task and part) and ``<name>-<split>-<picture>.png`` under ``results``.

    Args:
        settled: the comparison with everything chosen.
        results: where its results are kept.
        root: folder of the data set.
        command: how it was made, for the reader.

    Returns:
        the Markdown.

    Raises:
        ConfigError, DataError: as :func:`facemtl.training.comparison_runs.load_result`.
    """
    main = settled.main
    data = next(iter(main.methods.values())).data
    costs = load_costs(main, results)
    found: dict[str, Verdicts] = {}
    lines: dict[str, list[Line]] = {}
    figures: dict[str, dict[str, Figure]] = {}
    sizes: dict[str, dict[float, Verdicts]] = {}
    for split in main.splits:
        samples = read_split(data, split, root)
        found[split] = judge(main, load_errors(main, results, split), samples, split)
        lines[split] = overview(found[split], settled, costs)
        sizes[split] = {
            fraction: judge(part, load_errors(part, size_results(results, fraction), split), samples, split, (POINTS,))
            for fraction, part in settled.sizes.items()
        }
        figures[split] = _figures(found[split], lines[split], settled, sizes[split])
    name = main.name
    for split, some in figures.items():
        for kind, figure in some.items():
            picture = results / f"{name}-{split}-{kind}.png"
            write_beside(picture, lambda path, figure=figure: figure.savefig(path, format="png", dpi=110))
    text = f"# {name}\n\nMade by `{command}`.\n\n" + _tuning_markdown(settled)
    for split, verdicts in found.items():
        text += f"## {split}\n\n{overview_markdown(lines[split])}\n"
        if sizes[split]:
            smaller = next(iter(settled.sizes.values()))
            text += f"{sizes_markdown({**sizes[split], 1.0: verdicts}, smaller.methods)}\n"
        text += f"{as_markdown(verdicts)}\n"
    files = {
        f"{name}.md": text,
        f"{name}.csv": overview_csv(lines),
        f"{name}-details.csv": as_csv(
            (share, verdicts) for split in found for share, verdicts in {**sizes[split], 1.0: found[split]}.items()
        ),
        f"{name}.html": _html(settled, found, lines, figures, command),
    }
    for file, content in files.items():
        write_beside(results / file, lambda path, content=content: path.write_text(content, encoding="utf-8"))
    return text


def _figures(
    verdicts: Verdicts, lines: list[Line], settled: Settled, sizes: Mapping[float, Verdicts]
) -> dict[str, Figure]:
    """Kind -> picture, as far as there is something to draw."""
    points = [line.method for line in lines if POINTS in line.rows]
    found = {"all": plots.forest_plot(verdicts)}
    if points:
        found["forest"] = plots.forest_plot(verdicts, POINTS)
    if verdicts.ranks:
        found["ranks"] = plots.rank_diagram(verdicts.ranks)
    if any(line.step is not None and POINTS in line.rows for line in lines):
        found["costs"] = plots.cost_plot(lines)
    if sizes:
        methods = [name for name in next(iter(settled.sizes.values())).methods if name in points]
        found["sizes"] = plots.size_plot({**sizes, 1.0: verdicts}, methods)
    chosen = [name for name in settled.shortlist if name in points] or points
    if chosen and len(verdicts.parts) > 1:
        found["poses"] = plots.pose_plot(verdicts, chosen[:MANY])
    return found


def _tuning_markdown(settled: Settled) -> str:
    if not settled.trials:
        return ""
    lines = [
        "Trials on held-out rows, error in percent, the chosen one in bold:",
        "",
        "| method | trials |",
        "| --- | --- |",
    ]
    for method, trials in settled.trials.items():
        cells = [f"{words(t.keys)}: {t.error:.2f}" for t in trials]
        marked = (f"**{cell}**" if trial.chosen else cell for cell, trial in zip(cells, trials, strict=True))
        lines.append(f"| {method} | {'; '.join(marked)} |")
    if settled.shortlist:
        lines += ["", f"Short list, best on held-out rows first: {', '.join(settled.shortlist)}."]
    return "\n".join(lines) + "\n\n"


def _html(
    settled: Settled,
    found: Mapping[str, Verdicts],
    lines: Mapping[str, list[Line]],
    figures: Mapping[str, Mapping[str, Figure]],
    command: str,
) -> str:
    last = list(found)[-1]
    verdicts = found[last]
    points = [row for row in verdicts.rows if row.part == "all" and row.task == POINTS]
    counts = {word: sum(row.difference.verdict == word for row in points) for word in plots.COLOURS}
    best = min(points, key=lambda row: row.difference.estimate / (row.baseline or float("nan")), default=None)
    return page(
        "comparison.html.jinja",
        name=settled.main.name,
        command=command,
        splits=found,
        lines=lines,
        tasks={split: tasks_of(some) for split, some in lines.items()},
        pictures={split: {kind: data_uri(figure) for kind, figure in some.items()} for split, some in figures.items()},
        captions=CAPTIONS,
        last=last,
        counts=counts,
        judged=len(points),
        best=best,
        trials={m: [(words(t.keys), t.error, t.chosen) for t in trials] for m, trials in settled.trials.items()},
        shortlist=settled.shortlist,
    )
