"""The command line as a user meets it: help, results, one sentence and exit code 2 for what goes wrong."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import pytest

from facemtl import cli
from facemtl.errors import ModelError
from facemtl.face import Attribute, Face, Pose
from facemtl.image import read_image, write_image

ROOT = Path(__file__).parents[1]


def make_face(box: Sequence[float], **fields) -> Face:
    x1, y1, x2, y2 = box
    smile = Attribute("not_smiling", 0.9, MappingProxyType({"smiling": 0.1, "not_smiling": 0.9}))
    points = [[x1, y1], [x2, y1], [(x1 + x2) / 2, (y1 + y2) / 2], [x1, y2], [x2, y2]]
    values = {"score": 0.875, "landmarks": np.float32(points), "schema": "mtfl5", "attributes": {"smile": smile}}
    return Face(np.float32(box), **(values | fields))


def fake_predict(image: np.ndarray, boxes: Sequence[Sequence[float]] | None = None) -> list[Face]:
    """One face in the middle of the picture, or one for each box."""
    height, width = image.shape[:2]
    return [make_face(box) for box in boxes or [[width // 4, height // 4, width // 2, height // 2]]]


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """The command line gets :func:`fake_predict`; the options that it asked for are collected."""
    asked: list[argparse.Namespace] = []
    monkeypatch.setattr(cli, "load_predictor", lambda args: asked.append(args) or fake_predict)
    return asked


@pytest.fixture
def photo(tmp_path: Path) -> str:
    write_image(tmp_path / "photo.png", np.full((80, 100, 3), 90, np.uint8))
    return str(tmp_path / "photo.png")


def run_facemtl(*args: str, script: Path | None = None) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own."""
    start = ["-m", "facemtl"] if script is None else [str(script)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *start, *args], env=env, capture_output=True, text=True, timeout=60)


def assert_one_sentence(stderr: str, *words: str) -> None:
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("facemtl: ")
    for word in words:
        assert word in stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--help"], ["predict", "demo", "models"]),
        (["predict", "--help"], ["examples:", "--boxes", "--json", "--tasks", "--schema"]),
        (["demo", "--help"], ["examples:", "--headless", "--jsonl", "--max-frames", "--no-tracking", "q or Esc"]),
        (["models", "--help"], ["models"]),
    ],
)
def test_help_is_worth_reading(args: list[str], words: list[str]) -> None:
    done = run_facemtl(*args)
    assert done.returncode == 0
    assert done.stderr == ""
    for word in words:
        assert word in done.stdout


def test_help_loads_neither_opencv_nor_onnxruntime() -> None:
    code = (
        "import sys; from facemtl.cli import main\n"
        "try: main(['demo', '--help'])\n"
        "except SystemExit: print([name for name in ('cv2', 'onnxruntime', 'torch') if name in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "args", [[], ["sever"], ["predict"], ["demo", "--max-frames", "0"], ["demo", "--threads", "x"]]
)
def test_misspelt_commands_show_the_usage(args: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(args)
    assert "usage: facemtl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [["predict", "nowhere.png"], ["demo", "nowhere.mp4"], ["demo", "nowhere", "--headless"]]
)
def test_a_missing_file_is_one_sentence(args: list[str]) -> None:
    done = run_facemtl(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert_one_sentence(done.stderr, args[1])


def test_a_missing_camera_is_one_sentence_also_from_the_script() -> None:
    done = run_facemtl("99", "--headless", script=ROOT / "tools" / "demo.py")
    assert done.returncode == 2
    assert_one_sentence(done.stderr, "camera 99 cannot be opened")


def test_a_damaged_video_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    done = run_facemtl("demo", str(tmp_path / "a.mp4"), "--headless")
    assert done.returncode == 2
    assert_one_sentence(done.stderr, "a.mp4 cannot be opened as a video")


def test_predict_prints_a_table(predictor: list, photo: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["predict", photo]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{photo}: 1 face",
        "face  score  box x1 y1 x2 y2  smile",
        "1     0.88   25 20 50 40      not_smiling 90%",
        "      left_eye 25.0 20.0, right_eye 50.0 20.0, nose_tip 37.5 30.0, "
        "left_mouth_corner 25.0 40.0, right_mouth_corner 50.0 40.0",
    ]


def test_the_table_has_the_columns_that_the_model_has() -> None:
    assert cli.face_table("a.png", []) == "a.png: 0 faces"
    points = np.zeros((68, 2), np.float32)
    face = make_face([1, 2, 3, 4], schema="ibug68", landmarks=points, attributes={}, pose=Pose(10.4, -3.0, 0.0))
    assert cli.face_table("a.png", [face, face]).splitlines() == [
        "a.png: 2 faces",
        "face  score  box x1 y1 x2 y2  yaw pitch roll",
        "1     0.88   1 2 3 4          +10 -3 +0",
        "2     0.88   1 2 3 4          +10 -3 +0",
    ]


def test_the_table_marks_what_is_not_certain() -> None:
    doubtful = Attribute("smiling", 0.55, {"smiling": 0.55, "not_smiling": 0.45}, certain=False)
    table = cli.face_table("a.png", [make_face([1, 2, 3, 4], attributes={"smile": doubtful})])
    assert table.splitlines()[2] == "1     0.88   1 2 3 4          smiling 55%?"


def test_json_has_angles_and_deviations(monkeypatch, photo: str, capsys: pytest.CaptureFixture) -> None:
    sigma = np.float32([1, 2, 3, 4, 5])
    face = make_face([25, 20, 50, 40], pose=Pose(12.5, -3.0, 0.25), landmark_sigma=sigma)
    monkeypatch.setattr(cli, "load_predictor", lambda args: lambda image, boxes: [face])
    assert cli.main(["predict", photo, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["faces"]
    assert found["pose"] == {"yaw": 12.5, "pitch": -3.0, "roll": 0.25}
    assert found["landmark_sigma"] == [1, 2, 3, 4, 5]
    assert found["attributes"]["smile"]["certain"] is True


def test_predict_prints_a_line_of_json_a_photo(predictor: list, photo: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["predict", photo, photo, "--json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == {
        "name": photo,
        "index": 0,
        "timestamp": None,
        "faces": [make_face([25, 20, 50, 40]).to_dict()],
    }
    assert second == {**first, "index": 1}


def test_predict_takes_boxes(predictor: list, photo: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["predict", photo, "--json", "--boxes", "1,2,30,40.5", "5,5,9,9", "--boxes=-4,-5,6,7"]) == 0
    boxes = [face["box"] for face in json.loads(capsys.readouterr().out)["faces"]]
    assert boxes == [[1, 2, 30, 40.5], [5, 5, 9, 9], [-4, -5, 6, 7]]


def test_predict_draws(predictor: list, photo: str, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "annotated.png"
    assert cli.main(["predict", photo, "--out", str(target)]) == 0
    assert (read_image(target) != read_image(photo)).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--boxes", "1,2,3"], ["'1,2,3' is not X1,Y1,X2,Y2"]),
        (["--boxes", "a,b,c,d"], ["'a,b,c,d' is not X1,Y1,X2,Y2"]),
        (["PHOTO", "--boxes", "1,2,3,4"], ["go with one photo"]),
        (["PHOTO", "--out", "a.png"], ["go with one photo"]),
        (["--out", "a.xyz"], ["a.xyz"]),
        (["--out", "/dev/null/a.png"], ["/dev/null"]),
    ],
)
def test_predict_says_what_is_wrong_with_options(
    options: list[str], words: list[str], predictor: list, photo: str, capsys: pytest.CaptureFixture
) -> None:
    options = [photo if option == "PHOTO" else option for option in options]
    assert cli.main(["predict", photo, *options]) == 2
    assert_one_sentence(capsys.readouterr().err, *words)


def test_predict_sends_folders_to_the_demo(predictor: list, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["predict", str(tmp_path)]) == 2
    assert_one_sentence(capsys.readouterr().err, f"facemtl demo {tmp_path}")
    assert predictor == []


def test_options_reach_the_predictor(monkeypatch: pytest.MonkeyPatch, photo: str) -> None:
    given: list[dict] = []
    monkeypatch.setattr("facemtl.predictor.Predictor", lambda **options: given.append(options) or fake_predict)
    assert cli.main(["predict", photo]) == 0
    options = ["--model", "m.onnx", "--device", "cuda", "--threads", "2", "--tasks", "landmarks,pose"]
    options += ["--schema", "ibug68"]
    assert cli.main(["predict", photo, *options]) == 0
    asked = {"model": "m.onnx", "device": "cuda", "threads": 2, "tasks": ["landmarks", "pose"], "schema": "ibug68"}
    assert given == [{}, asked]


def test_an_error_of_the_predictor_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, photo: str, capsys: pytest.CaptureFixture
) -> None:
    def fail(args: argparse.Namespace) -> None:
        raise ModelError("unknown model 'x'; known: tcdcn")

    monkeypatch.setattr(cli, "load_predictor", fail)
    assert cli.main(["predict", photo, "--model", "x"]) == 2
    assert capsys.readouterr().err == "facemtl: unknown model 'x'; known: tcdcn\n"


def test_demo_without_a_window_writes_what_it_is_asked_for(
    predictor: list, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (Path(photo).parent / "broken.png").write_bytes(b"no picture")
    out, lines = tmp_path / "out", tmp_path / "faces.jsonl"
    code = cli.main(["demo", str(Path(photo).parent), "--headless", "--out", str(out), "--jsonl", str(lines)])
    assert code == 0
    assert [path.name for path in out.iterdir()] == ["photo.png.faces.png"]
    assert [sorted(json.loads(line)) for line in lines.read_text(encoding="utf-8").splitlines()] == [
        ["error", "index", "name", "timestamp"],
        ["faces", "index", "name", "timestamp"],
    ]
    summary = capsys.readouterr().err.splitlines()[-1]
    assert summary.startswith("1 frame, 1 face, ")
    assert summary.endswith(f"1 frame could not be read, 1 picture in {out}, {lines}")


def test_demo_ends_a_video_after_max_frames(predictor: list, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for value in range(6):
        writer.write(np.full((48, 64, 3), 40 * value, np.uint8))
    writer.release()
    options = ["--headless", "--no-tracking", "--out", str(tmp_path), "--max-frames", "4"]
    assert cli.main(["demo", str(clip), *options]) == 0
    assert (tmp_path / "clip.avi.faces.mp4").stat().st_size > 0
    summary = capsys.readouterr().err
    assert summary.startswith("4 frames, 4 faces, ")
    assert str(tmp_path / "clip.avi.faces.mp4") in summary


def test_models_has_a_line_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    cards = {"tcdcn": {"summary": "five points and four attributes"}, "tiny": {"summary": "five points"}}
    monkeypatch.setattr("facemtl.weights.list_models", lambda: sorted(cards))
    monkeypatch.setattr("facemtl.weights.load_card", cards.__getitem__)
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tcdcn                five points and four attributes",
        "tiny                 five points",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_closes_a_video_and_leaves_no_traceback(tmp_path: Path) -> None:
    """A real SIGINT in the middle of a video, in a process whose predictor takes 20 ms."""
    clip, out = tmp_path / "clip.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(500):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    # A shell without job control starts its background processes deaf to SIGINT; this one must hear it.
    code = (
        "import signal, sys, time; from facemtl import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "cli.load_predictor = lambda args: lambda image: time.sleep(0.02) or print('.', flush=True) or []\n"
        f"sys.exit(cli.main(['demo', {str(clip)!r}, '--headless', '--no-tracking', '--out', {str(out)!r}]))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "Traceback" not in stderr
    capture = cv2.VideoCapture(str(out / "clip.avi.faces.mp4"))
    assert 4 <= capture.get(cv2.CAP_PROP_FRAME_COUNT) < 500
    assert [path.name for path in out.iterdir()] == ["clip.avi.faces.mp4"]
