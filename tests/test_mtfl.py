from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facemtl.data.mtfl import heldout_rows, read_mtfl, read_mtfl_file
from facemtl.data.sets import DATA_SETS, data_root, read_split
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES

GOOD = "a/1.jpg 11 21 16 12 20 31 32 36 41 42 2 1 2 5"


def write_set(folder: Path, rows: str, name: str = "training.txt", newline: str = "\n") -> Path:
    """A label file, and an empty file for every image named in it so that it is there."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(rows, encoding="utf-8", newline=newline)
    for image in ("a/1.jpg", "a/2.jpg", "lfw_5590/Some_Body_0001.jpg"):
        (folder / image).parent.mkdir(exist_ok=True)
        (folder / image).touch()
    return folder


# The format


def test_a_row_as_published(tmp_path):
    # A leading blank and a backslash; codes and coordinates count from 1; all x before all y.
    row = " lfw_5590\\Some_Body_0001.jpg 11.25 21.50 16 12 20 31 32 36 41 42.75 2 1 2 5\n"
    (sample,) = read_mtfl_file(write_set(tmp_path, row), "training.txt")
    assert sample.image == tmp_path / "lfw_5590" / "Some_Body_0001.jpg"
    np.testing.assert_array_equal(sample.points, [[10.25, 30], [20.5, 31], [15, 35], [11, 40], [19, 41.75]])
    assert sample.points.dtype == np.float32
    assert {task: ATTRIBUTES[task][label] for task, label in sample.labels.items()} == {
        "gender": "female",
        "smile": "smiling",
        "glasses": "no_glasses",
        "pose": "right_profile",
    }
    assert (sample.schema, sample.box, sample.source, sample.group) == ("mtfl5", None, "training.txt:1", "lfw_5590")


def test_points_that_were_scaled_with_their_picture_are_moved_back(tmp_path):
    (tmp_path / "net_7876").mkdir()
    (tmp_path / "net_7876" / "1.jpg").touch()
    coordinates = "11 21 16 12 20 31 32 36 41 42"
    rows = [
        f"{folder}/1.jpg {text} 2 1 2 5" for text in (coordinates, f"{coordinates}.5") for folder in ("a", "net_7876")
    ]
    samples = read_mtfl_file(write_set(tmp_path, "\n".join(rows)), "training.txt")
    # Whole coordinates are those of a picture as it was.
    assert [s.points[0].tolist() for s in samples] == [[10, 30], [10, 30], [10, 30], pytest.approx([10.4, 30.4])]
    assert samples[3].points[4].tolist() == pytest.approx([19.4, 41.9])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_published_and_cleaned_rows_read_the_same(tmp_path, newline):
    clean = write_set(tmp_path / "clean", f"{GOOD}\n{GOOD.replace('1.jpg', '2.jpg')}\n", newline=newline)
    published = write_set(tmp_path / "published", "".join(f" {line}\n" for line in _published(clean)), newline=newline)
    for one, other in zip(*(read_mtfl_file(root, "training.txt") for root in (clean, published)), strict=True):
        assert one.image.relative_to(clean) == other.image.relative_to(published)
        np.testing.assert_array_equal(one.points, other.points)
        assert (one.labels, one.source, one.group) == (other.labels, other.source, other.group)


def _published(root: Path) -> list[str]:
    return [line.replace("/", "\\") for line in (root / "training.txt").read_text().splitlines()]


@pytest.mark.parametrize("task, column", [("gender", 11), ("smile", 12), ("glasses", 13), ("pose", 14)])
def test_the_codes_are_the_classes_in_order(tmp_path, task, column):
    fields = GOOD.split()
    rows = [" ".join([*fields[:column], str(i + 1), *fields[column + 1 :]]) for i in range(len(ATTRIBUTES[task]))]
    samples = read_mtfl_file(write_set(tmp_path, "\n".join(rows)), "training.txt")
    assert [s.labels[task] for s in samples] == list(range(len(ATTRIBUTES[task])))


def test_blank_lines_are_skipped_and_line_numbers_stay_true(tmp_path):
    samples = read_mtfl_file(write_set(tmp_path, f"\n{GOOD}\n   \n{GOOD}\n\n"), "training.txt")
    assert [s.source for s in samples] == ["training.txt:2", "training.txt:4"]


def test_an_image_outside_any_folder_has_no_group(tmp_path):
    (tmp_path / "1.jpg").touch()
    (sample,) = read_mtfl_file(write_set(tmp_path, GOOD.replace("a/1", "1")), "training.txt")
    assert sample.group == ""


# Bad rows

BAD_ROWS = {
    "a/1.jpg 1 2 3": "expected 15 fields (path, 5 x, 5 y, 4 codes), found 4",
    f"{GOOD} 7": "expected 15 fields (path, 5 x, 5 y, 4 codes), found 16",
    GOOD.replace("a/1", "my a/1"): "expected 15 fields (path, 5 x, 5 y, 4 codes), found 16",
    GOOD.replace("a/1", "a/3"): "the image a/3.jpg is missing",
    GOOD.replace("a/1.jpg", "a"): "the image a is missing",
    GOOD.replace("a/1", "x" * 300): "File name too long",
    GOOD.replace("a/1", "../a/1"): "the path '../a/1.jpg' leaves the data set's folder",
    GOOD.replace("a/1", "a\\..\\..\\b"): "the path 'a\\\\..\\\\..\\\\b.jpg' leaves the data set's folder",
    GOOD.replace("a/1", "/a/1"): "the path '/a/1.jpg' leaves the data set's folder",
    GOOD.replace("a/1", "\\a\\1"): "the path '\\\\a\\\\1.jpg' leaves the data set's folder",
    GOOD.replace("a/1", "C:a\\1"): "the path 'C:a\\\\1.jpg' leaves the data set's folder",
    GOOD.replace(" 11 ", " 1_1 "): "could not convert string to float: '1_1'",
    GOOD.replace(" 11 ", " nan "): "a number is not finite",
    GOOD.replace(" 42 ", " -inf "): "a number is not finite",
    GOOD.replace(" 11 ", " 1,5 "): "could not convert string to float: '1,5'",
    GOOD[:-1] + "6": "the pose code must be 1 to 5, found '6'",
    GOOD[:-1] + "0": "the pose code must be 1 to 5, found '0'",
    GOOD[:-1] + "-1": "the pose code must be 1 to 5, found '-1'",
    GOOD.replace(" 2 1 2 5", " 3 1 2 5"): "the gender code must be 1 to 2, found '3'",
    GOOD.replace(" 2 1 2 5", " 2 1.0 2 5"): "the smile code must be 1 to 2, found '1.0'",
    GOOD.replace(" 2 1 2 5", " 2 1 no 5"): "the glasses code must be 1 to 2, found 'no'",
}


@pytest.mark.parametrize("row, reason", BAD_ROWS.items())
def test_a_bad_row_is_reported_with_file_line_and_reason(tmp_path, row, reason):
    write_set(tmp_path, f"{GOOD}\n{row}\n{GOOD}\n")
    with pytest.raises(DataError) as error:
        read_mtfl_file(tmp_path, "training.txt")
    first, *lines = str(error.value).splitlines()
    assert first == f"1 bad rows in {tmp_path / 'training.txt'}:"
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path / 'training.txt'}:2: ")
    assert reason in lines[0]


@pytest.mark.parametrize("some", [slice(0, 12), slice(12, None)])  # no more than 20 are shown
def test_all_bad_rows_are_reported_at_once(tmp_path, some):
    bad = dict(list(BAD_ROWS.items())[some])
    write_set(tmp_path, "\n".join([GOOD, *bad, GOOD]))
    with pytest.raises(DataError) as error:
        read_mtfl_file(tmp_path, "training.txt")
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f"{len(bad)} bad rows")
    for number, (line, reason) in enumerate(zip(lines, bad.values(), strict=True), start=2):
        assert f"training.txt:{number}: " in line
        assert reason in line


def test_a_flood_of_bad_rows_is_cut(tmp_path):
    write_set(tmp_path, "nonsense\n" * 5000)
    with pytest.raises(DataError, match="5000 bad rows") as error:
        read_mtfl_file(tmp_path, "training.txt")
    assert len(str(error.value).splitlines()) == 22
    assert str(error.value).endswith("... and 4980 more")


def test_a_missing_file_says_where_it_should_be(tmp_path):
    with pytest.raises(DataError, match=r"testing\.txt is missing: expected the unpacked MTFL archive"):
        read_mtfl(tmp_path / "nowhere", "test")
    with pytest.raises(DataError, match=r"training\.txt is missing"):
        read_mtfl_file(tmp_path, "training.txt")


@pytest.mark.parametrize(
    "content, reason", [(b"", "holds no rows"), (b"\n \n", "holds no rows"), (b"\xff\xfe", "text")]
)
def test_a_file_without_rows_is_an_error(tmp_path, content, reason):
    (tmp_path / "training.txt").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_mtfl_file(tmp_path, "training.txt")


# Boxes


def test_test_faces_come_with_the_boxes_of_their_images(tmp_path):
    write_set(tmp_path, f"{GOOD}\n{GOOD.replace('a/1', 'a/2')}\n", "testing.txt")
    (tmp_path / "testing_boxes.txt").write_text("a\\2.jpg 20 26.5 111 117\n\n other.jpg 1 1 2 2\n")
    without, with_box = read_mtfl(tmp_path, "test")
    assert without.box is None
    np.testing.assert_array_equal(with_box.box, [20, 26.5, 111, 117])
    assert with_box.box.dtype == np.float32


def test_without_a_file_of_boxes_there_are_none(tmp_path):
    (sample,) = read_mtfl(write_set(tmp_path, GOOD, "testing.txt"), "test")
    assert sample.box is None


def test_all_bad_boxes_are_reported_at_once(tmp_path):
    write_set(tmp_path, GOOD, "testing.txt")
    bad = ("a 1 2 3", "a 1 2 3 4 5", "a 1 2 x 4", "a 1 2 nan 4", "a 3 2 1 4", "a 1 4 3 4", "a/1.jpg 1 2 3 4")
    (tmp_path / "testing_boxes.txt").write_text("\n".join(["a/1.jpg 1 2 3 4", *bad]))
    with pytest.raises(DataError) as error:
        read_mtfl(tmp_path, "test")
    first, *lines = str(error.value).splitlines()
    assert first == f"7 bad rows in {tmp_path / 'testing_boxes.txt'}:"
    assert [line.split(": ")[0].rsplit(":")[-1] for line in lines] == [str(n) for n in range(2, 9)]
    assert "a second box for a/1.jpg" in lines[-1]


# Splits


def test_the_heldout_list_is_a_thousand_rows_of_ten_thousand():
    rows = heldout_rows()
    assert len(rows) == 1000
    assert min(rows) >= 1
    assert max(rows) <= 10_000


def test_the_training_file_is_parted_by_the_heldout_list(tmp_path):
    write_set(tmp_path, f"{GOOD}\n" * 10_000)
    train, heldout = (read_mtfl(tmp_path, split) for split in ("train", "heldout"))
    assert {s.source for s in heldout} == {f"training.txt:{row}" for row in heldout_rows()}
    assert len(train) == 9000
    assert not {s.source for s in train} & {s.source for s in heldout}


@pytest.mark.parametrize("count", [40, 9999, 10_001])
def test_a_training_file_of_another_length_has_no_heldout_rows(tmp_path, count):
    write_set(tmp_path, f"{GOOD}\n" * count)
    with pytest.raises(DataError, match=rf"has {count} rows: this is not the published file .* read_mtfl_file"):
        read_mtfl(tmp_path, "train")


def test_an_unknown_split_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match="no split 'val'; known: train, heldout, test"):
        read_mtfl(tmp_path, "val")


# Rendered faces in this layout


def test_the_layout_of_rendered_faces_is_the_same(tiny_mtfl):
    assert len(read_mtfl_file(tiny_mtfl, "training.txt")) == 40
    test = read_mtfl(tiny_mtfl, "test")
    assert len(test) == 16
    for sample in test:
        assert sample.box is not None
        assert (sample.points.min(axis=0) > sample.box[:2]).all()
        assert (sample.points.max(axis=0) < sample.box[2:]).all()


# Data sets by name


def test_a_data_set_lies_under_the_environment_variable_or_where_it_is_said_to_be(monkeypatch):
    monkeypatch.setenv("FACEMTL_DATA", "/faces")
    assert data_root("mtfl") == Path("/faces/MTFL")
    assert data_root("mtfl", "/elsewhere") == Path("/elsewhere")


@pytest.mark.parametrize("value", [None, ""])
def test_a_data_set_that_is_nowhere_says_what_to_set(monkeypatch, value):
    monkeypatch.delenv("FACEMTL_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("FACEMTL_DATA", value)
    with pytest.raises(DataError, match="set FACEMTL_DATA to the folder that holds MTFL/, or pass --data-root"):
        data_root("mtfl")


def test_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(DataError, match="unknown data set 'mtfl6'; known: mtfl"):
        read_split("mtfl6", "train")


@pytest.mark.parametrize("name", DATA_SETS)
def test_an_unknown_split_of_any_set_lists_the_known_ones(name, tmp_path):
    with pytest.raises(DataError, match=f"{name} has no split 'val'; known: train, heldout, test"):
        read_split(name, "val", tmp_path)


def test_a_split_by_the_name_of_its_set(tiny_mtfl, monkeypatch):
    assert len(read_split("mtfl", "test", tiny_mtfl)) == 16
    monkeypatch.setenv("FACEMTL_DATA", str(tiny_mtfl.parent))
    assert len(read_split("mtfl", "test")) == 16


# The real set


def test_the_splits_of_the_real_set(mtfl_root):
    splits = {split: read_mtfl(mtfl_root, split) for split in ("train", "heldout", "test")}
    assert {split: len(samples) for split, samples in splits.items()} == {"train": 9000, "heldout": 1000, "test": 2995}
    assert len({s.image for samples in splits.values() for s in samples}) == 12_995  # one face an image, none shared


@pytest.mark.parametrize(
    "file, counts",
    [
        (
            "training.txt",
            {"gender": [5807, 4193], "smile": [5616, 4384], "glasses": [1408, 8592]}
            | {"pose": [136, 1113, 7445, 1111, 195]},
        ),
        (
            "testing.txt",
            {"gender": [1173, 1822], "smile": [1632, 1363], "glasses": [241, 2754]}
            | {"pose": [193, 450, 1825, 401, 126]},
        ),
    ],
)
def test_the_labels_of_the_real_set(mtfl_root, file, counts):
    samples = read_mtfl_file(mtfl_root, file)
    for task, expected in counts.items():
        assert np.bincount([s.labels[task] for s in samples]).tolist() == expected


def test_the_first_row_of_the_real_set(mtfl_root):
    sample = read_mtfl_file(mtfl_root, "training.txt")[0]
    assert sample.image == mtfl_root / "lfw_5590" / "Aaron_Eckhart_0001.jpg"
    np.testing.assert_array_equal(sample.points[0], [106.25, 107.75])  # published as 107.25, 108.75
    assert {task: ATTRIBUTES[task][label] for task, label in sample.labels.items()} == {
        "gender": "male",
        "smile": "not_smiling",
        "glasses": "no_glasses",
        "pose": "frontal",
    }


def test_the_published_boxes_of_the_real_set(mtfl_root):
    boxes = np.stack([s.box for s in read_mtfl(mtfl_root, "test")])
    assert len(boxes) == 2995
    assert (boxes == [20, 26, 111, 117]).all(axis=1).sum() == 391  # where the detector failed


def test_left_and_right_of_the_real_set_are_the_viewers(mtfl_root):
    samples = read_mtfl_file(mtfl_root, "training.txt")
    frontal = np.stack([s.points for s in samples if s.labels["pose"] == 2])
    assert (frontal[:, 0, 0] < frontal[:, 1, 0]).all()
    assert (frontal[:, 3, 0] < frontal[:, 4, 0]).all()
    # and a face that looks left has its nose left of the middle of its eyes
    for pose, side in (("left_profile", -1), ("left", -1), ("right", 1), ("right_profile", 1)):
        points = np.stack([s.points for s in samples if s.labels["pose"] == ATTRIBUTES["pose"].index(pose)])
        assert side * np.median(points[:, 2, 0] - points[:, :2, 0].mean(axis=1)) > 5
