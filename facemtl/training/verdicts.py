"""From the errors of a comparison's runs to tables and verdicts."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from facemtl.data.sample import MISSING, FaceSample
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import POINTS
from facemtl.training.comparison import Comparison
from facemtl.training.statistics import (
    Interval,
    critical_difference,
    delta_m,
    friedman,
    group_error,
    holm,
    mean_ranks,
    paired_difference,
)

ALL = "all"
SINGLE = "single-task"


@dataclass(frozen=True, slots=True)
class Row:
    """One method against the baseline of one task, on all faces or on those of one pose class.

    Attributes:
        error: of the method, in percent: NME for landmarks, balanced error elsewhere (plain error within a pose class).
        spread: standard deviation of ``error`` over the seeds.
        baseline: error of the method that it is compared with, over the seeds that both have.
        difference: ``error`` minus ``baseline`` over those seeds, with its interval, percentage points; its p is
            corrected by Holm over the methods judged on the same task and part.
        seeds: how many both have.
    """

    method: str
    task: str
    part: str
    error: float
    spread: float
    baseline: float
    difference: Interval
    seeds: int = 0


@dataclass(frozen=True, slots=True)
class Ranks:
    """Mean ranks of the methods that have all tasks, 1 the best; the blocks are tasks times the seeds that all have.

    Attributes:
        critical: by how much two must differ (Nemenyi, 5 %).
        p: of all of them being alike (Friedman).
    """

    mean: Mapping[str, float]
    blocks: int
    critical: float
    p: float


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Everything that a comparison says about one split.

    Attributes:
        seeds: that all methods have.
        deltas: method -> Delta-m in percent, p corrected by Holm.
        against: what all methods are compared with.
        ranks: None where fewer than three methods have all tasks.
    """

    split: str
    faces: int
    seeds: int
    rows: tuple[Row, ...]
    deltas: Mapping[str, Interval]
    against: str = SINGLE
    ranks: Ranks | None = None
    parts: Mapping[str, int] = field(default_factory=dict)


def judge(
    comparison: Comparison,
    errors: Mapping[str, Mapping[str, np.ndarray]],
    samples: list[FaceSample],
    split: str,
    only: Sequence[str] = (POINTS, *ATTRIBUTES),
) -> Verdicts:
    """Judge every method and task against its baseline, over the seeds that both have.

    Args:
        comparison: the methods.
        errors: method -> task -> (S, N), as :func:`facemtl.training.comparison_runs.load_errors`.
        samples: the N faces of the split.
        split: its name.
        only: the tasks that are judged.

    Raises:
        DataError: the errors are about another number of faces.
        ConfigError: no method is the baseline of a task.
    """
    for method, task in ((m, t) for m in errors for t in errors[m]):
        if (found := errors[method][task].shape[1]) != len(samples):
            raise DataError(f"{split}: {method!r} was judged on {found} faces, but the data set has {len(samples)}")
    labels = {task: np.array([s.labels.get(task, MISSING) for s in samples]) for task in ATTRIBUTES}
    groups = {POINTS: np.zeros(len(samples), dtype=int), **labels}
    parts = {ALL: np.ones(len(samples), dtype=bool)}
    parts |= {label: labels["pose"] == i for i, label in enumerate(ATTRIBUTES["pose"])}
    parts = {part: chosen for part, chosen in parts.items() if chosen.any()}
    tasks = {name: tuple(t for t in comparison.judged_tasks(name) if t in only) for name in comparison.methods}
    baselines = {task: comparison.baseline(task) for some in tasks.values() for task in some}
    rows, deltas = [], {}
    for method, judged in tasks.items():
        if all(baselines[task] == method for task in judged):
            continue
        for task in judged:
            ours, base = _common(errors[method][task], errors[baselines[task]][task])
            for part, chosen in parts.items():
                group = groups[task] if part == ALL else np.zeros(len(samples), dtype=int)
                rows.append(
                    _row(method, task, part, errors[method][task][:, chosen], ours, base, chosen, group[chosen])
                )
        if len(judged) > 1:
            deltas[method] = _delta(errors, method, judged, baselines, groups)
    return Verdicts(
        split,
        len(samples),
        len(comparison.seeds),
        tuple(_corrected(rows)),
        dict(zip(deltas, _holm(list(deltas.values())), strict=True)),
        comparison.against or SINGLE,
        _ranks(errors, tasks, baselines, groups, "" if comparison.against else SINGLE),
        {part: int(chosen.sum()) for part, chosen in parts.items()},
    )


def _common(ours: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The seeds that both have: the first, because further seeds are further down."""
    seeds = min(len(ours), len(base))
    return ours[:seeds], base[:seeds]


def _row(
    method: str,
    task: str,
    part: str,
    every_seed: np.ndarray,
    ours: np.ndarray,
    base: np.ndarray,
    chosen: np.ndarray,
    group: np.ndarray,
) -> Row:
    per_seed = 100 * group_error(every_seed, group)
    ours, base = ours[:, chosen], base[:, chosen]
    return Row(
        method,
        task,
        part,
        error=float(per_seed.mean()),
        spread=float(per_seed.std(ddof=1)) if len(per_seed) > 1 else float("nan"),
        baseline=float(100 * group_error(base, group).mean()),
        difference=_percent(paired_difference(ours, base, group)),
        seeds=len(ours),
    )


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high, interval.p)


def _delta(
    errors: Mapping[str, Mapping[str, np.ndarray]],
    method: str,
    tasks: Sequence[str],
    baselines: Mapping[str, str],
    groups: Mapping[str, np.ndarray],
) -> Interval:
    seeds = min(len(errors[name][task]) for task in tasks for name in (method, baselines[task]))
    return delta_m(
        {task: errors[method][task][:seeds] for task in tasks},
        {task: errors[baselines[task]][task][:seeds] for task in tasks},
        groups,
    )


def _corrected(rows: list[Row]) -> list[Row]:
    """The rows with their p corrected over the methods that are judged on the same task and part."""
    families: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        families[row.task, row.part].append(place)
    found = list(rows)
    for places in families.values():
        for place, interval in zip(places, _holm([rows[i].difference for i in places]), strict=True):
            found[place] = replace(rows[place], difference=interval)
    return found


def _holm(intervals: list[Interval]) -> list[Interval]:
    return [replace(i, p=p) for i, p in zip(intervals, holm([i.p for i in intervals]), strict=True)]


def _ranks(
    errors: Mapping[str, Mapping[str, np.ndarray]],
    tasks: Mapping[str, tuple[str, ...]],
    baselines: Mapping[str, str],
    groups: Mapping[str, np.ndarray],
    single: str,
) -> Ranks | None:
    """Ranks of the methods with all tasks; the single-task models of all tasks together are one more, ``single``."""
    every = max(tasks.values(), key=len)
    ranked = {name: {task: errors[name][task] for task in every} for name, some in tasks.items() if some == every}
    if single and len(every) > 1:
        ranked[single] = {task: errors[baselines[task]][task] for task in every}
    if len(ranked) < 3:
        return None
    seeds = min(len(values) for some in ranked.values() for values in some.values())
    blocks = np.array(
        [
            np.concatenate([group_error(values[:seeds], groups[task]) for task, values in some.items()])
            for some in ranked.values()
        ]
    )
    means = dict(zip(ranked, mean_ranks(blocks).tolist(), strict=True))
    return Ranks(means, blocks.shape[1], critical_difference(*blocks.shape), friedman(blocks))


def as_markdown(verdicts: Verdicts) -> str:
    """The tables, as Markdown that also reads well in a terminal."""
    columns = f"error (sd over seeds) | {verdicts.against} | difference [95 %] | p | verdict"
    deltas = [
        f"| {method} | {d.estimate:+.1f} % [{d.low:+.1f}, {d.high:+.1f}] | {_p(d.p)} | {d.verdict} |"
        for method, d in verdicts.deltas.items()
    ]
    lines = [
        f"### {verdicts.split}: {verdicts.faces} faces, {verdicts.seeds} {'seed' if verdicts.seeds == 1 else 'seeds'}",
        "",
        "Error is NME for landmarks and balanced error for attributes, in percent; within a pose class plain error.",
        f"Difference: method minus {verdicts.against}, percentage points, paired bootstrap 95 % over seeds and faces;",
        "p is corrected over the methods (Holm).",
        *_table(f"method | task | {columns}", [_line(r, r.task, verdicts) for r in verdicts.rows if r.part == ALL]),
        *_table("method | Delta-m: mean relative change of error over its tasks [95 %] | p | verdict", deltas),
        *_rank_lines(verdicts.ranks),
        *_table(
            f"method | task, pose class | {columns}",
            [_line(r, f"{r.task}, {r.part}", verdicts) for r in verdicts.rows if r.part != ALL],
        ),
    ]
    return "\n".join(lines) + "\n"


def sizes_markdown(sizes: Mapping[float, Verdicts], methods: Container[str]) -> str:
    """The tables of methods that were also trained on shares of the rows, smallest share first.

    Args:
        sizes: share of the training rows -> what was found with it.
        methods: those to tell of.
    """
    largest = sizes[max(sizes)]
    lines = [
        _line(row, f"{row.task} | {100 * share:g} %", sizes[share])
        for share in sorted(sizes)
        for row in sizes[share].rows
        if row.part == ALL and row.method in methods and row.task == POINTS
    ]
    columns = f"error (sd over seeds) | {largest.against} | difference [95 %] | p | verdict"
    table = _table(f"method | task | training rows | {columns}", lines)
    return "\n".join([f"### {largest.split}: fewer training rows", *table]) + "\n"


def _table(columns: str, lines: list[str]) -> list[str]:
    """A blank line, the head and the lines; nothing if there are none."""
    return ["", f"| {columns} |", "| --- " * (columns.count("|") + 1) + "|", *lines] if lines else []


def _line(row: Row, what: str, verdicts: Verdicts) -> str:
    d = row.difference
    notes = [] if np.isnan(row.spread) else [f"{row.spread:.2f}"]  # one seed has none
    notes += [f"{row.seeds} seeds"] if row.seeds > verdicts.seeds else []
    beside = f" ({', '.join(notes)})" if notes else ""
    return (
        f"| {row.method} | {what} | {row.error:.2f}{beside} | {row.baseline:.2f} "
        f"| {d.estimate:+.2f} [{d.low:+.2f}, {d.high:+.2f}] | {_p(d.p)} | {d.verdict} |"
    )


def _p(p: float) -> str:
    return "" if np.isnan(p) else f"{p:.3f}"


def _rank_lines(ranks: Ranks | None) -> list[str]:
    if ranks is None:
        return []
    lines = [f"| {name} | {rank:.2f} |" for name, rank in sorted(ranks.mean.items(), key=lambda item: item[1])]
    return [
        *_table("method | mean rank", lines),
        "",
        f"Ranks over {ranks.blocks} pairs of task and seed; they differ at 5 % from {ranks.critical:.2f} on (Nemenyi); "
        f"all alike: p = {ranks.p:.2g} (Friedman).",
    ]


COLUMNS = (
    *(
        "split",
        "training_rows_percent",
        "part",
        "faces",
        "method",
        "task",
        "seeds",
        "error_percent",
        "sd_over_seeds",
        "baseline_percent",
    ),
    *("difference", "low", "high", "p_holm", "verdict"),
)


def as_csv(verdicts: Iterable[tuple[float, Verdicts]]) -> str:
    """Every row of the tables of shares of the training rows and splits, and Delta-m as a task of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for share, split in verdicts:
        start = (split.split, f"{100 * share:g}")
        for row in split.rows:
            d, faces = row.difference, split.parts.get(row.part, split.faces)
            figures = (row.error, row.spread, row.baseline, d.estimate, d.low, d.high, d.p)
            writer.writerow(
                [*start, row.part, faces, row.method, row.task, row.seeds, *map(_figure, figures), d.verdict]
            )
        for method, d in split.deltas.items():
            figures = (d.estimate, d.low, d.high, d.p)
            writer.writerow(
                [*start, ALL, split.faces, method, "delta_m", "", "", "", "", *map(_figure, figures), d.verdict]
            )
    return text.getvalue()


def _figure(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5g}"
