"""udacity68: 68 points a face counted from 1, and splits by person."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scripts import run_prepare

from facemtl.data.sample import FaceSample, face_box
from facemtl.data.sets import read_split
from facemtl.data.udacity68 import HEADER, SPLITS, person_of, read_udacity68, split_of
from facemtl.errors import DataError
from facemtl.geometry import box_from_five
from facemtl.image import write_image
from facemtl.landmarks import SCHEMAS

SCHEMA = SCHEMAS["ibug68"]
NUMBERS = [f"{i + 1}.00" for i in range(136)]
HEAD = "," + ",".join(str(i) for i in range(136))


def row(name: str, numbers: list[str] | None = None) -> str:
    return ",".join([name, *(NUMBERS if numbers is None else numbers)])


def write_udacity(folder: Path, lines: list[str], newline: str = "\n", names: tuple[str, ...] = ()) -> Path:
    """The CSV file, and a picture for each row or for each of ``names``."""
    (folder / "training").mkdir(parents=True)
    (folder / "training_frames_keypoints.csv").write_text("\n".join(lines) + "\n", newline=newline)
    for name in names or [line.split(",")[0] for line in lines[1:] if line.strip()]:
        write_image(folder / "training" / name, np.zeros((150, 140, 3), np.uint8))
    return folder


def everything(root: Path) -> list[FaceSample]:
    samples = [sample for split in SPLITS for sample in read_udacity68(root, split)]
    return sorted(samples, key=lambda sample: int(sample.source.split(":")[1]))


# The format


def test_a_row_as_published(tmp_path):
    numbers = ["56.90", "74.63", "54.10", "88.63", *NUMBERS[4:]]
    root = write_udacity(tmp_path / "udacity68", [HEAD, row("Angelo_Reyes_22.jpg", numbers)])
    (sample,) = everything(root)
    assert sample.image == root / "training" / "Angelo_Reyes_22.jpg"
    assert sample.points.shape == (68, 2)
    assert sample.points.dtype == np.float32
    # x and y in turn, counted from 1
    np.testing.assert_allclose(sample.points[:3], [[55.9, 73.63], [53.1, 87.63], [4, 5]], rtol=1e-6)
    np.testing.assert_array_equal(sample.points[67], [134, 135])
    assert (sample.schema, sample.labels, sample.box) == ("ibug68", {}, None)
    assert (sample.source, sample.group, sample.strata) == ("training_frames_keypoints.csv:2", "", {})
    assert sample.angles is None
    np.testing.assert_allclose(face_box(sample), box_from_five(SCHEMA.to_five(sample.points)))


def test_carriage_returns_and_blank_lines_are_nothing(tmp_path):
    lines = [HEAD, row("A_B_00.jpg"), "", "  ", row("A_B_01.jpg")]
    root = write_udacity(tmp_path / "udacity68", lines, newline="\r\n")
    samples = everything(root)
    assert [s.image.name for s in samples] == ["A_B_00.jpg", "A_B_01.jpg"]
    assert [s.source.rpartition(":")[2] for s in samples] == ["2", "5"]


@pytest.mark.parametrize("head", ["", row("A_B_00.jpg"), HEAD.removesuffix(",135"), HEAD + ",136", "Unnamed" + HEAD])
def test_another_header_is_an_error_that_shows_it(tmp_path, head):
    root = write_udacity(tmp_path / "udacity68", [head, row("A_B_00.jpg")])
    with pytest.raises(DataError) as error:
        read_udacity68(root, "train")
    assert f"keypoints.csv:1: expected the header ',0,1,...,135', found {head[:80]!r}" in str(error.value)
    assert HEAD.split(",") == HEADER


BAD_ROWS = {
    row("A_B_01.jpg", NUMBERS[:-1]): "expected 137 columns (name, 68 times x and y), found 136",
    row("A_B_01.jpg", [*NUMBERS, ""]): "expected 137 columns (name, 68 times x and y), found 138",
    row("A_B_01.jpg", ["", *NUMBERS[1:]]): "could not convert string to float: ''",
    row("A_B_01.jpg", ["nan", *NUMBERS[1:]]): "a number is not finite",
    row("A_B_01.jpg", [*NUMBERS[:-1], "-inf"]): "a number is not finite",
    row("A_B_02.jpg"): "the image A_B_02.jpg is missing",
    row("A_B_00.jpg"): "a second row for A_B_00.jpg",
    row("../A_B_00.jpg"): "the path '../A_B_00.jpg' leaves the data set's folder",
    row(""): "the image . is missing",
}


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS.items())
def test_a_bad_row_is_reported_with_file_line_and_reason(tmp_path, bad, reason):
    root = write_udacity(tmp_path / "udacity68", [HEAD, row("A_B_00.jpg"), bad], names=("A_B_00.jpg", "A_B_01.jpg"))
    for split in SPLITS:
        with pytest.raises(DataError) as error:
            read_udacity68(root, split)
        csv = root / "training_frames_keypoints.csv"
        assert str(error.value) == f"1 bad rows in {csv}:\n{csv}:3: {reason}"


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"keypoints.csv is missing: .* see datasets/udacity68/README.md"):
        read_udacity68(tmp_path, "train")
    with pytest.raises(DataError, match=r"keypoints.csv holds no rows"):
        read_udacity68(write_udacity(tmp_path / "empty", [HEAD]), "train")
    with pytest.raises(DataError, match="udacity68 has no split 'test'; known: train, heldout"):
        read_split("udacity68", "test", tmp_path)


# The splits


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("T_Boone_Pickens_10.jpg", "T_Boone_Pickens"),
        ("Raja_Zafar-ul-Haq_52.jpg", "Raja_Zafar-ul-Haq"),
        ("Louis_14_00.jpg", "Louis_14"),
        ("Somebody.jpg", "Somebody"),
    ],
)
def test_a_person_is_the_name_before_the_digits(name, person):
    assert person_of(name) == person


def test_the_split_is_the_sha256_of_the_person_modulo_five():
    assert split_of("Aishwarya_Rai_10.jpg") == split_of("Aishwarya_Rai_52.jpg") == "heldout"  # ... 5
    assert split_of("Abdullah_Gul_10.jpg") == split_of("Abdullah_Gul_32.jpg") == "train"  # ... 3
    splits = [split_of(f"Person{chr(97 + i % 26)}{i // 26 * 'x'}_00.jpg") for i in range(1000)]
    assert splits.count("heldout") == pytest.approx(200, abs=50)  # 13 is one standard deviation


# datasets/udacity68/prepare.py, as a user runs it


def test_an_archive_is_unpacked_checked_and_counted(tmp_path, monkeypatch, capsys):
    off = row("Abdullah_Gul_11.jpg", ["0.40", "1.00", "140.60", "1.00", "2.00", "150.60", *NUMBERS[6:]])
    lines = [HEAD, row("Abdullah_Gul_10.jpg"), off, row("Aishwarya_Rai_10.jpg")]
    write_udacity(tmp_path / "x" / "udacity68", lines)
    archive = shutil.make_archive(str(tmp_path / "udacity68"), "zip", tmp_path / "x")
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path / "data"))
    assert run_prepare("udacity68", monkeypatch, archive) == 0
    assert capsys.readouterr().out == (
        "train: 2 faces of 1 people\n"
        "  3 points outside Abdullah_Gul_11.jpg (training_frames_keypoints.csv:3)\n"
        "heldout: 1 faces of 1 people\n"
    )
    (tmp_path / "data" / "udacity68" / "training" / "Abdullah_Gul_10.jpg").write_bytes(b"no picture")
    assert run_prepare("udacity68", monkeypatch, "--check") == 2
    assert capsys.readouterr().err.startswith("1 bad pictures:\n")


# The real set


def test_the_counts_are_those_of_the_readme_and_nobody_is_in_both_splits(udacity_root):
    names = {split: [s.image.name for s in read_udacity68(udacity_root, split)] for split in SPLITS}
    people = {split: {person_of(name) for name in names[split]} for split in SPLITS}
    assert {split: len(names[split]) for split in SPLITS} == {"train": 2328, "heldout": 528}
    assert {split: len(people[split]) for split in SPLITS} == {"train": 234, "heldout": 52}
    assert not people["train"] & people["heldout"]


def test_points_of_five_faces_alone_are_off_their_picture(udacity_root, monkeypatch, capsys):
    assert run_prepare("udacity68", monkeypatch, "--check", "--root", udacity_root) == 0
    off = [line.split(" (")[0] for line in capsys.readouterr().out.splitlines() if "outside" in line]
    assert off == [
        "  1 points outside Mariana_Ohata_22.jpg",
        "  3 points outside Eliza_Dushku_22.jpg",
        "  5 points outside Eliza_Dushku_20.jpg",
        "  2 points outside Charlotte_Casiraghi_00.jpg",
        "  7 points outside Eliza_Dushku_21.jpg",
    ]


def test_the_points_of_the_real_set_are_in_the_order_of_the_schema(udacity_root):
    points = np.stack([s.points for s in everything(udacity_root)])
    five = SCHEMA.to_five(points)
    assert (five[:, 0, 0] < five[:, 1, 0]).all()  # left eye, right eye
    assert (five[:, 3, 0] < five[:, 4, 0]).all()  # mouth corners
    assert (five[:, :2, 1].mean(axis=1) < five[:, 3:, 1].mean(axis=1)).all()  # nobody stands on the head
    # People look both ways, so that the mean face is its own mirror image: each point is nearest to its mirrored self.
    centred = points - points.mean(axis=1, keepdims=True)
    shape = (centred / np.linalg.norm(centred, axis=(1, 2), keepdims=True)).mean(axis=0)
    mirrored = shape[list(SCHEMA.flip_order)] * (-1, 1)
    distance = np.linalg.norm(shape[:, None] - mirrored, axis=2)
    assert (distance.argmin(axis=1) == np.arange(68)).all()
    assert distance.diagonal().max() < 0.06 * np.linalg.norm(shape[36] - shape[45])


def test_predictions_of_a_model_lie_where_the_points_are_once_they_are_counted_from_0(
    udacity_root, monkeypatch, capsys
):
    assert run_prepare("udacity68", monkeypatch, "--measure-offset", "--root", udacity_root) == 0
    x = float(capsys.readouterr().out.split("x ")[1].split(",")[0])
    assert abs(x) < 0.3  # read as they are they would be 1 to the right of it
