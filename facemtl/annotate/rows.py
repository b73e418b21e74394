"""The rows of an annotation: one an input, the same in JSON lines and in Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facemtl.annotate.inputs import Item
from facemtl.errors import DataError, DependencyError
from facemtl.face import Face
from facemtl.files import beside
from facemtl.formats.plain import face_schema

if TYPE_CHECKING:
    import pyarrow

ROW_VERSION = 1  # of the layout of a row; raised when a reader of the one before would misread or refuse it
FORMATS = ("parquet", "jsonl")
FACES, NO_FACE, FAILED = STATUS = ("faces", "no_face", "failed")


def row_of(
    index: int,
    item: Item,
    size: tuple[int, int] | None = None,
    time: float | None = None,
    faces: Sequence[Face] = (),
    error: str | None = None,
) -> dict[str, Any]:
    """The row of one input; :func:`row_schema` describes it.

    Args:
        index: of the input, from 0.
        item: the input.
        size: width and height in pixels, or None where there is no picture.
        time: seconds since the start of a video, or None.
        faces: surest first.
        error: why there is no result, or None.
    """
    width, height = size or (None, None)
    return {
        "version": ROW_VERSION,
        "index": index,
        "source": _printable(item.source),
        "member": None if item.member is None else _printable(item.member),
        "frame": item.frame,
        "time": None if time is None else round(time, 6),
        "width": width,
        "height": height,
        "status": FAILED if error else FACES if faces else NO_FACE,
        "error": _printable(error) if error else None,
        "faces": [face.to_dict() for face in faces],
    }


def _printable(text: str) -> str:
    """Names of files need not be text; what is none is written ``\\xff``."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def row_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a row; its ``$id`` ends in :data:`ROW_VERSION`."""
    face = {key: value for key, value in face_schema().items() if key not in ("$schema", "$id")}
    whole = {"type": ["integer", "null"], "minimum": 0}
    properties = {
        "version": {"const": ROW_VERSION},
        "index": {"type": "integer", "minimum": 0, "description": "Place of the input among all inputs."},
        "source": {"type": "string", "description": "The file, as it was named or found below a folder that was."},
        "member": {"type": ["string", "null"], "description": "Name in the archive that source is."},
        "frame": {**whole, "description": "Of the video that source is, from 0."},
        "time": {"type": ["number", "null"], "description": "Seconds since the start of the video."},
        "width": {**whole, "description": "Of the upright picture, in pixels."},
        "height": whole,
        "status": {"enum": list(STATUS)},
        "error": {
            "type": ["string", "null"],
            "description": "Why it failed: the rest of a sentence that starts with the input's name.",
        },
        "faces": {"type": "array", "items": face},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:facemtl:annotation:{ROW_VERSION}",
        "title": "Annotation",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@cache
def arrow_schema() -> pyarrow.Schema:
    """The same as columns of Parquet: objects with fixed keys are structs, those keyed by names are maps.

    Raises:
        DependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise DependencyError("Parquet needs pyarrow: pip install 'facemtl[annotate]', or write jsonl") from None
    number, text, whole = pa.float64(), pa.string(), pa.int64()
    attribute = pa.struct(
        {"label": text, "confidence": number, "probabilities": pa.map_(text, number), "certain": pa.bool_()}
    )
    face = {
        "box": pa.list_(number),
        "score": number,
        "schema": text,
        "landmarks": pa.map_(text, pa.list_(number)),
        "landmark_sigma": pa.list_(number),
        "attributes": pa.map_(text, attribute),
        "pose": pa.struct({"yaw": number, "pitch": number, "roll": number}),
        "quality": number,
        "track_id": whole,
    }
    columns = {
        "version": whole,
        "index": whole,
        "source": text,
        "member": text,
        "frame": whole,
        "time": number,
        "width": whole,
        "height": whole,
        "status": text,
        "error": text,
        "faces": pa.list_(pa.struct(face)),
    }
    return pa.schema(columns, metadata={"schema": row_schema()["$id"]})


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of rows, in the format of its suffix, whole or not at all, also where power fails."""
    with beside(path) as partial:
        if path.suffix == ".parquet":
            import pyarrow as pa
            from pyarrow.parquet import write_table

            write_table(pa.Table.from_pylist(list(rows), schema=arrow_schema()), partial, compression="zstd")
        else:
            lines = [json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for row in rows]
            partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        with partial.open("rb+") as file:
            os.fsync(file.fileno())


def read_part(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of one file, or some of their columns.

    Raises:
        DataError: it is missing, damaged, or of another version.
        DependencyError: a Parquet file without pyarrow.
    """
    try:
        rows = _from_parquet(path, columns) if path.suffix == ".parquet" else _from_lines(path, columns)
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's own derive from these
        raise DataError(f"{path} cannot be read as annotations: {error!r}") from None
    return rows


def _from_lines(path: Path, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    for row in rows:
        if row["version"] != ROW_VERSION:
            raise ValueError(f"rows of version {row['version']}, this facemtl reads {ROW_VERSION}")
    return rows if columns is None else [{name: row[name] for name in columns} for row in rows]


def _from_parquet(path: Path, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    schema = arrow_schema()
    from pyarrow.parquet import read_table

    table = read_table(path, columns=None if columns is None else list(columns), partitioning=None)
    found = (table.schema.metadata or {}).get(b"schema", b"no").decode()
    if found != schema.metadata[b"schema"].decode():
        raise ValueError(f"{found} version, expected {schema.metadata[b'schema'].decode()}")
    return table.to_pylist(maps_as_pydicts="strict")


def read_rows(folder: str | Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of an annotation in the order of its inputs, or some of their columns; one part is in memory at a time.

    Args:
        folder: what :func:`facemtl.annotate.run.annotate` wrote to.
        columns: names of :func:`row_schema`; all by default.

    Raises:
        DataError: there is none, or a part is missing or damaged.
    """
    from facemtl.annotate.plan import Plan

    plan = Plan.open(Path(folder))
    for part in range(plan.parts):
        yield from read_part(plan.path(part), columns)
