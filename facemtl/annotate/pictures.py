"""Items -> pictures. An archive or a video stays open while the items that follow come from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.annotate.inputs import Item
from facemtl.bundles import members
from facemtl.errors import ImageError, SourceError
from facemtl.image import MAX_BYTES, read_image
from facemtl.sources import open_source


class Pictures:
    """Reads items; quickest in their order, right in any.

    Args:
        base: what their paths are relative to.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._source: str | None = None  # of what is open
        self._place = -1  # where it stands
        self._stream: Iterator[tuple[int, Any]] = iter(())  # frames or members

    def read(self, item: Item) -> tuple[np.ndarray, float | None]:
        """uint8 BGR (H, W, 3) and, of a video, the seconds since its start.

        Raises:
            SourceError, ImageError: why there is none, the rest of a sentence that starts with the item's name.
        """
        if item.error:
            raise SourceError(item.error)
        path = self._base / item.source
        if item.frame is not None:
            frame = self._at(item.source, item.frame, lambda: ((f.index, f) for f in open_source(path)))
            if frame.image is None:
                raise SourceError(frame.error)
            return frame.image, frame.timestamp
        if item.entry is None:
            return _read(path, str(path)), None
        member = self._at(item.source, item.entry, lambda: ((m.entry, m) for m in members(path)))
        if member.name != item.member:
            raise SourceError(f"is no more in the archive: entry {item.entry} is {member.name}")
        return _read(member.read(MAX_BYTES), "the image given as bytes"), None

    def _at(self, source: str, place: int, opened: Callable[[], Iterator[tuple[int, Any]]]) -> Any:
        """The frame or member at a place of a source, which ``opened`` opens at its beginning."""
        if source != self._source or place <= self._place:
            self._source, self._stream = None, opened()
        try:
            for reached, found in self._stream:
                self._place = reached
                if reached == place:
                    self._source = source
                    return found
        except SourceError:
            self._source = None
            raise
        self._source = None
        raise SourceError(f"is no more there: {source} has changed since its content was listed")


def _read(source: Path | bytes, name: str) -> np.ndarray:
    try:
        return read_image(source)
    except ImageError as error:
        raise ImageError(str(error).removeprefix(f"{name} ")) from None
