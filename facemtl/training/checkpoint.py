"""The state of a training: everything that the next step depends on, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from facemtl.errors import ConfigError, ModelError
from facemtl.models.files import load_parameters, read_tensors, write_tensors
from facemtl.training.early_stopping import TaskStopper
from facemtl.training.recipe import recipe_from_dict
from facemtl.training.weighing.base import Weighing

HARMLESS = ("workers", "snapshots", "affinity")  # keys that change how fast a training is, not what it gives


@dataclass(slots=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: steps done.
        history: one row of figures per finished epoch.
        sums: output -> loss summed over the steps of the unfinished epoch; while steps run, a tensor on their device.
        labelled: task -> crops with a label for it in the unfinished epoch; likewise.
        stopper: of the auxiliary tasks, or None.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float | Tensor] = field(default_factory=dict)
    labelled: dict[str, int | Tensor] = field(default_factory=dict)
    stopper: TaskStopper | None = None


def save_checkpoint(
    path: Path,
    recipe: dict[str, Any],
    progress: Progress,
    model: nn.Module,
    average: nn.Module,
    optimiser: Optimizer,
    weighing: Weighing,
) -> None:
    """Write beside, then rename."""
    state = optimiser.state_dict()
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for index, values in state["state"].items():
        # SGD's first step leaves a momentum of None behind where a parameter had no gradient.
        tensors |= {f"optimiser.{index}.{k}": v for k, v in values.items() if v is not None}
    tensors |= {f"weighing.{k}": v for k, v in weighing.memory().items()}
    write_tensors(path, tensors, json.dumps({"recipe": recipe, "progress": asdict(progress)}))


def load_checkpoint(
    path: Path,
    recipe: dict[str, Any],
    model: nn.Module,
    average: nn.Module,
    optimiser: Optimizer,
    weighing: Weighing,
) -> Progress:
    """Put a saved state back.

    Raises:
        ModelError: damaged, or of another model.
        ConfigError: of another recipe; names the keys that differ.
    """
    tensors, text = read_tensors(path)
    try:
        saved = json.loads(text or "")
        values = dict(saved["progress"])
        stopper = values.pop("stopper")
        progress = Progress(**values, stopper=None if stopper is None else TaskStopper(**stopper))
        # A key that is newer than the checkpoint had the effect of its default.
        trained_with = recipe_from_dict(saved["recipe"]).to_dict()
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a checkpoint of this version: {error}") from None
    differ = [k for k in recipe if k not in HARMLESS and trained_with.get(k) != recipe[k]]
    if differ:
        raise ConfigError(f"{path} was trained with other values of {', '.join(differ)}; use another --out")
    load_parameters(model, _under(tensors, "model."), path)
    load_parameters(average, _under(tensors, "average."), path)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _under(tensors, "optimiser.").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    try:
        weighing.recall(_under(tensors, "weighing."))
    except (RuntimeError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is not a checkpoint of this version: {error}") from None
    return progress


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
