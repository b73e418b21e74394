"""One line a method: errors of all tasks, Delta-m, mean rank and cost, for the report and as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from facemtl.training.costs import Cost
from facemtl.training.statistics import Interval
from facemtl.training.study import Settled
from facemtl.training.verdicts import ALL, Row, Verdicts


@dataclass(frozen=True, slots=True)
class Line:
    """One method, or what all are compared with.

    Attributes:
        errors: task -> error in percent.
        rows: task -> its comparison with the baseline; empty for the baseline itself.
        delta: Delta-m; None with one task.
        rank: mean rank; None where it was not ranked.
        step, memory: of a training step, relative to plain summing; None where not measured.
        milliseconds: of a training step.
        settings: what its tuning chose, in words.
    """

    method: str
    seeds: int
    errors: Mapping[str, float]
    rows: Mapping[str, Row]
    delta: Interval | None = None
    rank: float | None = None
    step: float | None = None
    memory: float | None = None
    milliseconds: float | None = None
    settings: str = ""


def overview(verdicts: Verdicts, settled: Settled, costs: Mapping[str, Sequence[Cost]]) -> list[Line]:
    """The baseline, then the methods in their order."""
    by_method: dict[str, dict[str, Row]] = {}
    for row in verdicts.rows:
        if row.part == ALL:
            by_method.setdefault(row.method, {})[row.task] = row
    ranks = verdicts.ranks.mean if verdicts.ranks else {}
    base: dict[str, Row] = {}
    for rows in by_method.values():
        for task, row in rows.items():
            if task not in base or row.seeds > base[task].seeds:
                base[task] = row
    lines = [
        Line(
            verdicts.against,
            max((row.seeds for row in base.values()), default=verdicts.seeds),
            {task: row.baseline for task, row in base.items()},
            {},
            rank=ranks.get(verdicts.against),
            settings=_settings(settled, verdicts.against),
        )
    ]
    for method, rows in by_method.items():
        measured = costs.get(method, [])
        lines.append(
            Line(
                method,
                len(settled.main.seeds_of(method)),
                {task: row.error for task, row in rows.items()},
                rows,
                verdicts.deltas.get(method),
                ranks.get(method),
                median(c.seconds / c.plain_seconds for c in measured) if measured else None,
                median(c.bytes / c.plain_bytes for c in measured) if measured else None,
                1000 * median(c.seconds for c in measured) if measured else None,
                _settings(settled, method),
            )
        )
    return lines


def _settings(settled: Settled, method: str) -> str:
    for trial in settled.trials.get(method, ()):
        if trial.chosen:
            return words(trial.keys)
    return ""


def words(keys: Mapping[str, object]) -> str:
    """Recipe keys in one line; a table whose values are all alike is said once."""
    parts = []
    for key, value in keys.items():
        if isinstance(value, Mapping):
            if len(value) > 1 and len({str(v) for v in value.values()}) == 1:
                parts.append(f"{key} {next(iter(value.values()))}")
            else:
                parts.append(", ".join(f"{k} {v}" for k, v in value.items()) or f"{key} 1")
        else:
            parts.append(f"{key.replace('_', ' ')} {value}")
    return ", ".join(parts)


def tasks_of(lines: Sequence[Line]) -> list[str]:
    """The tasks that any line has an error of, in their order."""
    return list(dict.fromkeys(task for line in lines for task in line.errors))


def overview_markdown(lines: Sequence[Line]) -> str:
    """As a table; * marks a difference from the baseline that is real with all methods at once (Holm)."""
    tasks = tasks_of(lines)
    head = ["method", "seeds", *tasks, "Delta-m", "mean rank", "step", "memory", "settings"]
    rows = [
        [
            line.method,
            str(line.seeds),
            *(_error(line, task) for task in tasks),
            "" if line.delta is None else f"{line.delta.estimate:+.1f} %{_mark(line.delta)}",
            _or_nothing(line.rank, "{:.1f}"),
            _or_nothing(line.step, "{:.1f} x"),
            _or_nothing(line.memory, "{:.1f} x"),
            line.settings,
        ]
        for line in lines
    ]
    table = [head, ["---"] * len(head), *rows]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    return (
        f"{text}\n\nErrors in percent: NME of the landmarks, balanced error of the others. * differs from the\n"
        "baseline at 5 % with all methods at once (Holm). Step and memory: of a training step, relative to plain\n"
        "summing.\n"
    )


def _error(line: Line, task: str) -> str:
    if task not in line.errors:
        return ""
    return f"{line.errors[task]:.2f}" + (_mark(line.rows[task].difference) if task in line.rows else "")


def _mark(interval: Interval) -> str:
    return "" if interval.verdict == "undecided" else "*"


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def overview_csv(splits: Mapping[str, Sequence[Line]]) -> str:
    """The lines of some splits, with the figures that Markdown leaves out."""
    tasks = list(dict.fromkeys(task for lines in splits.values() for task in tasks_of(lines)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    per_task = [f"{task}_{what}" for task in tasks for what in ("error_percent", "difference", "low", "high", "p_holm")]
    delta = [f"delta_m_{what}" for what in ("percent", "low", "high", "p_holm")]
    costs = ["mean_rank", "step_ratio", "memory_ratio", "step_ms", "settings"]
    writer.writerow(["split", "method", "seeds", *per_task, *delta, *costs])
    for split, lines in splits.items():
        for line in lines:
            cells: list[float | None] = []
            for task in tasks:
                d = line.rows[task].difference if task in line.rows else None
                cells += [line.errors.get(task), *((d.estimate, d.low, d.high, d.p) if d else (None,) * 4)]
            delta = line.delta
            cells += [delta.estimate, delta.low, delta.high, delta.p] if delta else [None] * 4
            cells += [line.rank, line.step, line.memory, line.milliseconds]
            writer.writerow([split, line.method, line.seeds, *map(_cell, cells), line.settings])
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.5g}"
