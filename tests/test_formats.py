"""Faces in other programs' formats: facemtl's own JSON by its schema, every format there and back, and `--format`."""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from format_faces import BARE, IMAGE, a_face, random_faces

from facemtl import cli, formats
from facemtl.errors import ConfigError, DataError
from facemtl.face import ANGLES, Face
from facemtl.formats import FORMATS, ImageFaces
from facemtl.image import write_image

ROOT = Path(__file__).parents[1]


def test_a_picture_has_a_size():
    with pytest.raises(DataError, match=r"a\.jpg: a picture of 0 x 10 pixels"):
        ImageFaces("a.jpg", 0, 10)


# --- facemtl's own JSON ---------------------------------------------------------------------------------------------


def test_the_schema_of_a_face_is_versioned_and_names_every_key():
    schema = formats.face_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:facemtl:face:1"
    assert formats.FACE_VERSION == 1
    assert schema["required"] == list(schema["properties"]) == list(a_face().to_dict())
    assert schema["additionalProperties"] is False
    assert schema["properties"]["pose"]["required"] == list(ANGLES)
    json.dumps(schema)
    schema["required"].clear()
    assert formats.face_schema()["required"]  # each call gives a new one


def without(plain: dict, key: str) -> dict:
    return {name: value for name, value in plain.items() if name != key}


WRONG_FACES: dict[str, Callable[[dict], dict]] = {
    "a key is missing": lambda face: without(face, "quality"),
    "a key too many": lambda face: face | {"age": 3},
    "three numbers of a box": lambda face: face | {"box": [1, 2, 3]},
    "a score in words": lambda face: face | {"score": "high"},
    "an unknown schema": lambda face: face | {"schema": "mtfl6"},
    "a point of one number": lambda face: face | {"landmarks": face["landmarks"] | {"nose_tip": [1]}},
    "an attribute without classes": lambda face: face | {"attributes": {"smile": {"label": "smiling"}}},
    "an angle too few": lambda face: face | {"pose": {"yaw": 1, "pitch": 2}},
}


@pytest.mark.parametrize("spoil", WRONG_FACES.values(), ids=list(WRONG_FACES))
def test_the_reader_refuses_what_is_no_face(spoil):
    with pytest.raises(DataError):
        formats.face_from_dict(spoil(a_face().to_dict()))


def test_the_schema_takes_faces_and_refuses_what_the_reader_refuses():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(formats.face_schema())
    validator = jsonschema.Draft202012Validator(formats.face_schema())
    faces = [face for image in random_faces(0, "ibug68", unmarked=False) for face in image.faces]
    for face in [a_face(), BARE, *faces]:
        validator.validate(json.loads(json.dumps(face.to_dict())))
    for what, spoil in WRONG_FACES.items():
        assert not validator.is_valid(spoil(a_face().to_dict())), what


def test_the_reader_refuses_what_a_schema_cannot_say():
    plain = a_face().to_dict()
    for wrong in (
        plain | {"landmarks": without(plain["landmarks"], "nose_tip")},
        plain | {"landmark_sigma": [1.0]},
        plain | {"box": [0, 0, float("nan"), 1]},
        plain | {"attributes": {"smile": plain["attributes"]["smile"] | {"label": "grinning"}}},
    ):
        with pytest.raises(DataError):
            formats.face_from_dict(wrong)


def test_plain_json_has_a_version_and_no_unmarked_points():
    document = formats.to_plain([IMAGE])
    assert document["images"][0]["faces"] == [a_face().to_dict()]
    with pytest.raises(DataError, match="version 2; this facemtl reads 1"):
        formats.from_plain(document | {"face_version": 2})
    with pytest.raises(DataError, match="no unmarked points"):
        formats.to_plain([ImageFaces("a", 9, 9, [a_face(landmarks=np.full((5, 2), np.nan, np.float32))])])


# --- there and back -------------------------------------------------------------------------------------------------


def in_picture(images: Sequence[ImageFaces]) -> list[ImageFaces]:
    """Boxes clipped, and points outside unmarked, which is what Label Studio takes."""

    def inside(face: Face, size: np.ndarray) -> Face:
        points = face.landmarks.astype(np.float64)
        lost = ~((points >= -0.5) & (points <= size - 0.5)).all(axis=1)
        points[lost] = np.nan
        sigma = None if face.landmark_sigma is None else np.where(lost, np.nan, face.landmark_sigma)
        box = np.clip(face.box.reshape(2, 2), -0.5, size - 0.5).ravel()
        return replace(face, box=np.float32(box), landmarks=np.float32(points), landmark_sigma=sigma)

    return [
        replace(image, faces=[inside(face, np.array([image.width, image.height])) for face in image.faces])
        for image in images
    ]


def assert_same(found: Sequence[ImageFaces], images: Sequence[ImageFaces], pixels: float = 1e-3) -> None:
    """Points and boxes to ``pixels``; probabilities to six digits, angles to three, sigma to four."""
    assert [(i.name, i.width, i.height, len(i.faces)) for i in found] == [
        (i.name, i.width, i.height, len(i.faces)) for i in images
    ]
    for image, original in zip(found, images, strict=True):
        for face, expected in zip(image.faces, original.faces, strict=True):
            np.testing.assert_allclose(face.box, expected.box, atol=pixels)
            np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=pixels)
            assert face.box.dtype == face.landmarks.dtype == np.float32
            assert face.schema == expected.schema
            assert (face.landmark_sigma is None) == (expected.landmark_sigma is None)
            if expected.landmark_sigma is not None:
                np.testing.assert_allclose(face.landmark_sigma, expected.landmark_sigma, atol=1e-4)
            wanted = expected.to_dict()
            got = face.to_dict()
            for key in ("score", "attributes", "pose", "quality", "track_id"):
                assert got[key] == wanted[key], key


# Numbers of pixels have three digits; shares of at most 4000 pixels that much or more. float32 adds a little.
ROUND_TRIPS: dict[str, Callable[[list[ImageFaces]], list[ImageFaces]]] = {
    "coco": lambda images: formats.from_coco(json.loads(formats.format_text(images, "coco"))),
    "cvat": lambda images: formats.from_cvat(formats.format_text(images, "cvat")),
    "label-studio": lambda images: formats.from_label_studio(json.loads(formats.format_text(images, "label-studio"))),
    "plain": lambda images: formats.from_plain(json.loads(formats.format_text(images, "plain"))),
}


@pytest.mark.parametrize("schema", ["mtfl5", "ibug68"])
@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_there_and_back(name, schema):
    for seed in range(5):
        images = random_faces(seed, schema, unmarked=False)
        assert_same(ROUND_TRIPS[name](images), in_picture(images) if name == "label-studio" else images)


@pytest.mark.parametrize("name", [name for name in ROUND_TRIPS if name != "plain"])
def test_there_and_back_with_unmarked_points(name):
    images = random_faces(0, "ibug68", unmarked=True)
    assert np.isnan(images[1].faces[0].landmarks).any()
    assert_same(ROUND_TRIPS[name](images), in_picture(images) if name == "label-studio" else images)


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_there_and_back_with_nothing_but_a_box(name):
    images = [ImageFaces("a.jpg", 200, 100, [BARE])]
    assert_same(ROUND_TRIPS[name](images), images)


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_there_and_back_with_two_schemas_in_one_picture(name):
    points = np.linspace([0, 0], [199, 99], 68, dtype=np.float32)
    images = [ImageFaces("a.jpg", 200, 100, [a_face(landmarks=points, schema="ibug68", landmark_sigma=None), a_face()])]
    assert_same(ROUND_TRIPS[name](images), images)


def test_every_format_of_every_face_is_json_or_xml():
    for name in FORMATS:
        text = formats.format_text([*random_faces(0, "mtfl5", False), ImageFaces("b.jpg", 9, 9, [BARE])], name)
        assert text.endswith("\n")
        assert ET.fromstring(text.encode()) if name == "cvat" else json.loads(text)
    with pytest.raises(ConfigError, match=r"unknown format 'yolo'; known: coco, cvat"):
        formats.format_text([], "yolo")


def test_fiftyone_and_rekognition_place_points_where_label_studio_does():
    images = random_faces(2, "mtfl5", unmarked=False)
    tasks = formats.to_label_studio(images)
    for image, task, sample in zip(images, tasks, formats.to_fiftyone_samples(images)["samples"], strict=True):
        regions = [r["value"] for r in task["predictions"][0]["result"] if r["type"] == "keypointlabels"]
        percents = np.array([(value["x"], value["y"]) for value in regions]).reshape(-1, 2)
        ratios = np.array([k["points"] for k in sample["landmarks"]["keypoints"]]).reshape(-1, 2)
        details = formats.to_rekognition(image)["FaceDetails"]
        cloud = np.array([[p["X"], p["Y"]] for detail in details for p in detail["Landmarks"]]).reshape(-1, 2)
        np.testing.assert_array_equal(ratios, cloud)
        inside = ((ratios >= 0) & (ratios <= 1)).all(axis=1)
        np.testing.assert_allclose(ratios[inside], percents / 100, atol=2e-8)


# --- what is not a file of the format -------------------------------------------------------------------------------


def coco_with(**fields) -> dict:
    document = formats.to_coco([IMAGE])
    document["annotations"][0] |= fields
    return document


def coco_of(*points: str) -> dict:
    return formats.to_coco([IMAGE]) | {"categories": [{"id": 1, "name": "person", "keypoints": list(points)}]}


def cvat_with(old: str, new: str) -> str:
    text = formats.to_cvat([IMAGE])
    assert old in text
    return text.replace(old, new)


def tasks_with(index: int, **fields) -> list[dict]:
    tasks = copy.deepcopy(formats.to_label_studio([IMAGE]))
    tasks[0]["predictions"][0]["result"][index]["value"] |= fields
    return tasks


@pytest.mark.parametrize(
    ("read", "document", "words"),
    [
        (formats.from_coco, {}, "not a COCO file"),
        (formats.from_coco, [], "not a COCO file"),
        (formats.from_coco, coco_with(image_id=9), "not a COCO file"),
        (formats.from_coco, coco_with(bbox=[0, 0, 0, 5]), "impossible box"),
        (formats.from_coco, coco_with(keypoints=[1, 2, 2]), "1 points where mtfl5 has 5"),
        (formats.from_coco, coco_with(attributes={"smile": "grin"}), "smile is 'grin'; known: smiling, not_smiling"),
        (formats.from_coco, coco_of("knee"), "'person' are those of no schema"),
        (formats.from_cvat, "no xml", "not a CVAT file"),
        (formats.from_cvat, '<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "document type"),
        (formats.from_cvat, "<html/>", "CVAT for images"),
        (formats.from_cvat, '<annotations><track id="0" label="face"/></annotations>', "for video"),
        (formats.from_cvat, cvat_with('label="face_mtfl5"', 'label="face_hg"'), "unknown landmark schema 'hg'"),
        (formats.from_cvat, cvat_with('label="nose_tip"', 'label="nose"'), "not a CVAT file"),
        (formats.from_cvat, cvat_with('xtl="20.000"', 'xtl="wide"'), "not a CVAT file"),
        (formats.from_cvat, cvat_with("<skeleton", '<box label="face" group_id="1"/><skeleton'), "more than one box"),
        (formats.from_label_studio, {"data": {}}, "Label Studio's tasks"),
        (formats.from_label_studio, tasks_with(0, rotation=5), "rotated"),
        (formats.from_label_studio, tasks_with(0, width=0), "impossible box"),
        (formats.from_label_studio, tasks_with(4, keypointlabels=["nose"]), "Label Studio's tasks"),
        (formats.from_plain, {"face_version": 1}, "not facemtl's JSON"),
    ],
)
def test_another_file_is_a_sentence(read, document, words):
    with pytest.raises(DataError, match=words):
        read(document)


def test_a_point_of_label_studio_needs_a_face():
    tasks = tasks_with(4, x=90.0)
    del tasks[0]["predictions"][0]["result"][4]["parentID"]
    with pytest.raises(DataError, match=r"the point at \[179\.5, 39\.5\] has no parent and lies in no face"):
        formats.from_label_studio(tasks)


# --- the command line, and what the package may import --------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(cli, "load_predictor", lambda args: lambda image, boxes: [a_face()])
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, np.full((100, 200, 3), 90, np.uint8))
    return [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


@pytest.mark.parametrize("name", FORMATS)
def test_predict_prints_one_document_of_all_photos(name, photos, capsys):
    assert cli.main(["predict", *photos, "--format", name]) == 0
    expected = [ImageFaces(path, 200, 100, [a_face()]) for path in photos]
    assert capsys.readouterr().out == formats.format_text(expected, name)


def test_predict_knows_every_format_and_gives_json_or_a_format(photos, capsys):
    assert list(cli._FORMATS) == list(FORMATS)
    for wrong in (["--format", "yolo"], ["--format", "coco", "--json"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["predict", *photos, *wrong])
    assert "not allowed with" in capsys.readouterr().err


def test_the_document_says_what_there_is(monkeypatch):
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w[\w-]*)` \|", text, flags=re.MULTILINE)) == set(FORMATS)
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict = {}
    exec(code, names)
    (face,) = names["back"]
    (annotation,) = names["document"]["annotations"]
    assert annotation["num_keypoints"] == len(face.landmarks) > 0


def test_formats_need_numpy_alone():
    allowed = {"facemtl", "numpy", *sys.stdlib_module_names}
    for path in (ROOT / "facemtl" / "formats").glob("*.py"):
        loading = [
            n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        names = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in loading]
        assert {name.split(".")[0] for name in names} <= allowed, path.name
    code = "import sys, facemtl.formats; print([m for m in ('cv2', 'onnxruntime', 'supervision') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
