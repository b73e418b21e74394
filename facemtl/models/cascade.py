"""Cascades: a task's head also reads what other tasks' heads have said, such as points that know of the pose.

Sun, Wang and Tang, "Deep Convolutional Network Cascade for Facial Point Detection" (CVPR 2013) for stages of points;
here a stage is a task, as in Dai, He and Sun, "Instance-aware Semantic Segmentation via Multi-task Network Cascades"
(CVPR 2016). Points are read as coordinates, classes as probabilities, angles in units of :data:`DEGREES`; a refiner
comes after all heads, so that points are read as their head gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import torch
from torch import Tensor

from facemtl.errors import ModelError
from facemtl.face import ANGLES, ANGLES_TASK
from facemtl.landmarks import POINTS, SCHEMAS, schema_of
from facemtl.models.heads import DEGREES


def cascade_order(tasks: Sequence[str], feeds: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The tasks, those that feed others before them, and otherwise in their own order.

    Args:
        tasks: of the network.
        feeds: task -> the tasks whose outputs its head reads.

    Raises:
        ModelError: a task that the network does not have, one named twice, or a cycle; the cycle is spelled out.
    """
    for task, before in feeds.items():
        before = list(before)
        strangers = [name for name in (task, *before) if name not in tasks]
        if strangers:
            raise ModelError(f"cascade.{task} = {before}: {strangers[0]!r} is not among the tasks {', '.join(tasks)}")
        if not before or len(set(before)) != len(before):
            raise ModelError(f"cascade.{task} = {before}: expected one or more tasks, each once")
    sorter = TopologicalSorter({task: feeds.get(task, ()) for task in tasks})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ModelError(f"the cascade goes round in a circle, {circle}: take one of these tasks out of it") from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=list(tasks).index)
        order += ready
        sorter.done(*ready)
    return tuple(order)


class Cascade:
    """Which heads read which outputs.

    Args:
        tasks: of the network.
        feeds: task -> the tasks whose outputs its head reads beside the features.
        gradients: whether losses also go back through what was read. Without, each head learns from its own labels
            alone, and a task without a label is not moved by those that read it.

    Raises:
        ModelError: as :func:`cascade_order`.
    """

    def __init__(self, tasks: Sequence[str], feeds: Mapping[str, Iterable[str]], gradients: bool = False) -> None:
        self.tasks = tuple(tasks)
        self.order = cascade_order(tasks, feeds)
        self.feeds = {task: tuple(before) for task, before in feeds.items()}
        self.gradients = gradients

    def features(self, task: str, vector: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """What the head of a task reads (N, F + what is fed): its features, and outputs of tasks before it."""
        fed = [_readable(name, outputs[name]) for name in self.feeds.get(task, ())]
        if not fed:
            return vector
        fed = [value if self.gradients else value.detach() for value in fed]
        return torch.cat([vector, *(value.to(vector.dtype) for value in fed)], dim=1)

    def in_order_of_tasks(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs in the order of the tasks; what a head gives beside the main points follows them."""
        of = {name: self.tasks.index(name if name in self.tasks else POINTS) for name in outputs}
        return {name: outputs[name] for name in sorted(outputs, key=of.__getitem__)}


def width_of(task: str, schema: str, attributes: Mapping[str, Sequence[str]]) -> int:
    """How many numbers of a task's output another head reads."""
    points = schema_of(task, schema)
    if points:
        return 2 * len(SCHEMAS[points])
    return len(ANGLES if task == ANGLES_TASK else attributes[task])


def _readable(task: str, output: Tensor) -> Tensor:
    """(N, numbers), about as large as features are."""
    if schema_of(task, next(iter(SCHEMAS))) is not None:
        return output.flatten(1)
    return output / DEGREES if task == ANGLES_TASK else output.softmax(dim=1)
