"""A trained network on torch, behind the same interface as ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from facemtl.errors import DeviceError
from facemtl.landmarks import POINTS
from facemtl.models.face_model import FaceModel
from facemtl.models.files import load_model
from facemtl.weights import ModelSpec


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` as a device; ``auto`` is the GPU where there is one.

    Raises:
        DeviceError: an unknown name, or ``cuda`` without a GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}; known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device 'cuda' was asked for, but torch finds no GPU here; use --device cpu or auto")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


class TorchSession:
    """See :class:`facemtl.session.Session`."""

    def __init__(self, model: FaceModel, spec: ModelSpec, device: torch.device) -> None:
        self.spec = spec
        self._device = device
        self._model = model.to(device).eval()

    @classmethod
    def load(cls, path: Path, device: str = "cpu", threads: int | None = None) -> TorchSession:
        """Open a safetensors file; ``threads`` sets torch's, which are one number for the whole process.

        Raises:
            ModelError, DeviceError: as :func:`load_model` and :func:`resolve_device`.
        """
        where = resolve_device(device)
        if threads is not None and where.type == "cpu":
            torch.set_num_threads(threads)
        return cls(*load_model(path), where)

    def run(self, crops: np.ndarray, names: Sequence[str], locate: bool = False) -> dict[str, np.ndarray]:
        images = torch.from_numpy(crops).to(self._device)
        with torch.inference_mode():
            outputs = {POINTS: self._model.locate(images)} if locate else self._model(images)
        return {name: outputs[name].cpu().numpy() for name in names}
