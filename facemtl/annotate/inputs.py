"""What there is to annotate: folders, globs, photos, videos, archives, lists; one :class:`Item` an input."""

from __future__ import annotations

import csv
import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facemtl.bundles import is_bundle, members
from facemtl.errors import DependencyError, SourceError
from facemtl.sources import ANNOTATED_SUFFIX, PHOTO_SUFFIXES, VIDEO_SUFFIXES, open_source

LIST_SUFFIXES = (".csv", ".parquet")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")  # as WebDataset writes its shards, such as faces-{000..012}.tar


@dataclass(frozen=True, slots=True)
class Item:
    """One input.

    Attributes:
        source: the file, as it was named or below the folder that was.
        member: name in the archive ``source``, or None.
        entry: its place in the archive, or None.
        frame: of the video ``source``, from 0, or None.
        error: why it cannot be read, where that is known beforehand: the rest of a sentence that starts with the name.
    """

    source: str
    member: str | None = None
    entry: int | None = None
    frame: int | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def find_items(inputs: Sequence[str], base: Path, column: str = "image") -> Iterator[Item]:
    """The inputs behind arguments, in their order; what is named twice comes twice.

    * a folder: the photos, videos and archives in it and below, sorted by name, hidden ones, links to folders and what
      else lies there left out;
    * a glob such as ``photos/**/*.jpg``, sorted; or a range of shards such as ``faces-{000..012}.tar``;
    * ``.csv`` or ``.parquet``: a list, whose ``column`` names files relative to the folder of the list;
    * ``.zip``, ``.tar`` (also ``.gz``, ``.bz2``, ``.xz``; WebDataset shards are such): the photos in it;
    * a video: its frames;
    * any other file: a photo.

    What is wrong with one file, row, member or frame is an item with an error; what follows is not affected.

    Args:
        inputs: the arguments.
        base: what relative paths are relative to.
        column: of lists.

    Raises:
        SourceError: an argument that names nothing, or a list that is none.
        DependencyError: a Parquet list without pyarrow.
    """
    for argument in inputs:
        for name in _expanded(argument, base):
            path = base / name
            if path.is_dir():
                yield from _of_folder(name, path)
            elif not path.exists():
                raise SourceError(f"{name} is no file and no folder: check the path")
            elif path.suffix.lower() in LIST_SUFFIXES:
                for named in _of_list(name, path, column):
                    yield from [named] if isinstance(named, Item) else _of_file(named, base / named)
            else:
                yield from _of_file(name, path)


def _expanded(argument: str, base: Path) -> Iterator[str]:
    if (base / argument).exists():  # brackets and the like are fine in names
        yield argument
        return
    if match := _RANGE.search(argument):
        first, last = match.groups()
        for number in range(int(first), int(last) + 1):
            yield from _expanded(argument.replace(match.group(), str(number).zfill(len(first)), 1), base)
        return
    found = [argument]
    if glob.has_magic(argument):  # Path.glob takes no pattern that starts at the root
        found = sorted(glob.iglob(argument, root_dir=base, recursive=True))  # noqa: PTH207
    if not found:
        raise SourceError(f"{argument} matches no file")
    yield from found


def _of_folder(name: str, folder: Path) -> Iterator[Item]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(sub for sub in folders if not sub.startswith("."))
        inside = Path(parent).relative_to(folder)
        for file in sorted(files):
            suffix = Path(file).suffix.lower()
            known = suffix in PHOTO_SUFFIXES or suffix in VIDEO_SUFFIXES or is_bundle(file)
            if known and not file.startswith(".") and not file.endswith(ANNOTATED_SUFFIX):
                yield from _of_file((Path(name) / inside / file).as_posix(), Path(parent) / file)


def _of_file(name: str, path: Path) -> Iterator[Item]:
    if is_bundle(path):
        yield from _of_bundle(name, path)
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _of_video(name, path)
    else:
        yield Item(name)


def _of_bundle(name: str, path: Path) -> Iterator[Item]:
    try:
        for member in members(path):
            suffix = Path(member.name).suffix.lower()
            error = member.refused
            if suffix in VIDEO_SUFFIXES or is_bundle(member.name):
                error = error or "lies in an archive, where only photos are read: unpack it"
            elif suffix not in PHOTO_SUFFIXES:
                continue
            yield Item(name, member.name, member.entry, error=error)
    except SourceError as error:
        yield Item(name, error=str(error))


def _of_video(name: str, path: Path) -> Iterator[Item]:
    try:
        for frame in open_source(path):
            yield Item(name, frame=None if frame.error else frame.index, error=frame.error)
    except SourceError as error:
        yield Item(name, error=str(error).removeprefix(f"{path} "))


def _of_list(name: str, path: Path, column: str) -> Iterator[str | Item]:
    """What the rows of a list name, as paths relative to what the list's own is relative to."""
    folder = Path(name).parent
    read = _parquet_column if path.suffix.lower() == ".parquet" else _csv_column
    for row, value in enumerate(read(name, path, column), start=1):
        if isinstance(value, str) and value.strip():
            yield (folder / value.strip()).as_posix()
        else:
            yield Item(name, error=f"names no file in row {row}")


def _csv_column(name: str, path: Path, column: str) -> Iterator[str | None]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            _check_column(name, column, rows.fieldnames or [])
            for row in rows:
                yield row[column]
    except (csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{name} cannot be read as CSV: {error}") from None


def _parquet_column(name: str, path: Path, column: str) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DependencyError("reading Parquet needs pyarrow: pip install 'facemtl[annotate]'") from None
    try:
        with ParquetFile(path) as file:
            _check_column(name, column, file.schema_arrow.names)
            for batch in file.iter_batches(1024, columns=[column]):
                yield from batch.column(0).to_pylist()
    except (ArrowException, OSError) as error:
        raise SourceError(f"{name} cannot be read as Parquet: {error}") from None


def _check_column(name: str, column: str, columns: Sequence[str]) -> None:
    if column not in columns:
        raise SourceError(f"{name} has no column {column!r}; it has {', '.join(columns[:12])}")
