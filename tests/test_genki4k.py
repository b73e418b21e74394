"""GENKI-4K: two forms of label file, angles in the signs of the package, pictures that are there more than once."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scripts import run_prepare

from facemtl.data.genki4k import FACE_BOX, SIDE, SPLITS, read_genki4k, split_of
from facemtl.data.sample import MISSING, FaceSample, face_box
from facemtl.data.sets import read_split
from facemtl.errors import DataError
from facemtl.image import write_image

SMILING, NOT_SMILING = 0, 1
GOOD = "1 -0.057745 0.083098 -0.094952"


def write_genki(folder: Path, labels: str, pictures: int = 6, newline: str = "\n", side: int = SIDE) -> Path:
    """``labels.txt``, and ``files/file0001.jpg`` and so on, each of another colour."""
    (folder / "files").mkdir(parents=True)
    (folder / "labels.txt").write_text(labels, newline=newline)
    for i in range(1, pictures + 1):
        write_image(folder / "files" / f"file{i:04d}.jpg", np.full((side, side, 3), 6 * i, np.uint8))
    return folder


def everything(root: Path) -> list[FaceSample]:
    samples = [sample for split in SPLITS for sample in read_genki4k(root, split)]
    return sorted(samples, key=lambda sample: int(sample.source.split(":")[1]))


# The format


def test_a_row_with_a_name(tmp_path):
    root = write_genki(tmp_path / "genki4k", "file0003.jpg 1 0.5 -0.25 0.125\n")
    (sample,) = everything(root)
    assert sample.image == root / "files" / "file0003.jpg"
    assert sample.labels == {"smile": SMILING}
    np.testing.assert_allclose(sample.angles, [28.6479, -14.3239, 7.1620], atol=1e-4)  # 1 radian is 57.2958 degrees
    assert sample.angles.dtype == np.float32
    assert (sample.schema, sample.source, sample.group) == ("mtfl5", "labels.txt:1", "")
    assert sample.points.shape == (5, 2)
    assert np.isnan(sample.points).all()
    np.testing.assert_array_equal(face_box(sample), np.float32(FACE_BOX))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_published_rows_have_no_name_and_are_counted_from_1(tmp_path, newline):
    root = write_genki(tmp_path / "genki4k", f"{GOOD}\n0 0 0 0\n1 0.1 0.2 0.3\n\n  \n", newline=newline)
    samples = everything(root)
    assert [s.image.name for s in samples] == ["file0001.jpg", "file0002.jpg", "file0003.jpg"]
    assert [s.labels["smile"] for s in samples] == [SMILING, NOT_SMILING, SMILING]
    np.testing.assert_allclose(samples[0].angles, np.degrees([-0.057745, 0.083098, -0.094952]), rtol=1e-6)


def test_named_rows_may_skip_pictures_and_lines(tmp_path):
    root = write_genki(tmp_path / "genki4k", f"\nfile0005.jpg {GOOD}\r\n\nfile0002.jpg 0 0 0 0\n")
    samples = everything(root)
    assert [s.image.name for s in samples] == ["file0005.jpg", "file0002.jpg"]
    assert [s.source for s in samples] == ["labels.txt:2", "labels.txt:4"]


@pytest.mark.parametrize(("labels", "line"), [(f"{GOOD}\n\n{GOOD}\n", 2), (f"\n{GOOD}\n", 1)])
def test_a_blank_line_among_counted_rows_is_an_error(tmp_path, labels, line):
    root = write_genki(tmp_path / "genki4k", labels)
    with pytest.raises(DataError, match=rf"labels.txt:{line}: a blank line; rows without names are counted"):
        read_genki4k(root, "train")


@pytest.mark.parametrize(
    ("labels", "found"),
    [("file0001.jpg 1 0.1\n", "found 3: 'file0001.jpg 1 0.1'"), ("1,0.1,0.2,0.3\n", "found 1: '1,0.1,0.2,0.3'")],
)
def test_another_form_is_an_error_that_says_what_was_expected(tmp_path, labels, found):
    with pytest.raises(DataError) as error:
        read_genki4k(write_genki(tmp_path / "genki4k", labels), "train")
    assert "labels.txt:1: expected 4 fields (smile, yaw, pitch, roll) as published, or 5" in str(error.value)
    assert found in str(error.value)


BAD_ROWS = {
    "file0002.jpg 1 0.1 0.2": "expected 5 fields as in the first row, found 4",
    GOOD: "expected 5 fields as in the first row, found 4",  # the published form after the named one
    f"file0002.jpg {GOOD} 0": "expected 5 fields as in the first row, found 6",
    f"file0007.jpg {GOOD}": "the image file0007.jpg is missing",
    f"file0001.jpg {GOOD}": "a second row for file0001.jpg",
    f"../labels.txt {GOOD}": "the path '../labels.txt' leaves the data set's folder",
    "file0002.jpg 2 0.1 0.2 0.3": "smile must be 0 or 1, found '2'",
    "file0002.jpg -1 0.1 0.2 0.3": "smile must be 0 or 1, found '-1'",
    "file0002.jpg 1 nan 0.2 0.3": "angles must be radians within -pi to pi, found nan 0.2 0.3",
    "file0002.jpg 1 0.1 inf 0.3": "angles must be radians within -pi to pi, found 0.1 inf 0.3",
    "file0002.jpg 1 28.6 0.2 0.3": "angles must be radians within -pi to pi, found 28.6 0.2 0.3",  # degrees
    "file0002.jpg 1 0.1 ? 0.3": "could not convert string to float: '?'",
}


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.items())
def test_a_bad_row_is_reported_with_file_line_and_reason(tmp_path, row, reason):
    root = write_genki(tmp_path / "genki4k", f"file0001.jpg {GOOD}\n{row}\nfile0003.jpg {GOOD}\n")
    for split in SPLITS:
        with pytest.raises(DataError) as error:
            read_genki4k(root, split)
        assert str(error.value) == f"1 bad rows in {root / 'labels.txt'}:\n{root / 'labels.txt'}:2: {reason}"


def test_a_published_row_whose_picture_is_missing_names_it(tmp_path):
    with pytest.raises(DataError, match=r"labels.txt:2: the image file0002.jpg is missing"):
        read_genki4k(write_genki(tmp_path / "genki4k", f"{GOOD}\n{GOOD}\n", pictures=1), "train")


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"labels.txt is missing: .* see datasets/genki4k/README.md"):
        read_genki4k(tmp_path, "train")
    with pytest.raises(DataError, match=r"labels.txt holds no rows"):
        read_genki4k(write_genki(tmp_path / "empty", "\n\n"), "train")
    with pytest.raises(DataError, match="GENKI-4K has no split 'test'; known: train, heldout"):
        read_split("genki4k", "test", tmp_path)


# The splits


def test_the_split_is_the_sha256_of_the_name_modulo_five():
    assert split_of("file0028.jpg") == "heldout"  # ... 5
    assert split_of("file0001.jpg") == "train"  # ... 9
    splits = [split_of(f"{i}.jpg") for i in range(5000)]
    assert splits.count("heldout") == pytest.approx(1000, abs=100)  # 28 is one standard deviation


def test_a_picture_that_is_there_twice_is_trained_on_without_what_its_labels_differ_in(tmp_path):
    rows = [
        "1 0.1 0.2 0.3",  # 1
        "1 0.1 0.2 0.3",  # 2, the picture of 1: one label twice
        "1 0.1 0.2 0.3",  # 3
        "1 0.1 0.9 0.3",  # 4, the picture of 3 with another pitch
        "1 0.1 0.2 0.3",  # 5
        "0 0.2 0.3 0.4",  # 6, the picture of 5 with another smile and other angles
    ]
    root = write_genki(tmp_path / "genki4k", "\n".join(rows + [GOOD] * 34), pictures=40)
    for copy, original in ((2, 1), (4, 3), (6, 5)):
        shutil.copy(root / "files" / f"file{original:04d}.jpg", root / "files" / f"file{copy:04d}.jpg")
    (root / "files" / "file0028.jpg").write_bytes((root / "files" / "file0001.jpg").read_bytes())  # else held out
    train = {s.image.name: s for s in read_genki4k(root, "train")}
    known = {name: np.isfinite(s.angles).tolist() for name, s in train.items()}
    assert known["file0003.jpg"] == known["file0004.jpg"] == [True, False, True]
    assert known["file0005.jpg"] == known["file0006.jpg"] == [False, False, False]
    assert known["file0001.jpg"] == known["file0002.jpg"] == known["file0028.jpg"] == [False, False, False]
    smiles = [train[f"file000{i}.jpg"].labels["smile"] for i in range(1, 7)]
    assert smiles == [SMILING, SMILING, SMILING, SMILING, MISSING, MISSING]
    heldout = {s.image.name for s in read_genki4k(root, "heldout")}
    assert heldout == {name for name in (f"file{i:04d}.jpg" for i in range(7, 41)) if split_of(name) == "heldout"} - {
        "file0028.jpg"
    }
    assert not heldout & set(train)


# datasets/genki4k/prepare.py, as a user runs it


def test_an_archive_is_unpacked_checked_and_counted(tmp_path, monkeypatch, capsys):
    write_genki(tmp_path / "x" / "GENKI", "\n".join([GOOD] * 20 + ["0 0 0 0"] * 20), pictures=40)
    archive = shutil.make_archive(str(tmp_path / "genki4k"), "zip", tmp_path / "x")
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path / "data"))
    assert run_prepare("genki4k", monkeypatch, archive) == 0
    said = capsys.readouterr().out
    train, heldout = (len(read_split("genki4k", split)) for split in SPLITS)
    assert (train + heldout, heldout > 0) == (40, True)
    assert said.startswith(f"train: {train} faces\n  smile: smiling ")
    assert f"\nheldout: {heldout} faces\n" in said
    assert "degrees: yaw " in said
    assert run_prepare("genki4k", monkeypatch, archive) == 2
    assert "is already there: remove it first, or run with --check" in capsys.readouterr().err


def test_pictures_of_another_size_are_found(tmp_path, monkeypatch, capsys):
    root = write_genki(tmp_path / "genki4k", f"{GOOD}\n", side=180)
    assert run_prepare("genki4k", monkeypatch, "--check", "--root", root) == 2
    assert "file0001.jpg has 180 x 180 pixels, expected 64 x 64" in capsys.readouterr().err


# The real set


def test_the_counts_are_those_of_the_readme(genki_root):
    parts = {split: read_genki4k(genki_root, split) for split in SPLITS}
    assert {split: len(samples) for split, samples in parts.items()} == {"train": 1971, "heldout": 437}
    smiles = {split: [s.labels["smile"] for s in samples] for split, samples in parts.items()}
    assert [smiles["train"].count(i) for i in (SMILING, NOT_SMILING, MISSING)] == [1052, 919, 0]
    assert [smiles["heldout"].count(i) for i in (SMILING, NOT_SMILING, MISSING)] == [235, 202, 0]
    angles = {split: np.stack([s.angles for s in samples]) for split, samples in parts.items()}
    assert np.isnan(angles["train"]).sum(axis=0).tolist() == [107, 107, 107]
    assert np.isfinite(angles["heldout"]).all()
    assert np.nanmax(np.abs(np.concatenate(list(angles.values())))) < 50


def test_no_held_out_picture_is_trained_on(genki_root):
    train, heldout = ({s.image.read_bytes() for s in read_genki4k(genki_root, split)} for split in SPLITS)
    assert len(heldout) == 437
    assert not train & heldout


def test_the_signs_are_those_of_the_points_that_a_model_finds(genki_root, monkeypatch, capsys):
    # The model has seen MTFL alone; "larger" is the nose to the right, the nose up, the eye line clockwise.
    assert run_prepare("genki4k", monkeypatch, "--measure-signs", "--root", genki_root) == 0
    said = capsys.readouterr().out.removeprefix("correlation with the points: ")
    yaw, pitch, roll = (float(part.split()[1]) for part in said.split(", "))
    assert yaw > 0.7
    assert pitch > 0.5
    assert roll > 0.8


def test_turning_a_picture_clockwise_adds_to_its_roll_as_the_label_does(genki_root):
    """Rolled heads, turned back by their label, are upright: the hair line and chin of the mean picture are sharper."""
    samples = [s for s in read_genki4k(genki_root, "train") if abs(s.angles[2]) > 10]
    assert len(samples) > 200

    def sharpness(sign: int) -> float:
        mean = np.zeros((SIDE, SIDE))
        for s in samples:
            turn = cv2.getRotationMatrix2D((SIDE / 2 - 0.5, SIDE / 2 - 0.5), sign * float(s.angles[2]), 1)
            grey = cv2.imread(str(s.image), cv2.IMREAD_GRAYSCALE)
            mean += cv2.warpAffine(grey, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        inner = mean[12:52, 12:52] / len(samples)
        return float(np.hypot(*np.gradient(inner)).mean())

    upright, as_it_is, twice = sharpness(1), sharpness(0), sharpness(-1)  # OpenCV turns counter-clockwise
    assert upright > as_it_is > twice


def test_the_face_box_is_the_one_that_the_detector_finds(genki_root, monkeypatch, capsys):
    assert run_prepare("genki4k", monkeypatch, "--measure-box", "--root", genki_root) == 0
    measured = [float(text) for text in capsys.readouterr().out.removeprefix("median box:").split()]
    assert measured == pytest.approx(FACE_BOX, abs=0.15)
    assert math.isclose(FACE_BOX[2] - FACE_BOX[0], FACE_BOX[3] - FACE_BOX[1], abs_tol=0.5)  # a square, nearly
