"""Any timm model as a backbone: its pooled features."""

from __future__ import annotations

from difflib import get_close_matches

import timm
import torch
from torch import Tensor, nn

from facemtl.errors import ModelError


class TimmBackbone(nn.Module):
    """The timm model ``name`` without its classifier, on colour crops.

    Args:
        name: a name of ``timm.list_models()``.
        input_size: side of the crop; transformers with a fixed grid are built for it.
        pretrained: load timm's published weights (needs timm's own download or cache).

    Raises:
        ModelError: timm does not know the name, or the model cannot work at this input size.
    """

    def __init__(self, name: str, input_size: int = 64, pretrained: bool = False) -> None:
        super().__init__()
        if not timm.is_model(name.split(".")[0]):
            close = get_close_matches(name, timm.list_models())
            raise ModelError(f"timm has no model {name!r}; near it: {', '.join(close) or 'none'}")
        options = {"pretrained": pretrained, "num_classes": 0, "in_chans": 3}
        try:
            try:
                self.body = timm.create_model(name, img_size=input_size, **options)
            except TypeError:  # convolutional models take any size and no such argument
                self.body = timm.create_model(name, **options)
            self.features = self._count_features(input_size)
        except (RuntimeError, ValueError, AssertionError, OSError) as error:
            hint = (
                "; without a network, fetch its .safetensors file elsewhere and name it as init" if pretrained else ""
            )
            raise ModelError(
                f"timm/{name} cannot be built for {input_size} x {input_size} crops: {error}{hint}"
            ) from error
        self.input_size = input_size
        self.channels = 3

    def _count_features(self, size: int) -> int:
        # Some models widen the pooled features in a head of their own, so the width is read off an output.
        training = self.body.training
        self.body.eval()
        with torch.no_grad():
            width = self.body(torch.zeros(1, 3, size, size)).shape[1]
        self.body.train(training)
        return width

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, features)."""
        return self.body(images)
