"""Search over recipe keys with Optuna: any keys, under a time budget, continued from its storage file.

What is best is said by held-out training rows, never by test rows. A search file is TOML:

    recipe = "tcdcn.toml"                    # what all trials start from, beside this file
    metric = "heldout/nme"                   # a column of a run's log, the less the better; or {column = factor, ...}
    seed = 0
    [set]                                    # recipe keys of every trial
    epochs = 10
    [ranges]                                 # recipe keys, those of tables with a dot
    "weights.pose" = {low = 0.01, high = 1.0, log = true}
    "backbone_options.neck" = {low = 8, high = 32, step = 8}
    "tasks" = [["landmarks"], ["landmarks", "pose"]]

A list holds choices of any kind. The sampler of each trial is seeded by its number and sees the trials before it, so
that a search that was stopped makes the trials of one that was not; how many there are depends on the time they take.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tomli_w

from facemtl.errors import ConfigError, DependencyError, ModelError
from facemtl.files import write_beside
from facemtl.training.engine import train
from facemtl.training.recipe import Recipe, parse_settings, read_recipe, recipe_from_dict
from facemtl.training.training_data import TrainingData

STORAGE = "search.journal"
FAILURES = 20  # trials in a row that cannot be trained, after which a search gives up
DRAWN = 50  # recipes of the ranges that are built before the first trial


@dataclass(frozen=True, slots=True)
class Search:
    """Attributes:
    base: recipe keys of every trial.
    ranges: recipe key -> list of choices, or ``low``, ``high`` and maybe ``step`` or ``log``.
    metric: column of a run's log -> factor; their sum is minimised.
    seed: of the sampler.
    """

    base: Mapping[str, Any]
    ranges: Mapping[str, Any]
    metric: Mapping[str, float]
    seed: int = 0

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial. Raises ConfigError, as :func:`facemtl.training.recipe.recipe_from_dict`."""
        keys = copy.deepcopy(dict(self.base))
        for key, value in values.items():
            *tables, last = key.split(".")
            inside = keys
            for table in tables:
                inside = inside.setdefault(table, {})
            inside[last] = value
        return recipe_from_dict(keys)


@dataclass(frozen=True, slots=True)
class Found:
    """Attributes:
    recipe: of the best trial.
    value: its metric.
    number: which trial it was, from 0.
    finished: how many trials have a value.
    failed: number of a trial -> why it could not be trained.
    seconds: of training so far.
    """

    recipe: Recipe
    value: float
    number: int
    finished: int
    failed: Mapping[int, str]
    seconds: float

    def as_toml(self) -> str:
        """The best recipe as a file of its own; keys that have their default are left out."""
        defaults = Recipe(name=self.recipe.name).to_dict()
        keys = {key: value for key, value in self.recipe.to_dict().items() if key == "name" or value != defaults[key]}
        head = f"# Best of {self.finished} trials: number {self.number}, {self.value:.6g} on held-out training rows.\n"
        return head + tomli_w.dumps(keys)


def read_search(path: Path, settings: Sequence[str] = ()) -> Search:
    """Read a search file; ``settings`` are ``key=value`` of recipe keys, over those of ``[set]``.

    Raises:
        ConfigError: a missing file, an unknown key or range, a metric that is not of held-out rows, or ranges of which
            no combination works.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the search {path} cannot be read: {error}") from None
    if unknown := sorted(set(values) - {"recipe", "metric", "seed", "set", "ranges"}):
        raise ConfigError(f"{path}: unknown keys {unknown}; known: recipe, metric, seed, set, ranges")
    if not values.get("ranges") or "recipe" not in values:
        raise ConfigError(f"{path}: a search needs recipe, a file, and [ranges] of its keys")
    base = read_recipe(path.parent / values["recipe"]).to_dict()
    for key, value in values.get("set", {}).items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    parse_settings(settings, base)
    recipe_from_dict(base)
    metric = values.get("metric", "heldout/nme")
    metric = {metric: 1.0} if isinstance(metric, str) else metric
    if wrong := [column for column in metric if not column.startswith("heldout")]:
        raise ConfigError(f"{path}: metric {wrong} is not of held-out rows; columns of those begin with 'heldout'")
    search = Search(base, values["ranges"], metric, values.get("seed", 0))
    for key, limits in search.ranges.items():
        _check_range(key, limits)
    _check_works(search)
    return search


def _check_range(key: str, limits: Any) -> None:
    if key.split(".")[0] not in {f.name for f in fields(Recipe)} - {"name", "workers", "threads"}:
        raise ConfigError(f"ranges.{key!r}: recipes have no such key to search over")
    if isinstance(limits, list) and limits:
        return
    if not isinstance(limits, dict) or not {"low", "high"} <= set(limits) <= {"low", "high", "step", "log"}:
        raise ConfigError(f"ranges.{key!r} = {limits!r}: expected a list of choices, or low, high, maybe step or log")
    low, high, step = limits["low"], limits["high"], limits.get("step", 1)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high, step))
    if not numbers or low >= high or step <= 0 or (limits.get("log") and (low <= 0 or "step" in limits)):
        raise ConfigError(
            f"ranges.{key!r} = {limits}: expected numbers, low under high; with log, low over 0 and no step"
        )


def _check_works(search: Search) -> None:
    """Raise unless some of many drawn recipes can be built: not every combination has to."""
    rng = np.random.default_rng(0)
    for _ in range(DRAWN):
        ends = [v if isinstance(v, list) else [v["low"], v["high"]] for v in search.ranges.values()]
        values = {key: end[rng.integers(len(end))] for key, end in zip(search.ranges, ends, strict=True)}
        try:
            search.recipe(values)
            return
        except ConfigError as error:
            reason = error
    raise ConfigError(f"none of {DRAWN} recipes drawn from the ranges can work, the last because: {reason}")


def run_search(
    search: Search,
    folder: Path,
    read: Callable[[Recipe], TrainingData],
    seconds: float,
    trials: int | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Found:
    """Train trial after trial until the budget is spent, or continue where ``folder`` stands.

    Args:
        search: what over.
        folder: of the storage file, of ``trials.csv``, ``best.toml`` and of each trial's run; made if missing.
        read: gives the data of a recipe.
        seconds: of training, counted over all calls; the trial in which they end is kept for a later call.
        trials: stop once so many have a value; without, only time ends the search.
        device, progress: as :func:`facemtl.training.engine.train`.

    Returns:
        The best trial; of equal ones the first.

    Raises:
        DependencyError: Optuna is not installed.
        ConfigError: ``folder`` holds another search, no trial was finished, or no recipe of the ranges works.
        facemtl.training.engine.Interrupted: Ctrl-C; nothing is lost.
    """
    optuna = _optuna()
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / STORAGE))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend), study_name="search", load_if_exists=True
    )
    text = json.dumps([dict(search.base), dict(search.ranges), dict(search.metric), search.seed], sort_keys=True)
    if study.user_attrs.get("search", text) != text:
        raise ConfigError(f"{folder} holds a search over other ranges, recipes or metrics; use another --out")
    study.set_user_attr("search", text)
    clock = _Clock(study, seconds)
    while not clock.over() and (trials is None or len(_finished(study)) < trials):
        number, values = _next_trial(optuna, study, search)
        try:
            value = _value(search, number, values, folder, read, clock, device, progress)
        except _BudgetSpent:
            break
        except (ConfigError, ModelError) as error:
            study.set_user_attr(f"failed {number}", str(error))
            study.tell(number, state=optuna.trial.TrialState.FAIL)
            last = study.get_trials(deepcopy=False)[-FAILURES:]
            if len(last) == FAILURES and all(t.state == optuna.trial.TrialState.FAIL for t in last):
                raise ConfigError(
                    f"{FAILURES} trials in a row could not be trained, the last because: {error}"
                ) from None
        else:
            study.tell(number, value)
        _write_trials(study, folder / "trials.csv")
    finished = _finished(study)
    if not finished:
        raise ConfigError(
            f"no trial was finished within {seconds:.0f} seconds of training: the same command with a larger budget "
            "continues"
        )
    best = min(finished, key=lambda trial: (trial.value, trial.number))
    failed = {int(k.split()[1]): v for k, v in study.user_attrs.items() if k.startswith("failed ")}
    recipe = search.recipe(_decoded(best.params))
    found = Found(recipe, best.value, best.number, len(finished), failed, clock.spent)
    write_beside(folder / "best.toml", lambda partial: partial.write_text(found.as_toml(), encoding="utf-8"))
    return found


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise DependencyError("search is Optuna's, which is not installed: pip install 'facemtl[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]


def _next_trial(optuna: ModuleType, study: Any, search: Search) -> tuple[int, dict[str, Any]]:
    """The trial that was under way when the search was stopped, or a new one."""
    running = optuna.trial.TrialState.RUNNING
    for trial in study.get_trials(deepcopy=False, states=(running,)):
        if set(trial.params) == set(search.ranges):
            return trial.number, _decoded(trial.params)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # killed while its values were drawn
    study.sampler = optuna.samplers.TPESampler(seed=1000 * search.seed + len(study.get_trials(deepcopy=False)))
    trial = study.ask()
    for key, limits in search.ranges.items():
        if isinstance(limits, list):
            trial.suggest_categorical(key, [json.dumps(choice) for choice in limits])
        elif all(isinstance(limits.get(name, 1), int) for name in ("low", "high", "step")):
            trial.suggest_int(
                key, limits["low"], limits["high"], step=limits.get("step", 1), log=limits.get("log", False)
            )
        else:
            trial.suggest_float(
                key, limits["low"], limits["high"], step=limits.get("step"), log=limits.get("log", False)
            )
    return trial.number, _decoded(trial.params)


def _decoded(params: Mapping[str, Any]) -> dict[str, Any]:
    """Choices are kept as JSON: the storage takes no lists."""
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in params.items()}


def _value(
    search: Search,
    number: int,
    values: Mapping[str, Any],
    folder: Path,
    read: Callable[[Recipe], TrainingData],
    clock: _Clock,
    device: str,
    progress: bool,
) -> float:
    recipe = search.recipe(values)
    run = folder / f"trial-{number:04d}"
    train(recipe, read(recipe), run, device, progress, after_epoch=lambda row: clock.tick())
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    if missing := [column for column in search.metric if not math.isfinite(float(last.get(column) or "nan"))]:
        raise ConfigError(f"the run has no {missing} in its log; it has {', '.join(c for c in last if '/' in c)}")
    return sum(factor * float(last[column]) for column, factor in search.metric.items())


class _BudgetSpent(Exception):
    pass


class _Clock:
    """Seconds of training, kept with the study from epoch to epoch."""

    def __init__(self, study: Any, budget: float) -> None:
        self._study, self._budget = study, budget
        self._since, self.spent = time.perf_counter(), float(study.user_attrs.get("seconds", 0.0))

    def over(self) -> bool:
        now = time.perf_counter()
        self.spent, self._since = self.spent + now - self._since, now
        self._study.set_user_attr("seconds", self.spent)
        return self.spent >= self._budget

    def tick(self) -> None:
        """Raises once the budget is spent."""
        if self.over():
            raise _BudgetSpent


def _write_trials(study: Any, path: Path) -> None:
    text = io.StringIO()
    trials = study.get_trials(deepcopy=False)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    writer = csv.writer(text)
    writer.writerow(["trial", "state", "value", *keys])
    for trial in trials:
        value = "" if trial.value is None else trial.value
        writer.writerow([trial.number, trial.state.name.lower(), value, *(trial.params.get(key, "") for key in keys)])
    write_beside(path, lambda partial: partial.write_text(text.getvalue(), encoding="utf-8"))
