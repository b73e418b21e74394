"""300-W and folders of .pts files: points counted from 1, splits from folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture
from scripts import run_prepare

from facemtl.data.pts import photo_of, picture_of, read_pts, read_pts_folder
from facemtl.data.sets import read_split
from facemtl.data.splits import is_heldout
from facemtl.data.w300 import SPLITS, read_w300

ROWS = [f"{i + 1}.000000 {2 * i + 1}.500000" for i in range(68)]


def pts(rows: list[str] | None = None, count: int = 68, newline: str = "\n") -> str:
    rows = ROWS if rows is None else rows
    return newline.join(["version: 1", f"n_points:  {count}", "{", *rows, "}", ""])


def write_face(path: Path, text: str | None = None, suffix: str = ".jpg") -> None:
    """``path`` has no suffix: a .pts file and a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + ".pts").write_text(pts() if text is None else text, newline="")
    write_picture(path.with_name(path.name + suffix))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As published: a picture of each folder, HELEN's and AFW's with several faces, iBUG's name with a blank."""
    folder = tmp_path / "300W"
    for name in ("afw/134212_1", "afw/134212_2", "helen/trainset/100032540_1", "helen/testset/296814969_3"):
        write_face(folder / name)
    for name in ("lfpw/trainset/image_0001", "lfpw/testset/image_0001"):
        write_face(folder / name, suffix=".png")
    write_face(folder / "ibug/image_092 _01")
    return folder


# One file


def test_a_file_as_published(tmp_path):
    path = tmp_path / "a.pts"
    path.write_text("version: 1\nn_points:  3\n{\n446.000 91.000\n1.0 1.0\n-3.5 2e1\n}\n")
    points = read_pts(path, 3)
    np.testing.assert_array_equal(points, [[445, 90], [0, 0], [-4.5, 19]])  # counted from 1, off the picture too
    assert points.dtype == np.float32


@pytest.mark.parametrize("text", [pts(newline="\r\n"), pts().rstrip(), pts().replace(":  ", ":"), "\n" + pts()])
def test_line_endings_and_blanks_do_not_matter(tmp_path, text):
    (tmp_path / "a.pts").write_text(text, newline="")
    np.testing.assert_array_equal(read_pts(tmp_path / "a.pts", 68)[:2], [[0, 0.5], [1, 2.5]])


BAD_FILES = {
    "": "expected a last line '}', found ''",
    pts().replace("version: 1", "version: 2"): ":1: expected 'version: 1', found 'version: 2'",
    pts().replace("version: 1\n", ""): ":1: expected 'version: 1', found 'n_points:  68'",
    pts(count=51): ":2: expected 'n_points: 68', found 'n_points:  51'",
    pts().replace("{", "["): ":3: expected '{', found '['",
    pts().replace("}", ""): "expected a last line '}', found '68.000000 135.500000'",
    pts(ROWS[:-1]): "expected 68 lines of points as n_points says, found 67",
    pts([*ROWS, "1 2"]): "expected 68 lines of points as n_points says, found 69",
    pts([*ROWS[:-1], "1 2 3"]): ":71: expected x and y, found '1 2 3'",
    pts(["1,5 2", *ROWS[1:]]): ":4: could not convert string to float: '1,5'",
    pts(["nan 2", *ROWS[1:]]): ":4: a number is not finite",
}


@pytest.mark.parametrize(("text", "reason"), BAD_FILES.items())
def test_another_layout_shows_what_was_expected_and_found(tmp_path, text, reason):
    (tmp_path / "a.pts").write_text(text)
    said = complaint(read_pts, tmp_path / "a.pts", 68)
    assert said.startswith(str(tmp_path / "a.pts"))
    assert reason in said


def test_what_is_no_text_is_an_error(tmp_path):
    (tmp_path / "a.pts").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in complaint(read_pts, tmp_path / "a.pts", 68)
    assert "is missing: expected a .pts file" in complaint(read_pts, tmp_path / "b.pts", 68)


def test_the_picture_is_the_one_of_the_same_name(tmp_path):
    with pytest.raises(ValueError, match=r"expected one picture a \(.jpg, .png, .jpeg, .bmp\) beside it, found 0"):
        picture_of(tmp_path / "a.pts")
    write_picture(tmp_path / "a.png")
    assert picture_of(tmp_path / "a.pts") == tmp_path / "a.png"
    write_picture(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="found 2"):
        picture_of(tmp_path / "a.pts")


@pytest.mark.parametrize(
    ("name", "photo"),
    [("134212_2", "134212"), ("100032540_1", "100032540"), ("image_0001", "image_0001"), ("indoor_001", "indoor_001")],
)
def test_faces_of_one_photo_are_known_by_their_names(name, photo):
    assert photo_of(name) == photo


# The set


def names(root: Path, split: str) -> list[str]:
    return [s.source for s in read_w300(root, split)]


def test_splits_come_from_folders(root):
    assert names(root, "common") == ["helen/testset/296814969_3.pts", "lfpw/testset/image_0001.pts"]
    assert names(root, "challenging") == ["ibug/image_092 _01.pts"]
    assert names(root, "full") == names(root, "test") == names(root, "common") + names(root, "challenging")
    assert sorted(names(root, "train") + names(root, "heldout")) == [
        *("afw/134212_1.pts", "afw/134212_2.pts", "helen/trainset/100032540_1.pts", "lfpw/trainset/image_0001.pts"),
    ]
    assert [s.strata for s in read_w300(root, "test")] == [{"subset": p} for p in ("common", "common", "challenging")]


def test_a_face_has_68_points_counted_from_0_and_nothing_else(root):
    sample = read_w300(root, "challenging")[0]
    assert sample.image == root / "ibug" / "image_092 _01.jpg"
    np.testing.assert_array_equal(sample.points, [[i, 2 * i + 0.5] for i in range(68)])
    assert (sample.schema, sample.labels, sample.box, sample.angles) == ("ibug68", {}, None, None)
    assert sample.group == "ibug"


def test_a_tenth_of_the_photos_is_held_out_with_all_their_faces(root):
    for i in range(60):
        for face in (1, 2):
            write_face(root / f"afw/{5000 + i}_{face}")
    held, trained = ({s.image.stem for s in read_w300(root, split)} for split in ("heldout", "train"))
    assert not held & trained
    assert {photo_of(name) for name in held} == {photo_of(n) for n in held | trained if is_heldout(photo_of(n))}
    assert 2 <= len(held) <= 30
    assert {f"{photo_of(n)}_{face}" for n in held for face in (1, 2) if n[:1] == "5"} == {
        n for n in held if n[0] == "5"
    }


def test_a_missing_folder_says_which(root, tmp_path):
    (root / "ibug").rename(tmp_path / "elsewhere")
    assert names(root, "common")
    assert "lacks ibug: expected the unpacked archives of 300-W" in complaint(read_w300, root, "test")
    assert "lacks afw, helen/trainset, lfpw/trainset" in complaint(read_w300, tmp_path / "nowhere", "train")
    assert "no split 'val'; known: train, heldout, test, full, common, challenging" in complaint(read_w300, root, "val")


def test_all_bad_files_are_reported_at_once(root):
    write_face(root / "helen/testset/1_1", pts(ROWS[:5]))
    write_face(root / "lfpw/testset/image_0002", suffix=".gif.png")
    assert "1 bad files:" in complaint(read_w300, root, "common")
    said = complaint(read_split, "w300", "test", root)
    assert "helen/testset/1_1.pts: expected 68 lines" in said
    (root / "helen/testset/1_1.pts").unlink()
    assert "lfpw/testset/image_0002.pts: expected one picture" in complaint(read_split, "w300", "test", root)


# Folders of one's own


def test_a_folder_of_ones_own(tmp_path):
    for i in range(40):
        write_face(tmp_path / f"train/f{i}", pts(["1 1"] * 21, 21))
    write_face(tmp_path / "test/a", pts(["1 1"] * 21, 21))
    parts = {split: read_pts_folder(tmp_path, split, "aflw21") for split in SPLITS}
    assert len(parts["test"]) == 1
    assert len(parts["train"]) + len(parts["heldout"]) == 40
    assert all(is_heldout(s.image.stem) for s in parts["heldout"])
    assert parts["train"][0].schema == "aflw21"
    write_face(tmp_path / "heldout/b", pts(["1 1"] * 21, 21))
    assert [s.image.stem for s in read_pts_folder(tmp_path, "heldout", "aflw21")] == ["b"]
    assert len(read_pts_folder(tmp_path, "train", "aflw21")) == 40  # nothing of train/ is held out then
    assert "expected 'n_points: 68', found 'n_points:  21'" in complaint(read_pts_folder, tmp_path, "test")
    assert "holds no .pts files" in complaint(read_pts_folder, tmp_path / "x", "test")


# datasets/w300/prepare.py, as a user runs it


def test_the_set_is_checked_and_counted(root, monkeypatch, capsys):
    assert run_prepare("w300", monkeypatch, "--check", "--root", root) == 0
    said = capsys.readouterr().out
    assert "test: 3 faces in 3 pictures\n  subset: challenging 1, common 2" in said
    (root / "ibug" / "image_092 _01.jpg").write_bytes(b"no picture")
    assert run_prepare("w300", monkeypatch, "--check", "--root", root) == 2
    assert capsys.readouterr().err.startswith("1 bad pictures:\n")
