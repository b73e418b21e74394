"""A two-task network small enough to work out by hand: features (w1 x, w2 x), one head a task that reads them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from facemtl.models.face_model import FaceModel
from facemtl.training.batches import Batch
from facemtl.training.recipe import Recipe
from facemtl.training.weighing.base import Weighing
from facemtl.training.weighing.registry import create_weighing

TASKS = ("smile", "glasses")


class ToyBackbone(nn.Module):
    """(N, 1) -> (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 1.0]))
        self.seen = nn.BatchNorm1d(1, affine=False)  # counts how often it was run

    def forward(self, x: Tensor) -> Tensor:
        self.seen(x)
        return x * self.weight


class ToyModel(FaceModel):
    """Reads numbers, not pictures."""

    def __init__(self, rows: Mapping[str, Sequence[float]]) -> None:
        heads = {task: nn.Linear(2, 1, bias=False) for task in rows}
        super().__init__(ToyBackbone(), heads)
        self.standardise = nn.Identity()
        with torch.no_grad():
            for task, row in rows.items():
                heads[task].weight.copy_(torch.tensor([row]))


def toy(weighing: str, rows: Sequence[Sequence[float]], **options: object) -> tuple[ToyModel, Weighing]:
    """The network whose task ``i`` has, for an input of 1, the loss rows[i] . (w1, w2), and so the gradient rows[i]
    on the features and on the shared parameters (w1, w2)."""
    tasks = (*TASKS, "gender")[: len(rows)]
    model = ToyModel(dict(zip(tasks, rows, strict=True)))
    recipe = Recipe(name="toy", tasks=tasks, passes=1, weighing=weighing, weighing_options=options)
    return model, create_weighing(recipe, model)


def toy_step(
    model: ToyModel, weighing: Weighing, missing: Sequence[str] = (), stopped: Sequence[str] = (), scale: float = 1.0
) -> Tensor:
    """One step's gradient on (w1, w2); tasks without a label have a loss of zero."""
    batch = toy_batch(model, missing)
    model.zero_grad(set_to_none=True)
    weighing.backward(toy_losses(model, missing, scale), batch, stopped)
    return model.backbone.weight.grad


def toy_batch(model: ToyModel, missing: Sequence[str] = ()) -> Batch:
    count = 2  # faces; batch normalisation wants two
    labels = {task: torch.full((count,), -1 if task in missing else 0) for task in model.tasks}
    return Batch(torch.ones(count, 1), labels)


def toy_losses(model: ToyModel, missing: Sequence[str] = (), scale: float = 1.0) -> dict[str, Tensor]:
    outputs = model.train()(toy_batch(model).images)
    return {task: scale * out.float().mean() * (task not in missing) for task, out in outputs.items()}
