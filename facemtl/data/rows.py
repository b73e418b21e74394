"""Label files of one face a line: read whole, with every bad row reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import numpy as np

from facemtl.errors import DataError

Row = TypeVar("Row")
SHOWN = 20  # of what is bad, in one message
LARGEST = float(np.finfo(np.float32).max)  # what is larger would become infinite


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file, in any of the usual line endings.

    Args:
        path: the file.
        expected: what was expected where there is none, for the message.

    Raises:
        DataError: a file that is missing or is no text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: expected {expected}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from None


def parse_rows(path: Path, lines: list[str], parse: Callable[[str, int], Row], first: int = 1) -> list[Row]:
    """``parse(line, number)`` of every line that is not blank.

    Args:
        path: the file of the lines, for messages.
        lines: its lines, or the last of them.
        parse: raises ValueError or OSError with the reason why a line is bad.
        first: the number of the first of ``lines``.

    Raises:
        DataError: bad rows, each with its file, line and reason.
    """
    rows: list[Row] = []
    bad: list[str] = []
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        try:
            rows.append(parse(line, number))
        except (ValueError, OSError) as error:
            bad.append(f"{path}:{number}: {error}")
    if bad:
        raise DataError(f"{len(bad)} bad rows in {path}:\n{listed(bad)}")
    return rows


def parse_files(paths: Iterable[Path], parse: Callable[[Path], Row]) -> list[Row]:
    """``parse(path)`` of every file, for sets with a label file a face.

    Args:
        paths: the files.
        parse: raises ValueError, OSError or DataError with the reason why a file is bad.

    Raises:
        DataError: bad files, each with its reason.
    """
    rows: list[Row] = []
    bad: list[str] = []
    for path in paths:
        try:
            rows.append(parse(path))
        except DataError as error:  # names the file itself
            bad.append(str(error))
        except (ValueError, OSError) as error:
            bad.append(f"{path}: {error}")
    if bad:
        raise DataError(f"{len(bad)} bad files:\n{listed(bad)}")
    return rows


def decimal(text: str) -> float:
    """``float(text)`` without what else Python takes for a number: ``1_0`` is ten there, as are digits of any script.

    Raises:
        ValueError: it is none.
    """
    if "_" in text or not text.isascii():
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(text)


def finite_numbers(texts: Iterable[str]) -> np.ndarray:
    """Decimal numbers -> (N,) float32.

    Raises:
        ValueError: what is no number, or not finite.
    """
    numbers = np.array([decimal(text) for text in texts])
    if not (np.abs(numbers) <= LARGEST).all():  # NaN is not
        raise ValueError("a number is not finite")
    return numbers.astype(np.float32)


def listed(bad: list[str]) -> str:
    """The first of what is bad, a line each, and how many more there are."""
    return "\n".join(bad[:SHOWN]) + (f"\n... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else "")


def image_of(root: Path, name: str) -> Path:
    """The picture that a row names relative to ``root``, by slashes or backslashes.

    Raises:
        ValueError: a name that leads out of ``root``, or no such file.
    """
    path = PureWindowsPath(name)  # reads both separators
    if path.anchor or ".." in path.parts:  # an anchor is a drive or a leading separator
        raise ValueError(f"the path {name!r} leaves the data set's folder")
    image = root.joinpath(*path.parts)
    if not image.is_file():
        raise ValueError(f"the image {path.as_posix()} is missing")
    return image
