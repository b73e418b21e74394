"""One network of several: the mean of their parameters, for trainings that started from each other.

Wortsman et al., "Model soups" (ICML 2022); along one training, Izmailov et al., "Averaging Weights Leads to Wider
Optima" (UAI 2018). Networks from different fresh starts have no mean worth having: their units are in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from facemtl.errors import ModelError
from facemtl.models.face_model import FaceModel
from facemtl.models.files import load_model, load_parameters
from facemtl.weights import ModelSpec


def average(paths: Sequence[str | Path]) -> tuple[FaceModel, ModelSpec]:
    """The mean of two or more model files, with the description and the locator of the first.

    The running statistics of normalisation are averaged likewise; what counts steps is the first's.

    Raises:
        ModelError: fewer than two, a file that cannot be read, or parameters that do not fit those of the first.
    """
    if len(paths) < 2:
        raise ModelError(f"a mean needs two models or more; got {len(paths)}")
    model, spec = load_model(Path(paths[0]))
    locator, model.locator = model.locator, None
    parts = [{name: tensor.clone() for name, tensor in model.state_dict().items()}]
    for path in paths[1:]:
        other, _ = load_model(Path(path))
        other.locator = None
        parts.append(other.state_dict())
        load_parameters(model, parts[-1], path)  # says what does not fit
    load_parameters(model, {name: _mean([part[name] for part in parts]) for name in parts[0]}, paths[0])
    model.locator = locator
    return model.eval(), spec


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """In the precision of the first; what is no number with a fraction, such as a count, is the first's."""
    first = tensors[0]
    if not first.is_floating_point():
        return first
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(first.dtype)
