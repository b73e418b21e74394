"""The table of saved predictions: its columns, and how a file is read and checked.

Columns of the table (Parquet or CSV):

    schema                          landmark schema of the points, the same in every row
    image, group                    path as text (best relative to the data set's folder); part of the data set
    x1 y1 x2 y2                     the box that the network was given, image pixels; NaN where the face was not found
    true_<i>_x true_<i>_y           point i of the data set, image index coordinates; NaN where missing
    pred_<i>_x pred_<i>_y           point i as predicted; NaN in all points where the face was not found, or where the
                                    model gives no points
    <task>_true                     class index of the data set (order of ``ATTRIBUTES``); -1 where missing
    <task>_p<j>                     predicted probability of class j, only for the tasks that the model has

and, only where the data set or the model has them:

    <task>_chosen                   class index that the model goes by, where that is not always the likeliest; -1 where
                                    the face was not found
    sigma_<i>                       predicted standard deviation of point i, along x and y alike, image pixels
    true_yaw true_pitch true_roll   head angles of the data set, degrees (signs: :mod:`facemtl.face`); NaN where missing
    pred_yaw pred_pitch pred_roll   the same as predicted
    stratum_<name>                  further part of the data set that the face belongs to, as text; empty where unknown
    set_schema model_schema         where set and model have different points: theirs, before both became ``schema``
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from facemtl.data.sample import MISSING
from facemtl.errors import DataError
from facemtl.face import ANGLES, ATTRIBUTES
from facemtl.landmarks import SCHEMAS

ORIGINS = ("set_schema", "model_schema")
TEXT_COLUMNS = ("schema", "image", "group", *ORIGINS)
BOX_COLUMNS = ("x1", "y1", "x2", "y2")
TRUE_ANGLES, PREDICTED_ANGLES = ([f"{kind}_{angle}" for angle in ANGLES] for kind in ("true", "pred"))
STRATUM = "stratum_"  # begins the name of a column


def point_columns(kind: str, schema: str) -> list[str]:
    """``true`` or ``pred`` points, x before y."""
    return [f"{kind}_{i}_{axis}" for i in range(len(SCHEMAS[schema])) for axis in "xy"]


def sigma_columns(schema: str) -> list[str]:
    """Standard deviations of the points."""
    return [f"sigma_{i}" for i in range(len(SCHEMAS[schema]))]


def probability_columns(task: str) -> list[str]:
    """Of the classes of an attribute."""
    return [f"{task}_p{j}" for j in range(len(ATTRIBUTES[task]))]


def table_suffix(path: Path) -> str:
    """Of a file of predictions.

    Raises:
        DataError: an unknown one.
    """
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise DataError(f"predictions are kept in .parquet or .csv files, not in {path.name!r}")
    return suffix


def read_table(path: Path) -> tuple[str, dict[str, tuple[str, ...]], pd.DataFrame]:
    """Schema, predicted attributes with their classes, and the other columns of a file.

    Raises:
        DataError: a file that cannot be read, an unknown suffix, missing columns, or values of the wrong kind.
    """
    try:
        frame = _reader(path)(path)
    except (OSError, ValueError) as error:  # the errors of pandas and pyarrow derive from ValueError
        raise DataError(f"{path} cannot be read as a table of predictions: {error}") from None
    return _checked(frame, path)


def _reader(path: Path) -> Callable[[Path], pd.DataFrame]:
    return _read_csv if table_suffix(path) == ".csv" else pd.read_parquet


def _read_csv(path: Path) -> pd.DataFrame:
    # Only an empty field is missing: a folder may be named "NA".
    names = pd.read_csv(path, nrows=0).columns
    texts = [name for name in names if name in TEXT_COLUMNS or name.startswith(STRATUM)]
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(texts, str))
    return frame.fillna(dict.fromkeys(texts, ""))


def _checked(frame: pd.DataFrame, path: Path) -> tuple[str, dict[str, tuple[str, ...]], pd.DataFrame]:
    names = frame["schema"].unique().tolist() if "schema" in frame else []
    if len(names) != 1 or names[0] not in SCHEMAS:
        found = f"it holds {', '.join(map(str, names))}" if names else "it is missing or empty"
        raise DataError(f"{path}: the column schema must be one of {', '.join(SCHEMAS)} in every row, but {found}")
    schema = names[0]
    tasks = {task: classes for task, classes in ATTRIBUTES.items() if f"{task}_p0" in frame}
    labelled = [f"{task}_true" for task in ATTRIBUTES if task in tasks or f"{task}_true" in frame]
    numbers = [*BOX_COLUMNS, *point_columns("true", schema), *point_columns("pred", schema), *labelled]
    numbers += [column for task in tasks for column in probability_columns(task)]
    for further in (sigma_columns(schema), TRUE_ANGLES, PREDICTED_ANGLES):
        numbers += further if further[0] in frame else []
    chosen = [f"{task}_chosen" for task in tasks if f"{task}_chosen" in frame]
    numbers += chosen
    columns = ["image", "group", *numbers]
    if missing := [column for column in columns if column not in frame]:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise DataError(f"{path} is no table of predictions of the schema {schema}: it lacks {shown}")
    if texts := [column for column in numbers if not pd.api.types.is_numeric_dtype(frame[column])]:
        raise DataError(f"{path}: the columns {', '.join(texts[:10])} must hold numbers")
    for column in ORIGINS:
        if column in frame and (len(set(frame[column])) != 1 or frame[column].iloc[0] not in SCHEMAS):
            raise DataError(f"{path}: the column {column} must be one of {', '.join(SCHEMAS)} in every row")
    for column in labelled + chosen:
        count = len(ATTRIBUTES[column.removesuffix("_true").removesuffix("_chosen")])
        if bad := sorted(set(frame[column]) - set(range(MISSING, count)), key=str):
            raise DataError(f"{path}: {column} must be a class index 0 to {count - 1} or -1; found {bad[:5]}")
    return schema, tasks, frame.drop(columns="schema")
