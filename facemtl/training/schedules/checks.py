"""Whether the schedules of a recipe can work, before anything starts, and the schedules themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from facemtl.errors import ConfigError
from facemtl.landmarks import POINTS
from facemtl.training.schedules.curriculum import BY, DEFAULTS, Curriculum
from facemtl.training.schedules.timetable import Timetable

if TYPE_CHECKING:
    from facemtl.training.recipe import Recipe


def timetable_of(recipe: Recipe) -> Timetable:
    """Which tasks a step has."""
    return Timetable(recipe.tasks, recipe.periods, recipe.joins, recipe.leaves)


def curriculum_of(recipe: Recipe) -> Curriculum | None:
    """From easy to hard, or None for all faces from the start."""
    options = {**DEFAULTS, **recipe.curriculum}
    return (
        Curriculum(options["by"], options["start"], options["epochs"] or recipe.epochs / 2) if options["by"] else None
    )


def check_schedules(recipe: Recipe) -> None:
    """Raise unless the schedules of a recipe can work.

    Raises:
        ConfigError: what has to be changed.
    """
    start = f"recipe {recipe.name!r}:"
    for key in ("periods", "joins", "leaves"):
        values: Mapping[str, float] = getattr(recipe, key)
        if strangers := sorted(set(values) - set(recipe.tasks)):
            raise ConfigError(f"{start} {key} names {strangers}, expected some of its tasks: {', '.join(recipe.tasks)}")
        if wrong := {task: n for task, n in values.items() if n != int(n) or n < 1}:
            unit = "steps" if key == "periods" else "epochs"
            raise ConfigError(f"{start} {key} = {wrong}, expected a whole number of {unit} from 1")
    _check_timetable(start, recipe)
    for key, factor in recipe.learning_rates.items():
        if factor <= 0:
            raise ConfigError(f"{start} learning_rates.{key} = {factor}, expected over 0; frozen keeps modules still")
    for name, epoch in recipe.thaws.items():
        if name not in recipe.frozen:
            raise ConfigError(f"{start} thaws.{name}: only what is frozen can thaw; name it in frozen too")
        if not (epoch == int(epoch) and 1 <= epoch < recipe.epochs):
            raise ConfigError(
                f"{start} thaws.{name} = {epoch}, expected whole epochs from 1 to {recipe.epochs - 1}, or no such key"
            )
    if recipe.curriculum:
        _check_curriculum(start, recipe, recipe.curriculum)


def _check_timetable(start: str, recipe: Recipe) -> None:
    table = timetable_of(recipe)
    for task, joins in table.joins.items():
        if not joins < min(recipe.epochs, table.leaves.get(task, recipe.epochs)):
            raise ConfigError(
                f"{start} joins.{task} = {joins:.0f} leaves no epoch to train it: lower it, or raise epochs or leaves"
            )
    for task, leaves in table.leaves.items():
        if leaves >= recipe.epochs:
            raise ConfigError(
                f"{start} leaves.{task} = {leaves:.0f} is not before the end of {recipe.epochs} epochs: leave it out"
            )
    for epoch in range(recipe.epochs if table else 0):
        always = [
            task for task in table.present(epoch) if table.periods.get(task, 1) == 1 and recipe.weights.get(task, 1.0)
        ]
        if not always:
            raise ConfigError(
                f"{start} periods, joins and leaves give no task to some steps of epoch {epoch + 1}: keep one task of "
                "period 1 and weight over 0 in every epoch"
            )
    if recipe.early_stopping and not all(POINTS in table.present(epoch) for epoch in range(recipe.epochs)):
        raise ConfigError(f"{start} early_stopping needs its main task, {POINTS}, from the first epoch to the last")


def _check_curriculum(start: str, recipe: Recipe, options: Mapping[str, Any]) -> None:
    if unknown := sorted(set(options) - set(DEFAULTS)):
        raise ConfigError(f"{start} curriculum has no options {unknown}, it has {', '.join(DEFAULTS)}")
    if options.get("by") not in BY:
        raise ConfigError(f"{start} curriculum.by = {options.get('by')!r}, expected one of {', '.join(BY)}")
    for key, highest in (("start", 1), ("epochs", recipe.epochs)):
        value = options.get(key, highest)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= highest:
            raise ConfigError(f"{start} curriculum.{key} = {value!r}, expected over 0, at most {highest}")
    if options["by"] == "loss" and recipe.weighing == "famo":
        raise ConfigError(
            f"{start} weighing = 'famo' compares the losses of a batch before and after a step, and curriculum.by = "
            "'loss' may count other faces then: set curriculum.by = 'pose_size', or another weighing"
        )
