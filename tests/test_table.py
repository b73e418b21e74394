"""Tables with a column map: CSV and Parquet, missing values, and maps that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from face_files import complaint, write_picture

from facemtl.data.sets import read_split
from facemtl.data.splits import is_heldout
from facemtl.data.table import read_columns, read_table

XY = ["lx", "ly", "rx", "ry", "nx", "ny", "mlx", "mly", "mrx", "mry"]
MAP = f"""
image = "file"
schema = "mtfl5"
first_pixel = 1
points = {XY}
box = ["x1", "y1", "x2", "y2"]
angles = ["yaw", "pitch", "roll"]
group = "folder"
strata = ["camera"]

[labels.smile]
column = "smiles"
classes = {{ 1 = "smiling", 0 = "not_smiling" }}

[labels.gender]
column = "gender"
"""
HEADER = ["file", *XY, "x1", "y1", "x2", "y2", "yaw", "pitch", "roll", "folder", "camera", "smiles", "gender", "more"]
FULL = [
    "a b.jpg",
    *(str(i) for i in range(1, 11)),
    *["1", "2", "41", "52", "10", "-5.5", "0", "outside", "left", "1", "female", "x"],
]
SPARSE = ["a b.jpg", "1", "", *("" for _ in range(20))]


def write(root: Path, *rows: list[str], split: str = "test", columns: str = MAP, header: list[str] = HEADER) -> Path:
    (root / "columns.toml").write_text(columns)
    (root / f"{split}.csv").write_text("".join(",".join(row) + "\n" for row in [header, *rows]))
    write_picture(root / "a b.jpg")
    return root


def test_a_full_row(tmp_path):
    (sample,) = read_table(write(tmp_path, FULL), "test")
    assert sample.image == tmp_path / "a b.jpg"
    np.testing.assert_array_equal(sample.points, np.arange(10).reshape(5, 2))  # counted from 1 in the table
    np.testing.assert_array_equal(sample.box, [0, 1, 40, 51])
    np.testing.assert_array_equal(sample.angles, [10, -5.5, 0])
    assert {a.dtype for a in (sample.points, sample.box, sample.angles)} == {np.dtype(np.float32)}
    assert (sample.labels, sample.strata, sample.group) == ({"smile": 0, "gender": 1}, {"camera": "left"}, "outside")
    assert (sample.schema, sample.source) == ("mtfl5", "test.csv:line 2")


def test_empty_fields_are_missing(tmp_path):
    (sample,) = read_table(write(tmp_path, SPARSE), "test")
    assert np.isnan(sample.points).all()  # of the first point, only x is there
    assert sample.box is None
    assert np.isnan(sample.angles).all()
    assert (sample.labels, sample.strata, sample.group) == ({"smile": -1, "gender": -1}, {}, "")


def test_a_map_needs_only_the_picture_and_the_schema(tmp_path):
    columns = 'image = "file"\nschema = "wflw98"\n'
    (sample,) = read_table(write(tmp_path, ["a b.jpg"], columns=columns, header=["file"]), "test")
    assert sample.points.shape == (98, 2)
    assert (sample.labels, sample.box, sample.angles) == ({}, None, None)


def test_parquet_gives_what_csv_gives(tmp_path):
    (tmp_path / "csv").mkdir()
    root = write(tmp_path, FULL, SPARSE)
    numeric = {"lx": [1.0, 1.0], "ly": [2.0, None], "smiles": [1.0, float("nan")]}  # as pandas writes a gap among 1s
    both = zip(FULL, SPARSE, strict=True)
    table = dict(zip(HEADER, ([a or None, b or None] for a, b in both), strict=True)) | numeric
    pq.write_table(pa.table(table), root / "test.parquet")
    from_parquet = read_table(root, "test")
    (root / "test.parquet").unlink()
    for one, other in zip(from_parquet, read_table(root, "test"), strict=True):
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.angles, other.angles)
        assert (one.labels, one.strata, one.group, one.image) == (other.labels, other.strata, other.group, other.image)
    assert [s.source for s in from_parquet] == ["test.parquet:row 1", "test.parquet:row 2"]
    (root / "test.parquet").write_bytes(b"PAR1 no")
    assert "cannot be read as Parquet" in complaint(read_table, root, "test")


def test_splits_are_files_or_the_hash_of_the_pictures(tmp_path):
    rows = [[f"{i}.jpg", *FULL[1:]] for i in range(40)]
    root = write(tmp_path, *rows, split="train")
    for i in range(40):
        write_picture(root / f"{i}.jpg")
    held = read_split("table", "heldout", root)
    assert [s.image.name for s in held] == [row[0] for row in rows if is_heldout(row[0])] != []
    assert len(read_table(root, "train")) == 40 - len(held)


BAD_ROWS = {
    "expected 23 fields as in the header, found 22": FULL[:-1],
    "lx must be a number, found 'a'": ["a b.jpg", "a", *FULL[2:]],
    "lx must be a finite number, found 'inf'": ["a b.jpg", "inf", *FULL[2:]],
    "only a part of the box is given: 1, , 41, 52": [*FULL[:12], "", *FULL[13:]],
    "expected a box with an area": [*FULL[:11], "99", *FULL[12:]],
    "smiles must be one of 1, 0, found 'yes'": [*FULL[:-3], "yes", *FULL[-2:]],
    "gender must be one of male, female, found '1'": [*FULL[:-2], "1", "x"],
    "the image b.jpg is missing": ["b.jpg", *FULL[1:]],
    "the path '../b.jpg' leaves the data set's folder": ["../b.jpg", *FULL[1:]],
}


@pytest.mark.parametrize(("reason", "row"), BAD_ROWS.items())
def test_a_bad_row_is_reported_with_its_line(tmp_path, reason, row):
    said = complaint(read_table, write(tmp_path, FULL, row), "test")
    assert said.startswith(f"1 bad rows in {tmp_path / 'test.csv'}:\n")
    assert f"test.csv:line 3: {reason}" in said


BAD_MAPS = {
    "unknown keys pints; known: image, schema, first_pixel": MAP.replace("points", "pints"),
    "expected schema to be one of mtfl5, ibug68, aflw19": MAP.replace('"mtfl5"', '"mtfl"'),
    "expected image to be a column": MAP.replace('"file"', "1"),
    "expected first_pixel to be 0 or 1": MAP.replace("= 1\n", "= 0.5\n", 1),
    "expected points to be a list of 10 columns": MAP.replace("'lx', ", ""),
    "expected box to be a list of 4 columns": MAP.replace('"x1", ', ""),
    "unknown task 'hat'; known: glasses, smile": MAP.replace("labels.smile", "labels.hat"),
    "expected labels.smile to be a column and, if wanted, classes": MAP.replace("column", "columns", 1),
    "expected labels.smile.classes to be values and one of smiling, not_smiling": MAP.replace('"smiling"', '"happy"'),
    "expected the columns left_x, found file, lx": MAP.replace("'lx'", "'left_x'"),
    "is no TOML": "image = file",
}


@pytest.mark.parametrize(("reason", "columns"), BAD_MAPS.items())
def test_a_bad_map_says_what_was_expected(tmp_path, reason, columns):
    assert reason in complaint(read_table, write(tmp_path, FULL, columns=columns), "test")


def test_what_is_not_there_is_an_error(tmp_path):
    assert "columns.toml is missing: expected a map of the columns" in complaint(read_table, tmp_path, "test")
    assert "train.csv is missing" in complaint(read_table, write(tmp_path, FULL), "train")
    assert "holds no rows" in complaint(read_table, write(tmp_path), "test")
    assert "two columns have the same name" in complaint(
        read_table, write(tmp_path, FULL, header=["file", *HEADER[:-1]]), "test"
    )
    (tmp_path / "test.csv").write_text('file,"a\n')
    assert "test.csv:1: unexpected end of data" in complaint(read_table, tmp_path, "test")


def test_the_map_of_the_docstring_is_a_map(tmp_path):
    from facemtl.data import table

    lines = table.__doc__.split("::\n", 1)[1].split("An empty field")[0]
    (tmp_path / "columns.toml").write_text("\n".join(line[4:] for line in lines.splitlines()))
    found = read_columns(tmp_path / "columns.toml")
    assert found["labels"]["smile"] == {"column": "smiles", "classes": {"1": "smiling", "0": "not_smiling"}}
    assert len(found["points"]) == 10
