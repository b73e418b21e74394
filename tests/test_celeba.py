"""CelebA and MAFL: two header lines, attributes of 1 and -1, aligned pictures and in the wild."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture
from scripts import run_prepare

from facemtl.data.celeba import SPLITS, read_celeba, read_celeba_aligned, read_mafl
from facemtl.data.splits import is_heldout
from facemtl.face import ATTRIBUTES

NAMES = [
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald"),
    *("Bangs", "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair"),
    *("Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin"),
    *("Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones"),
    *("Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard"),
    *("Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks"),
    *("Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings"),
    *("Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young"),
]
POINTS = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y "
PICTURES = [f"{i:06d}.jpg" for i in range(1, 5)]
YES = [{"Smiling", "Male"}, {"Eyeglasses"}, set(), {"Eyeglasses", "Smiling", "Male"}]


def attributes(name: str, yes: set[str]) -> str:
    return name + " " + " ".join(f"{1 if a in yes else -1:2d}" for a in NAMES)


def table(rows: list[str], header: str, count: int | None = None) -> str:
    return "\n".join([str(len(rows) if count is None else count), header, *rows]) + "\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four pictures, two of them in the training partition, with the blanks of the published files."""
    anno = tmp_path / "Anno"
    rows = [attributes(name, yes) for name, yes in zip(PICTURES, YES, strict=True)]
    write(anno / "list_attr_celeba.txt", table(rows, " ".join(NAMES) + " "))
    wild = [f"{name} 165  184  244  176  196  249  194  271  266  {260 + i}" for i, name in enumerate(PICTURES)]
    write(anno / "list_landmarks_celeba.txt", table(wild, POINTS))
    aligned = [f"{name} 69  109  106  113   77  142   73  152  108  {154 + i}" for i, name in enumerate(PICTURES)]
    write(anno / "list_landmarks_align_celeba.txt", table(aligned, POINTS))
    boxes = [f"{name}    95  71 226 313" for name in PICTURES[:-1]] + [f"{PICTURES[-1]}     0   0   0   0"]
    write(anno / "list_bbox_celeba.txt", table(boxes, "image_id x_1 y_1 width height"))
    parts = "".join(f"{name} {part}\n" for name, part in zip(PICTURES, (0, 0, 1, 2), strict=True))
    write(tmp_path / "Eval" / "list_eval_partition.txt", parts)
    for name in PICTURES:
        write_picture(tmp_path / "Img" / "img_celeba" / name)
        write_picture(tmp_path / "Img" / "img_align_celeba" / name, 178, 218)
    return tmp_path


def said(sample) -> dict[str, str]:
    return {task: ATTRIBUTES[task][label] for task, label in sample.labels.items()}


def test_a_face_in_the_wild(root):
    first, second = read_celeba(root, "train")
    assert first.image == root / "Img" / "img_celeba" / "000001.jpg"
    np.testing.assert_array_equal(first.points, [[165, 184], [244, 176], [196, 249], [194, 271], [266, 260]])
    assert first.points.dtype == np.float32
    np.testing.assert_array_equal(first.box, [95, 71, 95 + 226, 71 + 313])
    assert (first.schema, first.source) == ("mtfl5", "list_landmarks_celeba.txt:3")
    assert said(first) == {"glasses": "no_glasses", "smile": "smiling", "gender": "male"}
    assert said(second) == {"glasses": "glasses", "smile": "not_smiling", "gender": "female"}


def test_an_aligned_face_has_points_of_its_own_and_no_box(root):
    first, _ = read_celeba_aligned(root, "train")
    assert first.image == root / "Img" / "img_align_celeba" / "000001.jpg"
    np.testing.assert_array_equal(first.points, [[69, 109], [106, 113], [77, 142], [73, 152], [108, 154]])
    assert first.box is None
    assert said(first) == said(read_celeba(root, "train")[0])


def test_the_partition_is_the_published_one(root):
    found = {split: [s.image.name for s in read_celeba(root, split)] for split in SPLITS}
    assert found == {"train": PICTURES[:2], "heldout": PICTURES[2:3], "test": PICTURES[3:]}


def test_a_box_without_area_is_missing(root):
    assert read_celeba(root, "test")[0].box is None


HEADERS = [
    ("list_attr_celeba.txt", 0, "000001.jpg -1", ":1: expected the number of rows, found '000001.jpg -1'"),
    ("list_attr_celeba.txt", 0, "5", "the first line says 5 rows, found 4"),
    ("list_attr_celeba.txt", 1, " ".join(NAMES[:-1]), "found 39"),
    ("list_attr_celeba.txt", 1, " ".join(NAMES).replace("Male", "Men"), "found 40 without Male"),
    ("list_landmarks_celeba.txt", 1, POINTS.replace("lefteye_x lefteye_y", "x y"), "expected the columns lefteye_x"),
    ("list_bbox_celeba.txt", 1, "image_id x_1 y_1 x_2 y_2", "expected the columns image_id x_1 y_1 width height"),
]
BAD_ROWS = [
    ("list_attr_celeba.txt", 3, attributes(PICTURES[1], set()).replace("-1", "0"), "must be 1 or -1, found '0'"),
    ("list_attr_celeba.txt", 3, attributes(PICTURES[1], set()) + " 1", ":4: expected 41 fields, found 42"),
    ("list_attr_celeba.txt", 3, attributes(PICTURES[0], set()), ":4: a second row for 000001.jpg"),
    ("list_landmarks_celeba.txt", 3, "000002.jpg 1 2 3 4 5 6 7 8 9", ":4: expected 11 fields, found 10"),
    ("list_landmarks_celeba.txt", 3, "000002.jpg 1 2 3 4 5 6 7 8 9 nan", ":4: a number is not finite"),
    ("list_landmarks_celeba.txt", 3, "000009.jpg 1 2 3 4 5 6 7 8 9 10", "lack a row in a file of "),
    ("list_bbox_celeba.txt", 3, "000002.jpg 1 2 3 x", ":4: could not convert string to float: 'x'"),
]


@pytest.mark.parametrize(("name", "line", "text", "reason"), HEADERS + BAD_ROWS)
def test_another_layout_shows_what_was_expected_and_found(root, name, line, text, reason):
    path = root / "Anno" / name
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines) + "\n")
    message = complaint(read_celeba, root, "train")
    assert str(root / "Anno") in message
    assert reason in message


@pytest.mark.parametrize("row", ["000001.jpg 3", "000001.jpg", "000001.jpg 0 1"])
def test_a_bad_partition_is_an_error(root, row):
    write(root / "Eval" / "list_eval_partition.txt", row + "\n")
    assert f"txt:1: expected the name of a picture and 0, 1 or 2, found '{row}'" in complaint(read_celeba, root, "test")


def test_what_is_not_there_is_an_error(root, tmp_path):
    assert "see datasets/celeba/README.md" in complaint(read_celeba, tmp_path / "nowhere", "train")
    assert "CelebA has no split 'val'; known: train, heldout, test" in complaint(read_celeba, root, "val")
    (root / "Img" / "img_celeba" / PICTURES[3]).unlink()
    assert "the image 000004.jpg is missing" in complaint(read_celeba, root, "test")


# MAFL


def test_mafl_is_two_lists_of_names(root):
    write(root / "MAFL" / "training.txt", "000004.jpg\n000001.jpg\n000002.jpg\n")
    write(root / "MAFL" / "testing.txt", "000003.jpg\n")
    assert [s.image.name for s in read_mafl(root, "test")] == ["000003.jpg"]  # whatever CelebA's partition says
    parts = {split: [s.image.name for s in read_mafl(root, split)] for split in ("train", "heldout")}
    expected = ["000001.jpg", "000002.jpg", "000004.jpg"]
    assert parts["heldout"] == [name for name in expected if is_heldout(name)]
    assert parts["train"] == [name for name in expected if not is_heldout(name)]
    np.testing.assert_array_equal(read_mafl(root, "test")[0].points[4], [266, 262])


def test_bad_lists_of_mafl_are_errors(root):
    assert "see datasets/mafl/README.md" in complaint(read_mafl, root, "test")
    write(root / "MAFL" / "testing.txt", "000003.jpg\n000001.jpg 5\n")
    assert "testing.txt:2: expected the name of a picture of CelebA" in complaint(read_mafl, root, "test")
    write(root / "MAFL" / "testing.txt", "000009.jpg\n")
    assert "1 pictures of the split lack a row" in complaint(read_mafl, root, "test")
    write(root / "MAFL" / "testing.txt", "\n")
    assert "holds no rows" in complaint(read_mafl, root, "test")


# prepare.py, as a user runs it


def test_the_sets_are_checked_and_counted(root, monkeypatch, capsys):
    assert run_prepare("celeba", monkeypatch, "--check", "--root", root) == 0
    printed = capsys.readouterr().out
    assert "train: 2 faces in 2 pictures\n  glasses: glasses 1, no_glasses 1\n" in printed
    write(root / "MAFL" / "training.txt", "000001.jpg\n000002.jpg\n000004.jpg\n")
    write(root / "MAFL" / "testing.txt", "000003.jpg\n")
    assert run_prepare("mafl", monkeypatch, "--check", "--root", root) == 0
    assert "test: 1 faces in 1 pictures" in capsys.readouterr().out
