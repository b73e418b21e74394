"""Gradients of several losses on what their tasks share, and one direction put in their place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from facemtl.errors import ConfigError
from facemtl.models.face_model import OWN, FaceModel
from facemtl.models.heads import HeatmapHead
from facemtl.models.sharing.base import Sharing
from facemtl.training.distributed import current_world

ON = ("features", "parameters")


class Shared:
    """The shared part of a network.

    ``parameters``: all of them outside of the heads, of the refiner, and of what a task has for itself where not all
    is shared; every loss costs a backward pass through the network.
    ``features``: what the heads read (the last map where a head reads that), after Sener and Koltun, "Multi-Task
    Learning as Multi-Objective Optimization" (NeurIPS 2018): every loss costs a backward pass through its head, and
    one pass goes through the rest. Where tasks branch off it is what the branches read. A refiner reads maps that come
    before: what is read of them belongs to the features, with zeros for all tasks but the points. Losses of tasks that
    label different faces never conflict there.

    Raises ConfigError if all of it is frozen, or no features are common to the tasks.

    Rows are computed one after the other, which on a CPU costs half of batching them (``torch.vmap``) and has half of
    their memory.
    """

    def __init__(self, model: FaceModel, on: str) -> None:
        self.on = on
        sharing = model.backbone if isinstance(model.backbone, Sharing) else None
        inside = [p for name, p in model.named_parameters() if not name.startswith(OWN)]
        self.parameters = [p for p in inside if p.requires_grad]
        if not self.parameters:
            raise ConfigError("nothing that tasks share is trained: thaw some of it, or set weighing = 'fixed'")
        self.own = [p for name, p in model.named_parameters() if name.startswith(OWN) and p.requires_grad]
        self._features: list[Tensor] = []
        of_the_grid = [head for head in model.heads.values() if isinstance(head, HeatmapHead)]
        self._from_grid = bool(of_the_grid)
        if on == "features" and sharing:
            if sharing.trunk is None:
                raise ConfigError("tasks do not read the same features: set weighing_options.on = 'parameters'")
            sharing.trunk[-1].register_forward_hook(lambda _, __, features: self._note_features(features))
        elif on == "features":
            # A head that other outputs are fed to reads more than the features; in a cascade there is one that is not.
            unfed = [head for task, head in model.heads.items() if task not in model.cascade.feeds]
            (of_the_grid or unfed)[0].register_forward_pre_hook(self._note)
        if on == "features" and model.refiner:
            self._trunk = len(sharing.trunk) if sharing else None
            model.refiner.register_forward_pre_hook(self._note_maps)

    def _note(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = [inputs[1] if self._from_grid else inputs[0]]

    def _note_features(self, features: Tensor) -> None:
        self._features = [features]

    def _note_maps(
        self, _: nn.Module, inputs: tuple[Sequence[Tensor], Tensor, Tensor]
    ) -> tuple[Sequence[Tensor], Tensor, Tensor]:
        maps, *others = inputs
        (features,) = self._features
        # Views, through which nothing but the refiner's gradients go. Maps that are or follow the features need none.
        views = [early.view_as(early) for early in maps[: self._trunk] if early is not features]
        self._features.extend(views)
        return (*views, *maps[len(views) :]), *others

    def jacobian(self, losses: Sequence[Tensor]) -> Tensor:
        """float32 (losses, all shared numbers): their gradients for the whole batch; the graph stays."""
        inputs = self._features if self.on == "features" else self.parameters
        sizes = [i.numel() for i in inputs]
        rows = torch.zeros(len(losses), sum(sizes), device=inputs[0].device)
        for row, loss in zip(rows, losses, strict=True):
            parts = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
            for place, part in zip(row.split(sizes), parts, strict=True):
                if part is not None:
                    place.copy_(part.reshape(-1))
        return current_world().gradients(rows, self.on)

    def backward(self, losses: Sequence[Tensor], direction: Tensor) -> None:
        """Gradients of the sum of the losses after the shared part, and in it those that ``direction`` stands for."""
        total = torch.stack(list(losses)).sum()
        if self.on == "features":
            features, self._features = self._features, []
            own = current_world().own(direction).split([tensor.numel() for tensor in features])
            for tensor, part in zip(features, own, strict=True):
                tensor.register_hook(lambda old, part=part: part.view(old.shape).to(old.dtype))
            total.backward()
            return
        total.backward(inputs=self.own)
        for parameter, part in zip(self.parameters, direction.split([p.numel() for p in self.parameters]), strict=True):
            parameter.grad = part.view(parameter.shape).to(parameter.dtype)
