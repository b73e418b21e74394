"""Around the runs of a comparison: settings by equal numbers of trials, a shortlist, and shares of the training rows.

Everything is chosen by held-out rows; the test rows are only looked at by the runs that the tables are about. Whatever
is chosen follows from kept files, so that an interrupted study continues and tables are rebuilt without training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.sets import data_root, read_split
from facemtl.errors import FaceMTLError
from facemtl.landmarks import POINTS
from facemtl.training.comparison import Comparison, changed
from facemtl.training.comparison_runs import check_labels, load_errors, run_comparison, training_data, unfinished
from facemtl.training.placing import check_placing
from facemtl.training.recipe import Recipe
from facemtl.training.statistics import group_error
from facemtl.training.weighing.registry import create_weighing

TRIALS = "tuning"  # folder of the trials, beside the runs and beside the results


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a method: what it changed, and its held-out error in percent."""

    keys: Mapping[str, Any]
    error: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """A comparison with everything chosen.

    Attributes:
        main: with the chosen settings and the seeds of the shortlist.
        trials: method -> its trials; empty without tuning.
        shortlist: the methods with further seeds, best first; empty without one.
        sizes: share of the training rows -> the comparison on it, smallest first; ``main`` is not among them.
    """

    main: Comparison
    trials: Mapping[str, tuple[Trial, ...]]
    shortlist: tuple[str, ...]
    sizes: Mapping[float, Comparison]


def run_study(
    comparison: Comparison,
    runs: Path,
    results: Path,
    cache: Path,
    root: Path | None = None,
    jobs: int = 1,
    engine: str = "local",
) -> None:
    """Trials, runs, runs of the shortlist, runs on shares of the data: what has no result yet, in this order.

    Args: as :func:`facemtl.training.comparison_runs.run_comparison`; trials stand in ``tuning/`` under both folders,
    shares in ``fraction<f>/``.

    Raises:
        ConfigError, DataError: as there; before anything is trained if a method cannot work or lacks labels.
    """
    check_placing(jobs, engine)  # what follows may cut the patches of a data set
    check_study(comparison, results, cache, root)
    if comparison.tuning:
        run_comparison(_trials(comparison), runs / TRIALS, results / TRIALS, cache, root, jobs, engine)
    main, _ = _tuned(comparison, results, root)
    run_comparison(replace(main, shortlist=None), runs, results, cache, root, jobs, engine)
    run_comparison(_with_shortlist(main, results, root)[0], runs, results, cache, root, jobs, engine)
    for fraction, part in _sizes(main).items():
        run_comparison(part, runs / _folder(fraction), results / _folder(fraction), cache, root, jobs, engine)


def settle(comparison: Comparison, results: Path, root: Path | None = None) -> Settled:
    """What the kept results choose.

    Raises:
        ConfigError, DataError: as :func:`facemtl.training.comparison_runs.load_result`.
    """
    main, trials = _tuned(comparison, results, root)
    with_seeds, shortlist = _with_shortlist(main, results, root)
    return Settled(with_seeds, trials, shortlist, _sizes(main))


def size_results(results: Path, fraction: float) -> Path:
    """Where the results on a share of the data are kept."""
    return results / _folder(fraction)


def check_study(comparison: Comparison, results: Path, cache: Path, root: Path | None) -> None:
    """Raise before anything is trained if a method cannot work, as far as that can be known.

    Raises:
        ConfigError, DataError, ModelError: names the method, and what to change.
    """
    if not comparison.tuning and not comparison.sizes and not unfinished(comparison, results):
        return
    read: set[str] = set()
    for name, recipe in _all_recipes(comparison):
        try:
            create_weighing(recipe, recipe.create_model())
            # What is read depends on these keys and not on how tasks are weighed.
            parts = (recipe.mix, recipe.tasks, recipe.schema, recipe.fraction, recipe.batch_size, recipe.patch_size)
            if (key := json.dumps(parts)) not in read:
                training_data(recipe, cache, root)
                read.add(key)
        except FaceMTLError as error:
            raise type(error)(f"method {name!r}: {error}") from None
    for split in comparison.splits:
        samples = _samples(next(iter(comparison.methods.values())).data, split, root)
        schemas = {recipe.schema for recipe in comparison.methods.values() if POINTS in recipe.tasks}
        tasks = {task for name in comparison.methods for task in comparison.judged_tasks(name)}
        known = {task for sample in samples for task in sample.labels} | {POINTS}
        for task in sorted(tasks & known):
            for schema in schemas if task == POINTS else ("",):
                check_labels(samples, task, schema)


def _all_recipes(comparison: Comparison) -> Iterator[tuple[str, Recipe]]:
    yield from comparison.methods.items()
    if comparison.tuning:
        yield from _trials(comparison).methods.items()
    if comparison.sizes:
        for part in _sizes(comparison).values():
            yield from part.methods.items()


def _trials(comparison: Comparison) -> Comparison:
    """The trials of all methods as a comparison of their own, with the first seed and without test rows."""
    tuning = comparison.tuning
    methods = {
        f"{name}.trial{number}": changed(recipe, {**tuning.keys, **keys, "name": f"{name}.trial{number}"})
        for name, recipe in comparison.methods.items()
        for number, keys in enumerate(tuning.tries[name])
    }
    return Comparison(f"{comparison.name}, trials", methods, comparison.seeds[:1], splits=("heldout",))


def _tuned(comparison: Comparison, results: Path, root: Path | None) -> tuple[Comparison, dict[str, tuple[Trial, ...]]]:
    """The comparison with the keys of each method's best trial, and all trials.

    Of equals the one that leaves the method as it is, else the first: trials in which a task has not begun to be
    learned are all at a guess, and say nothing for the slowest of learning rates.
    """
    tuning = comparison.tuning
    if not tuning:
        return comparison, {}
    errors = load_errors(_trials(comparison), results / TRIALS, "heldout")
    samples = _samples(next(iter(comparison.methods.values())).data, "heldout", root)
    methods, trials = {}, {}
    for name, recipe in comparison.methods.items():
        found = [
            _criterion(errors[f"{name}.trial{number}"], comparison.judged_tasks(name), tuning.criterion, samples)
            for number in range(len(tuning.tries[name]))
        ]
        keys = tuning.tries[name]
        best = min(range(len(keys)), key=lambda i: (found[i], changed(recipe, keys[i]) != recipe))
        trials[name] = tuple(Trial(keys[i], 100 * error, i == best) for i, error in enumerate(found))
        methods[name] = changed(recipe, keys[best])
    return replace(comparison, methods=methods, tuning=None), trials


def _with_shortlist(main: Comparison, results: Path, root: Path | None) -> tuple[Comparison, tuple[str, ...]]:
    """The comparison with the further seeds of its shortlist; and who is on it, best first."""
    wanted = main.shortlist
    if not wanted:
        return main, ()
    errors = load_errors(replace(main, shortlist=None), results, "heldout")
    samples = _samples(next(iter(main.methods.values())).data, "heldout", root)
    judged = {name: main.judged_tasks(name) for name in main.methods}
    ranked = sorted(
        (name for name in main.methods if wanted.criterion in judged[name]),
        key=lambda name: _criterion(errors[name], judged[name], wanted.criterion, samples),
    )
    best = [name for name in ranked if name not in wanted.always][: wanted.best]
    # Methods that the criterion cannot rank come last.
    chosen = tuple(name for name in dict.fromkeys((*ranked, *main.methods)) if name in (*best, *wanted.always))
    return replace(main, more_seeds=dict.fromkeys(chosen, wanted.seeds), shortlist=None), chosen


def _sizes(main: Comparison) -> dict[float, Comparison]:
    """Share of the training rows -> the methods that are compared on it."""
    sizes = main.sizes
    if not sizes:
        return {}
    parts = {}
    for keys in sorted(sizes.at, key=lambda keys: keys["fraction"]):
        fraction = float(keys["fraction"])
        methods = {name: changed(main.methods[name], keys) for name in sizes.methods}
        parts[fraction] = Comparison(f"{main.name}, {100 * fraction:g} %", methods, sizes.seeds, main.against)
    return parts


def _folder(fraction: float) -> str:
    return f"fraction{fraction:g}"


def _criterion(errors: Mapping[str, np.ndarray], tasks: tuple[str, ...], task: str, samples: list[FaceSample]) -> float:
    """Error by which settings and methods are chosen: of one task, or the mean over a method's own if it lacks that."""
    wanted = (task,) if task in tasks else tasks
    return float(np.mean([group_error(errors[t], _groups(samples, t)).mean() for t in wanted]))


def _groups(samples: list[FaceSample], task: str) -> np.ndarray:
    """The classes that errors are balanced over; all the same for points."""
    if task == POINTS:
        return np.zeros(len(samples), dtype=int)
    return np.array([sample.labels.get(task, MISSING) for sample in samples])


@lru_cache(maxsize=4)
def _samples(data: str, split: str, root: Path | None) -> list[FaceSample]:
    return read_split(data, split, data_root(data, root))
