"""Where pictures come from: a photo, a folder of photos, a video file or a camera, all read the same way."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from facemtl.errors import ImageError, SourceError
from facemtl.image import SUFFIXES, read_image

PHOTO_SUFFIXES = frozenset({*SUFFIXES, ".gif"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
ANNOTATED_SUFFIX = ".faces.png"  # what the demo appends to a photo's name; a folder's own results are not its photos

CAMERA_TRIES = 20  # a camera that warms up or is busy misses some frames; one that is gone misses all
CAMERA_PAUSE = 0.1  # seconds between tries


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
        kind: ``photo``, ``folder``, ``video`` or ``camera``.
        name: of the file or folder, or ``camera0``.
        frames: the frames in order; closing it frees the file or the camera.
        count: number of frames, None where it is unknown; the count of a video is what its header says.
        fps: frames a second that the video or camera reports, None where unknown.
        size: width and height in pixels that the video or camera reports, None for photos.
    """

    kind: str
    name: str
    frames: Generator[Frame, None, None]
    count: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None

    def __iter__(self) -> Generator[Frame, None, None]:
        return self.frames

    @property
    def still(self) -> bool:
        """Whether the frames are photos, which have no time."""
        return self.kind in ("photo", "folder")

    def close(self) -> None:
        """Free the file or the camera; a source that has come to its end is free already."""
        self.frames.close()


def open_source(spec: str | int | Path) -> Source:
    """Open what ``spec`` names.

    Args:
        spec: a photo, a folder (its photos and those of its folders, sorted, hidden files and earlier results left
            out), a video file, or the index of a camera such as ``0``. A folder called ``0`` is ``./0``. Nothing is
            fetched from a network.

    Raises:
        SourceError: there is no such file, folder or camera, or it holds no pictures.
        ImageError: the one photo cannot be read. In a folder this is a :class:`Frame` with an error instead.
    """
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdecimal()):
        return _open_camera(int(spec))
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
    return Source("video", path.name, frames, count, _fps(capture), _size(capture))


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
    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        raise SourceError(f"camera {index} cannot be opened: it is not there, in use, or not allowed")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # show what is, not what was
    name = f"camera{index}"
    return Source("camera", name, _camera_frames(capture, name), None, _fps(capture), _size(capture))


def _camera_frames(capture: cv2.VideoCapture, name: str) -> Generator[Frame, None, None]:
    start = time.monotonic()
    missed = 0
    try:
        for index in itertools.count():
            ok, image = capture.read()
            timestamp = time.monotonic() - start
            if ok and image is not None and image.size:
                missed = 0
                yield Frame(name, index, image, timestamp)
                continue
            missed += 1
            if missed > CAMERA_TRIES:
                raise SourceError(f"{name} gave no picture {missed} times in a row: check its cable and other programs")
            yield Frame(name, index, None, timestamp, f"{name} gave no picture (try {missed} of {CAMERA_TRIES})")
            time.sleep(CAMERA_PAUSE)
    finally:
        capture.release()


def _fps(capture: cv2.VideoCapture) -> float | None:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps <= 1000 else None  # some files and cameras report 0, NaN or their clock's rate


def _size(capture: cv2.VideoCapture) -> tuple[int, int]:
    return int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
