"""A network that runs: uint8 crops in, one array an output out. ONNX Runtime here; the torch one is beside the models.

ONNX Runtime computes the whole graph whichever outputs are asked for: its option ``only_execute_path_to_fetches`` works
in training builds alone (microsoft/onnxruntime#16013; version 1.32 still runs every node of ours). Asking for fewer
outputs saves their copies only, so every head should be cheap beside the backbone. The locator, which only lays the
next crop, is the other branch of the graph, and an input chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from facemtl.errors import DeviceError, ModelError
from facemtl.weights import METADATA_KEY, ModelSpec

DEVICES = ("cpu", "cuda")
# Inputs of an exported network; its outputs are those of ModelSpec.outputs.
INPUT = "images"
LOCATE = "locate"  # a boolean scalar, where ModelSpec.locator


class Session(Protocol):
    """What the predictor needs of a runtime."""

    spec: ModelSpec

    def run(self, crops: np.ndarray, names: Sequence[str], locate: bool = False) -> dict[str, np.ndarray]:
        """uint8 crops (N, C, S, S) -> the float32 outputs of these names, as :meth:`ModelSpec.outputs` says.

        With ``locate`` only the locator runs, which the model must have: nothing but the main points is known then.
        """
        ...


def session_options(threads: int) -> ort.SessionOptions:
    """Options of every network here: so many CPU threads, which sleep while they have nothing to do.

    By default threads of a network go on spinning after it has run. The detector has three networks and there is one
    more, so that they took each other's cores: with two threads a frame of one tracked face took 7.5 ms, and takes 2.8.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxSession:
    """ONNX Runtime on one device.

    Args:
        path: an ONNX file exported by this package.
        device: ``cpu``, or ``cuda`` where onnxruntime-gpu is installed.
        threads: CPU threads of the network.

    Raises:
        ModelError: the file is damaged or not one of this package's.
        DeviceError: an unknown device, or ``cuda`` without a CUDA build and device.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int = 1) -> None:
        if device not in DEVICES:
            raise DeviceError(f"unknown device {device!r}; known: {', '.join(DEVICES)}")
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
        if provider not in ort.get_available_providers():
            raise DeviceError(f"device {device!r}: this onnxruntime offers {', '.join(ort.get_available_providers())}")
        try:
            self._session = ort.InferenceSession(str(path), session_options(threads), providers=[provider])
        except Exception as error:  # onnxruntime's own classes derive from Exception and nothing narrower
            raise ModelError(f"{path} is not an ONNX model that this onnxruntime can run: {error}") from None
        if provider not in self._session.get_providers():  # onnxruntime falls back to the CPU with a mere warning
            raise DeviceError(f"device {device!r}: onnxruntime found no usable CUDA device")
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            graph = [*self._session.get_inputs(), *self._session.get_outputs()]
            found = {value.name: value.shape[1:] for value in graph}
        except UnicodeDecodeError as error:
            raise ModelError(f"{path} is damaged: a name in it is no text: {error}") from None
        self.spec = ModelSpec.from_json(metadata.get(METADATA_KEY), path)
        described = {name: list(shape) for name, shape in self.spec.outputs().items()}
        described[INPUT] = [self.spec.channels, self.spec.input_size, self.spec.input_size]
        if self.spec.locator:
            described[LOCATE] = []
        if found != described:
            raise ModelError(f"{path} is not the network that it describes: it has {found}, expected {described}")

    def run(self, crops: np.ndarray, names: Sequence[str], locate: bool = False) -> dict[str, np.ndarray]:
        inputs = {INPUT: crops, LOCATE: np.array(locate)} if self.spec.locator else {INPUT: crops}
        return dict(zip(names, self._session.run(list(names), inputs), strict=True))
