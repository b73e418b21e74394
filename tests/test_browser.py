"""The page in a real Chromium: the network in the browser says what Python says, the camera's face is found and drawn,
and what is seen can be taken away. The camera is a film of a rendered face.

Stated tolerance, with boxes given: points within 1 % of the side of the box, probabilities within 0.05, angles within a
degree. What differs is how pictures are resampled: OpenCV rounds its weights, the page does not; and a network in whole
numbers makes more of that than one in floating point. Where the page also looks for the faces itself, a box may differ
by a few per cent, as detections do.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_scripts import DRAWN, PREDICT, RUN_GRID
from service import CHROMIUM, FLAGS, camera_flags, running

from facemtl import Predictor, read_image
from facemtl.data.synthetic import render_face
from facemtl.face import Attribute, Pose
from facemtl.formats import face_from_dict, from_plain
from facemtl.serve import vendor
from facemtl.serve.app import create_app
from facemtl.serve.limits import Limits
from facemtl.serve.run import onnx_file
from facemtl.smoothing import FaceSmoother
from facemtl.weights import DEFAULT_MODEL

if CHROMIUM is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ASTRONAUT = Path(__file__).parents[1] / "examples" / "astronaut.png"
POINTS, SHARES, DEGREES = 0.01, 0.05, 1.0  # the stated tolerance


@pytest.fixture(scope="module")
def predict() -> Predictor:
    return Predictor()


@pytest.fixture(scope="module")
def address(predict: Predictor) -> Iterator[str]:
    assert vendor.missing() == [], "pip install --editable '.[dev]' packs them where npm is installed"
    with running(create_app(predict, model_file=onnx_file(DEFAULT_MODEL))) as url:
        yield url


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered face that drifts to the right and back, 640 x 480."""
    path = tmp_path_factory.mktemp("film") / "face.mjpeg"
    face = render_face(3, 240, yaw=0, pitch=0, roll=0, glasses="no_glasses", occlusion=0).image
    with path.open("wb") as file:
        for i in range(40):
            frame = np.full((480, 640, 3), 96, np.uint8)
            left = 180 + min(i, 39 - i) // 2  # so slow that a busy machine can follow
            frame[120:360, left : left + 240] = face
            file.write(cv2.imencode(".jpg", frame)[1].tobytes())
    return path


@pytest.fixture(scope="module")
def chromium(film: Path) -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *camera_flags(film)])
        yield browser
        browser.close()


class Visit:
    """A page, everything that it asked for, and everything that it complained of."""

    def __init__(self, chromium: sync_api.Browser, address: str) -> None:
        self.page = chromium.new_page(viewport={"width": 1280, "height": 900})
        self.asked: list[tuple[str, str]] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append((request.method, request.url)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("body[data-ready]", timeout=60_000)

    def select(self, where: str) -> None:
        """Say where the network is to run."""
        if self.page.locator("#runs").input_value() != where:
            self.page.select_option("#runs", where)
        self.wait("#where", f"runs {where}")

    def wait(self, selector: str, text: str) -> None:
        """Until a text is in an element. (The page's policy forbids what playwright's other ways of waiting do.)"""
        sync_api.expect(self.page.locator(selector)).to_contain_text(text, timeout=60_000)

    def wait_for_photos(self, count: int) -> None:
        sync_api.expect(self.page.locator("#photos li")).to_have_count(count, timeout=60_000)

    def exported(self) -> dict:
        with self.page.expect_download() as download:
            self.page.click("#export")
        assert download.value.suggested_filename == "faces.json"
        return json.loads(download.value.path().read_text(encoding="utf-8"))

    def drop(self, name: str, data: bytes) -> None:
        """Let go of a file over the page."""
        self.page.evaluate(
            """([name, text]) => {
              const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File([bytes], name));
              document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true, bubbles: true }));
            }""",
            [name, base64.b64encode(data).decode()],
        )


@pytest.fixture(scope="module")
def first_visit(chromium: sync_api.Browser, address: str) -> Iterator[Visit]:
    visit = Visit(chromium, address)
    yield visit
    visit.page.close()


@pytest.fixture
def visit(first_visit: Visit) -> Visit:
    """The same page for all tests, cleared: it takes seconds to load the networks."""
    visit = first_visit
    visit.select("in this browser")
    if visit.page.is_enabled("#clear"):
        visit.page.click("#clear")
    visit.asked.clear()
    visit.complaints.clear()
    return visit


def png(image: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


def assert_same_face(found: dict, expected: dict, points: float = POINTS) -> None:
    """Two faces as Face.to_dict gives them."""
    side = expected["box"][2] - expected["box"][0]
    assert list(found) == list(expected)
    assert (found["schema"], found["track_id"]) == (expected["schema"], None)
    assert list(found["landmarks"]) == list(expected["landmarks"])
    np.testing.assert_allclose(
        list(found["landmarks"].values()), list(expected["landmarks"].values()), rtol=0, atol=points * side
    )
    np.testing.assert_allclose(found["landmark_sigma"], expected["landmark_sigma"], rtol=0, atol=0.002 * side)
    assert list(found["attributes"]) == list(expected["attributes"])
    for name, attribute in expected["attributes"].items():
        assert found["attributes"][name]["probabilities"] == pytest.approx(attribute["probabilities"], abs=SHARES)
    assert found["pose"] == pytest.approx(expected["pose"], abs=DEGREES)
    assert found["quality"] == pytest.approx(expected["quality"], abs=SHARES)


# --- the same results as Python -------------------------------------------------------------------------------------


def test_the_network_in_the_browser_says_what_python_says(visit, predict):
    """Crops that are enlarged, shrunk in blocks, turned, or partly outside."""
    faces = [(render_face(seed, size), size) for seed, size in [(1, 100), (2, 200), (3, 240), (4, 500), (5, 800)]]
    pictures = [(face.image, [face.box.tolist()]) for face, _ in faces]
    pictures.append((read_image(ASTRONAUT), [[-20.5, 40, 250, 300], [170.25, 60, 280, 170]]))
    found = visit.page.evaluate(PREDICT, [(png(image), boxes) for image, boxes in pictures])
    for (image, boxes), answers in zip(pictures, found, strict=True):
        for answer, face in zip(answers, predict(image, boxes=boxes), strict=True):
            if face.quality is None or face.quality > 0.5:
                assert_same_face(answer, face.to_dict())
    assert visit.complaints == []


def test_a_crop_that_was_off_is_laid_again_as_in_python(visit, predict, monkeypatch):
    image = read_image(ASTRONAUT)
    (face,) = predict(image)
    x1, y1, x2, y2 = face.box.tolist()
    side = x2 - x1
    box = [x1 + 0.05 * side, y1 + 0.05 * side, x2 + 0.55 * side, y2 + 0.55 * side]
    runs, run = [], predict._run
    monkeypatch.setattr(predict, "_run", lambda *args, **choices: runs.append(args) or run(*args, **choices))
    (expected,) = predict(image, boxes=[box])
    assert len(runs) == 3
    ((found,),) = visit.page.evaluate(PREDICT, [(png(image), [box])])
    assert_same_face(found, expected.to_dict())


def test_a_box_where_the_first_pass_was_lost_is_looked_at_from_all_sides_as_in_python(visit, predict, monkeypatch):
    """A face that lies on its side, in a box twice as large and beside it."""
    image = np.ascontiguousarray(np.rot90(read_image(ASTRONAUT), -1))
    (face,) = predict(read_image(ASTRONAUT))
    (x, y), half = (face.box[:2] + face.box[2:]).tolist(), float(face.box[2] - face.box[0])
    middle = (image.shape[1] - 1 - y / 2 - 0.6 * half / 2, x / 2)
    box = [middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half]
    runs, run = [], predict._run
    monkeypatch.setattr(
        predict, "_run", lambda crops, *args, **more: runs.append(len(crops)) or run(crops, *args, **more)
    )
    (expected,) = predict(image, boxes=[box])
    assert 4 in runs
    assert expected.quality > 0.95
    ((found,),) = visit.page.evaluate(PREDICT, [(png(image), [box])])
    assert_same_face(found, expected.to_dict())


def test_real_faces_in_the_browser(visit, predict, mtfl_root):
    images = [read_image(path) for path in sorted((mtfl_root / "lfw_5590").glob("*.jpg"))[:300:25]]
    pictures = [(image, [face.box.tolist() for face in predict(image)]) for image in images]
    found = visit.page.evaluate(PREDICT, [(png(image), boxes) for image, boxes in pictures])
    assert sum(len(faces) for faces in found) >= 10
    for (image, boxes), answers in zip(pictures, found, strict=True):
        for answer, face in zip(answers, predict(image, boxes=boxes), strict=True):
            assert_same_face(answer, face.to_dict())


def test_the_detector_in_the_browser_finds_the_same_faces(visit, predict):
    """Also in a picture that is searched at a smaller size, in one of several faces, and in one without."""
    several = np.full((300, 700, 3), 128, np.uint8)
    for i, seed in enumerate((3, 8, 13)):
        several[40:240, 20 + 220 * i : 220 + 220 * i] = render_face(seed, 200, yaw=0, roll=0, occlusion=0).image
    astronaut = read_image(ASTRONAUT)
    large = cv2.resize(astronaut, None, fx=1400 / astronaut.shape[1], fy=1400 / astronaut.shape[1])
    pictures = [astronaut, large, several, np.zeros((60, 80, 3), np.uint8)]
    found = visit.page.evaluate(PREDICT, [(png(image), None) for image in pictures])
    assert [len(faces) for faces in found] == [len(predict(image)) for image in pictures]
    assert len(found[0]) == 1
    for image, answers in zip(pictures, found, strict=True):
        for answer, face in zip(answers, predict(image), strict=True):
            side = face.box[2] - face.box[0]
            np.testing.assert_allclose(answer["box"], face.box, rtol=0, atol=0.03 * side)
            assert answer["score"] == pytest.approx(face.score, abs=0.02)
    assert_same_face(found[0][0], predict(astronaut)[0].to_dict())


def test_the_page_smooths_as_python_does(visit, predict):
    """A face that drifts, turns through 180 degrees and stops smiling, in uneven steps of time."""
    rng = np.random.default_rng(5)
    (first,) = predict(ASTRONAUT)
    smooth, faces, expected = FaceSmoother(predict.spec.thresholds, predict.spec.priors), [], []
    times = np.cumsum(rng.uniform(0.02, 0.2, 12)).tolist()
    for i, time in enumerate(times):
        smiling = max(0.95 - 0.2 * i, 0.02)
        shares = {"smiling": smiling, "not_smiling": 1 - smiling}
        smile = Attribute(max(shares, key=shares.__getitem__), max(shares.values()), shares)
        points = first.landmarks + np.float32(rng.normal(scale=0.5, size=first.landmarks.shape) + 3 * i)
        face = replace(
            first, landmarks=points, attributes={"smile": smile}, pose=Pose(i - 5.0, 2.0, (170 + 3 * i) % 360)
        )
        faces.append(face.to_dict())
        expected.append(smooth(face_from_dict(faces[-1]), time))
    found = visit.page.evaluate(
        """async ([faces, times]) => {
          const model = await (await fetch("/model.json")).json();
          const { FaceSmoother } = await import("/static/follow.mjs");
          const { boxFromFive } = await import("/static/geometry.mjs");
          const smoother = new FaceSmoother(model, 7);
          return faces.map((face, i) => {
            const box = boxFromFive(Object.values(face.landmarks), model.box_side);
            return smoother.smooth({ face, box, score: 1 }, times[i]);
          });
        }""",
        [faces, times],
    )
    assert [face["attributes"]["smile"]["label"] for face in found] == [f.attributes["smile"].label for f in expected]
    assert len({face["attributes"]["smile"]["label"] for face in found}) == 2
    for answer, face in zip(found, expected, strict=True):
        np.testing.assert_allclose(list(answer["landmarks"].values()), face.landmarks, atol=1e-3)
        assert answer["attributes"]["smile"]["probabilities"] == pytest.approx(
            dict(face.attributes["smile"].probabilities), abs=1e-6
        )
        assert answer["attributes"]["smile"]["certain"] == face.attributes["smile"].certain
        for angle in ("yaw", "pitch", "roll"):
            apart = answer["pose"][angle] - getattr(face.pose, angle)
            assert math.remainder(apart, 360) == pytest.approx(0, abs=1e-6)
        assert answer["track_id"] == 7


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_camera_finds_follows_draws_and_exports(visit, film, address, tmp_path):
    page = visit.page
    assert "No picture leaves this machine" in page.inner_text("#where")
    page.click("#camera")
    visit.wait("#status", "1 face, ")
    said = set()
    for _ in range(200):  # the time of a frame is said with it: until several were different
        page.wait_for_timeout(200)
        said.add(page.inner_text("#status"))
        if len(said) > 3:
            break
    assert min(page.evaluate(DRAWN)) > 100
    page.screenshot(path=tmp_path / "page.png")
    image = read_image(tmp_path / "page.png")
    green = (np.abs(image.astype(int) - (176, 214, 88)).max(axis=2) < 40).sum()  # of the points, BGR
    assert green > 30
    assert page.inner_text("#whose").startswith("face 1")
    assert page.locator(".bar").count() >= 4
    assert page.inner_text("#legend").startswith("— ")
    page.click("#camera")
    assert page.inner_text("#camera") == "Start camera"
    frames = from_plain(visit.exported())
    assert len(frames) >= 2
    with_face = [frame for frame in frames if frame.faces]
    assert len(with_face) > len(frames) / 2
    assert {face.track_id for frame in with_face for face in frame.faces} == {1}
    for frame in with_face:
        assert (frame.width, frame.height) == (640, 480)
        left_eye, right_eye = frame.faces[0].landmarks[:2]
        assert 130 < left_eye[1] < 350  # the face fills 120 to 360
        assert 20 < right_eye[0] - left_eye[0] < 140
    # Nothing was sent anywhere.
    assert [request for request in visit.asked if request[0] != "GET"] == []
    assert {url.removeprefix("blob:")[: len(address)] for _, url in visit.asked} <= {address}
    assert visit.complaints == []


def test_photos_are_dropped_listed_and_exported(visit, predict):
    page = visit.page
    visit.drop("astronaut.png", ASTRONAUT.read_bytes())
    visit.wait_for_photos(1)
    page.set_input_files("#files", ASTRONAUT)
    visit.wait_for_photos(2)
    visit.drop("<b>notes</b>.txt", b"no picture")
    visit.wait("#status", "<b>notes</b>.txt: ")
    document = visit.exported()
    image = read_image(ASTRONAUT)
    assert [picture["name"] for picture in document["images"]] == ["astronaut.png"] * 2
    assert_same_face(document["images"][0]["faces"][0], predict(image)[0].to_dict())
    assert from_plain(document)[0].width == image.shape[1]
    assert [request for request in visit.asked if request[0] != "GET"] == []


def test_on_the_server_the_page_shows_what_predict_says(visit, predict):
    page = visit.page
    visit.select("on the server")
    assert "are sent to 127.0.0.1" in page.inner_text("#where")
    visit.drop("astronaut.png", ASTRONAUT.read_bytes())
    visit.wait_for_photos(1)
    (picture,) = visit.exported()["images"]
    assert picture["faces"] == [face.to_dict() for face in predict(read_image(ASTRONAUT))]
    assert ("POST", page.url + "predict") in visit.asked
    assert visit.complaints == []


def test_without_the_browsers_files_the_page_says_so_and_works(chromium, predict):
    with running(create_app(predict, Limits(max_bytes=30_000))) as url:
        visit = Visit(chromium, url)
        assert "cannot run in this browser: the model is no .onnx file" in visit.page.inner_text("#where")
        assert visit.page.locator("#runs option").all_inner_texts() == ["on the server"]
        visit.drop("small.jpg", cv2.imencode(".jpg", render_face(3, 64).image)[1].tobytes())
        visit.wait_for_photos(1)
        visit.drop("astronaut.png", ASTRONAUT.read_bytes())  # over the cap: the reason of the service is shown
        visit.wait("#status", "30000 bytes")
        visit.page.close()


# --- graphs to come -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opset", "mode"), [(16, "bilinear"), (20, "linear")])
def test_grid_sample_runs_in_the_browser(visit, opset, mode):
    """A network that looks again at the pixels around its points needs it; against ONNX Runtime for Python."""
    onnx = pytest.importorskip("onnx")
    import onnxruntime

    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode=mode, padding_mode="zeros", align_corners=0)
    tensors = [helper.make_tensor_value_info(n, real, s) for n, s in [("x", [1, 2, 5, 6]), ("grid", [1, 3, 4, 2])]]
    out = helper.make_tensor_value_info("y", real, [1, 2, 3, 4])
    graph = helper.make_graph([node], "grid", tensors, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    rng = np.random.default_rng(0)
    x, grid = np.float32(rng.normal(size=(1, 2, 5, 6))), np.float32(rng.uniform(-1.2, 1.2, (1, 3, 4, 2)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x, "grid": grid})
    found = visit.page.evaluate(
        RUN_GRID,
        [list(model.SerializeToString()), x.ravel().tolist(), grid.ravel().tolist()],
    )
    np.testing.assert_allclose(found, expected.ravel(), atol=1e-5)
