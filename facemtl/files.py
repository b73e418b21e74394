"""Files that are there whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from facemtl.errors import OutputError

_numbers = itertools.count()


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Within, a path in the same folder to write to; it becomes ``path`` at the end, or is removed after an error.

    No other thread or process has the same one. It keeps the suffix, by which many writers tell the format, and begins
    with a dot: whoever lists the folder meanwhile passes over it.
    """
    partial = path.with_name(f".part-{os.getpid()}-{next(_numbers)}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file :func:`beside` ``path``; folders on the way are made.

    Raises:
        OutputError: nothing can be written there, or the disk is full; what was there before still is.
    """
    make_folder(path.parent)
    try:
        with beside(path) as partial:
            write(partial)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None


def make_folder(path: Path) -> None:
    """Make a folder and those on the way.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be made: {error.strerror}") from None
