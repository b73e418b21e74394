"""AFLW: the SQLite file as published, with faces that lack points, boxes, labels or everything."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture
from scripts import run_prepare

from facemtl.data.aflw import SPLITS, count_unusable, read_aflw
from facemtl.data.sample import FaceSample
from facemtl.data.splits import is_heldout
from facemtl.face import ATTRIBUTES

FEATURES = [
    *("LeftBrowLeftCorner", "LeftBrowCenter", "LeftBrowRightCorner"),
    *("RightBrowLeftCorner", "RightBrowCenter", "RightBrowRightCorner"),
    *("LeftEyeLeftCorner", "LeftEyeCenter", "LeftEyeRightCorner"),
    *("RightEyeLeftCorner", "RightEyeCenter", "RightEyeRightCorner"),
    *("LeftEar", "NoseLeft", "NoseCenter", "NoseRight", "RightEar"),
    *("MouthLeftCorner", "MouthCenter", "MouthRightCorner", "ChinCenter"),
]
TABLES = """
CREATE TABLE Faces (face_id INTEGER PRIMARY KEY, file_id TEXT, db_id TEXT);
CREATE TABLE FaceImages (image_id INTEGER PRIMARY KEY, db_id TEXT, file_id TEXT, filepath TEXT, bw INTEGER,
    width INTEGER, height INTEGER);
CREATE TABLE FaceRect (face_id INTEGER, x INTEGER, y INTEGER, w INTEGER, h INTEGER, annot_type_id INTEGER);
CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL, annot_type_id INTEGER);
CREATE TABLE FeatureCoordTypes (feature_id INTEGER PRIMARY KEY, descr TEXT, code TEXT, x REAL, y REAL, z REAL);
CREATE TABLE FaceMetaData (face_id INTEGER, sex TEXT, occluded INTEGER, glasses INTEGER, bw INTEGER,
    annot_type_id INTEGER);
CREATE TABLE FacePose (face_id INTEGER, roll REAL, pitch REAL, yaw REAL, annot_type_id INTEGER);
"""


def change(root: Path, *statements: str) -> None:
    with closing(sqlite3.connect(root / "data" / "aflw.sqlite")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def add_face(root: Path, face: int, file: str, features: tuple[int, ...] = (), rect: bool = True) -> None:
    statements = [f"INSERT INTO Faces VALUES ({face}, '{file}', 'flickr')"]
    statements += [f"INSERT INTO FeatureCoords VALUES ({face}, {f}, {10 * f + 0.5}, {f}, 1)" for f in features]
    statements += [f"INSERT INTO FaceRect VALUES ({face}, -3, 20, 100, 110, 1)"] if rect else []
    change(root, *statements)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five faces in two pictures: complete; half of the points; no points; no box; nothing at all."""
    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(tmp_path / "data" / "aflw.sqlite")) as db:
        db.executescript(TABLES)
        db.executemany("INSERT INTO FeatureCoordTypes VALUES (?, ?, '', 0, 0, 0)", enumerate(FEATURES, start=1))
        for i, path in enumerate(("0/image00002.jpg", "3/image00013.jpg")):
            db.execute("INSERT INTO FaceImages VALUES (?, 'flickr', ?, ?, 0, 12, 10)", (i, path[2:], path))
            write_picture(tmp_path / "data" / "flickr" / path)
        db.commit()
    everything = tuple(range(1, 22))
    add_face(tmp_path, 39341, "image00002.jpg", everything)
    add_face(tmp_path, 39342, "image00002.jpg", (8, 15, 18))
    add_face(tmp_path, 39343, "image00013.jpg")
    add_face(tmp_path, 39344, "image00013.jpg", everything, rect=False)
    add_face(tmp_path, 39345, "image00013.jpg", (8,), rect=False)
    change(
        tmp_path,
        "INSERT INTO FaceMetaData VALUES (39341, 'f', 0, 1, 0, 1)",
        "INSERT INTO FaceMetaData VALUES (39342, 'm', 0, 0, 0, 1)",
        f"INSERT INTO FacePose VALUES (39341, 0.1, 0.2, {math.radians(-45)}, 1)",
        f"INSERT INTO FacePose VALUES (39342, 0.1, 0.2, {math.radians(10)}, 1)",
        f"INSERT INTO FacePose VALUES (39343, 0.1, 0.2, {math.radians(61)}, 1)",
    )
    return tmp_path


def everyone(root: Path) -> dict[str, FaceSample]:
    return {s.source[-5:]: s for split in SPLITS for s in read_aflw(root, split)}


def test_a_complete_face(root):
    sample = everyone(root)["39341"]
    assert sample.image == root / "data" / "flickr" / "0" / "image00002.jpg"
    np.testing.assert_array_equal(sample.points, [[10 * f + 0.5, f] for f in range(1, 22)])
    assert sample.points.dtype == np.float32
    np.testing.assert_array_equal(sample.box, [-3, 20, 97, 130])
    assert {task: ATTRIBUTES[task][label] for task, label in sample.labels.items()} == {
        "gender": "female",
        "glasses": "glasses",
    }
    assert (sample.schema, sample.strata, sample.angles) == ("aflw21", {"yaw": "30 to 60"}, None)
    assert sample.source == "data/aflw.sqlite:face 39341"


def test_points_that_are_not_there_are_missing(root):
    sample = everyone(root)["39342"]
    assert np.flatnonzero(np.isfinite(sample.points[:, 0])).tolist() == [7, 14, 17]
    np.testing.assert_array_equal(sample.points[7], [80.5, 8])
    assert sample.labels == {"gender": 0, "glasses": 1}
    assert sample.strata == {"yaw": "0 to 30"}


def test_faces_without_points_box_or_labels(root):
    faces = everyone(root)
    assert np.isnan(faces["39343"].points).all()
    assert faces["39343"].labels == {"gender": -1, "glasses": -1}
    assert (faces["39343"].strata, faces["39344"].strata) == ({"yaw": "over 60"}, {})
    assert faces["39344"].box is None
    assert np.isfinite(faces["39344"].points).all()


def test_a_face_that_is_nowhere_is_left_out_and_counted(root):
    assert sorted(everyone(root)) == ["39341", "39342", "39343", "39344"]
    assert count_unusable(root) == 1


def test_unknown_labels_are_missing(root):
    change(root, "UPDATE FaceMetaData SET sex = '', glasses = NULL")
    assert everyone(root)["39341"].labels == {"gender": -1, "glasses": -1}


def test_the_faces_of_one_picture_are_in_one_split(root):
    for i in range(30):
        change(root, f"INSERT INTO FaceImages VALUES ({50 + i}, 'flickr', 'x{i}.jpg', '2/x{i}.jpg', 0, 9, 9)")
        write_picture(root / "data" / "flickr" / "2" / f"x{i}.jpg")
        add_face(root, 1000 + 2 * i, f"x{i}.jpg")
        add_face(root, 1001 + 2 * i, f"x{i}.jpg")
    for split in SPLITS:
        samples = read_aflw(root, split)
        assert all(is_heldout(s.group) == (split == "heldout") for s in samples)
        assert samples[-1].group.startswith("flickr/")
    assert len(everyone(root)) == 64


BAD = {
    "DROP TABLE FaceRect": "expected a table FaceRect with face_id, x, y, w, h, found no face_id",
    "ALTER TABLE FaceMetaData RENAME COLUMN sex TO gender": "expected a table FaceMetaData with face_id, sex, glasses",
    "UPDATE FeatureCoordTypes SET descr = 'Ear' WHERE feature_id = 20": "20 is 'ear', not 'mouth_right_corner'",
    "DELETE FROM FeatureCoordTypes WHERE feature_id = 21": "expected the 21 features of AFLW, found 20",
    "UPDATE FeatureCoords SET feature_id = 22 WHERE feature_id = 1": "face 39341 has the point 22 at",
    "UPDATE FeatureCoords SET x = 'a' WHERE feature_id = 8": "has the point 8 at ('a', 8.0)",
    "UPDATE FaceRect SET w = 0 WHERE face_id = 39342": "face 39342: expected a box x y w h with an area, found",
    "INSERT INTO FaceRect VALUES (39341, 1, 2, 3, 4, 2)": "a second row for face 39341 in FaceRect",
    "DELETE FROM FaceImages WHERE image_id = 0": "its picture 'image00002.jpg' of 'flickr' has no row in FaceImages",
    "UPDATE FaceImages SET filepath = '9/none.jpg' WHERE image_id = 0": "the image flickr/9/none.jpg is missing",
    "UPDATE FaceImages SET filepath = '../../x.jpg' WHERE image_id = 0": "leaves the data set's folder",
    "DELETE FROM Faces": "the table Faces holds no rows",
}


@pytest.mark.parametrize(("statement", "reason"), BAD.items())
def test_another_layout_shows_what_was_expected_and_found(root, statement, reason):
    change(root, statement)
    said = complaint(read_aflw, root, "train")
    assert str(root / "data" / "aflw.sqlite") in said
    assert reason in said


@pytest.mark.parametrize(
    "content", [b"", b"no database at all, whatever its name", b"SQLite format 3\x00" + b"\xff" * 500]
)
def test_what_is_no_database_is_an_error(root, content):
    (root / "data" / "aflw.sqlite").write_bytes(content)
    assert str(root / "data" / "aflw.sqlite") in complaint(read_aflw, root, "train")


def test_what_is_not_there_is_an_error(root, tmp_path):
    assert "see datasets/aflw/README.md" in complaint(read_aflw, tmp_path / "nowhere", "train")
    assert "AFLW has no split 'test'; known: train, heldout" in complaint(read_aflw, root, "test")


def test_the_set_is_checked_and_counted(root, monkeypatch, capsys):
    assert run_prepare("aflw", monkeypatch, "--check", "--root", root) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 faces have neither a box nor the five points and are left out\n")
    assert "  gender: male " in said
