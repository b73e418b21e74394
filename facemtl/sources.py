"""Where pictures come from: a photo, a folder of photos, a video file, a camera or a stream, all read the same way.

A camera or stream that gives no picture is tried again, then opened again, and each try is reported as a frame without
a picture; only one that stays away for about half a minute is an error.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from facemtl.errors import ImageError, SourceError
from facemtl.image import SUFFIXES, read_image

PHOTO_SUFFIXES = frozenset({*SUFFIXES, ".gif"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
ANNOTATED_SUFFIX = ".faces.png"  # what the demo appends to a photo's name; a folder's own results are not its photos

CAMERA_TRIES = 20  # a camera that warms up or is busy misses some frames; one that is gone misses all
CAMERA_PAUSE = 0.1  # seconds between tries
REOPENINGS = 25  # how often one that is gone is opened again in a row
REOPEN_PAUSE = 1.0  # seconds before each
STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
STREAM_TIMEOUT = 10_000  # milliseconds for which FFmpeg waits for an address, or for the next picture

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source, or the reason why there is none.

    Attributes:
        name: the file, relative to the folder that was opened; the name of the source for a video or a camera.
        index: counts from 0, errors included.
        image: (H, W, 3) uint8 BGR, or None if it could not be read.
        timestamp: seconds since the start of the video or since the camera was opened; None for photos.
        error: why there is no picture, one sentence, or None.
    """

    name: str
    index: int
    image: np.ndarray | None
    timestamp: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Frames to iterate over, once, and what is known of them beforehand.

    Attributes:
        kind: ``photo``, ``folder``, ``video``, ``camera`` or ``stream``.
        name: of the file or folder, ``camera0``, or the host and path of a stream with dots between (no password).
        frames: the frames in order; closing it frees the file or the camera.
        count: number of frames, None where it is unknown; the count of a video is what its header says.
        fps: frames a second that the video or camera reports, None where unknown.
        size: width and height in pixels that the video or camera reports, None for photos.
        path: the file of a video, None for all else.
    """

    kind: str
    name: str
    frames: Generator[Frame, None, None]
    count: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    path: Path | None = None

    def __iter__(self) -> Generator[Frame, None, None]:
        return self.frames

    @property
    def still(self) -> bool:
        """Whether the frames are photos, which have no time."""
        return self.kind in ("photo", "folder")

    @property
    def live(self) -> bool:
        """Whether pictures come when they come, and are lost when nobody takes them."""
        return self.kind in ("camera", "stream")

    def close(self) -> None:
        """Free the file or the camera; a source that has come to its end is free already, and one that hangs in its
        driver, read by another thread, stays as it is."""
        with suppress(ValueError):  # the generator is running
            self.frames.close()


def open_source(spec: str | int | Path) -> Source:
    """Open what ``spec`` names.

    Args:
        spec: a photo, a folder (its photos and those of its folders, sorted, hidden files and earlier results left
            out), a video file, the index of a camera such as ``0`` (a folder of that name is ``./0``), or the address
            of a stream, such as ``rtsp://...`` or ``http://...``; a finite video at an address is streamed as well.

    Raises:
        SourceError: there is no such file, folder or camera, or it holds no pictures.
        ImageError: the one photo cannot be read. In a folder this is a :class:`Frame` with an error instead.
    """
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdecimal()):
        return _open_camera(int(spec))
    if isinstance(spec, str) and urlsplit(spec).scheme in STREAM_SCHEMES and "://" in spec:
        return _open_stream(spec)
    path = Path(spec)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise SourceError(f"{spec} is no file, no folder and no camera index: check the path (cameras count from 0)")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video(path)
    image = read_image(path)
    return Source("photo", path.name, (frame for frame in [Frame(path.name, 0, image)]), count=1)


def _open_folder(folder: Path) -> Source:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(
        name
        for name in found
        if name.suffix.lower() in PHOTO_SUFFIXES
        and not name.name.endswith(ANNOTATED_SUFFIX)
        and not any(part.startswith(".") for part in name.parts)
    )
    if not names:
        raise SourceError(f"{folder} holds no photos; the known suffixes are {' '.join(sorted(PHOTO_SUFFIXES))}")
    return Source("folder", folder.resolve().name, _folder_frames(folder, names), count=len(names))


def _folder_frames(folder: Path, names: list[Path]) -> Generator[Frame, None, None]:
    for index, name in enumerate(names):
        try:
            frame = Frame(name.as_posix(), index, read_image(folder / name))
        except ImageError as error:
            frame = Frame(name.as_posix(), index, None, error=str(error))
        yield frame


def _open_video(path: Path) -> Source:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"{path} cannot be opened as a video: it is damaged, or its format is unknown to OpenCV")
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    count = count if count > 0 else None
    frames = _video_frames(capture, path.name, count)
    return Source("video", path.name, frames, count, _fps(capture), _size(capture), path)


def _video_frames(capture: cv2.VideoCapture, name: str, count: int | None) -> Generator[Frame, None, None]:
    try:
        for index in itertools.count():
            ok, image = capture.read()
            if not ok:
                break
            yield Frame(name, index, image, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        # The end of a video and damage look the same to OpenCV. Some headers only estimate the count: allow a tenth.
        if index == 0 or (count is not None and index < 0.9 * count):
            promised = "some" if count is None else count
            message = f"{name} ends after {index} frames where its header promises {promised}: it may be cut off"
            yield Frame(name, index, None, error=message)
    finally:
        capture.release()


def _open_camera(index: int) -> Source:
    def open_it() -> cv2.VideoCapture:
        capture = cv2.VideoCapture(index)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # show what is, not what was
        return capture

    return _open_live("camera", f"camera{index}", open_it, "it is not there, in use, or not allowed")


def _open_stream(address: str) -> Source:
    def open_it() -> cv2.VideoCapture:
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT]
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts)

    parts = urlsplit(address)
    name = ".".join([parts.hostname or "stream", *filter(None, parts.path.split("/"))])
    return _open_live(
        "stream", name, open_it, "nothing answers there, or it is no video; see the address and its login"
    )


def _open_live(kind: str, name: str, open_it: Callable[[], cv2.VideoCapture], why: str) -> Source:
    capture = open_it()
    if not capture.isOpened():
        raise SourceError(f"{name.replace('camera', 'camera ')} cannot be opened: {why}")
    frames = _live_frames(capture, open_it, name)
    return Source(kind, name, frames, None, _fps(capture), _size(capture))


def _live_frames(
    capture: cv2.VideoCapture, open_it: Callable[[], cv2.VideoCapture], name: str
) -> Generator[Frame, None, None]:
    start = time.monotonic()
    missed = reopened = 0
    shape: tuple[int, ...] | None = None
    try:
        for index in itertools.count():
            image = _read_picture(capture)
            timestamp = time.monotonic() - start
            if image is not None:
                missed = reopened = 0
                if shape is not None and image.shape[:2] != shape:
                    size = " x ".join(map(str, image.shape[1::-1]))
                    _log.warning("the pictures of %s have another size now: %s", name, size)
                shape = image.shape[:2]
                yield Frame(name, index, image, timestamp)
                continue
            missed += 1
            if missed <= CAMERA_TRIES and not reopened:
                yield Frame(name, index, None, timestamp, f"{name} gave no picture (try {missed} of {CAMERA_TRIES})")
                time.sleep(CAMERA_PAUSE)
                continue
            capture.release()
            reopened += 1
            if reopened > REOPENINGS:
                raise SourceError(
                    f"{name} gave no picture and was opened {REOPENINGS} times in vain: check its cable, its network "
                    "and other programs"
                )
            yield Frame(name, index, None, timestamp, f"{name} is gone: opened again (try {reopened} of {REOPENINGS})")
            time.sleep(REOPEN_PAUSE)
            capture = open_it()
    finally:
        capture.release()


def _read_picture(capture: cv2.VideoCapture) -> np.ndarray | None:
    """The next picture; None for a missed one, an empty one, or a driver that fails."""
    try:
        read, image = capture.read()
    except cv2.error:
        return None
    return image if read and image is not None and image.size else None


def _fps(capture: cv2.VideoCapture) -> float | None:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps <= 1000 else None  # some files and cameras report 0, NaN or their clock's rate


def _size(capture: cv2.VideoCapture) -> tuple[int, int]:
    return int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
