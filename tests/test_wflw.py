"""WFLW: lines of 207 fields, several faces a photo, attributes as strata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture
from scripts import run_prepare

from facemtl.data.sample import face_box
from facemtl.data.splits import is_heldout
from facemtl.data.wflw import LISTS, SPLITS, read_wflw
from facemtl.geometry import box_from_five

COORDINATES = [f"{100 + i + 0.25:.6f}" for i in range(196)]
BOX = ["90", "110", "310", "330"]
CODES = ["0", "1", "0", "0", "1", "0"]
PICTURE = "37--Soccer/37_Soccer_soccer_ball_37_45.jpg"


def line(name: str = PICTURE, coordinates=COORDINATES, box=BOX, codes=CODES) -> str:
    return " ".join([*coordinates, *box, *codes, name])


def write_wflw(root: Path, train: list[str], test: list[str]) -> Path:
    (root / LISTS).mkdir(parents=True)
    for name, lines in (("train", train), ("test", test)):
        (root / LISTS / f"list_98pt_rect_attr_{name}.txt").write_text("".join(f"{text}\n" for text in lines))
        for text in lines:
            if text.endswith(".jpg"):
                write_picture(root / "WFLW_images" / text.split()[-1])
    return root


def test_a_line_as_published(tmp_path):
    assert len(line().split()) == 207
    (sample,) = read_wflw(write_wflw(tmp_path, [line()], [line()]), "test")
    assert sample.image == tmp_path / "WFLW_images" / "37--Soccer" / "37_Soccer_soccer_ball_37_45.jpg"
    assert (sample.points.shape, sample.points.dtype) == ((98, 2), np.float32)
    np.testing.assert_array_equal(sample.points[[0, 97]], [[100.25, 101.25], [294.25, 295.25]])  # x and y in turn
    np.testing.assert_array_equal(sample.box, [90, 110, 310, 330])
    assert sample.strata == {
        "pose": "normal",
        "expression": "exaggerated",
        "illumination": "normal",
        "make_up": "no",
        "occlusion": "yes",
        "blur": "clear",
    }
    assert (sample.schema, sample.labels) == ("wflw98", {})
    assert sample.source == "list_98pt_rect_attr_test.txt:1"
    pupils_nose_mouth = sample.points[[96, 97, 54, 76, 82]]
    np.testing.assert_allclose(face_box(sample), box_from_five(pupils_nose_mouth))


def test_the_six_attributes_in_their_order(tmp_path):
    root = write_wflw(tmp_path, [line()], [line(codes=list("111111")), line(codes=list("000000"))])
    hard, easy = read_wflw(root, "test")
    assert list(hard.strata.values()) == ["large", "exaggerated", "extreme", "yes", "yes", "blurred"]
    assert list(easy.strata.values()) == ["normal", "normal", "normal", "no", "no", "clear"]


def test_the_faces_of_one_photo_are_in_one_split(tmp_path):
    photos = [f"0--Parade/0_Parade_{i}.jpg" for i in range(40)]
    root = write_wflw(tmp_path, [line(name) for name in photos * 2], [line()])
    parts = {split: read_wflw(root, split) for split in ("train", "heldout")}
    for split, samples in parts.items():
        inside = {s.image.relative_to(root / "WFLW_images").as_posix() for s in samples}
        assert inside == {name for name in photos if is_heldout(name) == (split == "heldout")}
        assert len(samples) == 2 * len(inside)
    assert parts["heldout"]


BAD_ROWS = {
    line(codes=CODES[:-1]): "expected 207 fields (98 times x and y, box, 6 attributes, path), found 206",
    line(box=[], codes=[]): "found 197; the lists of list_98pt_test, which have no box, are not read",
    line("my photo.jpg"): "found 208",
    line(coordinates=["nan", *COORDINATES[1:]]): "a number is not finite",
    line(coordinates=["1e39", *COORDINATES[1:]]): "a number is not finite",  # infinite as float32
    line(coordinates=["1,5", *COORDINATES[1:]]): "could not convert string to float: '1,5'",
    line(box=["310", "110", "90", "330"]): "expected a box x_min y_min x_max y_max with an area, found 310 110 90 330",
    line(codes=["0", "2", *CODES[2:]]): "the attribute expression must be 0 or 1, found '2'",
    line(codes=[*CODES[:-1], "-1"]): "the attribute blur must be 0 or 1, found '-1'",
    line("0--Parade/none.jpg"): "the image 0--Parade/none.jpg is missing",
    line("../x.jpg"): "the path '../x.jpg' leaves the data set's folder",
}


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS.items())
def test_a_bad_row_is_reported_with_file_line_and_reason(tmp_path, bad, reason):
    root = write_wflw(tmp_path, [line()], [line()])
    path = root / LISTS / "list_98pt_rect_attr_test.txt"
    path.write_text(f"{line()}\n{bad}\n")
    said = complaint(read_wflw, root, "test")
    assert said.startswith(f"1 bad rows in {path}:\n{path}:2: ")
    assert reason in said


def test_what_is_not_there_is_an_error(tmp_path):
    assert "see datasets/wflw/README.md" in complaint(read_wflw, tmp_path, "train")
    assert "WFLW has no split 'val'; known: train, heldout, test" in complaint(read_wflw, tmp_path, "val")
    assert "holds no rows" in complaint(read_wflw, write_wflw(tmp_path / "empty", [], []), "test")


def test_the_set_is_checked_and_counted(tmp_path, monkeypatch, capsys):
    root = write_wflw(tmp_path, [line(f"0--Parade/{i}.jpg") for i in range(20)], [line(), line(codes=list("100000"))])
    assert run_prepare("wflw", monkeypatch, "--check", "--root", root) == 0
    said = capsys.readouterr().out
    assert "test: 2 faces in 1 pictures\n  blur: clear 2\n" in said
    assert "  pose: large 1, normal 1\n" in said
    assert all(f"{split}: " in said for split in SPLITS)
