"""Files that are there whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
    """Let ``write`` make a file :func:`beside` ``path``; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        write(partial)
