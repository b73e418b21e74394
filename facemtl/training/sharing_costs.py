"""What a way of sharing makes of a network: how large it is, how much of it is shared, how much it computes."""

from __future__ import annotations

from dataclasses import replace

from facemtl.models.face_model import OWN
from facemtl.training.card import count_macs, count_parameters
from facemtl.training.recipe import Recipe


def costs_of(recipe: Recipe, sharing: str) -> tuple[int, int, int]:
    """Of a recipe's network if its tasks shared in this way, at its defaults: parameters, those outside of what is one
    task's own, and multiply-adds of convolutions and matrix products a crop.

    Raises:
        ConfigError, ModelError: it cannot be built.
    """
    changed = replace(recipe, sharing=sharing, sharing_options={}, weighing="fixed", weighing_options={})
    model = changed.create_model().eval()
    shared = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(OWN))
    spec = changed.spec(model.backbone.input_size, model.backbone.channels)
    return count_parameters(model), shared, count_macs(model, spec)
