"""What the demo leaves behind: JSON lines, annotated photos and videos, snapshots. Whole files or none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.errors import OutputError
from facemtl.face import Face
from facemtl.files import beside, make_folder
from facemtl.image import write_image
from facemtl.recording import Recording, import_av
from facemtl.sources import ANNOTATED_SUFFIX, Frame, Source

DEFAULT_FPS = 25.0  # of a source that does not say
RECORDED_SUFFIX = ".faces.mp4"


def frame_record(frame: Frame, faces: Sequence[Face]) -> dict[str, Any]:
    """What a line of JSON says of a frame: ``name``, ``index``, ``timestamp``, and ``faces`` or ``error``.

    The timestamp is in seconds, None for photos; a face is :meth:`facemtl.face.Face.to_dict`.
    """
    timestamp = None if frame.timestamp is None else round(frame.timestamp, 6)
    record: dict[str, Any] = {"name": frame.name, "index": frame.index, "timestamp": timestamp}
    if frame.image is None:
        return {**record, "error": frame.error}
    return {**record, "faces": [face.to_dict() for face in faces]}


@contextmanager
def json_lines(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that appends a record to the JSON lines that become ``path`` at the end.

    Raises:
        OutputError: nothing can be written there.
    """
    with _written_beside(path) as partial, partial.open("w", encoding="utf-8") as file:

        def write(record: dict[str, Any]) -> None:
            file.write(json.dumps(record, allow_nan=False) + "\n")

        yield write


class Pictures:
    """Annotated photos, ``NAME.faces.png`` in a folder, and snapshots of anything.

    Raises:
        OutputError, ImageError: a folder or picture cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = 0

    def write(self, frame: Frame, image: np.ndarray) -> None:
        """Write the annotated photo of a frame; photos of the same source keep their folders."""
        path = self._folder / f"{frame.name}{ANNOTATED_SUFFIX}"
        make_folder(path.parent)
        write_image(path, image)
        self.count += 1

    def snapshot(self, frame: Frame, image: np.ndarray) -> Path:
        """Write an annotated frame under the name of its source, its number and the time of day."""
        path = self._folder / f"{Path(frame.name).name}-{frame.index}{_now()}{ANNOTATED_SUFFIX}"
        make_folder(path.parent)
        write_image(path, image)
        return path


class Videos:
    """Recordings of one source, one at a time. A recording that is closed, or was going on when an error other than of
    the recording itself came, is whole; one without a frame leaves no file.

    Args:
        source: its name, rate, and the sound of its file.
        folder: where ``NAME.faces.mp4`` goes; a live source and a later recording have the time of day in their name.

    Raises:
        DependencyError: PyAV is not installed.
        OutputError: a file cannot be written.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        import_av()
        make_folder(folder)
        self._source, self._folder = source, folder
        self._stack: ExitStack | None = None
        self._recording: Recording | None = None
        self._path = folder
        self.done: list[Path] = []

    @property
    def going(self) -> bool:
        return self._stack is not None

    def start(self) -> None:
        """Begin a recording with the next frame."""
        fresh = self._source.live or self.done
        self._path = self._folder / f"{self._source.name}{_now() if fresh else ''}{RECORDED_SUFFIX}"
        self._stack = ExitStack()
        partial = self._stack.enter_context(_written_beside(self._path))
        self._recording = Recording(partial, self._source.fps or DEFAULT_FPS, sound=self._source.path)

    def write(self, frame: Frame, image: np.ndarray) -> None:
        if self._recording is not None:
            self._recording.write(image, frame.timestamp)

    def stop(self, to_the_end: bool = False) -> None:
        """End the recording, if one is going on.

        Args:
            to_the_end: the source has ended: take the rest of its sound.
        """
        if self._stack is None:
            return
        stack, recording = self._stack, self._recording
        self._stack = self._recording = None
        with suppress(_NoFramesError), stack:
            recording.close(to_the_end)
            if not recording.frames:
                raise _NoFramesError
        if recording.frames:
            self.done.append(self._path)

    def discard(self) -> None:
        """End the recording, if one is going on, and leave no file of it."""
        if self._stack is None:
            return
        stack, recording = self._stack, self._recording
        self._stack = self._recording = None
        with suppress(_NoFramesError), stack:
            with suppress(OutputError):
                recording.close()
            raise _NoFramesError


class _NoFramesError(Exception):
    """There is to be no such video."""


def _now() -> str:
    return time.strftime("-%Y%m%d-%H%M%S")


@contextmanager
def _written_beside(path: Path) -> Iterator[Path]:
    """As :func:`facemtl.files.beside`, with folders made on the way and the file there from the start.

    Raises:
        OutputError: nothing can be written there.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file")
    with beside(path) as partial:
        try:
            partial.touch()
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from None
        yield partial
