"""A network in whole numbers of 8 bits, for ONNX files: less than half the size, and half the time on a CPU that has
instructions for it (VNNI).

Static quantisation by ONNX Runtime (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018): the ranges of what layers give are those seen in real crops. Weights
have 7 bits: processors without instructions of their own for this add pairs of products in 16 bits, which 8 would
exceed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from tqdm import tqdm

from facemtl.data.sample import face_box, read_picture
from facemtl.data.sets import read_split
from facemtl.errors import DataError
from facemtl.models.session import TorchSession
from facemtl.predictor import Predictor
from facemtl.session import INPUT, Session

FACES = 512  # training faces that ranges are seen in
BATCH = 32
# Weights that a matrix product must have: smaller ones, the heads, gain no time that can be measured.
LARGE = 100_000
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # else it asks for the preparation that the export has done


class _Noted:
    """A session that keeps the crops which its network is given; those for its locator are not."""

    def __init__(self, session: Session) -> None:
        self.spec = session.spec
        self.crops: list[np.ndarray] = []
        self._session = session

    def run(self, crops: np.ndarray, names: Sequence[str], locate: bool = False) -> dict[str, np.ndarray]:
        if not locate:
            self.crops.append(crops)
        return self._session.run(crops, names, locate)


def training_crops(model: Path, data: str) -> np.ndarray:
    """uint8 (N, C, S, S), what the network of a file is given when it looks at ``FACES`` training faces of a set.

    Raises:
        DataError: the set is not there, or has no training faces.
        ImageError: a picture of it cannot be read.
        ModelError: the file is missing or damaged.
    """
    samples = read_split(data, "train")
    if not samples:
        raise DataError(f"{data} has no training faces, in which to see how large a network's numbers are")
    noted = _Noted(TorchSession.load(model))
    predict = Predictor(noted)
    for sample in tqdm(samples[:: -(-len(samples) // FACES)], desc="ranges", unit="face", disable=None):
        predict(read_picture(sample.image), face_box(sample)[None])
    return np.concatenate(noted.crops)


class _Batches(CalibrationDataReader):
    def __init__(self, crops: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(crops, -(-len(crops) // BATCH)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def in_eight_bits(network: onnx.ModelProto, crops: np.ndarray) -> onnx.ModelProto:
    """The same network, whose convolutions and large matrix products compute in whole numbers.

    The first convolution does not: of three channels it is slower in whole numbers, and it sees the picture itself.

    Args:
        network: without branches.
        crops: :func:`training_crops`.
    """
    weights = {constant.name: constant.dims for constant in network.graph.initializer}
    convolutions, products, stacked = [], [], []
    for node in network.graph.node:
        read = [name for name in node.input if name in weights]
        if node.op_type == "Conv":
            convolutions.append(node.name)
        elif node.op_type in ("Gemm", "MatMul") and any(np.prod(weights[name]) > LARGE for name in read):
            products.append(node.name)
            stacked += [name for name in read if len(weights[name]) > 2]
    # ONNX Runtime multiplies a stack of matrices in whole numbers only if all of it has one scale.
    one_scale = [{"quant_type": QuantType.QInt8, "symmetric": True, "reduce_range": True}]
    onnx.helper.set_model_props(network, PREPARED)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        quantize_static(
            network,
            target,
            _Batches(crops),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=convolutions[1:] + products,
            extra_options={"TensorQuantOverrides": dict.fromkeys(stacked, one_scale)},
        )
        return onnx.load(target)


def is_eight_bit(path: Path) -> bool:
    """Whether an ONNX file computes in whole numbers."""
    return _rounds(onnx.load(path).graph)


def _rounds(graph: onnx.GraphProto) -> bool:
    branches = (attribute.g for node in graph.node for attribute in node.attribute)
    return any(node.op_type == "QuantizeLinear" for node in graph.node) or any(_rounds(branch) for branch in branches)
