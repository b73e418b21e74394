"""AFLW: up to 21 points a face from the SQLite file as published, many of them missing.

Koestinger, Wohlhart, Roth and Bischof, "Annotated Facial Landmarks in the Wild" (ICCV-W 2011),
https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw/. ``data/aflw.sqlite`` has these tables,
of which the columns named are read:

* ``Faces`` (face_id, file_id, db_id): one row a face;
* ``FaceImages`` (file_id, db_id, filepath): the picture is ``data/<db_id>/<filepath>``, ``data/flickr/3/image1.jpg``;
* ``FaceRect`` (face_id, x, y, w, h): missing for some faces;
* ``FeatureCoords`` (face_id, feature_id, x, y): only the visible points are there, some faces have none;
* ``FeatureCoordTypes`` (feature_id, descr): 1 is ``LeftBrowLeftCorner``, 21 is ``ChinCenter``;
* ``FaceMetaData`` (face_id, sex, glasses): ``m`` or ``f``, 1 or 0;
* ``FacePose`` (face_id, yaw): radians, of which only the size is used, as a stratum.
"""

from __future__ import annotations

import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.data.rows import LARGEST, image_of, listed
from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.splits import check_split, in_training_split
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import SCHEMAS

SPLITS = ("train", "heldout")
DATABASE = "data/aflw.sqlite"
SCHEMA = SCHEMAS["aflw21"]
COLUMNS = {
    "Faces": ("face_id", "file_id", "db_id"),
    "FaceImages": ("file_id", "db_id", "filepath"),
    "FaceRect": ("face_id", "x", "y", "w", "h"),
    "FeatureCoords": ("face_id", "feature_id", "x", "y"),
    "FeatureCoordTypes": ("feature_id", "descr"),
    "FaceMetaData": ("face_id", "sex", "glasses"),
    "FacePose": ("face_id", "yaw"),
}
SEX = {"m": ATTRIBUTES["gender"].index("male"), "f": ATTRIBUTES["gender"].index("female")}
GLASSES = {1: ATTRIBUTES["glasses"].index("glasses"), 0: ATTRIBUTES["glasses"].index("no_glasses")}


def read_aflw(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split by face number: schema ``aflw21``, NaN for points not there, ``gender`` and ``glasses``.

    A face of which neither a box is known nor the five points from which one follows cannot be cut out and is left
    out; :func:`count_unusable` says how many these are. A label that the database lacks is -1.

    Args:
        root: the unpacked folder, which holds ``data/aflw.sqlite`` and ``data/flickr/``.
        split: ``heldout`` is a tenth of the pictures, by the hash of their paths, ``train`` the rest. No test set is
            published.

    Raises:
        DataError: an unknown split, a missing or damaged file, other tables, columns or features, or bad faces: each
            with its number and reason.
    """
    check_split("AFLW", split, SPLITS)
    return [s for s in _faces(Path(root)) if _usable(s) and in_training_split(s.group, split)]


def count_unusable(root: str | Path) -> int:
    """How many faces have neither a box nor the five points; raises DataError as :func:`read_aflw`."""
    return sum(not _usable(sample) for sample in _faces(Path(root)))


def _usable(sample: FaceSample) -> bool:
    return sample.box is not None or bool(np.isfinite(SCHEMA.to_five(sample.points)).all())


def _faces(root: Path) -> list[FaceSample]:
    path = root / DATABASE
    tables = _read_tables(path)
    _check_features(path, tables["FeatureCoordTypes"])
    points: dict[Any, np.ndarray] = {}
    for face, feature, x, y in tables["FeatureCoords"]:
        if not isinstance(feature, int) or not 1 <= feature <= len(SCHEMA) or not _numbers(x, y):
            raise DataError(f"{path}: face {face} has the point {feature} at ({x!r}, {y!r})")
        points.setdefault(face, np.full((len(SCHEMA), 2), np.nan, dtype=np.float32))[feature - 1] = x, y
    boxes, labels, poses = (_by_face(path, name, tables[name]) for name in ("FaceRect", "FaceMetaData", "FacePose"))
    pictures = {(file, db): name for file, db, name in tables["FaceImages"]}

    def sample(face: Any, db: Any, file: Any) -> FaceSample:
        if (file, db) not in pictures:
            raise ValueError(f"its picture {file!r} of {db!r} has no row in FaceImages")
        name = f"{db}/{pictures[file, db]}"
        sex, glasses = labels.get(face, (None, None))
        return FaceSample(
            image=image_of(root / "data", name),
            points=points.get(face, np.full((len(SCHEMA), 2), np.nan, dtype=np.float32)),
            schema=SCHEMA.name,
            labels={"gender": SEX.get(sex, MISSING), "glasses": GLASSES.get(glasses, MISSING)},
            box=_box(boxes[face]) if face in boxes else None,
            source=f"{DATABASE}:face {face}",
            group=name,
            strata=_yaw(poses[face][0]) if face in poses else {},
        )

    rows = {face: (db, file) for face, file, db in tables["Faces"]}
    if not rows:
        raise DataError(f"{path}: the table Faces holds no rows")
    samples, bad = [], []
    for face in sorted(rows, key=str):
        try:
            samples.append(sample(face, *rows[face]))
        except (ValueError, OSError) as error:
            bad.append(f"{path}: face {face}: {error}")
    if bad:
        raise DataError(f"{len(bad)} bad faces:\n{listed(bad)}")
    return samples


def _numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) and abs(value) < LARGEST / 4 for value in values)


def _box(rect: tuple) -> np.ndarray:
    if not _numbers(*rect) or rect[2] <= 0 or rect[3] <= 0:
        raise ValueError(f"expected a box x y w h with an area, found {rect}")
    x, y, width, height = rect
    return np.float32([x, y, x + width, y + height])


def _yaw(radians: object) -> dict[str, str]:
    """By how much the head is turned, to either side."""
    if not _numbers(radians):
        return {}
    degrees = abs(math.degrees(radians))
    return {"yaw": "0 to 30" if degrees <= 30 else "30 to 60" if degrees <= 60 else "over 60"}


def _by_face(path: Path, table: str, rows: list[tuple]) -> dict[Any, tuple]:
    found: dict[Any, tuple] = {}
    for face, *values in rows:
        if face in found:
            raise DataError(f"{path}: a second row for face {face} in {table}")
        found[face] = tuple(values)
    return found


def _check_features(path: Path, rows: list[tuple]) -> None:
    """The numbers of the features must be those of the schema: ``LeftBrowLeftCorner`` is ``left_brow_left_corner``."""
    expected = dict(enumerate(SCHEMA.names, start=1))
    found = {feature: re.sub(r"(?<!^)(?=[A-Z])", "_", str(descr)).lower() for feature, descr in rows}
    wrong = [f"{i} is {found.get(i)!r}, not {name!r}" for i, name in expected.items() if found.get(i) != name]
    if wrong or len(found) != len(expected):
        raise DataError(f"{path}: expected the 21 features of AFLW, found {len(found)}: {'; '.join(wrong[:3])}")


def _read_tables(path: Path) -> dict[str, list[tuple]]:
    """The columns of :data:`COLUMNS`, read only."""
    if not path.is_file():
        raise DataError(f"{path} is missing: expected the published AFLW, see datasets/aflw/README.md")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            tables = {}
            for table, columns in COLUMNS.items():
                there = {row[1].lower() for row in db.execute(f"PRAGMA table_info({table})")}
                lacking = [column for column in columns if column not in there]
                if lacking:
                    raise DataError(
                        f"{path}: expected a table {table} with {', '.join(columns)}, found no {lacking[0]}"
                    )
                tables[table] = db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            return tables
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as the SQLite file of AFLW: {error}") from None
