"""One training on several processes: what they exchange, so that it is the training that one process would do.

    torchrun --nproc-per-node=2 tools/train.py tools/recipes/tcdcn.toml

Every worker has the whole network and runs an equal part of each batch through it. Then the *outputs* are gathered, a
few hundred numbers a face, and every worker computes the losses of the whole batch from them: means over known labels,
curricula, weighings that look at losses and counts in the log are those of one process by construction, and no count of
labels is exchanged. A worker's graph leads to its own faces alone, so gradients are averaged over the workers, those of
each task (:class:`facemtl.training.weighing.shared.Shared`) before anything is made of them, and the gradients of the
parameters before the optimiser moves: all workers then take the same step. The gathering counts a worker's own faces
as often as there are workers, so that these averages are the gradients of the whole batch, while what a loss takes
from parameters directly, which every worker has in full, is not multiplied.

What differs from one process: sums are added in another order (the last bits); batch normalisation sees a worker's own
faces (its running means are averaged); dropout, and disturbances made on the device, are drawn by each worker.

The first worker alone writes files and looks at held-out faces. If a worker ends, the others say so and end too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from facemtl.errors import ConfigError, FaceMTLError

T = TypeVar("T")
CONTINUES = "the same torchrun command continues from the last checkpoint"


class WorkerLost(FaceMTLError):
    """A worker of a training on several processes has ended before the training."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a training, of which this is one.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def part(self, faces: int) -> slice:
        """This worker's faces of a batch.

        Raises:
            ConfigError: they cannot be dealt out evenly.
        """
        if faces % self.size:
            raise ConfigError(f"batch_size = {faces} cannot be dealt out to {self.size} workers: set a multiple of it")
        each = faces // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gathered(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name -> output (n, ...) of a worker's own faces -> of all faces (size n, ...), with gradients as above."""
        if self.size == 1:
            return dict(outputs)
        own = torch.cat([output.detach().flatten(1) for output in outputs.values()], dim=1)
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with _together():
            dist.all_gather(parts, own)
        whole = torch.cat(parts).split([output[0].numel() for output in outputs.values()], dim=1)
        # Each by itself: a task that takes no part in a step must leave no gradient, not even one of zeros.
        return {
            name: _Whole.apply(output, part.unflatten(1, output.shape[1:]), self)
            for (name, output), part in zip(outputs.items(), whole, strict=True)
        }

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over the workers in the place of each tensor, all of one type."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _together():
            dist.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def gradients(self, rows: Tensor, on: str) -> Tensor:
        """(T, own numbers) gradients of the tasks -> those of the whole batch.

        Args:
            rows: on ``parameters``, or on the ``features`` of a worker's own faces: then those of all faces follow each
                other in the rows.
        """
        if self.size == 1:
            return rows
        if on == "parameters":
            self.average([rows])
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        with _together():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts, dim=1) / self.size

    def own(self, direction: Tensor) -> Tensor:
        """This worker's part of a direction (all numbers,) on features, so that averages give the whole."""
        return direction if self.size == 1 else direction.chunk(self.size)[self.rank] * self.size

    def agree(self, parameters: Sequence[Tensor], buffers: Sequence[Tensor]) -> None:
        """Average gradients, where there are any, and the buffers of floating point (running means)."""
        self.average([parameter.grad for parameter in parameters if parameter.grad is not None])
        self.average([buffer for buffer in buffers if buffer.is_floating_point()])

    def any(self, here: bool) -> bool:
        """Whether it is so for any worker."""
        if self.size == 1:
            return here
        flag = torch.tensor([float(here)])
        with _together():
            dist.all_reduce(flag)
        return bool(flag)

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first worker makes, for all; its :class:`FaceMTLError` is raised in all."""
        if self.size == 1:
            return make()
        made: list[Any] = [None, None]
        if self.leads:
            try:
                made[0] = make()
            except FaceMTLError as error:
                made[1] = error
        with _together():
            dist.broadcast_object_list(made)
        if made[1] is not None:
            raise made[1]
        return made[0]

    @contextmanager
    def first(self) -> Iterator[None]:
        """The first worker does what is within, then the others do: they find the files that it wrote."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def wait(self) -> None:
        """Until all workers are here."""
        self.any(False)

    @contextmanager
    def own_draws(self, device: torch.device) -> Iterator[None]:
        """Within, torch's random numbers are this worker's own; the first one's are those of a training alone."""
        if self.size == 1:
            yield
            return
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(torch.initial_seed() + self.rank)
            yield


class _Whole(torch.autograd.Function):
    """The outputs of all faces, in the order of the workers; the gradient is that of this worker's own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, whole: Tensor, world: World) -> Tensor:
        ctx.world = world
        return whole.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.chunk(ctx.world.size)[ctx.world.rank] * ctx.world.size, None, None


def current_world() -> World:
    """The processes that :func:`joined` has joined; this one alone without."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextmanager
def joined() -> Iterator[World]:
    """Within, this process is one of those that torchrun has started; without torchrun it is alone.

    Gloo on a CPU; on GPUs NCCL, and each worker of a machine has its own.

    Raises:
        WorkerLost: another worker has ended, or torchrun ends this one because of that.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield World()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    with _together():
        dist.init_process_group(backend)
    before = signal.signal(signal.SIGTERM, _ended_by_torchrun)
    try:
        yield current_world()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending, and torchrun need not say so again
        dist.destroy_process_group()
        signal.signal(signal.SIGTERM, before)


def _ended_by_torchrun(*_: object) -> None:
    raise WorkerLost(f"torchrun ends this worker, as it does when another one has ended; {CONTINUES}")


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise WorkerLost(f"another worker of this training has ended or cannot be reached; {CONTINUES}") from error
