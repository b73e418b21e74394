"""What a comparison is: methods, each a recipe, the seeds they are trained with, and how their settings are chosen."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from facemtl.errors import ConfigError
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import POINTS
from facemtl.training.recipe import Recipe, recipe_from_dict

SPLITS = ("heldout", "test")
REQUIRED, OPTIONAL = ("seeds", "common", "methods"), ("against", "tuning", "shortlist", "sizes")


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the settings of every method are chosen: by as many trials for each, judged on held-out rows.

    Attributes:
        criterion: the task whose held-out error decides; a method without it is judged by the mean over its own tasks.
        keys: recipe keys of a trial, over those of the method, such as a share of the data and fewer epochs.
        tries: method -> the recipe keys of each of its trials; the winner's are taken over by the method.
    """

    criterion: str
    keys: Mapping[str, Any]
    tries: Mapping[str, tuple[Mapping[str, Any], ...]]


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The methods that are trained with further seeds: the best by held-out error of ``criterion``, and ``always``."""

    seeds: tuple[int, ...]
    best: int
    always: tuple[str, ...]
    criterion: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """Some methods on shares of the training rows: ``at`` has recipe keys, ``fraction`` among them, of each size."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    at: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods, each a recipe without its seed, and the seeds they are all trained with.

    Attributes:
        against: the method that all others are compared with; empty for the single-task model of each task.
        more_seeds: method -> seeds that it has beside ``seeds``.
        splits: what the trained models are judged on.
        tuning, shortlist, sizes: what :mod:`facemtl.training.study` does around the runs; None leaves it out.
    """

    name: str
    methods: Mapping[str, Recipe]
    seeds: tuple[int, ...]
    against: str = ""
    more_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    splits: tuple[str, ...] = SPLITS
    tuning: Tuning | None = None
    shortlist: Shortlist | None = None
    sizes: Sizes | None = None

    def baseline(self, task: str) -> str:
        """The method that a task is compared with: ``against``, or the one that learns this task alone.

        Raises:
            ConfigError: there is none.
        """
        if self.against and task in self.judged_tasks(self.against):
            return self.against
        for name, recipe in self.methods.items():
            if recipe.tasks == (task,) and not recipe.shuffled_labels:
                return name
        raise ConfigError(f"the comparison has no method with tasks = [{task!r}]: the single-task baseline is missing")

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """All seeds of a method; any two methods share the first of them."""
        return (*self.seeds, *self.more_seeds.get(method, ()))

    def run_recipe(self, method: str, seed: int) -> Recipe:
        """The recipe of one run."""
        return replace(self.methods[method], seed=seed, workers=0)

    def judged_tasks(self, method: str) -> tuple[str, ...]:
        """The tasks of a method that can be judged on the faces of its main data set: the main points and the
        attributes, as far as they had true labels."""
        recipe = self.methods[method]
        return tuple(t for t in recipe.tasks if t in (POINTS, *ATTRIBUTES) and t not in recipe.shuffled_labels)


def changed(recipe: Recipe, keys: Mapping[str, Any]) -> Recipe:
    """A recipe with other values of some keys; a table replaces the whole table."""
    return recipe_from_dict({**recipe.to_dict(), **keys})


def read_comparison(path: Path, settings: Mapping[str, object] | None = None) -> Comparison:
    """Read a comparison: ``seeds``, the table ``[common]`` of recipe keys, and ``[methods.<name>]`` tables over it.

    With ``against = "<name>"`` all methods are compared with that one instead of single-task models. Further tables:

    * ``[tuning]`` with ``criterion``, ``tries`` (a list of tables of recipe keys, which ``[methods.<name>] tries`` may
      replace, by as many) and any recipe keys of a trial: :class:`Tuning`;
    * ``[shortlist]`` with ``seeds``, ``best``, ``always`` and ``criterion``: :class:`Shortlist`;
    * ``[sizes]`` with ``methods``, ``at`` (a list of tables, each with ``fraction``), maybe ``seeds``: :class:`Sizes`.

    Args:
        path: the TOML file.
        settings: recipe keys that override those of every method.

    Raises:
        ConfigError: a missing file, an unknown key, a value that cannot work, or no baseline for a task.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the comparison {path} cannot be read: {error}") from None
    if set(REQUIRED) - set(values) or set(values) - {*REQUIRED, *OPTIONAL}:
        raise ConfigError(
            f"{path} must have the keys {', '.join(REQUIRED)}, and may have {', '.join(OPTIONAL)}; it has "
            f"{sorted(values)}"
        )
    against, seeds = values.get("against", ""), _seeds(path, "seeds", values["seeds"])
    common, tables = values["common"], values["methods"]
    given = [common, tables, *(tables.values() if isinstance(tables, dict) else ())]
    if not tables or not all(isinstance(table, dict) for table in given):
        raise ConfigError(f"{path} must have a table [common] and at least one table [methods.<name>]")
    own_tries = {name: table.pop("tries") for name, table in tables.items() if "tries" in table}
    methods = {
        name: recipe_from_dict({**common, **changes, **(settings or {}), "name": name})
        for name, changes in tables.items()
    }
    if len({recipe.data for recipe in methods.values()}) > 1:
        raise ConfigError(f"{path}: all methods must have the same data, or their errors cannot be compared")
    if against and against not in methods:
        raise ConfigError(f"{path}: against = {against!r} is none of the methods {', '.join(methods)}")
    comparison = Comparison(
        path.stem,
        methods,
        seeds,
        against,
        tuning=_tuning(path, values.get("tuning"), own_tries, methods),
        shortlist=_shortlist(path, values.get("shortlist"), seeds, methods),
        sizes=_sizes(path, values.get("sizes"), seeds, methods),
    )
    for method in methods:
        for task in comparison.judged_tasks(method):
            comparison.baseline(task)  # said now, not after hours of training
    if comparison.sizes:
        replace(comparison, methods={name: methods[name] for name in comparison.sizes.methods}).baseline(POINTS)
    return comparison


def _seeds(path: Path, where: str, seeds: Any) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        raise ConfigError(f"{path}: {where} must be a list of one or more numbers from 0 up, found {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: each seed once, found {seeds}: a run counted twice would make intervals too narrow")
    return tuple(seeds)


def _tuning(path: Path, table: Any, own: Mapping[str, Any], methods: Mapping[str, Recipe]) -> Tuning | None:
    if table is None:
        if own:
            raise ConfigError(f"{path}: {', '.join(own)} have tries, but there is no table [tuning]")
        return None
    keys = dict(_table(path, "tuning", table))
    criterion = _criterion(path, "tuning", keys.pop("criterion", POINTS), methods)
    common = keys.pop("tries", [])
    tries = {name: own.get(name, common) for name in methods}
    for name, tried in tries.items():
        if not isinstance(tried, list) or not tried or not all(isinstance(one, dict) for one in tried):
            raise ConfigError(f"{path}: tries of {name!r} must be a list of one or more tables of recipe keys")
    if len({len(tried) for tried in tries.values()}) > 1:
        counts = ", ".join(f"{name} {len(tried)}" for name, tried in tries.items())
        raise ConfigError(f"{path}: every method must have as many tries as the others; there are {counts}")
    for name, tried in tries.items():
        for one in tried:
            changed(methods[name], {**keys, **one})
    return Tuning(criterion, keys, {name: tuple(tried) for name, tried in tries.items()})


def _shortlist(path: Path, table: Any, seeds: tuple[int, ...], methods: Mapping[str, Recipe]) -> Shortlist | None:
    if table is None:
        return None
    _only(path, "shortlist", _table(path, "shortlist", table), ("seeds", "best", "always", "criterion"))
    more, best = _seeds(path, "shortlist.seeds", table.get("seeds")), table.get("best", 0)
    if set(more) & set(seeds):
        raise ConfigError(f"{path}: shortlist.seeds {list(more)} must differ from seeds {list(seeds)}")
    if type(best) is not int or best < 0:
        raise ConfigError(f"{path}: shortlist.best = {best!r}, expected a number from 0 up")
    always = _names(path, "shortlist.always", table.get("always", []), methods)
    return Shortlist(more, best, always, _criterion(path, "shortlist", table.get("criterion", POINTS), methods))


def _sizes(path: Path, table: Any, seeds: tuple[int, ...], methods: Mapping[str, Recipe]) -> Sizes | None:
    if table is None:
        return None
    _only(path, "sizes", _table(path, "sizes", table), ("methods", "seeds", "at"))
    names, at = _names(path, "sizes.methods", table.get("methods"), methods), table.get("at")
    if not isinstance(at, list) or not at or not all(isinstance(one, dict) and "fraction" in one for one in at):
        raise ConfigError(f"{path}: sizes.at must be a list of tables, each with the key fraction")
    if len({one["fraction"] for one in at}) < len(at):
        raise ConfigError(f"{path}: sizes.at must have each fraction once")
    for name in names:
        for one in at:
            changed(methods[name], one)
    chosen = _seeds(path, "sizes.seeds", table["seeds"]) if "seeds" in table else seeds
    return Sizes(names, chosen, tuple(at))


def _table(path: Path, where: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {where} must be a table, found {table!r}")
    return table


def _only(path: Path, where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(table) - set(known)):
        raise ConfigError(f"{path}: [{where}] has no keys {unknown}, it has {', '.join(known)}")


def _names(path: Path, where: str, names: Any, methods: Mapping[str, Recipe]) -> tuple[str, ...]:
    if not isinstance(names, list) or not set(names) <= set(methods):
        raise ConfigError(f"{path}: {where} = {names!r}, expected a list of the methods {', '.join(methods)}")
    return tuple(names)


def _criterion(path: Path, where: str, task: Any, methods: Mapping[str, Recipe]) -> str:
    tasks = {t for recipe in methods.values() for t in recipe.tasks if t in (POINTS, *ATTRIBUTES)}
    if task not in tasks:
        raise ConfigError(f"{path}: {where}.criterion = {task!r}, expected one of {', '.join(sorted(tasks))}")
    return task
