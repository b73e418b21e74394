"""Which model a predictor opens, where it runs, and which of its tasks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from fake_network import (
    BOX,
    SIZE,
    TASKS,
    UPRIGHT,
    FakeDetector,
    FakeSession,
    full_session,
    noise,
    rich_session,
    spec,
)
from onnx import TensorProto, helper, numpy_helper

from facemtl.errors import ConfigError, DeviceError, ModelError
from facemtl.predictor import Predictor
from facemtl.weights import METADATA_KEY

# --- tasks, schemas, options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "computed"),
    [
        (None, TASKS),
        (["landmarks", "pose"], ("landmarks", "pose")),
        (["pose", "smile"], ("landmarks", "smile", "pose")),
        (["landmarks"], ("landmarks",)),
        ([], ("landmarks",)),
    ],
)
def test_tasks_leave_the_others_out(asked, computed):
    session = full_session()
    predict = Predictor(session, tasks=asked)
    (face,) = predict(noise(), BOX)
    assert predict.tasks == computed
    assert session.calls[0][1] == computed
    assert tuple(face.attributes) == computed[1:]
    assert tuple(face.to_dict()["attributes"]) == computed[1:]


def test_only_what_ends_in_a_face_is_asked_of_the_network():
    main = ("landmarks", "smile", "angles", "landmark_sigma")
    for asked, computed in (
        (None, main),
        (["angles"], ("landmarks", "angles", "landmark_sigma")),
        (["landmarks_ibug68", "smile"], ("landmarks", "smile", "landmark_sigma")),  # the schema says which points
        ([], ("landmarks", "landmark_sigma")),
    ):
        session = rich_session(passes=2)
        (face,) = Predictor(session, tasks=asked)(noise(), BOX)
        assert [names for _, names in session.calls] == [("landmarks",), computed]
        assert (face.pose is not None) == ("angles" in computed)
        assert list(face.attributes) == [name for name in computed if name == "smile"]


def test_a_further_schema_gives_its_points_where_the_main_ones_lay_the_crops():
    session = rich_session(passes=2)
    predict = Predictor(session, schema="ibug68")
    (face,) = predict(noise(), BOX)
    assert [names for _, names in session.calls] == [
        ("landmarks",),
        ("landmarks_ibug68", "smile", "angles", "landmarks"),
    ]
    assert face.schema == predict.schema == "ibug68"
    assert face.landmarks.shape == (68, 2)
    assert face.landmark_sigma is None
    five = Predictor(session)(noise(), BOX)[0]
    assert five.schema == "mtfl5"
    # Both lie in the same crop, in which the others run from -0.4 to 0.4 in x.
    expected = 0.8 / np.ptp(UPRIGHT[:, 0])
    assert np.ptp(face.landmarks[:, 0]) / np.ptp(five.landmarks[:, 0]) == pytest.approx(expected, rel=1e-4)


def test_a_model_without_points_gives_none():
    session = FakeSession(spec(("smile",)), smile=lambda crop: [1, 0])
    (face,) = Predictor(session)(noise(), BOX)
    assert face.landmarks.shape == (0, 2)
    assert face.to_dict()["landmarks"] == {}
    with pytest.raises(ModelError, match="later pass needs landmarks"):
        Predictor(session, passes=2)
    with pytest.raises(ModelError, match=r"tasks is empty.*smile"):
        Predictor(session, tasks=[])


def test_unknown_names_are_errors_that_list_the_known_ones(tmp_path):
    session = full_session()
    with pytest.raises(ModelError, match=r"'beard'.*landmarks, glasses, smile, gender, pose"):
        Predictor(session, tasks=["pose", "beard"])
    with pytest.raises(ModelError, match=r"'ibug68'.*mtfl5"):
        Predictor(session, schema="ibug68")
    with pytest.raises(ModelError, match=r"'wflw'.*mtfl5"):
        Predictor(session, schema="wflw")
    with pytest.raises(ModelError, match="fake has no schema 'wflw'; it has mtfl5, ibug68"):
        Predictor(rich_session(), schema="wflw")
    for device in ("gpu", "cuda:1", ""):
        with pytest.raises(DeviceError, match="cpu, cuda"):
            Predictor(session, device=device)
        with pytest.raises(DeviceError, match="cpu, cuda"):
            Predictor("tcdcn", device=device)
    with pytest.raises(ModelError, match=r"'resnet'.*known: "):
        Predictor("resnet")
    with pytest.raises(ModelError, match=r"gone\.onnx is missing"):
        Predictor(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match=r"gone\.safetensors is missing"):
        Predictor(tmp_path / "gone.safetensors")


def test_options_out_of_range():
    with pytest.raises(ModelError, match="0 passes"):
        Predictor(full_session(), passes=0)
    with pytest.raises(ConfigError, match="threads must be at least 1; got 0"):
        Predictor(full_session(), threads=0)


def test_passes_and_flip_override_the_model():
    session = full_session(passes=3, flip=True)
    assert (Predictor(session).spec.passes, Predictor(session).spec.flip) == (3, True)
    changed = Predictor(session, passes=1, flip=False)
    changed(noise(), BOX)
    assert len(session.calls) == 1
    assert len(session.calls[0][0]) == 1
    assert (session.spec.passes, session.spec.flip) == (3, True)


@pytest.mark.parametrize(
    ("task", "bad"),
    [(task, bad) for task in ("landmarks", "smile") for bad in (np.nan, np.inf, -np.inf)] + [("landmarks", 1e30)],
)
@pytest.mark.parametrize("passes", [1, 2])
def test_a_network_that_computes_nonsense_is_an_error(task, bad, passes):
    answers = {"landmarks": UPRIGHT.copy(), "smile": np.zeros(2)}
    answers[task].flat[1] = bad
    session = FakeSession(
        spec(("landmarks", "smile"), passes=passes, flip=True),
        landmarks=lambda crop: answers["landmarks"],
        smile=lambda crop: answers["smile"],
    )
    with pytest.raises(ModelError, match=f"fake is damaged: its {task}"):
        Predictor(session)(noise(), BOX)


# --- files, devices, threads ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """A network of one matrix a task, with two passes and flips."""
    rng = np.random.default_rng(0)
    pixels = SIZE * SIZE
    wanted = spec(("landmarks", "pose"), passes=2, flip=True)
    points = rng.standard_normal((pixels, 10)) / pixels
    logits = rng.standard_normal((pixels, 5)) / pixels**0.5
    arrays = {
        "flat": np.array([-1, pixels]),
        "five": np.array([-1, 5, 2]),
        "byte": np.float32(255),
        "w_points": np.float32(points),
        "w_pose": np.float32(logits),
        "face": np.float32(UPRIGHT),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "byte"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w_points"], ["moved"]),
        helper.make_node("Reshape", ["moved", "five"], ["shift"]),
        helper.make_node("Add", ["shift", "face"], ["landmarks"]),
        helper.make_node("MatMul", ["rows", "w_pose"], ["pose"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fake",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 1, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["n", 5, 2]),
            helper.make_tensor_value_info("pose", TensorProto.FLOAT, ["n", 5]),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: wanted.to_json()})
    path = tmp_path_factory.mktemp("model") / "fake.onnx"
    onnx.save(model, path)
    return path


def test_a_model_file_is_opened_by_its_path(onnx_file):
    image = noise()
    (face,) = Predictor(onnx_file)(image, BOX)
    (same,) = Predictor(str(onnx_file), threads=2)(image, BOX)
    np.testing.assert_allclose(face.landmarks, same.landmarks, atol=1e-3)
    assert list(face.attributes) == ["pose"]
    np.testing.assert_allclose(face.landmarks.mean(axis=0), [60, 50], atol=5)


def test_a_batch_through_onnx_equals_one_by_one(onnx_file):
    predict = Predictor(onnx_file)
    images = [noise(seed=seed) for seed in range(5)]
    together = predict.batch(images, [BOX] * 5)
    for image, (face,) in zip(images, together, strict=True):
        (alone,) = predict(image, BOX)
        np.testing.assert_allclose(alone.landmarks, face.landmarks, atol=1e-3)
        np.testing.assert_allclose(
            list(alone.attributes["pose"].probabilities.values()),
            list(face.attributes["pose"].probabilities.values()),
            atol=1e-5,
        )


def test_one_predictor_serves_eight_threads(onnx_file):
    detector = FakeDetector([[30, 20, 90, 80], [60, 40, 150, 130]], [0.9, 0.8])
    predict = Predictor(onnx_file, detector=detector)
    images = [noise(seed=seed) for seed in range(48)]
    expected = [[face.to_dict() for face in predict(image)] for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = [[face.to_dict() for face in faces] for faces in pool.map(predict, images)]
    assert found == expected


def test_a_device_that_is_not_there_is_an_error_and_never_the_cpu(onnx_file, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime reaches a GPU")
    with pytest.raises(DeviceError, match=r"'cuda'.*CPUExecutionProvider"):
        Predictor(onnx_file, device="cuda")
    with pytest.raises(DeviceError, match="a session runs where it was opened"):
        Predictor(full_session(), device="cuda")


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory):
    """An untrained network."""
    torch = pytest.importorskip("torch")
    from facemtl.models.factory import create_model
    from facemtl.models.files import save_model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("torch") / "model.safetensors"
    save_model(path, create_model("tcdcn", TASKS), spec(TASKS, backbone="tcdcn", flip=True))
    return path


def test_the_torch_file_of_a_model_raises_without_a_gpu(torch_file):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="no GPU"):
        Predictor(torch_file, device="cuda")
    (face,) = Predictor(torch_file)(noise(), BOX)
    assert np.isfinite(face.landmarks).all()


@pytest.mark.gpu
def test_cpu_and_gpu_agree(torch_file):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images, boxes = [noise(seed=seed) for seed in range(20)], [BOX] * 20
    cpu = Predictor(torch_file, device="cpu").batch(images, boxes)
    gpu = Predictor(torch_file, device="cuda").batch(images, boxes)
    for (a,), (b,) in zip(cpu, gpu, strict=True):
        np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.1)
        for task in TASKS[1:]:
            assert b.attributes[task].probabilities == pytest.approx(a.attributes[task].probabilities, abs=0.01)
