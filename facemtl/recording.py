"""Annotated video out, by PyAV (``pip install 'facemtl[video]'``): the source's rate, times and sound are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from facemtl.errors import DependencyError, OutputError

if TYPE_CHECKING:
    import av

CODECS = ("libx264", "mpeg4")  # the first one that this FFmpeg has
CLOCK = 90_000  # units of a second in which the times of frames are written, as MPEG does
# Sound that an mp4 file may hold is copied as it is; any other is coded anew.
COPIED = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
SOUND_CODEC = "aac"


def import_av() -> Any:
    """PyAV.

    Raises:
        DependencyError: it is not installed; the message names the extra.
    """
    try:
        import av
    except ImportError:
        raise DependencyError("a video is written by PyAV: pip install 'facemtl[video]'") from None
    return av


class Recording:
    """An mp4 file being written. Its size is that of the first frame, less an odd last row or column.

    Args:
        path: of the file; its folder exists.
        fps: frames a second that players are told; each frame has its own time all the same.
        sound: a file whose sound accompanies the frames, whose times are those of that file; None or without: silent.

    Attributes:
        frames: how many were written.

    Raises:
        DependencyError: PyAV is not installed.
        OutputError: the file cannot be written, here and in all methods.
    """

    def __init__(self, path: Path, fps: float, sound: Path | None = None) -> None:
        self._av = import_av()
        self._fps = Fraction(fps).limit_denominator(1001)
        self._start = 0.0
        self._clock = -1  # time of the last frame in units
        self._video: av.VideoStream | None = None
        self._sound: _Sound | None = None
        self.frames = 0
        try:
            path.open("wb").close()  # FFmpeg itself would say so only at the first packet
            self._file = self._av.open(str(path), "w", format="mp4")
            self._source = None if sound is None else self._av.open(str(sound))
        except (OSError, self._av.FFmpegError) as error:
            raise OutputError(f"{path} cannot be written as a video: {error}") from None

    def write(self, image: np.ndarray, timestamp: float) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) uint8 BGR; of another size than the first one it is fitted into that with black around.
            timestamp: seconds in the source; one that is not after the last counts as one frame later.
        """
        with self._errors():
            if self._video is None:
                self._begin(image, timestamp)
            height, width = self._video.height, self._video.width
            if self.frames and image.shape[:2] != self._given:
                image = _letterbox(image, self._given)
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="bgr24")
            later = max(self._clock + 1, self._clock + round(CLOCK / self._fps)) if self.frames else 0
            due = round((timestamp - self._start) * CLOCK)
            self._clock = due if due > self._clock else later
            frame.pts, frame.time_base = self._clock, Fraction(1, CLOCK)
            self._put(self._video.encode(frame))
            self.frames += 1
            if self._sound is not None:
                self._sound.write_until(self._clock / CLOCK)

    def close(self, to_the_end: bool = False) -> None:
        """Finish the file.

        Args:
            to_the_end: the source has ended: take all of its sound, and not only up to the last frame.
        """
        try:
            with self._errors():
                if self._video is not None:
                    self._put(self._video.encode())
                if self._sound is not None:
                    last = self._clock / CLOCK + 1 / float(self._fps)
                    self._sound.finish(math.inf if to_the_end else last)
        finally:
            if self._source is not None:
                self._source.close()
            with self._errors():
                self._file.close()

    def _begin(self, image: np.ndarray, timestamp: float) -> None:
        self._given = image.shape[:2]
        height, width = (side // 2 * 2 for side in self._given)  # half as many rows and columns of colour
        if not (height and width):
            raise OutputError(f"a video cannot have {image.shape[1]} x {image.shape[0]} pixels: two by two at least")
        self._start = timestamp
        codec = next(name for name in CODECS if name in self._av.codecs_available)
        self._video = self._file.add_stream(codec, rate=self._fps)
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._video.codec_context.time_base = Fraction(1, CLOCK)
        if codec == "libx264":
            self._video.options = {"preset": "veryfast", "crf": "20"}
        if self._source is not None and self._source.streams.audio:
            self._sound = _Sound(self._av, self._source, self._file, timestamp)

    def _put(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            packet.duration = round(CLOCK / self._fps)
            self._file.mux(packet)

    def _errors(self) -> _AsOutputErrors:
        return _AsOutputErrors(self._av.FFmpegError)


class _AsOutputErrors:
    """Errors of FFmpeg, such as a full disk, as errors of this package."""

    def __init__(self, kind: type[Exception]) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._kind | OSError):
            raise OutputError(f"the video could not be written whole: {error}") from None


class _Sound:
    """The first stream of sound of a file, on its way into another one, from ``start`` seconds on."""

    def __init__(self, av_module: Any, source: Any, target: Any, start: float) -> None:
        self._av = av_module
        self._stream = source.streams.audio[0]
        self._target = target
        videos = source.streams.video
        # The times of a source's frames count from its first one; those of its sound must do so too.
        first = float(videos[0].start_time * videos[0].time_base) if videos and videos[0].start_time else 0.0
        self._offset = round((start + first) / self._stream.time_base)
        self._copied = self._stream.codec_context.codec.canonical_name in COPIED
        if self._copied:
            self._out = target.add_stream_from_template(self._stream)
        else:
            self._out = target.add_stream(SOUND_CODEC, rate=self._stream.codec_context.sample_rate)
            layout = self._stream.codec_context.layout.name
            self._resample = av_module.AudioResampler("fltp", layout, self._stream.codec_context.sample_rate)
        self._packets: Iterator[Any] = source.demux(self._stream)
        self._next: Any = None

    def write_until(self, seconds: float) -> None:
        """All of the sound that begins before this time of the recording."""
        while (packet := self._peek()) is not None:
            if float((packet.pts - self._offset) * packet.time_base) >= seconds:
                return
            self._next = None
            packet.pts -= self._offset
            packet.dts = packet.pts
            if packet.pts + (packet.duration or 0) > 0:
                self._write(packet)

    def finish(self, seconds: float) -> None:
        self.write_until(seconds)
        if not self._copied:
            for frame in self._resample.resample(None):
                self._target.mux(self._out.encode(frame))
            self._target.mux(self._out.encode(None))

    def _peek(self) -> Any:
        while self._next is None:
            self._next = next(self._packets, None)
            if self._next is None:
                return None
            if self._next.pts is None:  # what flushes a decoder at the end, or damage
                self._next = None
        return self._next

    def _write(self, packet: Any) -> None:
        if self._copied:
            packet.stream = self._out
            self._target.mux(packet)
            return
        for decoded in packet.decode():
            for frame in self._resample.resample(decoded):
                self._target.mux(self._out.encode(frame))


def _letterbox(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The whole image in the middle of a black one of ``size``, height and width."""
    height, width = size
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return canvas
