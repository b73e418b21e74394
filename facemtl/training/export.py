"""A trained model to ONNX, with a proof that it still computes the same."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from facemtl.errors import ConfigError, ModelError
from facemtl.files import write_beside
from facemtl.models.face_model import FaceModel
from facemtl.models.files import load_model
from facemtl.models.gridnet import fuse
from facemtl.session import INPUT, REFINE, OnnxSession
from facemtl.weights import METADATA_KEY, ModelSpec

TOLERANCE = 1e-4  # largest absolute difference of any output, in its own units
BATCHES = (1, 2, 7)
OPSET = 18  # what the exporter translates to; its conversion to others forgets the branches of a graph


class _Outputs(nn.Module):
    """The outputs as a tuple, which is what an ONNX graph has."""

    def __init__(self, model: FaceModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, images: Tensor, refine: Tensor | bool = True) -> tuple[Tensor, ...]:
        outputs = self.model(images, refine)
        return tuple(outputs[name] for name in self.names)


def export_onnx(source: Path, target: Path) -> dict[str, float]:
    """Write the model of a safetensors file as ONNX, with its description, for any batch size.

    Returns:
        output -> largest absolute difference between torch and ONNX Runtime over random crops and several batch sizes.

    Raises:
        ConfigError: ``target`` is not named ``.onnx``.
        ModelError: ``source`` is damaged, or the two differ by more than ``TOLERANCE``; nothing is written then.
    """
    if target.suffix != ".onnx":
        raise ConfigError(f"an ONNX file must be named .onnx to be found by its suffix, got {target}")
    model, spec = load_model(source)
    fused = fuse(model)
    differences: dict[str, float] = {}

    def write(partial: Path) -> None:
        onnx.save(_convert(fused, spec), partial)
        differences.update(parity(model, spec, partial))
        if not all(difference <= TOLERANCE for difference in differences.values()):  # a NaN fails too
            raise ModelError(f"{source} and its ONNX form differ by more than {TOLERANCE:g}: {differences}")

    write_beside(target, write)
    return differences


def _convert(model: FaceModel, spec: ModelSpec) -> onnx.ModelProto:
    example = torch.zeros((2, spec.channels, spec.input_size, spec.input_size), dtype=torch.uint8)
    inputs = {INPUT: example, REFINE: torch.tensor(True)} if spec.refine else {INPUT: example}
    shapes = {INPUT: {0: torch.export.Dim("batch", min=1)}, REFINE: None}
    names = list(spec.outputs())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            _Outputs(model, names),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=names,
            dynamic_shapes=tuple(shapes[name] for name in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    RemoveUnusedNodesPass()(program.model)  # runtimes warn of constants that the exporter leaves behind a branch
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    return proto


def parity(model: FaceModel, spec: ModelSpec, path: Path) -> dict[str, float]:
    """Output -> largest absolute difference between torch and the ONNX file, on seeded crops, refined and not."""
    session = OnnxSession(path)
    rng = np.random.default_rng(0)
    names = list(spec.outputs())
    differences: dict[str, list[float]] = {name: [] for name in names}
    for count, refine in product(BATCHES, (True, False) if spec.refine else (True,)):
        shape = (count, spec.channels, spec.input_size, spec.input_size)
        crops = rng.integers(0, 256, shape, dtype=np.uint8)
        with torch.inference_mode():
            expected = model(torch.from_numpy(crops), refine)
        for name, output in session.run(crops, names, refine).items():
            differences[name].append(np.abs(output - expected[name].numpy()).max())
    return {name: float(np.max(values)) for name, values in differences.items()}
