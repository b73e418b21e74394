"""A backbone with a head a task: one image batch in, one dictionary of outputs out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from facemtl.landmarks import POINTS, SCHEMAS, schema_of
from facemtl.models.cascade import Cascade
from facemtl.models.refiner import LocalRefiner
from facemtl.models.sharing.base import Sharing
from facemtl.weights import SIGMA

FLAT = 6.5  # variance in squared grey levels (of 255) below which a crop counts as flat, and its noise is not blown up
LOGITS = f"{POINTS}_logits"  # outputs that only training sees
COARSE = f"{POINTS}_coarse"
OWN = ("heads.", "refiner.", "backbone.own.")  # names of parameters that one task has for itself begin so


class Standardise(nn.Module):
    """uint8 pixels to float32 with mean 0 and variance 1 within each crop, whatever its light and contrast.

    Part of the network, so that training, ONNX and every other runtime cannot disagree about it.
    """

    def forward(self, images: Tensor) -> Tensor:
        return F.layer_norm(images.float(), images.shape[1:], eps=FLAT)


class FaceModel(nn.Module):
    """A head a task on a backbone that they all share, or on what they share in another way.

    Args:
        backbone: a module with ``input_size``, ``channels`` and ``features``; if a head reads the grid, also the two
            halves of its forward pass, ``maps`` and ``vector`` (:class:`facemtl.models.gridnet.GridNet`). Or a
            :class:`facemtl.models.sharing.base.Sharing`, which gives each head features of its own.
        heads: task name -> points head (:mod:`facemtl.models.heads`) for points, else a module from (N, features) to
            that task's output.
        refiner: moves the main points by what the first two maps that their head's task reads show around them, and by
            the features of that task, or None.
        cascade: which heads also read what others have said, or None.
        locator: a far smaller network of crops whose side is a whole fraction of these, whose main points are good
            enough to lay the crop through, or None.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Mapping[str, nn.Module],
        refiner: LocalRefiner | None = None,
        cascade: Cascade | None = None,
        locator: FaceModel | None = None,
    ) -> None:
        super().__init__()
        self.standardise = Standardise()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.refiner = refiner
        self.cascade = cascade or Cascade(tuple(heads), {})
        self.locator = locator

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.heads)

    def locate(self, images: Tensor) -> Tensor:
        """uint8 crops (N, C, S, S) -> (N, K, 2) what the locator says of the main points, in network coordinates."""
        images = images.float()
        return self.locator(F.avg_pool2d(images, images.shape[-1] // self.locator.backbone.input_size))[POINTS]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 crops (N, C, S, S), grey or BGR -> name -> output.

        ``landmarks`` and points of further schemas are (N, K, 2) in network coordinates
        (:func:`facemtl.geometry.points_to_crop`), ``landmark_sigma`` (N, K) likewise, ``angles`` (N, 3) degrees; every
        other task is (N, classes) logits.
        """
        images = self.standardise(images)
        if isinstance(self.backbone, Sharing):
            read = self.backbone.by_task(images)
        elif hasattr(self.backbone, "maps"):
            maps = self.backbone.maps(images)
            read = dict.fromkeys(self.heads, (images, *maps, self.backbone.vector(maps[-1])))
        else:
            read = dict.fromkeys(self.heads, (None, self.backbone(images)))
        outputs: dict[str, Tensor] = {}
        for task in self.cascade.order:
            *_, grid, vector = read[task]
            vector = self.cascade.features(task, vector, outputs)
            if schema_of(task, next(iter(SCHEMAS))) is None:
                outputs[task] = self.heads[task](vector)
                continue
            outputs[task], sigma, logits = self.heads[task](vector, grid)
            if sigma is not None:
                outputs[SIGMA] = sigma
            if logits is not None:
                outputs[LOGITS] = logits
        outputs = self.cascade.in_order_of_tasks(outputs)
        if self.refiner is not None:
            # The head and the features learn from the head's points, not through what the refiner makes of them.
            coarse = outputs[POINTS]
            outputs[POINTS] = self.refiner(read[POINTS][1:3], read[POINTS][-1].detach(), coarse.detach())
            if self.training:
                outputs[COARSE] = coarse
        return outputs
