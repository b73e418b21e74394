"""LFW's attribute file: tabs, two header lines, scores of classifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture
from scripts import run_prepare

from facemtl.data.lfw import FACE_BOX, SPLITS, labels_of, read_lfw
from facemtl.data.sample import face_box
from facemtl.data.splits import is_heldout
from facemtl.face import ATTRIBUTES

NAMES = ["Male", "Asian", "Eyeglasses", "Sunglasses", "Smiling", *(f"Attribute {i}" for i in range(68))]
HEADER = "\t".join(["#", "person", "imagenum", *NAMES])


def row(person: str = "Aaron Eckhart", number: object = 1, **scores: float) -> str:
    values = [str(scores.get(name, -1.25)) for name in NAMES]
    return "\t".join([person, str(number), *values])


def write_lfw(root: Path, *rows: str, header: str = HEADER) -> Path:
    (root / "lfw_attributes.txt").write_text("\n".join(["#\tlfw_attributes\tv1.0", header, *rows]) + "\n")
    for text in rows:
        person, number, *_ = text.split("\t")
        name = person.replace(" ", "_")
        if number.isdecimal() and ".." not in name:
            write_picture(root / "lfw" / name / f"{name}_{int(number):04d}.jpg", 250, 250)
    return root


def everyone(root: Path) -> list:
    return [s for split in SPLITS for s in read_lfw(root, split)]


def test_a_photo(tmp_path):
    (sample,) = everyone(write_lfw(tmp_path, row("Frank Griswold Jr", 12, Male=1.57, Smiling=0.7)))
    assert sample.image == tmp_path / "lfw" / "Frank_Griswold_Jr" / "Frank_Griswold_Jr_0012.jpg"
    assert {task: ATTRIBUTES[task][i] for task, i in sample.labels.items()} == {
        "gender": "male",
        "smile": "smiling",
        "glasses": "no_glasses",
    }
    assert np.isnan(sample.points).all()
    assert (sample.schema, sample.source, sample.group) == ("mtfl5", "lfw_attributes.txt:3", "Frank_Griswold_Jr")
    np.testing.assert_array_equal(face_box(sample), np.float32(FACE_BOX))


def test_the_face_box_is_the_middle_of_the_picture_2_2_times_reduced():
    np.testing.assert_allclose(FACE_BOX, [67.68, 67.68, 181.32, 181.32], atol=0.01)
    assert (FACE_BOX[0] + FACE_BOX[2]) / 2 == pytest.approx(124.5)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ((2, 2, -2, -2), (0, 0, 1)),
        ((-2, -2, 2, -2), (1, 1, 0)),
        ((-2, -2, -2, 0.5), (1, 1, 0)),  # sunglasses are glasses
        ((0.49, -0.49, 0.1, -2), (-1, -1, -1)),  # nobody is sure
        ((0.5, -0.5, -0.4, -2), (0, 1, -1)),
    ],
)
def test_scores_near_nothing_are_no_labels(scores, labels):
    found = labels_of(**dict(zip(("Male", "Smiling", "Eyeglasses", "Sunglasses"), scores, strict=True)))
    assert (found["gender"], found["smile"], found["glasses"]) == labels


def test_a_person_is_in_one_split(tmp_path):
    people = [f"Person {chr(97 + i % 26)}{i // 26}" for i in range(40)]
    root = write_lfw(tmp_path, *(row(person, number) for person in people for number in (1, 2)))
    for split in SPLITS:
        groups = [s.group for s in read_lfw(root, split)]
        assert set(groups) == {
            p.replace(" ", "_") for p in people if is_heldout(p.replace(" ", "_")) == (split != "train")
        }
        assert len(groups) == 2 * len(set(groups))


BAD_ROWS = {
    row() + "\t1": "expected 75 fields separated by tabs, found 76",
    row().replace("\t", " "): "expected 75 fields separated by tabs, found 1",
    row(number="x"): "expected the number of the picture, found 'x'",
    row(Male=float("nan")): "a number is not finite",
    row("Nobody There"): "the image Nobody_There/Nobody_There_0001.jpg is missing",
    row("../x"): "leaves the data set's folder",
}


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS.items())
def test_a_bad_row_is_reported_with_file_line_and_reason(tmp_path, bad, reason):
    root = write_lfw(tmp_path, row())
    (root / "lfw_attributes.txt").write_text("\n".join(["# a comment", HEADER, row(), bad]))
    said = complaint(read_lfw, root, "train")
    assert said.startswith(f"1 bad rows in {root / 'lfw_attributes.txt'}:\n{root / 'lfw_attributes.txt'}:4: ")
    assert reason in said


@pytest.mark.parametrize(
    "header",
    [
        "",
        HEADER.replace("person", "name"),
        HEADER.replace("Smiling", "Smile"),
        HEADER + "\tMore",
        HEADER.replace("\t", " "),
    ],
)
def test_another_header_shows_what_was_expected_and_found(tmp_path, header):
    said = complaint(read_lfw, write_lfw(tmp_path, row(), header=header), "train")
    assert (
        "txt:2: expected '#', 'person', 'imagenum' and 73 attributes with Male, Smiling, Eyeglasses, Sunglasses" in said
    )
    assert f"{header[:60]!r}" in said


def test_what_is_not_there_is_an_error(tmp_path):
    assert "see datasets/lfw/README.md" in complaint(read_lfw, tmp_path, "train")
    assert "LFW has no split 'test'; known: train, heldout" in complaint(read_lfw, tmp_path, "test")
    assert "holds no rows" in complaint(read_lfw, write_lfw(tmp_path), "train")


def test_the_set_is_checked_and_counted(tmp_path, monkeypatch, capsys):
    root = write_lfw(tmp_path, row(), row("Aaron Eckhart", 2, Male=0.1))
    assert run_prepare("lfw", monkeypatch, "--check", "--root", root) == 0
    assert "  gender: male 0, female 1, missing 1\n" in capsys.readouterr().out
