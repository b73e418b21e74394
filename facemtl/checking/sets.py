"""The parts of a data set, by what a person types for it."""

from __future__ import annotations

from facemtl.checking.findings import Part
from facemtl.data.sets import DATA_SETS, LAYOUT_FILES, read_split
from facemtl.errors import DataError, SplitError

SPLITS = tuple(LAYOUT_FILES)


def read_parts(text: str) -> list[Part]:
    """The splits of ``NAME``, ``NAME=FOLDER`` or either with ``:SPLIT,SPLIT``.

    Without splits, all that the set has.

    Raises:
        DataError: an unknown set or split, or what the adapter says.
    """
    name, splits = text, ()
    head, colon, tail = text.rpartition(":")
    if colon and set(tail.split(",")) <= set(SPLITS):
        name, splits = head, tuple(tail.split(","))
    name, _, folder = name.partition("=")
    if name not in DATA_SETS:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(DATA_SETS)}")
    if splits:
        return [Part(name, split, read_split(name, split, folder or None)) for split in splits]
    parts = []
    for split in SPLITS:
        try:
            parts.append(Part(name, split, read_split(name, split, folder or None)))
        except SplitError:
            continue
    return parts
