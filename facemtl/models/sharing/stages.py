"""Any backbone as an ordered list of stages, whose composition is the backbone: what every way of sharing is built on.

The forward pass is traced down to blocks (:mod:`torch.fx`) and cut where a single tensor is handed on. A stage begins
with a layer of weights; neighbours whose maps have the same side are one stage, so that a stage of a convolutional
network is a resolution and one of a transformer a block. What flattens a map belongs to the stage that reads it flat.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from facemtl.errors import ModelError

FACES = 2  # of the example that is traced: one would make a batch look like a dimension of size one


@dataclass(frozen=True, slots=True)
class Stages:
    """A backbone in pieces.

    Attributes:
        modules: their composition is the backbone; they hold its parameters, not copies.
        shapes: of the crop, then of what each stage gives, for one face: maps (C, H, W), tokens (T, C), a vector (F,).
    """

    modules: tuple[nn.Module, ...]
    shapes: tuple[tuple[int, ...], ...]


def stages_of(backbone: nn.Module) -> Stages:
    """Cut a backbone.

    Raises:
        ModelError: its forward pass depends on values and cannot be traced, its maps have their channels last, or
            there is no place to cut.
    """
    name = type(getattr(backbone, "body", backbone)).__name__
    if getattr(getattr(backbone, "body", None), "output_fmt", "NCHW") == "NHWC":
        raise ModelError(
            f"{name} keeps the channels of its maps last and cannot be cut into stages: set sharing = 'hard'"
        )
    training = backbone.training
    backbone.eval()
    try:
        tracer = _Tracer(torch.zeros(FACES, backbone.channels, backbone.input_size, backbone.input_size))
        with torch.no_grad():
            graph = tracer.trace(backbone)
    except (fx.proxy.TraceError, RuntimeError, TypeError, ValueError, NameError) as error:
        raise ModelError(f"{name} cannot be cut into stages: set sharing = 'hard' ({error})") from None
    finally:
        backbone.train(training)
    nodes = [node for node in graph.nodes if node.op not in ("get_attr", "output")]
    ends = _merged(nodes, _cuts(backbone, graph, nodes))
    if len(ends) < 2:
        raise ModelError(f"{name} has no place to be cut into stages: set sharing = 'hard'")
    shapes = [_shape(nodes[0]), *(_shape(nodes[end]) for end in ends)]
    for node in graph.nodes:
        node.meta.clear()
    starts = [0, *ends[:-1]]
    parts = [_part(backbone, nodes[a], nodes[a + 1 : b + 1]) for a, b in zip(starts, ends, strict=True)]
    return Stages(tuple(parts), tuple(shapes))


def run(stages: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """What the first of the stages is given, and what each of them gives."""
    given = [x]
    for stage in stages:
        given.append(stage(given[-1]))
    return given


class _Known(fx.Proxy):
    """A traced value whose shape is known, but for the size of the batch: sizes may steer the forward pass."""

    @property
    def shape(self) -> tuple[Any, ...]:
        sizes = tuple(self.node.meta["value"].shape)
        if self.node.op == "get_attr" or not sizes or sizes[0] != FACES:
            return sizes
        return self.tracer.create_proxy("call_method", "size", (self, 0), {}), *sizes[1:]

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.node.meta["value"].dim()

    @property
    def ndim(self) -> int:
        return self.dim()


class _Tracer(fx.Tracer):
    """Follows the forward pass into the network and its sequences, not into their blocks, on an example."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.example = example
        self.running = False  # a node, on the example: nothing is recorded meanwhile

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not (name == "body" or (type(module) is nn.Sequential and name.count(".") <= 1))

    def call_module(self, module: nn.Module, forward: Any, args: tuple, kwargs: dict) -> Any:
        slice_of_a_sequence = type(module) is nn.Sequential and all(module is not m for m in self.root.modules())
        if self.running or slice_of_a_sequence:
            return forward(*args, **kwargs)
        return super().call_module(module, forward, args, kwargs)

    def getattr(self, name: str, value: Any, cache: dict[str, fx.Proxy]) -> Any:
        return value if self.running else super().getattr(name, value, cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        def value(of: Any) -> Any:
            return fx.node.map_arg(of, lambda known: known.meta["value"])

        args, kwargs = value(node.args), value(node.kwargs)
        self.running = True
        if node.op == "placeholder":
            found = self.example
        elif node.op == "get_attr":
            found = _attribute(self.root, node.target)
        elif node.op == "call_module":
            found = self.root.get_submodule(node.target)(*args, **kwargs)
        elif node.op == "call_method":
            found = getattr(args[0], node.target)(*args[1:], **kwargs)
        else:
            found = node.target(*args, **kwargs)
        self.running = False
        node.meta["value"] = found
        return _Known(node, self)


def _attribute(root: nn.Module, name: str) -> Any:
    for part in name.split("."):
        root = getattr(root, part)
    return root


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["value"].shape[1:])


def _cuts(root: nn.Module, graph: fx.Graph, nodes: list[fx.Node]) -> list[int]:
    """Places of the nodes that end a stage; the last is the end of the backbone."""
    place = {node: i for i, node in enumerate(nodes)}
    (output,) = (node for node in graph.nodes if node.op == "output")
    last_use = [max((place.get(user, len(nodes)) for user in node.users), default=0) for node in nodes]
    alone = [all(last_use[j] <= i for j in range(i)) for i in range(len(nodes))]  # nothing but its value is handed on
    weighted = [node.op == "call_module" and _has_weights(root.get_submodule(node.target)) for node in nodes]
    ends, seen = [], False
    for i in range(1, len(nodes)):
        if not weighted[i]:
            continue
        end = i - 1
        while end and alone[end - 1] and _flattens(root, nodes[end]):
            end -= 1
        if seen and alone[end]:
            ends.append(end)
        seen = True
    return [*ends, place[output.args[0]]]


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters())


def _flattens(root: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(root.get_submodule(node.target), nn.Flatten)


def _merged(nodes: list[fx.Node], ends: list[int]) -> list[int]:
    """The ends without those that are followed by one whose map has the same side."""
    shapes = [_shape(nodes[end]) for end in ends]
    same = [len(a) == len(b) == 3 and a[1:] == b[1:] for a, b in pairwise(shapes)]
    return [end for end, merged in zip(ends, [*same, False], strict=True) if not merged]


def _part(root: nn.Module, given: fx.Node, nodes: list[fx.Node]) -> nn.Module:
    """The nodes as a module of their own, from the value of ``given`` to that of the last."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {given: graph.placeholder("x")}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:  # a parameter or buffer
            copies[node] = graph.node_copy(node)
        return copies[node]

    for node in nodes:
        copies[node] = graph.node_copy(node, copied)
    graph.output(copies[nodes[-1]])
    return fx.GraphModule(root, graph, class_name="Stage")


def channels_of(shape: tuple[int, ...]) -> int:
    """Of maps (C, H, W), tokens (T, C) or a vector (F,)."""
    return shape[0] if len(shape) == 3 else shape[-1]
