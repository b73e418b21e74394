"""How a network in training does on crops that it only looks at: losses, and figures that people read."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from facemtl.face import ANGLES_TASK
from facemtl.landmarks import POINTS, SCHEMAS, schema_of
from facemtl.models.face_model import FaceModel
from facemtl.training.batches import Batch, known_faces
from facemtl.training.losses import task_losses
from facemtl.training.recipe import Recipe

Losses = Mapping[str, torch.Tensor]


def losses_of(recipe: Recipe, outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> Losses:
    """Output -> its loss, a scalar, as the recipe wants it, of the outputs that have targets."""
    classes = recipe.smoothing, recipe.class_loss, recipe.class_loss_options
    return task_losses(outputs, targets, recipe.schema, recipe.points_loss, recipe.eye_scaled, *classes)


@torch.no_grad()
def look(model: FaceModel, batch: Batch, recipe: Recipe) -> dict[str, float]:
    """Losses and readable figures of a network in evaluation mode on undisturbed crops, as far as labels go."""
    device = next(model.parameters()).device
    outputs: dict[str, list[torch.Tensor]] = {}
    for part in batch.split(256):
        for name, output in model(part.images.to(device)).items():
            outputs.setdefault(name, []).append(output.float().cpu())
    joined = {name: torch.cat(parts) for name, parts in outputs.items()}
    targets = {task: aim for task, aim in batch.targets.items() if known_faces(aim)}
    figures = {name: loss.item() for name, loss in losses_of(recipe, joined, targets).items()}
    for task, aim in targets.items():
        figures |= readable_figures(task, joined[task], aim, recipe.schema)
    return figures


def readable_figures(task: str, output: torch.Tensor, aim: torch.Tensor, schema: str) -> dict[str, float]:
    """The error measure of one task: ``nme`` in percent, ``<task>_accuracy`` in percent, mean ``angles_error`` in
    degrees."""
    if points := schema_of(task, schema):
        left, right = SCHEMAS[points].eye_pair
        error = (output - aim).norm(dim=2).mean(dim=1) / (aim[:, left] - aim[:, right]).norm(dim=1)
        return {"nme" if task == POINTS else f"{task}_nme": 100 * error.nanmean().item()}
    if task == ANGLES_TASK:
        return {"angles_error": (output - aim).abs().nanmean().item()}
    known = aim >= 0
    return {f"{task}_accuracy": 100 * (output.argmax(dim=1) == aim)[known].float().mean().item()}
