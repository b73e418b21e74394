"""Faces of one's own from a table, CSV or Parquet, with a map that says what its columns are.

``columns.toml`` in the same folder is the map. Only ``image`` and ``schema`` must be there::

    image = "file"                        # column of the path under the folder
    schema = "mtfl5"                      # a key of facemtl.landmarks.SCHEMAS
    first_pixel = 0                       # where its centre is: 0 (default) or 1
    points = ["lx", "ly", "rx", "ry", "nx", "ny", "mlx", "mly", "mrx", "mry"]     # in the order of the schema
    box = ["x1", "y1", "x2", "y2"]
    angles = ["yaw", "pitch", "roll"]     # degrees, signs of facemtl.face
    group = "folder"
    strata = ["camera"]

    [labels.smile]                        # the task
    column = "smiles"
    classes = { 1 = "smiling", 0 = "not_smiling" }     # its values; without this line, the names of the classes

An empty field is a missing value.
"""

from __future__ import annotations

import csv
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.data.named import box_of
from facemtl.data.rows import LARGEST, decimal, image_of, listed, read_lines
from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.splits import read_own_split
from facemtl.errors import DataError
from facemtl.face import ANGLES, ATTRIBUTES
from facemtl.landmarks import SCHEMAS

COLUMNS = "columns.toml"
KEYS = ("image", "schema", "first_pixel", "points", "box", "angles", "group", "strata", "labels")


def read_table(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split in file order, with what the map and the row give.

    Args:
        root: ``columns.toml``, ``train.csv``, ``test.csv`` and, if wanted, ``heldout.csv`` (without it a tenth of the
            training pictures is held out by the hash of their paths), and the pictures; or ``.parquet`` files.
        split: ``train``, ``heldout`` or ``test``.

    Raises:
        DataError: an unknown split, a missing file, a bad map, a column that is not there, pyarrow missing for Parquet,
            or bad rows: each with its file, line (row, for Parquet) and reason.
    """
    root = Path(root)
    columns = read_columns(root / COLUMNS)
    name = "{}.parquet" if (root / "train.parquet").exists() or (root / "test.parquet").exists() else "{}.csv"
    return read_own_split(root, split, name, lambda path: _read(root, path, columns))


def read_columns(path: Path) -> dict[str, Any]:
    """The map, checked.

    Raises:
        DataError: a file that is missing or no TOML, unknown keys, or values of another form.
    """
    try:
        found = tomllib.loads("\n".join(read_lines(path, "a map of the columns, see facemtl/data/table.py")))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is no TOML: {error}") from None
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise DataError(f"{path}: unknown keys {', '.join(unknown)}; known: {', '.join(KEYS)}")
    if found.get("schema") not in SCHEMAS:
        raise DataError(f"{path}: expected schema to be one of {', '.join(SCHEMAS)}, found {found.get('schema')!r}")
    _expect(path, "image", isinstance(found.get("image"), str), "a column")
    _expect(path, "first_pixel", found.setdefault("first_pixel", 0) in (0, 1), "0 or 1")
    _expect(path, "group", isinstance(found.get("group", ""), str), "a column")
    sides = 2 * len(SCHEMAS[found["schema"]])
    for key, count in (("points", sides), ("box", 4), ("angles", len(ANGLES)), ("strata", None)):
        value = found.get(key)
        good = (
            isinstance(value, list) and all(isinstance(v, str) for v in value) and len(value) == (count or len(value))
        )
        _expect(path, key, value is None or good, f"a list of {count or 'any number of'} columns")
    labels = found.setdefault("labels", {})
    _expect(path, "labels", isinstance(labels, dict), "tables, one a task")
    for task, entry in labels.items():
        classes = ATTRIBUTES.get(task)
        if classes is None:
            raise DataError(f"{path}: unknown task {task!r}; known: {', '.join(ATTRIBUTES)}")
        good = isinstance(entry, dict) and set(entry) <= {"column", "classes"} and isinstance(entry.get("column"), str)
        _expect(path, f"labels.{task}", good, "a column and, if wanted, classes")
        values = entry.setdefault("classes", {name: name for name in classes})
        good = isinstance(values, dict) and set(values.values()) <= set(classes)
        _expect(path, f"labels.{task}.classes", good, f"values and one of {', '.join(classes)} for each")
    return found


def _expect(path: Path, key: str, good: bool, what: str) -> None:
    if not good:
        raise DataError(f"{path}: expected {key} to be {what}")


def _read(root: Path, path: Path, columns: Mapping[str, Any]) -> list[FaceSample]:
    rows, names = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    wanted = [columns["image"], *(v for key in ("points", "box", "angles", "strata") for v in columns.get(key) or ())]
    wanted += [entry["column"] for entry in columns["labels"].values()]
    wanted += [columns["group"]] if columns.get("group") else []
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise DataError(f"{path}: expected the columns {', '.join(lacking[:5])}, found {', '.join(names[:12])}")

    samples, bad = [], []
    for source, row in rows:
        try:
            if isinstance(row, str):  # what is wrong with it
                raise ValueError(row)
            samples.append(_sample(root, row, columns, f"{path.name}:{source}"))
        except (ValueError, OSError) as error:
            bad.append(f"{path}:{source}: {error}")
    if bad:
        raise DataError(f"{len(bad)} bad rows in {path}:\n{listed(bad)}")
    if not samples:
        raise DataError(f"{path} holds no rows")
    return samples


def _csv(path: Path) -> tuple[list[tuple[str, dict[str, str] | str]], list[str]]:
    """(line, row by column or what is wrong with it) of each row, and the columns."""
    reader = csv.reader(read_lines(path, "a table of faces with a header, see facemtl/data/table.py"), strict=True)
    rows: list[tuple[str, dict[str, str] | str]] = []
    try:
        names = [name.strip() for name in next(reader, [])]
        for fields in reader:
            right = dict(zip(names, (f.strip() for f in fields), strict=False))
            if fields:
                bad = f"expected {len(names)} fields as in the header, found {len(fields)}"
                rows.append((f"line {reader.line_num}", right if len(fields) == len(names) else bad))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None
    if len(set(names)) != len(names):
        raise DataError(f"{path}:1: two columns have the same name")
    return rows, names


def _parquet(path: Path) -> tuple[list[tuple[str, dict[str, str] | str]], list[str]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read_parquet
    except ImportError:
        raise DataError("reading Parquet needs pyarrow: pip install facemtl[train]") from None
    try:
        table = read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: expected a table of faces, see facemtl/data/table.py") from None
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None
    rows = [{name: _text(value) for name, value in row.items()} for row in table.to_pylist()]
    return [(f"row {i}", row) for i, row in enumerate(rows, start=1)], table.column_names


def _text(value: object) -> str:
    """As a CSV file would have it; whole numbers without a fraction, so that a class 1 that became 1.0 is found."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _sample(root: Path, row: Mapping[str, str], columns: Mapping[str, Any], source: str) -> FaceSample:
    schema, first = columns["schema"], columns["first_pixel"]
    points = np.full((len(SCHEMAS[schema]), 2), np.nan, dtype=np.float32)
    if columns.get("points"):
        points = _numbers(row, columns["points"]).reshape(-1, 2) - first
        points[np.isnan(points).any(axis=1)] = np.nan
    box = None
    if columns.get("box"):
        corners = _numbers(row, columns["box"])
        if np.isnan(corners).any() and not np.isnan(corners).all():
            raise ValueError(f"only a part of the box is given: {', '.join(row[c] for c in columns['box'])}")
        box = None if np.isnan(corners).any() else box_of(*(corners - first))
    labels = {}
    for task, entry in columns["labels"].items():
        text = row[entry["column"]]
        if text and text not in entry["classes"]:
            raise ValueError(f"{entry['column']} must be one of {', '.join(entry['classes'])}, found {text!r}")
        labels[task] = ATTRIBUTES[task].index(entry["classes"][text]) if text else MISSING
    return FaceSample(
        image=image_of(root, row[columns["image"]]),
        points=points,
        schema=schema,
        labels=labels,
        box=box,
        source=source,
        group=row[columns["group"]] if columns.get("group") else "",
        angles=_numbers(row, columns["angles"]) if columns.get("angles") else None,
        strata={name: row[name] for name in columns.get("strata") or () if row[name]},
    )


def _numbers(row: Mapping[str, str], names: list[str]) -> np.ndarray:
    """(N,) float32, NaN for empty fields; raises ValueError for what is no finite number."""
    numbers = np.full(len(names), np.nan, dtype=np.float32)
    for i, name in enumerate(names):
        if row[name]:
            try:
                number = decimal(row[name])
            except ValueError:
                raise ValueError(f"{name} must be a number, found {row[name]!r}") from None
            if not abs(number) <= LARGEST:  # NaN is not
                raise ValueError(f"{name} must be a finite number, found {row[name]!r}")
            numbers[i] = number
    return numbers
