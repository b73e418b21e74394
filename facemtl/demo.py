"""The demo: the faces of every frame of a source, to a window, annotated pictures or a video, and JSON lines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from facemtl.controls import HELP_TEXT, RECORD, SNAPSHOT, TRACKING, Controls
from facemtl.draw import draw_faces, mirror_face
from facemtl.errors import DependencyError, ImageError, SourceError
from facemtl.face import Face
from facemtl.files import make_folder
from facemtl.outputs import DEFAULT_FPS, Pictures, Videos, frame_record, json_lines
from facemtl.pipeline import run_stages
from facemtl.sources import Frame, Source
from facemtl.track import Tracker
from facemtl.window import Window

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Summary:
    """What a run did.

    Attributes:
        frames: pictures that went through the predictor.
        faces: found in them.
        errors: frames without a picture.
        dropped: frames of a live source that came while an older one was worked on.
        seconds: spent in the predictor or tracker.
        interrupted: whether Ctrl-C ended the run.
        pictures: annotated photos written.
        recording: the first annotated video, or None if none was written.
    """

    frames: int = 0
    faces: int = 0
    errors: int = 0
    dropped: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    pictures: int = 0
    recording: Path | None = None


class _Done(NamedTuple):
    """A frame, without its picture if that is none that can be predicted, its faces, and the seconds they took."""

    frame: Frame
    faces: list[Face]
    seconds: float


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

    Reading, ``predict``, and drawing with all output run side by side (:mod:`facemtl.pipeline`). Of a camera or stream
    frames are dropped rather than shown late; of files none is.

    Args:
        predict: a :class:`facemtl.predictor.Predictor`, or any function from a (H, W, 3) uint8 BGR picture to faces;
            it is called in another thread.
        source: is closed at the end.
        out_dir: gets ``NAME.faces.png`` for each photo, or ``NAME.faces.mp4`` for a video, with its rate, times and
            sound (:mod:`facemtl.recording`). That of a camera has the time of its start in its name.
        window: shows the annotated frames and the time that ``predict`` took; the keys of
            :data:`facemtl.controls.HELP_TEXT` switch what is shown. Photos wait for a key. What the keys ``r`` and
            ``s`` record goes to ``out_dir``, or where the program was started.
        jsonl: gets one line of JSON a frame, see :func:`facemtl.outputs.frame_record`.
        mirror: show a camera as a mirror does. Files and coordinates are never mirrored.
        max_frames: stop after this many.
        progress: where to draw a bar: how far it is, how fast it goes and how long it will take.
        tracker: follows the faces of a video or camera, in place of ``predict``, in that other thread. Photos are
            never tracked.

    Returns:
        What was done. A frame that cannot be read is logged as a warning, gets its line, and the rest goes on.

    Raises:
        SourceError: the camera stays away.
        OutputError, ImageError: a result cannot be written.
        DependencyError: a video or a bar is asked for without the packages of the extra ``video``.

    Results are written beside and renamed at the end. After Ctrl-C or a lost camera they hold what was done so far.
    """
    summary = Summary()
    lost: SourceError | None = None
    follow = _Follower(predict, None if source.still else tracker, source.fps or DEFAULT_FPS)
    with ExitStack() as stack:
        stack.callback(source.close)
        write_line = stack.enter_context(json_lines(Path(jsonl))) if jsonl is not None else None
        stage = _Stage(source, follow, window, Controls(mirror), out_dir, summary)
        stack.callback(stage.discard)
        bar = None
        if progress is not None:
            total = min((n for n in (source.count, max_frames) if n is not None), default=None)
            bar = stack.enter_context(_progress_bar(total, progress))
        frames = source.frames if max_frames is None or source.live else _first(source.frames, max_frames)
        results = stack.enter_context(closing(run_stages(frames, partial(_predict_frame, follow), source.live)))
        ended = False
        try:
            for done in results:
                if done is None:
                    if not stage.idle():
                        break
                    continue
                _count(summary, done)
                if write_line:
                    write_line(frame_record(done.frame, done.faces))
                if bar is not None:
                    bar.update()
                if not stage.take(done) or summary.frames + summary.errors == max_frames:
                    break
            else:
                ended = max_frames is None
        except KeyboardInterrupt:
            summary.interrupted = True
        except SourceError as error:
            lost = error
        stage.finish(ended)
    if lost is not None:
        raise lost
    return summary


def _first(frames: Generator[Frame, None, None], count: int) -> Generator[Frame, None, None]:
    with closing(frames):
        yield from islice(frames, count)


def _predict_frame(find: Callable[[Frame], list[Face]], frame: Frame) -> _Done:
    started = time.perf_counter()
    faces: list[Face] = []
    if frame.image is not None:
        try:
            faces = find(frame)
        except ImageError as error:
            frame = replace(frame, image=None, error=str(error))
    return _Done(frame, faces, time.perf_counter() - started)


def _count(summary: Summary, done: _Done) -> None:
    summary.dropped = done.frame.index - summary.frames - summary.errors
    if done.frame.image is None:
        summary.errors += 1
        _log.warning("%s", done.frame.error)
    else:
        summary.frames += 1
        summary.faces += len(done.faces)
        summary.seconds += done.seconds


class _Follower:
    """The faces of one frame after the other, tracked or each frame by itself."""

    def __init__(self, predict: Callable[[np.ndarray], list[Face]], tracker: Tracker | None, fps: float) -> None:
        self._predict, self._tracker = predict, tracker
        self._tracking = self._wanted = tracker is not None
        self._clock, self._step = -math.inf, 1 / fps

    def __call__(self, frame: Frame) -> list[Face]:
        if self._tracking != self._wanted:
            self._tracking = self._wanted
            self._tracker.reset()
        if not self._tracking:
            return self._predict(frame.image)
        # Some files repeat timestamps or mix them up; a tracker's clock must go on.
        self._clock = frame.timestamp if frame.timestamp > self._clock else self._clock + self._step
        return self._tracker(frame.image, self._clock)

    def toggle(self) -> None:
        """Stop or start tracking from the next frame on, where there is a tracker; faces found after a pause are new
        ones. May be called from another thread."""
        self._wanted = self._tracker is not None and not self._wanted

    @property
    def status(self) -> str:
        """What the window says of it; nothing where there is no tracker."""
        return "" if self._tracker is None else f"   tracking {'on' if self._wanted else 'off'}"


class _Stage:
    """The last stage: what is drawn, shown and written of each frame, and what keys do."""

    def __init__(
        self,
        source: Source,
        follow: _Follower,
        window: Window | None,
        controls: Controls,
        out_dir: str | Path | None,
        summary: Summary,
    ) -> None:
        self._source, self._follow, self._window, self._controls = source, follow, window, controls
        self._summary = summary
        self._folder = Path() if out_dir is None else Path(out_dir)
        self._pictures = Pictures(self._folder)
        self._writes_photos = out_dir is not None and source.still
        self._videos: Videos | None = None
        self._last: _Done | None = None
        self._started = time.perf_counter()
        if out_dir is not None:
            make_folder(self._folder)
            if not source.still:
                self._record()

    def take(self, done: _Done) -> bool:
        """Deal with a frame; False once the user has ended the show."""
        if done.frame.image is None:
            return True
        self._last = done
        if self._writes_photos or self._recording:
            image = draw_faces(done.frame.image, done.faces, self._controls.overlay)
            if self._recording:
                self._videos.write(done.frame, image)
            else:
                self._pictures.write(done.frame, image)
                self._summary.pictures = self._pictures.count
        if self._window is None:
            return True
        if self._source.kind == "video":  # never faster than life
            time.sleep(max(0.0, done.frame.timestamp - (time.perf_counter() - self._started)))
        return self._show(done)

    def idle(self) -> bool:
        """Keep the window alive while there is no frame; False once the user has ended the show."""
        if self._window is None:
            return True
        going = self._window.refresh()
        self._press()
        return going

    def finish(self, ended: bool) -> None:
        """Close a recording that is going on; ``ended``: the source has come to its end."""
        if self._videos is not None:
            self._videos.stop(to_the_end=ended)
            self._summary.recording = next(iter(self._videos.done), None)

    def discard(self) -> None:
        """Leave no half recording behind, after an error."""
        if self._videos is not None:
            self._videos.discard()

    @property
    def _recording(self) -> bool:
        return self._videos is not None and self._videos.going

    def _show(self, done: _Done) -> bool:
        while True:
            going = self._window.show(self._view(done), self._status(done))
            if going and self._source.still:
                going = self._window.wait()
            pressed = self._press()
            if not (going and self._source.still and pressed):  # a photo is shown again, as the keys want it
                return going

    def _view(self, done: _Done) -> np.ndarray:
        image, faces = done.frame.image, done.faces
        if self._controls.mirror and self._source.kind == "camera":
            # Mirrored before it is drawn on, or the text would be mirrored too.
            faces = [mirror_face(face, image.shape[1]) for face in faces]
            image = image[:, ::-1]
        return draw_faces(image, faces, self._controls.overlay)

    def _status(self, done: _Done) -> str:
        text = f"{1000 * done.seconds:.0f} ms   {count_of(len(done.faces), 'face')}{self._follow.status}"
        if self._recording:
            text += "   recording"
        return f"{text}\n{HELP_TEXT}" if self._controls.help else text

    def _press(self) -> bool:
        """Do what the pressed keys want; whether there were any."""
        keys = self._window.pressed()
        for key in self._controls.press(keys):
            if key == TRACKING:
                self._follow.toggle()
            elif key == RECORD and not self._source.still:
                self._record()
            elif key == SNAPSHOT and self._last is not None:
                image = draw_faces(self._last.frame.image, self._last.faces, self._controls.overlay)
                path = self._pictures.snapshot(self._last.frame, image)
                _log.warning("snapshot: %s", path)
        return bool(keys)

    def _record(self) -> None:
        """Begin a recording, or end the one that is going on."""
        if self._videos is None:
            self._videos = Videos(self._source, self._folder)
        if self._videos.going:
            self._videos.stop()
        else:
            self._videos.start()


def count_of(number: int, thing: str) -> str:
    """``1 face``, ``2 faces``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _progress_bar(total: int | None, stream: TextIO) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        raise DependencyError("the progress bar is tqdm's: pip install 'facemtl[video]', or --no-progress") from None
    return tqdm(total=total, unit="frame", file=stream, dynamic_ncols=True)
