"""A trained model to ONNX, with a proof that it still computes the same."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from facemtl.errors import ConfigError, ModelError
from facemtl.files import write_beside
from facemtl.landmarks import POINTS
from facemtl.models.face_model import FaceModel
from facemtl.models.files import load_model
from facemtl.models.gridnet import fuse
from facemtl.models.session import TorchSession
from facemtl.session import INPUT, LOCATE, OnnxSession
from facemtl.training.eight_bit import in_eight_bits
from facemtl.weights import METADATA_KEY, ModelSpec

TOLERANCE = 1e-4  # largest absolute difference of any output, in its own units
# Of a network in whole numbers: the root mean square difference of an output, over the spread between faces.
EIGHT_BIT_TOLERANCE = 0.25
BATCHES = (1, 2, 7)
OPSET = 18  # what the exporter translates to; its conversion to others forgets the branches of a graph


class _Outputs(nn.Module):
    """The outputs as a tuple, which is what an ONNX graph has; with a locator, of the branch that is asked for."""

    def __init__(self, model: FaceModel, spec: ModelSpec) -> None:
        super().__init__()
        self.model = model
        self.shapes = spec.outputs()

    def forward(self, images: Tensor, locate: Tensor | None = None) -> tuple[Tensor, ...]:
        return self._all(images) if locate is None else torch.cond(locate, self._located, self._all, (images,))

    def _all(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(images)
        return tuple(outputs[name] for name in self.shapes)

    def _located(self, images: Tensor) -> tuple[Tensor, ...]:
        """Both branches give the same outputs: those that a locator does not know are zeros."""
        return tuple(
            self.model.locate(images)
            if name == POINTS
            else torch.zeros((len(images), *shape), device=images.device, dtype=torch.float32)
            for name, shape in self.shapes.items()
        )


def export_onnx(source: Path, target: Path, crops: np.ndarray | None = None) -> dict[str, float]:
    """Write the model of a safetensors file as ONNX, with its description, for any batch size.

    Args:
        crops: of :func:`facemtl.training.eight_bit.training_crops`, for a network in whole numbers of 8 bits; its
            locator, if it has one, is as it was. None: in floating point.

    Returns:
        output -> largest absolute difference between torch and ONNX Runtime over random crops and several batch sizes;
        with ``crops`` the root mean square difference over these, as a share of the output's spread between them.

    Raises:
        ConfigError: ``target`` is not named ``.onnx``.
        ModelError: ``source`` is damaged, or the two differ by more than ``TOLERANCE`` or ``EIGHT_BIT_TOLERANCE``;
            nothing is written then.
    """
    if target.suffix != ".onnx":
        raise ConfigError(f"an ONNX file must be named .onnx to be found by its suffix, got {target}")
    model, spec = load_model(source)
    converted = _convert(model, spec, crops)
    differences: dict[str, float] = {}
    tolerance = TOLERANCE if crops is None else EIGHT_BIT_TOLERANCE

    def write(partial: Path) -> None:
        onnx.save(converted, partial)
        differences.update(parity(model, spec, partial) if crops is None else closeness(model, spec, partial, crops))
        if not all(difference <= tolerance for difference in differences.values()):  # a NaN fails too
            raise ModelError(f"{source} and its ONNX form differ by more than {tolerance:g}: {differences}")

    write_beside(target, write)
    return differences


def _convert(model: FaceModel, spec: ModelSpec, crops: np.ndarray | None) -> onnx.ModelProto:
    proto = _exported(fuse(model), spec)
    if crops is not None:
        alone = in_eight_bits(_exported(fuse(model, identity=False), replace(spec, locator=None)), crops)
        if spec.locator:
            _put_into_branch(proto, alone)
        else:
            proto = alone
    onnx.helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    return proto


def _exported(model: FaceModel, spec: ModelSpec) -> onnx.ModelProto:
    example = torch.zeros((2, spec.channels, spec.input_size, spec.input_size), dtype=torch.uint8)
    inputs = {INPUT: example, LOCATE: torch.tensor(True)} if spec.locator else {INPUT: example}
    shapes = {INPUT: {0: torch.export.Dim("batch", min=1)}, LOCATE: None}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            _Outputs(model, spec),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(spec.outputs()),
            dynamic_shapes=tuple(shapes[name] for name in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    RemoveUnusedNodesPass()(program.model)  # runtimes warn of constants that the exporter leaves behind a branch
    proto = program.model_proto
    _own_constants(proto.graph)
    _forget_origins(proto.graph)
    return proto


def _put_into_branch(proto: onnx.ModelProto, alone: onnx.ModelProto) -> None:
    """Let the branch that does not locate compute what a network without branches does."""
    (choice,) = (node for node in proto.graph.node if node.op_type == "If")
    (branch,) = (attribute.g for attribute in choice.attribute if attribute.name == "else_branch")
    # A name means one thing in a graph and all its branches; the picture is the whole graph's.
    graph = onnx.compose.add_prefix_graph(alone.graph, f"{branch.name}_", rename_inputs=False)
    graph.ClearField("input")
    graph.name = branch.name
    branch.CopyFrom(graph)


def _own_constants(graph: onnx.GraphProto) -> None:
    """Give each branch the constants that it reads.

    The exporter puts all of them beside the branches, where ONNX Runtime does not lay them out anew for the
    processor (its NchwcTransformer looks into a branch's own alone): the network took 1.5 times as long.
    """
    branches = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    if not branches:
        return
    constants = {constant.name: constant for constant in graph.initializer}
    read = {name for node in graph.node for name in node.input}
    for branch in branches:
        names = {name for node in branch.node for name in node.input}
        branch.initializer.extend(constants[name] for name in constants if name in names)
    kept = [constant for name, constant in constants.items() if name in read]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)


def _forget_origins(graph: onnx.GraphProto) -> None:
    """Leave out where in Python each node comes from: paths of the machine that exported, and a megabyte of them."""
    graph.ClearField("metadata_props")
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _forget_origins(attribute.g)


def parity(model: FaceModel, spec: ModelSpec, path: Path) -> dict[str, float]:
    """Output -> largest absolute difference between torch and the ONNX file, on seeded crops; its points also as the
    locator has them."""
    session, ours = OnnxSession(path), TorchSession(model, spec, torch.device("cpu"))
    rng = np.random.default_rng(0)
    names = list(spec.outputs())
    differences: dict[str, list[float]] = {name: [] for name in names}
    for count, locate in product(BATCHES, (False, True) if spec.locator else (False,)):
        shape = (count, spec.channels, spec.input_size, spec.input_size)
        crops = rng.integers(0, 256, shape, dtype=np.uint8)
        asked = [POINTS] if locate else names
        expected = ours.run(crops, asked, locate)
        for name, output in session.run(crops, asked, locate).items():
            differences[name].append(np.abs(output - expected[name]).max())
    return {name: float(np.max(values)) for name, values in differences.items()}


def closeness(model: FaceModel, spec: ModelSpec, path: Path, crops: np.ndarray) -> dict[str, float]:
    """Output -> root mean square difference between torch and the ONNX file, over the spread of torch's between crops
    (N, C, S, S)."""
    names = list(spec.outputs())
    expected = TorchSession(model, spec, torch.device("cpu")).run(crops, names)
    found = OnnxSession(path).run(crops, names)
    off = {name: np.sqrt(np.mean((found[name] - expected[name]) ** 2)) for name in names}
    return {name: float(off[name] / np.std(expected[name] - expected[name].mean(axis=0))) for name in names}
