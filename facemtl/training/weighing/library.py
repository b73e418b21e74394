"""Methods of the library torchjd, by the names of its classes: of losses (scalarizers) and of gradients (aggregators).

A method that has no memory serves any number of tasks. One that has is kept once for every set of tasks that take
part together, so that a task without a label in a batch leaves no trace; UW and IMTL-L, which treat every task by
itself, are kept once a task. Their classes are used as they are; only their memory is read and put back here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from facemtl.errors import DependencyError
from facemtl.landmarks import POINTS
from facemtl.models.face_model import FaceModel
from facemtl.training.batches import Batch
from facemtl.training.weighing.base import Weighing
from facemtl.training.weighing.library_memory import put_back, remembered
from facemtl.training.weighing.shared import Shared

Make = Callable[[int], nn.Module]


def library_class(room: str, name: str) -> type[nn.Module]:
    """A class of ``torchjd.<room>``.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return getattr(import_module(f"torchjd.{room}"), name)
    except ImportError:
        raise DependencyError(
            f"the weighing {name} is torchjd's, which is not installed: pip install 'torchjd[full]==0.18.*'"
        ) from None


class OneATask(Weighing):
    """A scalarizer that is a sum over tasks, with a learned number a task (UW, IMTL-L)."""

    def __init__(self, tasks: Sequence[str], factors: Mapping[str, float], model: FaceModel, make: Make) -> None:
        super().__init__(tasks, factors, model)
        self.scalarizers = nn.ModuleDict({task: make(1) for task in tasks})

    def combine(self, losses: dict[str, Tensor]) -> Tensor:
        parts = [self.scalarizers[task] for task in losses]
        return _scalarized(
            lambda ends: sum(part(end) for part, end in zip(parts, ends.split(1), strict=True)), list(losses.values())
        )


class _Sets(Weighing):
    """An instance of a library's method for every set of tasks that took part together."""

    def __init__(self, tasks: Sequence[str], factors: Mapping[str, float], model: FaceModel, make: Make) -> None:
        super().__init__(tasks, factors, model)
        self._make = make
        self._instances: dict[tuple[str, ...], nn.Module] = {}

    def instance(self, tasks: tuple[str, ...]) -> nn.Module:
        if tasks not in self._instances:
            self._instances[tasks] = self._make(len(tasks)).to(self.weight_sums.device)
        return self._instances[tasks]

    def memory(self) -> dict[str, Tensor]:
        kept = {
            f"set.{'+'.join(tasks)}.{name}": value
            for tasks, instance in self._instances.items()
            for name, value in remembered(instance).items()
        }
        return super().memory() | kept

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        own = {name: value for name, value in memory.items() if not name.startswith("set.")}
        super().recall(own)
        sets: dict[tuple[str, ...], dict[str, Tensor]] = {}
        for name in memory.keys() - own.keys():
            _, tasks, part = name.split(".", 2)
            sets.setdefault(tuple(tasks.split("+")), {})[part] = memory[name]
        for tasks, parts in sets.items():
            put_back(self.instance(tasks), len(tasks), parts, self.weight_sums.device)


class Scalarized(_Sets):
    """One number of all losses, and its gradient.

    FAMO looks at the losses a second time, after the step; batch normalisation's running means are not moved by that.
    """

    def __init__(self, tasks: Sequence[str], factors: Mapping[str, float], model: FaceModel, make: Make) -> None:
        super().__init__(tasks, factors, model, make)
        self.looks_again = hasattr(make(2), "update")

    def combine(self, losses: dict[str, Tensor]) -> Tensor:
        return _scalarized(self.instance(tuple(losses)), list(losses.values()))

    @torch.no_grad()
    def look_again(self, losses: Callable[[], Mapping[str, Tensor]], batch: Batch, stopped: Container[str]) -> None:
        before = [buffer.clone() for buffer in self.model.buffers()]
        here = self.taking_part(losses(), batch, stopped)
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)
        if here:
            self.instance(tuple(here)).update(torch.stack(list(here.values())))

    def finish_epoch(self, heldout: Mapping[str, float]) -> dict[str, float]:
        for instance in self._instances.values():
            if hasattr(instance, "step"):  # DWA
                instance.step()
        return super().finish_epoch(heldout)


class Aggregated(_Sets):
    """One direction of all gradients; the points, if they take part, are the first row.

    The weights in the log are those with which the gradients sum up to the direction, as nearly as they can: it is
    exact but for methods that choose coordinate by coordinate (GradDrop, TrimmedMean). A step with one task follows
    that task's gradient.

    Args:
        on: what is differentiated, see :class:`facemtl.training.weighing.shared.Shared`.
    """

    def __init__(
        self, tasks: Sequence[str], factors: Mapping[str, float], model: FaceModel, make: Make, on: str
    ) -> None:
        super().__init__(tasks, factors, model, make)
        self.shared = Shared(model, on)

    def combine(self, losses: dict[str, Tensor]) -> Tensor:
        if len(losses) == 1:
            (loss,) = losses.values()
            loss.backward()
            return torch.ones(1, device=loss.device)
        order = sorted(losses, key=lambda task: task != POINTS)  # stable: the points first, the others as they were
        rows = self.shared.jacobian([losses[task] for task in order])
        direction = self.instance(tuple(order))(rows)
        self.shared.backward(list(losses.values()), direction)
        exact = rows.double()
        weights = torch.linalg.pinv(exact @ exact.T, hermitian=True) @ (exact @ direction.double())
        return torch.stack([weights[order.index(task)] for task in losses])


def _scalarized(scalarizer: Callable[[Tensor], Tensor], losses: Sequence[Tensor]) -> Tensor:
    """Backward pass of a scalarizer; returns its derivatives by the losses, which are their weights."""
    values = torch.stack(list(losses))
    ends = values.detach().requires_grad_()
    scalarizer(ends).backward()
    values.backward(ends.grad)
    return ends.grad


def with_options(room: str, name: str, **always: Any) -> Callable[..., Make]:
    """How to make instances of a class: options -> number of tasks -> instance; an ``always`` value may be a function
    of the number of tasks."""

    def chosen(**options: Any) -> Make:
        kind = library_class(room, name)
        return lambda count: kind(**options, **{key: value(count) for key, value in always.items()})

    return chosen
