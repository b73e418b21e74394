"""Published archives, unpacked whole or not at all."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from facemtl.errors import DataError


def unpack_zip(archive: Path, root: Path, published: str, find: Callable[[Path], Path], max_bytes: int) -> None:
    """Unpack beside ``root`` and rename, so that an interrupted run leaves no half data set.

    Args:
        archive: the zip file.
        root: the folder to make.
        published: what the file is called where it is published, for messages.
        find: the folder of everything unpacked -> the one in it that becomes ``root``.
        max_bytes: more than the published file unpacks to.

    Raises:
        DataError: ``root`` exists, or the archive is missing, damaged, too large, or not the one that ``find`` knows.
    """
    if root.exists():
        raise DataError(f"{root} is already there: remove it first, or run with --check")
    if not zipfile.is_zipfile(archive):
        raise DataError(f"{archive} is missing, cut short, or not a zip file: expected the published {published}")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as beside:
        content = Path(beside) / "content"
        try:
            with zipfile.ZipFile(archive) as bundle:
                if sum(item.file_size for item in bundle.infolist()) > max_bytes:
                    raise DataError(f"{archive} unpacks to over {max_bytes >> 30} GiB: it is not the published file")
                bundle.extractall(content)  # compares each file with its checksum
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise DataError(f"{archive} is damaged, copy it again: {error}") from None
        find(content).rename(root)


def folder_of_file(archive: Path, name: str) -> Callable[[Path], Path]:
    """For ``find`` of :func:`unpack_zip`: the folder of the one file of this name.

    Raises:
        DataError: on finding none, or several.
    """

    def find(content: Path) -> Path:
        found = sorted(content.rglob(name))
        if len(found) != 1:
            raise DataError(f"{archive} holds {len(found)} files named {name}, expected one")
        return found[0].parent

    return find
