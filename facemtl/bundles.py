"""Files inside tar and zip archives, read one after the other in bounded memory. Nothing is ever unpacked to a disk.

An archive may come from anywhere: a member is never read past ``max_bytes``, a compressed tar is given up where it
grows to over :data:`MAX_RATIO` times its size, links and devices are not followed, and a name that leads out of the
archive is refused, because whoever gets to see it may take it for a path.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

from facemtl.errors import SourceError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SUFFIXES = (*TAR_SUFFIXES, ".zip")
MAX_RATIO = 200  # photos and videos do not shrink; deflate alone can reach 1,032
SLACK = 64 * 2**20  # bytes that any compressed tar may unpack to

_BLOCK = 512  # of a tar file
_LONGEST_READ = 256 * 2**20  # bytes at once; the module reads extended headers whole, however long they say they are
_PACKERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
_DAMAGE = (*_DAMAGE, NotImplementedError, ValueError, OverflowError)  # methods of zip that Python lacks; absurd numbers


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One file of an archive, while the archive stands at it.

    Attributes:
        entry: its place among all entries of the archive, from 0; names may repeat, places do not.
        name: as stored; slashes between folders.
        size: bytes that it unpacks to, as the archive says.
        refused: why it cannot be read, the rest of a sentence that starts with its name, or None.
        offset: where its bytes begin in the file, if they lie there as they are; else None.
    """

    entry: int
    name: str
    size: int
    refused: str | None
    offset: int | None
    _archive: tarfile.TarFile | zipfile.ZipFile
    _info: tarfile.TarInfo | zipfile.ZipInfo

    def read(self, max_bytes: int) -> bytes:
        """All of it; valid until the iteration goes on.

        Raises:
            SourceError: it is refused, longer than ``max_bytes``, damaged or encrypted; the rest of a sentence that
                starts with its name.
        """
        if self.refused:
            raise SourceError(self.refused)
        if self.size > max_bytes:
            raise SourceError(_too_long(max_bytes))
        try:
            with self._open() as file:
                data = file.read(max_bytes + 1)  # what an archive says of itself may be a lie
        except _DAMAGE as error:
            raise SourceError(f"cannot be read from its archive: {error or type(error).__name__}") from None
        if len(data) > max_bytes:
            raise SourceError(_too_long(max_bytes))
        if len(data) != self.size:
            raise SourceError(f"is cut short: {len(data)} of {self.size} bytes are there")
        return data

    def _open(self) -> IO[bytes]:
        if isinstance(self._archive, zipfile.ZipFile):
            return self._archive.open(self._info)
        file = self._archive.extractfile(self._info)
        assert file is not None, "only regular files are not refused"
        return file


def is_bundle(path: str | Path) -> bool:
    """Whether the name is one of an archive that :func:`members` reads."""
    return str(path).lower().endswith(SUFFIXES)


def members(path: Path) -> Iterator[Member]:
    """The files of an archive in its order, folders left out.

    Memory does not grow with a tar file; a zip file's directory is read whole.

    Raises:
        SourceError: at the place where the archive turns out to be missing, damaged, cut short, or far larger than it
            should be; the files before that place have been given. The rest of a sentence that starts with its name.
    """
    with _reasons():
        if str(path).lower().endswith(".zip"):
            yield from _of_zip(path)
        else:
            yield from _of_tar(path)


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise SourceError("does not exist") from None
    except _DAMAGE as error:
        raise SourceError(f"is damaged or no archive: {error or type(error).__name__}") from None


def _of_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry, info in enumerate(archive.infolist()):
            if info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            refused = _refusal(info.filename) or ("is encrypted" if info.flag_bits & 1 else None)
            if kind not in (0, stat.S_IFREG):  # 0: written where files have no such kinds
                refused = refused or "is a link or device"
            yield Member(entry, info.filename, info.file_size, refused, None, archive, info)


class _Stream:
    """What the module reads a tar file from, with a bound on what it asks for and where it gets to."""

    def __init__(self, file: IO[bytes], end: float) -> None:
        self._file, self._end = file, end
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _LONGEST_READ:
            raise tarfile.ReadError(f"it has a header of {size} bytes")
        if self.tell() > self._end:
            raise tarfile.ReadError(f"it unpacks to over {MAX_RATIO} times its size")
        return self._file.read(size)


def _of_tar(path: Path) -> Iterator[Member]:
    with path.open("rb") as file:
        start = file.read(max(map(len, _PACKERS)))
    pack = next((unpack for magic, unpack in _PACKERS.items() if start.startswith(magic)), None)
    end = MAX_RATIO * path.stat().st_size + SLACK if pack else float("inf")
    with (pack or open)(path, "rb") as file, tarfile.TarFile(fileobj=_Stream(file, end)) as archive:
        entry = -1
        while (info := archive.next()) is not None:
            entry += 1
            archive.members = []  # the module would keep them all
            if info.offset_data + info.size > end:  # before anybody unpacks up to there
                raise tarfile.ReadError(f"it unpacks to over {MAX_RATIO} times its size")
            if info.isdir():
                continue
            refused = _refusal(info.name) or (None if info.isreg() else "is a link or device")
            offset = None if pack or info.issparse() else info.offset_data
            yield Member(entry, info.name, info.size, refused, offset, archive, info)
        # The module takes a damaged header for the end; a whole file ends in blocks of zeros.
        file.seek(archive.offset)
        end_mark = file.read(_BLOCK)
        if len(end_mark) < _BLOCK or end_mark.strip(b"\0"):
            raise tarfile.ReadError(f"it ends or breaks after {entry + 1} entries, without the mark of its end")


def _refusal(name: str) -> str | None:
    path = PureWindowsPath(name)  # reads both separators
    leads_out = bool(path.anchor) or ".." in path.parts or "\0" in name
    return "has a name that leads out of its archive" if leads_out else None


def _too_long(max_bytes: int) -> str:
    return f"has more bytes than the limit of {max_bytes / 2**20:g} MiB"
