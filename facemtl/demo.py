"""The demo: the faces of every frame of a source, to a window, annotated pictures or a video, and JSON lines."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from facemtl.draw import draw_faces, mirror_face
from facemtl.errors import ImageError, OutputError, SourceError
from facemtl.face import Face
from facemtl.files import beside
from facemtl.image import write_image
from facemtl.sources import ANNOTATED_SUFFIX, Frame, Source
from facemtl.track import Tracker
from facemtl.window import Window

DEFAULT_FPS = 25.0  # of a source that does not say
TRACKING_KEY = "t"

_CLEAR_LINE = "\x1b[K"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Summary:
    """What a run did.

    Attributes:
        frames: pictures that went through the predictor.
        faces: found in them.
        errors: frames without a picture.
        seconds: spent in the predictor or tracker.
        interrupted: whether Ctrl-C ended the run.
        pictures: annotated photos written.
        recording: the annotated video, or None if none was written.
    """

    frames: int = 0
    faces: int = 0
    errors: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    pictures: int = 0
    recording: Path | None = None


def run_demo(
    predict: Callable[[np.ndarray], list[Face]],
    source: Source,
    out_dir: str | Path | None = None,
    window: Window | None = None,
    jsonl: str | Path | None = None,
    mirror: bool = True,
    max_frames: int | None = None,
    progress: TextIO | None = None,
    tracker: Tracker | None = None,
) -> Summary:
    """Run ``predict`` over ``source`` until it ends, the window is closed, or Ctrl-C.

    Args:
        predict: a :class:`facemtl.predictor.Predictor`, or any function from a (H, W, 3) uint8 BGR picture to faces.
        source: is closed at the end.
        out_dir: gets ``NAME.faces.png`` for each photo, or ``NAME.faces.mp4`` for a video, with its frame rate. That
            of a camera has the time of its start in its name and repeats frames so that it plays as fast as life.
        window: shows the annotated frames and the time that ``predict`` took. Photos wait for a key.
        jsonl: gets one line of JSON a frame, see :func:`frame_record`.
        mirror: show a camera as a mirror does. Files and coordinates are never mirrored.
        max_frames: stop after this many.
        progress: where to write how far it is, how fast it goes and how long it will take.
        tracker: follows the faces of a video or camera, in place of ``predict``; the key ``t`` in the window turns it
            off and on. Photos are never tracked.

    Returns:
        What was done. A frame that cannot be read is logged as a warning, gets its line, and the rest goes on.

    Raises:
        SourceError: the camera stopped giving pictures.
        OutputError, ImageError: a result cannot be written.

    Results are written beside and renamed at the end. After Ctrl-C or a lost camera they hold what was done so far.
    """
    summary = Summary()
    lost: SourceError | None = None
    follow = _Follower(predict, None if source.still else tracker, source.fps or DEFAULT_FPS)
    with ExitStack() as stack:
        stack.callback(source.close)
        write_line = stack.enter_context(_json_lines(Path(jsonl))) if jsonl is not None else None
        write_picture = stack.enter_context(_annotated(source, Path(out_dir), summary)) if out_dir is not None else None
        report = None
        if progress is not None:
            total = min((n for n in (source.count, max_frames) if n is not None), default=None)
            report = stack.enter_context(closing(_Progress(total, progress)))
        started = time.perf_counter()
        try:
            for frame in islice(source, max_frames):
                frame, faces, seconds = _predict_frame(follow, frame, summary)
                if write_line:
                    write_line(frame_record(frame, faces))
                if report:
                    report.update(summary.frames + summary.errors)
                if frame.image is None:
                    continue
                if write_picture:
                    write_picture(frame, draw_faces(frame.image, faces))
                if window:
                    if source.kind == "video":  # never faster than life
                        time.sleep(max(0.0, frame.timestamp - (time.perf_counter() - started)))
                    status = f"{1000 * seconds:.0f} ms   {count_of(len(faces), 'face')}{follow.status}"
                    if not _show(window, source, frame, faces, status, mirror):
                        break
                    if TRACKING_KEY in window.pressed():
                        follow.toggle()
        except KeyboardInterrupt:
            summary.interrupted = True
        except SourceError as error:
            lost = error
    if lost is not None:
        raise lost
    return summary


def frame_record(frame: Frame, faces: Sequence[Face]) -> dict[str, Any]:
    """What a line of JSON says of a frame: ``name``, ``index``, ``timestamp``, and ``faces`` or ``error``.

    The timestamp is in seconds, None for photos; a face is :meth:`facemtl.face.Face.to_dict`.
    """
    timestamp = None if frame.timestamp is None else round(frame.timestamp, 6)
    record: dict[str, Any] = {"name": frame.name, "index": frame.index, "timestamp": timestamp}
    if frame.image is None:
        return {**record, "error": frame.error}
    return {**record, "faces": [face.to_dict() for face in faces]}


class _Follower:
    """The faces of one frame after the other, tracked or each frame by itself."""

    def __init__(self, predict: Callable[[np.ndarray], list[Face]], tracker: Tracker | None, fps: float) -> None:
        self._predict, self._tracker = predict, tracker
        self._tracking = tracker is not None
        self._clock, self._step = -math.inf, 1 / fps

    def __call__(self, frame: Frame) -> list[Face]:
        if not self._tracking:
            return self._predict(frame.image)
        # Some files repeat timestamps or mix them up; a tracker's clock must go on.
        self._clock = frame.timestamp if frame.timestamp > self._clock else self._clock + self._step
        return self._tracker(frame.image, self._clock)

    def toggle(self) -> None:
        """Stop or start tracking, where there is a tracker; faces found after a pause are new ones."""
        if self._tracker is not None:
            self._tracking = not self._tracking
            self._tracker.reset()

    @property
    def status(self) -> str:
        """What the window says of it; nothing where there is no tracker."""
        return "" if self._tracker is None else f"   tracking {'on' if self._tracking else 'off'}"


def _predict_frame(
    find: Callable[[Frame], list[Face]], frame: Frame, summary: Summary
) -> tuple[Frame, list[Face], float]:
    """The frame, its faces and the seconds that took; without its picture if that is none that can be predicted."""
    faces: list[Face] = []
    started = time.perf_counter()
    if frame.image is not None:
        try:
            faces = find(frame)
        except ImageError as error:
            frame = replace(frame, image=None, error=str(error))
    seconds = time.perf_counter() - started
    if frame.image is None:
        summary.errors += 1
        _log.warning("%s", frame.error)
    else:
        summary.frames += 1
        summary.faces += len(faces)
        summary.seconds += seconds
    return frame, faces, seconds


def _show(window: Window, source: Source, frame: Frame, faces: list[Face], status: str, mirror: bool) -> bool:
    """Show an annotated frame; False once the user has ended the show."""
    image = frame.image
    if mirror and source.kind == "camera":
        # Mirrored before it is drawn on, or the text would be mirrored too.
        faces = [mirror_face(face, image.shape[1]) for face in faces]
        image = image[:, ::-1]
    going = window.show(draw_faces(image, faces), status)
    return window.wait() if going and source.still else going


def count_of(number: int, thing: str) -> str:
    """``1 face``, ``2 faces``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be made: {error.strerror}") from None


@contextmanager
def _written_beside(path: Path) -> Iterator[Path]:
    """As :func:`facemtl.files.beside`, with folders made on the way and the file there from the start.

    Raises:
        OutputError: nothing can be written there.
    """
    _make_folder(path.parent)
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file")
    with beside(path) as partial:
        try:
            partial.touch()
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from None
        yield partial


@contextmanager
def _json_lines(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that appends a record to the JSON lines that become ``path`` at the end."""
    with _written_beside(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield lambda record: print(json.dumps(record, allow_nan=False), file=file)


@contextmanager
def _annotated(source: Source, out_dir: Path, summary: Summary) -> Iterator[Callable[[Frame, np.ndarray], None]]:
    """A function that writes an annotated frame of ``source``: as a picture, or to a video that is there at the end."""
    _make_folder(out_dir)
    if source.still:

        def write(frame: Frame, image: np.ndarray) -> None:
            path = out_dir / f"{frame.name}{ANNOTATED_SUFFIX}"
            _make_folder(path.parent)
            write_image(path, image)
            summary.pictures += 1

        yield write
        return
    started = time.strftime("-%Y%m%d-%H%M%S") if source.kind == "camera" else ""
    path = out_dir / f"{source.name}{started}.faces.mp4"
    with suppress(_NoFrames), _written_beside(path) as partial:
        with closing(_Recording(partial, source.fps or DEFAULT_FPS, live=source.kind == "camera")) as recording:
            yield recording.write
        recording.check()
    summary.recording = path if recording.frames else None


class _NoFrames(Exception):
    """A recording ended before its first frame: there is no such video."""


class _Recording:
    """An mp4 file being written; its size is that of the first frame (OpenCV drops the last odd row and column)."""

    def __init__(self, path: Path, fps: float, live: bool) -> None:
        self._path, self._fps, self._live = path, fps, live
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._start = 0.0
        self.frames = 0

    def write(self, frame: Frame, image: np.ndarray) -> None:
        if self._writer is None:
            self._size = (image.shape[1], image.shape[0])
            self._start = frame.timestamp
            self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter_fourcc(*"mp4v"), self._fps, self._size)
            if min(self._size) < 2 or not self._writer.isOpened():
                raise OutputError(f"OpenCV cannot write a video of {self._size[0]} x {self._size[1]} pixels")
        if image.shape[1::-1] != self._size:  # a stream may change its size midway, a file may not
            image = cv2.resize(image, self._size)
        # The predictor may be slower or faster than the camera: the recording follows the clock.
        due = round((frame.timestamp - self._start) * self._fps) + 1 if self._live else self.frames + 1
        while self.frames < due:
            self._writer.write(image)
            self.frames += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Look at the closed file.

        Raises:
            _NoFrames: nothing was written.
            OutputError: the file does not read back; OpenCV itself is silent about a full disk.
        """
        if not self.frames:
            raise _NoFrames
        if not cv2.VideoCapture(str(self._path)).isOpened():
            raise OutputError("the annotated video was not written whole: is the disk full?")


class _Progress:
    """How far, how fast, how long still: one line that is rewritten on a terminal, a line every 5 s elsewhere."""

    def __init__(self, total: int | None, stream: TextIO) -> None:
        self._total, self._stream = total, stream
        self._terminal = stream.isatty()
        self._pause = 0.1 if self._terminal else 5.0
        self._started = self._last = time.monotonic()

    def update(self, done: int) -> None:
        """Report that ``done`` frames are done, unless the last report is fresh."""
        now = time.monotonic()
        if now - self._last < self._pause:
            return
        self._last = now
        rate = done / (now - self._started)
        text = f"{done} frames, {rate:.1f}/s"
        if self._total is not None:
            left = max(0, round((self._total - done) / rate))
            text = f"{done}/{self._total} frames, {rate:.1f}/s, {left // 60}:{left % 60:02} left"
        self._stream.write(f"{_CLEAR_LINE}{text}\r" if self._terminal else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        if self._terminal:
            self._stream.write(_CLEAR_LINE)
