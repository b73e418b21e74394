"""What sharing asks of a training: recipes that can work, and the term of the loss that ties networks together."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from facemtl.errors import ConfigError, ModelError
from facemtl.models.cascade import cascade_order
from facemtl.models.face_model import FaceModel
from facemtl.models.heads import NEEDS_GRID
from facemtl.models.sharing.registry import is_plain, options_of, shares_nothing, trunk_of
from facemtl.models.sharing.soft import Soft
from facemtl.training.weighing.registry import WEIGHINGS

if TYPE_CHECKING:
    from facemtl.training.batches import Batch
    from facemtl.training.recipe import Recipe
    from facemtl.training.weighing.base import Weighing

PENALTY = "sharing"  # its name in the log, beside the losses of the outputs


def check_sharing(recipe: Recipe) -> None:
    """Raise unless sharing and cascade of a recipe can work, by themselves and with its weighing.

    Where a split lies is only known once the backbone is built (:func:`facemtl.models.factory.create_model`).

    Raises:
        ConfigError: what has to be changed.
    """
    start = f"recipe {recipe.name!r}: "
    name, options = recipe.sharing, recipe.sharing_options
    try:
        options_of(name, options, recipe.tasks)
        for task, before in recipe.cascade.items():
            if not isinstance(before, list | tuple) or not all(isinstance(other, str) for other in before):
                raise ModelError(f"cascade.{task} = {before!r}, expected a list of tasks")
        cascade_order(recipe.tasks, recipe.cascade)
    except ModelError as error:
        raise ConfigError(f"{start}{error}") from None
    if recipe.points_head in NEEDS_GRID and "landmarks" in recipe.cascade:
        raise ConfigError(
            f"{start}points_head = {recipe.points_head!r} reads the grid alone: leave landmarks out of cascade"
        )
    _check_weighing(recipe, start)


def _check_weighing(recipe: Recipe, start: str) -> None:
    method = WEIGHINGS.get(recipe.weighing)
    if method is None:  # said by its own check
        return
    chosen = {**method.options, **recipe.weighing_options}
    name, options = recipe.sharing, recipe.sharing_options
    if "on" in chosen and shares_nothing(name, options):
        raise ConfigError(
            f"{start}weighing = {recipe.weighing!r} compares gradients on what tasks share, and sharing = {name!r} "
            "shares nothing: set weighing = 'fixed', or another sharing"
        )
    if chosen.get("on") == "features" and not trunk_of(name, options):
        raise ConfigError(
            f"{start}with sharing = {name!r} tasks do not read the same features: set weighing_options.on = "
            "'parameters'"
        )
    if chosen.get("covariance") and (recipe.cascade or not is_plain(name, options)):
        raise ConfigError(
            f"{start}weighing = {recipe.weighing!r} relates last layers that read the same features, which they do not "
            "here: set weighing_options.covariance = 0"
        )


def tie(
    model: FaceModel, weighing: Weighing, losses: Mapping[str, Tensor], batch: Batch, out: Container[str]
) -> dict[str, Tensor]:
    """Add to the gradients those of what ties the tasks' networks together.

    It is no task: no weighing weighs it, and its strength is its own. Networks of tasks that take no part in the step
    (:meth:`facemtl.training.weighing.base.Weighing.taking_part`) have no gradient of it.

    Args:
        model: the network, with the gradients of the step.
        weighing: of its tasks.
        losses: output -> loss that was learned from.
        batch: what they were computed on.
        out: tasks that take no part in the step.

    Returns:
        :data:`PENALTY` -> the value; empty where nothing is tied.
    """
    if not isinstance(model.backbone, Soft):
        return {}
    penalty = model.backbone.penalty(weighing.taking_part(losses, batch, out))
    if penalty.requires_grad:
        penalty.backward()
    return {PENALTY: penalty.detach()}
