"""Which tasks help which: tables that cost trainings, measures that cost next to none, and how these predict those.

Tables, from the runs of a comparison whose recipes differ in their tasks alone; all in percent of an error, negative
helps:

* *add one*: the error of t trained with a alone beside it, against t by itself;
* *leave one out*: the error of t trained with all tasks, against all but a.

Measures, means over the snapshots (:mod:`facemtl.training.watching`) of the trainings with all tasks; positive helps:

* *affinity*: what a step along a does to the loss of t, measured (TAG, Fifty et al., NeurIPS 2021); needs
  ``affinity = true`` in the recipe;
* *first order*: the same for a small step, <g_a, g_t> / L_t: affinity without a further pass, up to the step's length;
* *cosine* between the gradients, which knows no direction.

How well a measure predicts a table is Spearman's rank correlation between the measure and the gain (the table with its
sign turned) over all pairs of tasks that both know, with a 95 % bootstrap interval over the pairs. Pairs share tasks,
and the tables are noisy themselves, which pulls a correlation towards 0: with five tasks an interval is wide, and says
so.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy import stats

from facemtl.data.sample import MISSING, FaceSample
from facemtl.errors import ConfigError, DataError
from facemtl.face import ATTRIBUTES
from facemtl.files import write_beside
from facemtl.landmarks import POINTS
from facemtl.training.comparison import Comparison
from facemtl.training.statistics import RESAMPLES, Interval, group_error, paired_difference
from facemtl.training.watching import WATCH, Row, read_watch

ADD_ONE, LEAVE_ONE_OUT = "add one", "leave one out"
AFFINITY, FIRST_ORDER, COSINE = "affinity", "first order", "cosine"
# Recipe keys in which the methods of the tables may differ: what is looked at changes no result.
FREE = ("name", "tasks", "passes", "seed", "workers", "snapshots", "affinity")
FEWEST = 4  # pairs of which a rank correlation is computed
Pair = tuple[str, str]  # from a task, onto a task


@dataclass(frozen=True, slots=True)
class Relatedness:
    """Everything that is known of how tasks are related, on one split.

    Attributes:
        tasks: all of them.
        tables: name -> pair -> change of error in percent of the error without the task; negative helps.
        measures: name -> pair -> mean over snapshots and seeds; positive helps.
        predictions: (measure, table) -> number of pairs and rank correlation.
    """

    split: str
    tasks: tuple[str, ...]
    tables: Mapping[str, Mapping[Pair, Interval]]
    measures: Mapping[str, Mapping[Pair, float]]
    predictions: Mapping[tuple[str, str], tuple[int, Interval]]


def relate(
    comparison: Comparison,
    errors: Mapping[str, Mapping[str, np.ndarray]],
    samples: Sequence[FaceSample],
    watched: Sequence[Sequence[Row]],
    split: str,
) -> Relatedness:
    """Tables, measures, and how the second predict the first.

    Args:
        comparison: methods of several sets of tasks; see :func:`task_sets`.
        errors: method -> task -> (S, N), as :func:`facemtl.training.comparison_runs.load_errors`.
        samples: the N faces of the split.
        watched: the rows of the watch file of each training with all tasks.
        split: its name.

    Raises:
        ConfigError: as :func:`task_sets`.
        DataError: the errors are about another number of faces.
    """
    methods = task_sets(comparison)
    tasks = comparison.methods[methods[max(methods, key=len)]].tasks
    tables = change_tables(methods, tasks, errors, samples, len(comparison.seeds))
    measures = {name: pairs for name, pairs in measured(tasks, watched).items() if pairs}
    predictions = {
        (measure, table): (len(common), rank_correlation(*np.array(common).T))
        for measure, values in measures.items()
        for table, changes in tables.items()
        if (common := [(values[pair], -changes[pair].estimate) for pair in changes if pair in values])
    }
    return Relatedness(split, tasks, tables, measures, predictions)


def task_sets(comparison: Comparison) -> dict[frozenset[str], str]:
    """Set of tasks -> the method that has it; of the methods whose recipes are those with most tasks but for ``FREE``.

    Where several have all tasks, the one that measures affinity is taken.

    Raises:
        ConfigError: no method leaves tasks out that another one has.
    """

    def fixed(name: str) -> dict:
        return {key: value for key, value in comparison.methods[name].to_dict().items() if key not in FREE}

    recipes = comparison.methods
    usable = [name for name, recipe in recipes.items() if not recipe.shuffled_labels]
    full = max(usable, key=lambda name: (len(recipes[name].tasks), recipes[name].affinity), default=None)
    found: dict[frozenset[str], str] = {}
    if full is not None:
        found[frozenset(recipes[full].tasks)] = full
        for name in usable:
            if fixed(name) == fixed(full):
                found.setdefault(frozenset(recipes[name].tasks), name)
    whole = max(found, key=len, default=frozenset())
    if not any(
        len(with_it) == 2 or with_it == whole for with_it in found for less in found if _one_more(with_it, less)
    ):
        raise ConfigError(
            f"{comparison.name} has no two methods that differ in their tasks alone: relatedness needs single tasks "
            "and pairs, or all tasks and all but one"
        )
    return found


def _one_more(tasks: frozenset[str], others: frozenset[str]) -> bool:
    return tasks > others and len(tasks) == len(others) + 1


def change_tables(
    methods: Mapping[frozenset[str], str],
    tasks: Sequence[str],
    errors: Mapping[str, Mapping[str, np.ndarray]],
    samples: Sequence[FaceSample],
    seeds: int,
) -> dict[str, dict[Pair, Interval]]:
    """``ADD_ONE`` and ``LEAVE_ONE_OUT``, as far as there are methods for their pairs.

    Args:
        methods: as :func:`task_sets`.
        tasks: all of them.
        errors, samples: as :func:`relate`.
        seeds: that all methods have, the first of each.
    """
    labels = {task: np.array([s.labels.get(task, MISSING) for s in samples]) for task in ATTRIBUTES}
    groups = {POINTS: np.zeros(len(samples), dtype=int), **labels}
    whole = frozenset(tasks)
    tables: dict[str, dict[Pair, Interval]] = {ADD_ONE: {}, LEAVE_ONE_OUT: {}}
    for source, target in permutations(tasks, 2):
        cases = {
            ADD_ONE: (frozenset({source, target}), frozenset({target})),
            LEAVE_ONE_OUT: (whole, whole - {source}),
        }
        for table, (with_it, without) in cases.items():
            if with_it not in methods or without not in methods or target not in errors[methods[without]]:
                continue
            ours, base = (errors[methods[some]][target][:seeds] for some in (with_it, without))
            if ours.shape[1] != len(samples):
                raise DataError(f"the results are about {ours.shape[1]} faces, but the data set has {len(samples)}")
            tables[table][source, target] = relative_change(ours, base, groups[target])
    return {name: table for name, table in tables.items() if table}


def relative_change(ours: np.ndarray, base: np.ndarray, groups: np.ndarray) -> Interval:
    """Change of error, both (S, N), in percent of the second; NaN where that makes no error."""
    unit = group_error(base, groups).mean() or math.nan
    found = paired_difference(ours, base, groups)
    return Interval(*(100 * value / unit for value in (found.estimate, found.low, found.high)))


def measured(tasks: Sequence[str], watched: Sequence[Sequence[Row]]) -> dict[str, dict[Pair, float]]:
    """Measure -> pair -> mean over the snapshots that know it, those of every training weighing the same."""
    found: dict[str, dict[Pair, float]] = {AFFINITY: {}, FIRST_ORDER: {}, COSINE: {}}
    for a, b in permutations(tasks, 2):
        name = "cosine/" + "/".join(sorted((a, b), key=tasks.index))
        columns = {
            AFFINITY: lambda row, a=a, b=b: row.get(f"affinity/{a}/{b}", math.nan),
            FIRST_ORDER: lambda row, a=a, b=b, name=name: _first_order(row, name, a, b),
            COSINE: lambda row, name=name: row.get(name, math.nan),
        }
        for measure, read in columns.items():
            means = [
                np.mean(known) for rows in watched if (known := [v for row in rows if math.isfinite(v := read(row))])
            ]
            if means:
                found[measure][a, b] = float(np.mean(means))
    return found


def _first_order(row: Row, cosine: str, source: str, target: str) -> float:
    loss = row.get(f"loss/{target}", math.nan)
    lengths = row.get(f"gradient/{source}", math.nan) * row.get(f"gradient/{target}", math.nan)
    return row.get(cosine, math.nan) * lengths / loss if loss else math.nan


def rank_correlation(x: Sequence[float], y: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Spearman's, ties sharing their ranks, with a percentile bootstrap over the pairs of values.

    NaN below ``FEWEST`` pairs or where one of the two does not vary; resamples in which one does not are left out.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Interval(math.nan, math.nan, math.nan)
    drawn = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    varies = (np.ptp(x[drawn], axis=1) > 0) & (np.ptp(y[drawn], axis=1) > 0)
    draws = _spearman(x[drawn[varies]], y[drawn[varies]])
    estimate = _spearman(x[None], y[None])[0]
    return Interval(float(estimate), *(float(v) for v in np.percentile(draws, [2.5, 97.5])))


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(R, N) twice -> (R,)."""
    ranks = [stats.rankdata(values, axis=1) for values in (x, y)]
    a, b = (values - values.mean(axis=1, keepdims=True) for values in ranks)
    return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def watch_path(results: Path, method: str, seed: int) -> Path:
    """Where the snapshots of one run are kept."""
    return results / f"{method}.seed{seed}.{WATCH}"


def keep_watched(comparison: Comparison, runs: Path, results: Path) -> None:
    """Copy the watch files of the trainings with all tasks to the results, as far as these runs are here."""
    methods = task_sets(comparison)
    full = methods[max(methods, key=len)]
    for seed in comparison.seeds:
        source, target = runs / full / f"seed{seed}" / WATCH, watch_path(results, full, seed)
        if source.is_file():
            write_beside(target, lambda partial, source=source: shutil.copyfile(source, partial))


def load_watched(comparison: Comparison, results: Path) -> list[list[Row]]:
    """The kept snapshots of the trainings with all tasks.

    Raises:
        DataError: one is missing or damaged.
    """
    methods = task_sets(comparison)
    full = methods[max(methods, key=len)]
    return [read_watch(watch_path(results, full, seed)) for seed in comparison.seeds]
