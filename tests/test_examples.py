"""Every script of examples/ as a user runs it, and what comes out."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_network import FakeDetector, full_session
from service import running

from facemtl import Predictor, read_image
from facemtl.image import write_image
from facemtl.serve.app import create_app
from facemtl.serve.limits import Limits

EXAMPLES = Path(__file__).parents[1] / "examples"
ASTRONAUT = EXAMPLES / "astronaut.png"
SCRIPTS = {"ten_lines.py", "folder_to_table.py", "video_to_csv.py", "by_attribute.py", "server_client.py"}


def run(script: str, *arguments: object, cwd: Path, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == status, done.stderr
    return done


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def face():
    (face,) = Predictor()(ASTRONAUT)
    return face


def changed(path: Path) -> np.ndarray:
    """Which pixels of the astronaut are others now."""
    return (read_image(path) != read_image(ASTRONAUT)).any(axis=2)


def test_the_list_names_every_script():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in EXAMPLES.glob("*.py")} == SCRIPTS
    assert all(f"[`{name}`]({name})" in text for name in SCRIPTS)


def test_ten_lines(tmp_path, face):
    done = run("ten_lines.py", ASTRONAUT, "drawn.png", cwd=tmp_path)
    assert done.stdout.startswith(f"a face at {face.box.round().astype(int).tolist()}: ")
    assert "no_glasses" in done.stdout
    assert changed(tmp_path / "drawn.png").sum() > 100
    code = (EXAMPLES / "ten_lines.py").read_text(encoding="utf-8").rpartition('"""')[2]
    assert sum(bool(line.strip()) for line in code.splitlines()) == 10


def test_a_folder_to_a_table(tmp_path, face):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    write_image(photos / "a.png", read_image(ASTRONAUT))
    write_image(photos / "empty.png", np.zeros((60, 60, 3), np.uint8))
    (photos / "more" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = run("folder_to_table.py", photos, "faces.csv", cwd=tmp_path)
    assert "broken.jpg" in done.stderr
    (row,) = table(tmp_path / "faces.csv")
    assert (row["photo"], row["face"], row["glasses"]) == ("a.png", "1", face.attributes["glasses"].label)
    assert float(row["yaw"]) == pytest.approx(face.pose.yaw, abs=0.1)
    assert float(row["nose_tip_x"]) == pytest.approx(face.landmarks[2, 0], abs=0.01)


def test_a_folder_without_faces_gives_an_empty_table(tmp_path):
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "empty.png", np.zeros((60, 60, 3), np.uint8))
    assert run("folder_to_table.py", "photos", "faces.csv", cwd=tmp_path).stdout.startswith("0 faces")
    assert table(tmp_path / "faces.csv") == []


def test_a_video_to_a_table(tmp_path, face):
    image = read_image(ASTRONAUT)
    height, width = image.shape[:2]
    film = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    for i in range(5):
        film.write(np.roll(image, 2 * i, axis=1))
    film.release()
    run("video_to_csv.py", "clip.avi", "faces.csv", cwd=tmp_path)
    rows = table(tmp_path / "faces.csv")
    assert [(row["seconds"], row["track"]) for row in rows] == [(f"{i / 10:.1f}", "1") for i in range(5)]
    assert float(rows[0]["x1"]) == pytest.approx(face.box[0], abs=5)
    assert float(rows[4]["x1"]) - float(rows[0]["x1"]) == pytest.approx(8, abs=3)
    shares = [float(rows[0][f"glasses_{label}"]) for label in ("glasses", "no_glasses")]
    assert sum(shares) == pytest.approx(1, abs=0.002)


def test_faces_are_blurred_by_attribute(tmp_path, face):
    run("by_attribute.py", ASTRONAUT, "all.png", "blur", cwd=tmp_path)
    hidden = changed(tmp_path / "all.png")
    x1, y1, x2, y2 = face.box.astype(int)
    assert hidden[y1:y2, x1:x2].mean() > 0.9
    assert not hidden[: y1 - (y2 - y1) // 2].any()
    detail = [
        cv2.Laplacian(read_image(path)[y1:y2, x1:x2], cv2.CV_64F).std() for path in (tmp_path / "all.png", ASTRONAUT)
    ]
    assert detail[0] < detail[1] / 5
    label = face.attributes["glasses"].label
    assert label == "no_glasses"
    run("by_attribute.py", ASTRONAUT, "with.png", "blur", "glasses=no_glasses", cwd=tmp_path)
    run("by_attribute.py", ASTRONAUT, "without.png", "blur", "glasses=glasses", cwd=tmp_path)
    assert (changed(tmp_path / "with.png") == hidden).all()
    assert not changed(tmp_path / "without.png").any()
    assert "known: " in run("by_attribute.py", ASTRONAUT, "x.png", "blur", "hat=top", cwd=tmp_path, status=1).stderr


def test_faces_are_cut_out(tmp_path, face):
    run("by_attribute.py", ASTRONAUT, "heads", "crop", cwd=tmp_path)
    (path,) = (tmp_path / "heads").iterdir()
    assert path.name == "astronaut-1.png"
    side = 1.6 * (face.box[2] - face.box[0])
    assert read_image(path).shape[:2] == pytest.approx((side, side), abs=2)


def test_a_client_of_the_server(tmp_path, face):
    with running(create_app(Predictor())) as url:
        done = run("server_client.py", url, ASTRONAUT, ASTRONAUT, cwd=tmp_path)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["images"][0]["faces"] for answer in answers] == [[face.to_dict()]] * 2


def test_a_client_says_what_the_server_refuses(tmp_path):
    predict = Predictor(full_session(), detector=FakeDetector([], []))
    with running(create_app(predict, Limits(max_bytes=1000))) as url:
        assert "limit of 1000 bytes" in run("server_client.py", url, ASTRONAUT, cwd=tmp_path, status=1).stderr
