"""What every way of weighing tasks has in common: which tasks a step has, and what the log says of their weights."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

import torch
from torch import Tensor, nn

from facemtl.landmarks import POINTS
from facemtl.models.face_model import FaceModel
from facemtl.training.batches import Batch, known_faces


class Weighing(nn.Module):
    """Turns the losses of a step into gradients; parameters it may have are trained by the network's optimiser.

    A task's loss is the sum of its outputs' losses, each times its fixed factor (what a head gives beside the
    points counts as the points). A task takes part in a step if it has not left early, its factor is not 0 and the
    batch has a label or a teacher's word for it; else the step happens as if the training did not know it: its head
    stays where it is, and so does what is remembered of it.

    Args:
        tasks: of the network, in its order.
        factors: output -> fixed factor of its loss; 1 where not named.
        model: the network, in training.
    """

    looks_again = False  # whether :meth:`look_again` wants to be called after the parameters have moved

    def __init__(self, tasks: Sequence[str], factors: Mapping[str, float], model: FaceModel) -> None:
        super().__init__()
        self.tasks, self.factors = tuple(tasks), dict(factors)
        self.latest: dict[str, Tensor] = {}  # task -> its weight in the last step; empty where all have 1
        self._model = (model,)  # in a tuple: the network is no part of this module
        self.register_buffer("weight_sums", torch.zeros(len(self.tasks), dtype=torch.float64))
        self.register_buffer("weight_counts", torch.zeros(len(self.tasks), dtype=torch.float64))

    @property
    def model(self) -> FaceModel:
        return self._model[0]

    def backward(self, losses: Mapping[str, Tensor], batch: Batch, stopped: Container[str]) -> None:
        """Leave the gradients of one step.

        Args:
            losses: output -> unweighted loss, a scalar with a graph.
            batch: what they were computed on.
            stopped: tasks that have left early.
        """
        here = self.taking_part(losses, batch, stopped)
        if not here:
            return
        weights = self.combine(here).detach().double()
        self.latest = dict(zip(here, weights, strict=True))
        places = self.places(here)
        self.weight_sums.index_add_(0, places, weights)
        self.weight_counts.index_add_(0, places, torch.ones_like(weights))

    def combine(self, losses: dict[str, Tensor]) -> Tensor:
        """Backward pass of the losses, one or more, of the tasks that take part; returns their weights (T,)."""
        raise NotImplementedError

    def look_again(self, losses: Callable[[], Mapping[str, Tensor]], batch: Batch, stopped: Container[str]) -> None:
        """Be given the way to the losses of the same batch with the parameters moved; asked for by ``looks_again``."""
        raise NotImplementedError

    def finish_epoch(self, heldout: Mapping[str, float]) -> dict[str, float]:
        """End an epoch; returns ``weight/<task>``, the mean over the steps it took part in, 0 if there was none.

        Args:
            heldout: output -> unweighted loss on the held-out faces of the main set.
        """
        means = (self.weight_sums / self.weight_counts.clamp(min=1)).tolist()
        self.weight_sums.zero_()
        self.weight_counts.zero_()
        return {f"weight/{task}": mean for task, mean in zip(self.tasks, means, strict=True)}

    def memory(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        return dict(self.state_dict())

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Put :meth:`memory` back.

        Raises:
            RuntimeError: it is of another method.
        """
        self.load_state_dict(dict(memory))

    def taking_part(self, losses: Mapping[str, Tensor], batch: Batch, stopped: Container[str]) -> dict[str, Tensor]:
        """Task -> loss of the tasks that take part in this step, in the order of the tasks."""
        sums: dict[str, Tensor] = {}
        for name, loss in losses.items():
            task = name if name in self.tasks else POINTS
            factor = self.factors.get(name, 1.0)
            if factor and task not in stopped:
                sums[task] = sums[task] + factor * loss if task in sums else factor * loss
        if not sums:
            return {}
        counts = torch.stack(  # one wait for the device, not one a task
            [sum(known_faces(aims[task]) for aims in (batch.targets, batch.taught) if task in aims) for task in sums]
        ).tolist()
        known = {task for task, count in zip(sums, counts, strict=True) if count}
        return {task: sums[task] for task in self.tasks if task in known}

    def places(self, tasks: Mapping[str, Tensor]) -> Tensor:
        """Where tasks stand among all: int64 (T,)."""
        return torch.tensor([self.tasks.index(task) for task in tasks], device=self.weight_sums.device)
