"""The service over a real socket: what it answers, what it refuses and why, and that nobody gets another's answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from urllib.parse import urlsplit

import cv2
import httpx
import jsonschema
import numpy as np
import pytest
from fake_network import FakeDetector, full_session, noise, rich_session
from service import running

from facemtl import Predictor
from facemtl.errors import ConfigError
from facemtl.formats import from_plain
from facemtl.image import read_image
from facemtl.serve.app import create_app
from facemtl.serve.limits import Limits

LIMITS = Limits(max_bytes=200_000, max_pixels=100_000, max_boxes=3, workers=2, queue=2, seconds=5)
BOX = [30.0, 20.0, 90.0, 80.0]


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def predictor(**arguments) -> Predictor:
    return Predictor(full_session(), detector=FakeDetector([BOX], [0.9]), **arguments)


@pytest.fixture(scope="module")
def address():
    with running(create_app(predictor(), LIMITS)) as url:
        yield url


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address) as client:
        yield client


def send(client: httpx.Client, data: bytes, name: str = "photo.png", **fields: str) -> httpx.Response:
    return client.post("/predict", files={"image": (name, data)}, data=fields)


def assert_refused(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    for word in words:
        assert word in problem["detail"]


# --- answers --------------------------------------------------------------------------------------------------------


def test_a_picture_gives_what_python_gives(client):
    image = noise()
    answer = send(client, png(image), "holiday/photo.png")
    assert answer.status_code == 200
    (faces,) = [picture.faces for picture in from_plain(answer.json())]
    assert [face.to_dict() for face in faces] == [face.to_dict() for face in predictor()(image)]
    assert {k: v for k, v in answer.json()["images"][0].items() if k != "faces"} == {
        "name": "photo.png",
        "width": 160,
        "height": 120,
    }
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["server-timing"].startswith("predict;dur=")


def test_boxes_skip_the_detector(client):
    image = noise()
    boxes = [[10.5, 20, 60, 70.25], [0, 0, 40, 40]]
    (picture,) = from_plain(send(client, png(image), boxes=json.dumps(boxes)).json())
    assert [face.to_dict() for face in picture.faces] == [face.to_dict() for face in predictor()(image, boxes=boxes)]
    assert send(client, png(image), boxes="[]").json()["images"][0]["faces"] == []


def test_the_answer_and_the_refusal_are_what_openapi_says(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    responses = document["paths"]["/predict"]["post"]["responses"]

    def check(answer: httpx.Response) -> None:
        (content,) = responses[str(answer.status_code)]["content"].items()
        assert answer.headers["content-type"] == content[0]
        jsonschema.Draft202012Validator({**content[1]["schema"], "components": document["components"]}).validate(
            answer.json()
        )

    check(send(client, png(noise())))
    check(send(client, b"text"))
    check(send(client, bytes(300_000)))
    health = client.get("/health").json()
    jsonschema.validate(health, document["components"]["schemas"]["Health"])
    assert health["model"] == "fake"
    assert set(document["paths"]) == {"/predict", "/health"}
    assert "5 seconds" in responses["503"]["description"]


def test_every_request_gets_its_own_answer(client):
    images = [noise(seed=seed) for seed in range(12)]
    expected = [[face.to_dict() for face in predictor()(image)] for image in images]
    assert len({json.dumps(faces) for faces in expected}) == len(images)

    def ask(i: int) -> bool:
        while (answer := send(client, png(images[i]), f"{i}.png")).status_code == 503:
            time.sleep(0.01)
        (found,) = answer.json()["images"]
        return found["faces"] == expected[i] and found["name"] == f"{i}.png"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, list(range(12)) * 4))


# --- refusals -------------------------------------------------------------------------------------------------------


def test_over_the_caps_413(client):
    assert_refused(send(client, bytes(250_000)), 413, "200000 bytes")
    assert_refused(send(client, png(np.zeros((400, 251, 3), np.uint8))), 413, "251 x 400", "100000")
    assert send(client, png(np.zeros((400, 250, 3), np.uint8))).status_code == 200


def test_a_body_without_a_length_is_capped_as_well(client):
    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(300):
            yield bytes(1000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert_refused(client.post("/predict", content=endless(), headers=headers), 413, "200000 bytes")


@pytest.mark.parametrize("data", [b"plain text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", bytes(64)])
def test_what_is_no_picture_415(client, data):
    assert_refused(send(client, data), 415, "supported format", "PNG")


def test_another_type_of_body_415(client):
    assert_refused(client.post("/predict", json={"image": "photo.png"}), 415, "application/json", "multipart/form-data")
    assert_refused(client.post("/predict", data={"image": "photo.png"}), 415, "x-www-form-urlencoded")
    assert_refused(client.post("/predict"), 415, "of no type")


def test_damaged_pictures_422(client):
    whole = png(noise())
    assert_refused(send(client, whole[: len(whole) // 2]), 422, "cut short")
    assert_refused(send(client, b""), 422, "empty")
    flipped = bytearray(whole)
    flipped[100] ^= 255
    assert_refused(send(client, bytes(flipped)), 422, "checksum")


@pytest.mark.parametrize(
    ("boxes", "word"),
    [
        ("[[1, 2, 3]]", "shape"),
        ("[[5, 5, 5, 9]]", "no area"),
        ("[[0, 0, NaN, 9]]", "not finite"),
        ("nonsense", "Expecting value"),
        ("[" * 60_000, "boxes"),
        (json.dumps([BOX] * 4), "limit of 3"),
        ("x" * 70_000, "64KB"),
    ],
)
def test_boxes_that_are_none_422(client, boxes, word):
    assert_refused(send(client, png(noise()), boxes=boxes), 422, word)


def test_forms_that_are_not_ours_422(client):
    picture = ("a.png", png(noise()))
    assert_refused(client.post("/predict", files={"photo": picture}), 422, "unknown field 'photo'", "image, boxes")
    assert_refused(client.post("/predict", files={"boxes": picture}), 422, "'image'", "missing")
    assert_refused(client.post("/predict", files=[("image", picture), ("image", picture)]), 422, "Too many files")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert_refused(client.post("/predict", content=b"zz", headers=headers), 422, "Invalid multipart")
    assert_refused(
        client.post("/predict", content=b"zz", headers={"content-type": "multipart/form-data"}), 422, "boundary"
    )


@pytest.mark.parametrize("text", ["/etc/hostname", "file:///etc/hostname", "http://127.0.0.1:9/a.png", "photo.png"])
def test_no_path_and_no_address_is_ever_followed(client, text, monkeypatch):
    client.get("/health")  # opens the client's own connection, if there is none
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("the service connects"), raising=True)
    body = (
        f'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n{text}\r\n--x--\r\n',
        {"content-type": "multipart/form-data; boundary=x"},
    )
    assert_refused(client.post("/predict", content=body[0], headers=body[1]), 422, "is text and no file")
    assert_refused(send(client, text.encode()), 415, "supported format")
    answer = send(client, png(noise()), name=text)
    assert answer.json()["images"][0]["name"] == text.rpartition("/")[2]


def test_unknown_addresses_and_methods(client):
    assert_refused(client.get("/nothing"), 404)
    assert_refused(client.get("/predict"), 405)
    assert_refused(client.get("/static/../app.py"), 404)
    for name in ("..%2fapp.py", "%2e%2e/app.py", "/etc/hostname", "vendor/../../app.py", "index.html%00"):
        assert_refused(client.get(f"/static/{name}"), 404)
    assert_refused(client.get("/models/..%2Fcard.toml"), 404)


def test_other_origins_and_names_are_refused(client, address):
    """A page that its user opens can reach 127.0.0.1, also under a name of its own."""
    for origin in ("https://example.org", "null", "http://127.0.0.1:1"):
        answer = client.post("/predict", files={"image": ("a.png", png(noise()))}, headers={"origin": origin})
        assert_refused(answer, 403, "another origin")
    own = client.post("/predict", files={"image": ("a.png", png(noise()))}, headers={"origin": address})
    assert own.status_code == 200
    rebound = client.get("/model.json", headers={"host": f"evil.example:{urlsplit(address).port}"})
    assert rebound.status_code == 400
    assert "access-control-allow-origin" not in own.headers


# --- bounds in time -------------------------------------------------------------------------------------------------


class Gate:
    """A detector that waits until it is let on."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def detect(self, image: np.ndarray):
        assert self.open.wait(20)
        return FakeDetector([BOX], [0.9]).detect(image)


def test_a_full_queue_503_and_then_all_is_well():
    gate = Gate()
    app = create_app(Predictor(full_session(), detector=gate), Limits(workers=1, queue=2, seconds=20))
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(send, client, png(noise())) for _ in range(4)]
        refused = next(as_completed(sent))  # no place is given back while the gate is closed
        assert_refused(refused.result(), 503, "3 requests")
        assert refused.result().headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200  # the rest goes on
        gate.open.set()
        assert [answer.result().status_code for answer in sent if answer is not refused] == [200] * 3
        assert send(client, png(noise())).status_code == 200


def test_late_answers_503_and_their_place_is_kept_until_they_end():
    gate = Gate()
    app = create_app(Predictor(full_session(), detector=gate), Limits(workers=1, queue=0, seconds=0.3))
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert_refused(send(client, png(noise())), 503, "0.3 seconds")
        assert_refused(send(client, png(noise())), 503, "1 requests")  # the thread is still at it
        gate.open.set()
        for _ in range(200):
            if send(client, png(noise())).status_code == 200:
                break
            time.sleep(0.02)
        else:
            raise AssertionError("the place is never given back")


def test_a_body_that_does_not_arrive_408():
    with running(create_app(predictor(), Limits(seconds=0.3))) as url:
        host, port = urlsplit(url).netloc.split(":")
        head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--x".encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        with httpx.Client(base_url=url) as client:  # a sender who goes away takes no place along
            for _ in range(40):
                with socket.create_connection((host, int(port)), timeout=10) as connection:
                    connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--x".encode())
            for _ in range(100):
                if send(client, png(noise())).status_code == 200:
                    return
                time.sleep(0.05)
        raise AssertionError("the places are never given back")


def test_a_fault_500_tells_no_secret(caplog):
    def broken(crop):
        return np.full((5, 2), np.nan)

    session = full_session()
    session.answers = {**session.answers, "landmarks": broken}
    with running(create_app(Predictor(session, detector=FakeDetector([BOX], [0.9])))) as url, httpx.Client() as client:
        answer = client.post(f"{url}/predict", files={"image": ("a.png", png(noise()))})
    assert_refused(answer, 500, "its log")
    assert "damaged" not in answer.text
    assert "fake is damaged" in caplog.text


# --- the page's files -----------------------------------------------------------------------------------------------


def test_every_answer_has_the_headers_that_close_the_page(client):
    for answer in (client.get("/"), client.get("/static/page.mjs"), client.get("/nothing"), send(client, b"")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_is_all_there_and_names_nothing_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name in ("page.mjs", "worker.mjs", "style.css", "icon.svg"):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert "https://" not in answer.text
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert client.get("/static/page.mjs").headers["content-type"] == "text/javascript; charset=utf-8"
    again = client.get("/static/page.mjs", headers={"if-none-match": client.get("/static/page.mjs").headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_without_files_for_the_browser_the_page_is_told_why(client):
    model = client.get("/model.json").json()
    assert model["browser"] is None
    assert "no .onnx file" in model["why_no_browser"]
    assert_refused(client.get("/models/face.onnx"), 404)


def test_the_model_is_described_in_full():
    with running(create_app(Predictor(rich_session(), schema="ibug68", detector=FakeDetector([], [])))) as url:
        model = httpx.get(f"{url}/model.json").json()
    assert (model["schema"], model["points_task"]) == ("ibug68", "landmarks_ibug68")
    assert set(model["schemas"]) == {"mtfl5", "ibug68"}
    assert len(model["schemas"]["ibug68"]["flip_order"]) == 68
    assert model["spec"]["crop_scale"] == 1.2
    assert model["limits"]["max_pixels"] == Limits().max_pixels


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"queue": -1}, {"seconds": 0}, {"max_bytes": 0}])
def test_limits_that_are_none(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Limits(**wrong)


def test_the_astronaut_through_the_shipped_model(astronaut):
    predict = Predictor()
    with running(create_app(predict)) as url:
        answer = httpx.post(f"{url}/predict", files={"image": ("a.png", astronaut.read_bytes())})
    assert answer.json()["images"][0]["faces"] == [face.to_dict() for face in predict(read_image(astronaut))]


@pytest.fixture
def astronaut(request):
    return request.config.rootpath / "examples" / "astronaut.png"
