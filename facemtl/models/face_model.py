"""A backbone with a head a task: one image batch in, one dictionary of outputs out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

FLAT = 6.5  # variance in squared grey levels (of 255) below which a crop counts as flat, and its noise is not blown up


class Standardise(nn.Module):
    """uint8 pixels to float32 with mean 0 and variance 1 within each crop, whatever its light and contrast.

    Part of the network, so that training, ONNX and every other runtime cannot disagree about it.
    """

    def forward(self, images: Tensor) -> Tensor:
        return F.layer_norm(images.float(), images.shape[1:], eps=FLAT)


class PointsHead(nn.Module):
    """(N, features) -> (N, points, 2), x y: 0 is the middle of the crop, 1 its side."""

    def __init__(self, features: int, points: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * points)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, 2))


class FaceModel(nn.Module):
    """Hard parameter sharing: every head reads the same features.

    Args:
        backbone: a module with ``input_size``, ``channels`` and ``features``.
        heads: task name -> module from (N, features) to that task's output.
    """

    def __init__(self, backbone: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.standardise = Standardise()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.heads)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 crops (N, C, S, S), grey or BGR -> task name -> output.

        ``landmarks`` is (N, K, 2) in network coordinates (:func:`facemtl.geometry.points_to_crop`); every other task
        is (N, classes) logits.
        """
        features = self.backbone(self.standardise(images))
        return {name: head(features) for name, head in self.heads.items()}
