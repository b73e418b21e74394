"""Networks that run: ONNX Runtime on a graph computed by hand, torch on a model file, devices that are not there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from facemtl.errors import DeviceError, ModelError
from facemtl.models.factory import create_model
from facemtl.models.files import save_model
from facemtl.models.session import TorchSession, resolve_device
from facemtl.session import OnnxSession
from facemtl.weights import METADATA_KEY, ModelSpec

SPEC = ModelSpec(
    name="mean",
    backbone="none",
    schema="mtfl5",
    tasks=("landmarks", "smile"),
    attributes={"smile": ("smiling", "not_smiling")},
    input_size=4,
    channels=1,
    crop_scale=1.2,
)
CROPS = np.stack([np.full((1, 4, 4), 10, np.uint8), np.full((1, 4, 4), 30, np.uint8)])

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def write_graph(path: Path, metadata: dict[str, str]) -> Path:
    """A network whose every output is the mean pixel, plus 0 and 1 for smile."""

    def constant(name: str, values: list) -> TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=np.int64 if name.endswith("shape") else np.float32), name)

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Reshape", ["mean", "row_shape"], ["row"]),
            helper.make_node("Add", ["row", "offsets"], ["smile"]),
            helper.make_node("Expand", ["mean", "points_shape"], ["spread"]),
            helper.make_node("Reshape", ["spread", "landmarks_shape"], ["landmarks"]),
        ],
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 1, 4, 4])],
        [
            helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["n", 5, 2]),
            helper.make_tensor_value_info("smile", TensorProto.FLOAT, ["n", 2]),
        ],
        [
            constant("row_shape", [-1, 1]),
            constant("offsets", [[0, 1]]),
            constant("points_shape", [1, 1, 5, 2]),
            constant("landmarks_shape", [-1, 5, 2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.fixture
def graph(tmp_path) -> Path:
    return write_graph(tmp_path / "mean.onnx", {METADATA_KEY: SPEC.to_json()})


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    save_model(path, create_model("tcdcn", SPEC.tasks), replace(SPEC, backbone="tcdcn", input_size=40))
    return path


# --- ONNX Runtime ---


def test_a_graph_runs_on_any_number_of_crops(graph):
    session = OnnxSession(graph)
    assert session.spec == SPEC
    outputs = session.run(CROPS, ["landmarks", "smile"])
    np.testing.assert_array_equal(outputs["smile"], np.float32([[10, 11], [30, 31]]))
    np.testing.assert_array_equal(outputs["landmarks"], np.float32([10, 30])[:, None, None] * np.ones((2, 5, 2)))
    assert session.run(CROPS[:1], ["smile"])["smile"].shape == (1, 2)


def test_only_the_outputs_asked_for_come_back_in_their_order(graph):
    session = OnnxSession(graph)
    assert list(session.run(CROPS, ["smile"])) == ["smile"]
    assert list(session.run(CROPS, ["smile", "landmarks"])) == ["smile", "landmarks"]


@pytest.mark.parametrize("length", [0, 10, 100, -10])
def test_a_graph_cut_short_is_refused(graph, length):
    graph.write_bytes(graph.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"mean\.onnx (is not an ONNX model|does not carry)"):
        OnnxSession(graph)


def test_a_file_that_is_no_graph_or_not_there_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("no graph")
    for name in ("text.onnx", "nowhere.onnx"):
        with pytest.raises(ModelError, match=f"{name} is not an ONNX model that this onnxruntime can run"):
            OnnxSession(tmp_path / name)


@pytest.mark.parametrize("metadata", [{}, {METADATA_KEY: "{"}, {"other": "{}"}])
def test_a_graph_without_its_description_is_refused(tmp_path, metadata):
    with pytest.raises(ModelError, match=r"mean\.onnx does not carry a facemtl model description"):
        OnnxSession(write_graph(tmp_path / "mean.onnx", metadata))


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": ["landmarks"]},
        {"schema": "ibug68"},
        {"attributes": {"smile": ["yes", "no", "perhaps"]}},
        {"input_size": 8},
        {"channels": 3},
        {"uncertainty": True},
        {"tasks": ["landmarks", "smile", "angles"]},
        {"tasks": ["landmarks", "smile", "landmarks_ibug68"]},
    ],
)
def test_a_description_of_another_network_is_refused(tmp_path, changes):
    text = json.dumps({**json.loads(SPEC.to_json()), **changes})
    with pytest.raises(ModelError, match="is not the network that it describes"):
        OnnxSession(write_graph(tmp_path / "mean.onnx", {METADATA_KEY: text}))


def test_an_unknown_device_is_refused(graph):
    with pytest.raises(DeviceError, match="unknown device 'tpu'; known: cpu, cuda"):
        OnnxSession(graph, device="tpu")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_cuda_without_a_cuda_build_is_an_error_and_no_fallback(graph):
    with pytest.raises(DeviceError, match=r"device 'cuda': this onnxruntime offers .*CPUExecutionProvider"):
        OnnxSession(graph, device="cuda")


# --- torch ---


def test_a_model_file_runs_on_torch_behind_the_same_interface(model_file):
    session = TorchSession.load(model_file)
    crops = np.random.default_rng(0).integers(0, 256, (3, 1, 40, 40), dtype=np.uint8)
    outputs = session.run(crops, ["smile", "landmarks"])
    assert list(outputs) == ["smile", "landmarks"]
    assert {task: (o.shape, o.dtype) for task, o in outputs.items()} == {
        "smile": ((3, 2), np.float32),
        "landmarks": ((3, 5, 2), np.float32),
    }
    assert list(session.run(crops, ["smile"])) == ["smile"]
    np.testing.assert_allclose(session.run(crops[1:2], ["smile"])["smile"], outputs["smile"][1:2], atol=1e-6)


def test_threads_are_those_asked_for(model_file):
    before = torch.get_num_threads()
    try:
        TorchSession.load(model_file, threads=2)
        assert torch.get_num_threads() == 2
        TorchSession.load(model_file)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_devices_are_resolved_by_name():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto") == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(DeviceError, match="unknown device 'tpu'; known: auto, cpu, cuda"):
        resolve_device("tpu")


@without_gpu
def test_cuda_without_a_gpu_is_an_error_and_no_fallback(model_file):
    with pytest.raises(DeviceError, match="'cuda' was asked for, but torch finds no GPU here"):
        TorchSession.load(model_file, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_gpu_agree(model_file):
    crops = np.random.default_rng(0).integers(0, 256, (16, 1, 40, 40), dtype=np.uint8)
    on_cpu, on_gpu = (TorchSession.load(model_file, device).run(crops, SPEC.tasks) for device in ("cpu", "cuda"))
    for task in SPEC.tasks:
        np.testing.assert_allclose(on_gpu[task], on_cpu[task], rtol=0, atol=1e-3)
