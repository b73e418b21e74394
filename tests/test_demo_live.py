"""The demo before people: cameras, the window, its stages side by side, and the keys."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from bright_square import REAL_CAPTURE, find_square, make_video, read_lines, read_video, square
from sound_files import times

from facemtl import pipeline, sources
from facemtl.demo import run_demo
from facemtl.errors import SourceError
from facemtl.face import Face
from facemtl.image import read_image, write_image
from facemtl.sources import Frame, Source, open_source


class FakeCamera:
    """Stands for cv2.VideoCapture on a camera that shows the square at x = 4, ``left`` times, and is then unplugged."""

    def __init__(self, left: int) -> None:
        self.left = left

    def isOpened(self) -> bool:
        return True

    def get(self, prop: int) -> float:
        return 10.0

    def set(self, prop: int, value: float) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, square(4)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """Camera 0 is a :class:`FakeCamera` whose pictures come 0.3 s apart, and never again once it was unplugged. None is
    dropped, however busy the machine is."""
    seconds = iter(0.3 * i for i in range(1000))
    monkeypatch.setattr(sources.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(sources, "CAMERA_PAUSE", 0.0)
    monkeypatch.setattr(sources, "REOPEN_PAUSE", 0.0)
    monkeypatch.setattr(pipeline, "ROOM", 100)
    pictures = iter([3])

    def capture(source: int | str) -> FakeCamera | cv2.VideoCapture:
        return FakeCamera(next(pictures, 0)) if isinstance(source, int) else REAL_CAPTURE(source)

    monkeypatch.setattr(cv2, "VideoCapture", capture)


class FakeWindow:
    """Stands for Window; the user ends the show after ``patience`` pictures; when so many were shown, ``keys`` come."""

    def __init__(self, patience: int = 1000, keys: dict[int, list[str]] | None = None) -> None:
        self.patience = patience
        self.keys = dict(keys or {})
        self.shown: list[np.ndarray] = []
        self.statuses: list[str] = []
        self.waits = 0

    def show(self, image: np.ndarray, status: str = "") -> bool:
        self.shown.append(image)
        self.statuses.append(status)
        return len(self.shown) < self.patience

    def wait(self) -> bool:
        self.waits += 1
        return True

    def refresh(self) -> bool:
        return True

    def pressed(self) -> list[str]:
        return self.keys.pop(len(self.shown), [])


def test_a_camera_recording_follows_the_clock_and_survives_the_camera(camera: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SourceError, match="camera0 gave no picture and was opened"):
        run_demo(find_square, open_source("0"), out_dir=out, jsonl=out / "faces.jsonl")
    recording, lines = sorted(out.iterdir())
    assert recording.match("camera0-*.faces.mp4")
    assert times(recording) == pytest.approx([0, 0.3, 0.6], abs=1e-3)
    records = read_lines(lines)
    assert [len(r["faces"]) for r in records[:3]] == [1, 1, 1]
    assert [r["timestamp"] for r in records[:3]] == pytest.approx([0.3, 0.6, 0.9])
    assert all("error" in r for r in records[3:])


@pytest.mark.parametrize("mirror", [True, False])
def test_only_the_view_of_a_camera_is_mirrored(mirror: bool, camera: None, tmp_path: Path) -> None:
    window = FakeWindow(patience=2)
    lines = tmp_path / "faces.jsonl"
    summary = run_demo(find_square, open_source("0"), tmp_path, window, lines, mirror=mirror)
    assert summary.frames == len(window.shown) == 2
    (face,) = find_square(square(4))
    bright = np.nonzero((window.shown[0] == 230).all(axis=2))[1]
    assert (bright.min() > 64) == mirror
    assert read_lines(lines)[0]["faces"] == [face.to_dict()]
    recorded = np.nonzero(read_video(summary.recording)[1][0][50].min(axis=1) > 125)[0]
    assert recorded.max() < 64


def test_a_mirrored_view_is_annotated_where_the_face_is_seen() -> None:
    plain, mirrored = FakeWindow(1), FakeWindow(1)
    for window, mirror in ((plain, False), (mirrored, True)):
        frames = (Frame("camera0", 0, square(4), 0.0) for _ in range(1))
        run_demo(find_square, Source("camera", "camera0", frames), window=window, mirror=mirror)
    difference = plain.shown[0][:, ::-1].astype(int) - mirrored.shown[0]
    assert np.abs(difference).mean() < 0.5  # smoothing is not quite symmetric
    assert (mirrored.shown[0] != square(4)[:, ::-1]).any()


def test_the_window_shows_faces_and_time_of_each_photo_and_waits(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name, square(30))
    window = FakeWindow(patience=3)
    run_demo(find_square, open_source(tmp_path), window=window)
    assert len(window.shown) == 3
    assert window.waits == 2  # the user ended the show at the third
    assert window.statuses[0].endswith(" ms   1 face")
    assert window.statuses[0].split()[0].isdecimal()
    assert (window.shown[0] != square(30)).any()


def test_a_video_in_a_window_is_not_faster_than_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naps = []
    monkeypatch.setattr("facemtl.demo.time.sleep", naps.append)
    monkeypatch.setattr("facemtl.demo.time.perf_counter", lambda: 0.0)
    run_demo(find_square, open_source(make_video(tmp_path / "clip.mp4", frames=3)), window=FakeWindow())
    assert naps == pytest.approx([0, 0.08, 0.16])


# --- the stages side by side ------------------------------------------------------------------------------------------


def test_of_a_file_no_frame_is_dropped_however_slow_the_predictor_is(tmp_path: Path) -> None:
    def slow(image: np.ndarray) -> list[Face]:
        time.sleep(0.01)
        return find_square(image)

    source = open_source(make_video(tmp_path / "clip.mp4", frames=40))
    summary = run_demo(slow, source, jsonl=tmp_path / "faces.jsonl")
    assert (summary.frames, summary.dropped) == (40, 0)
    assert [record["index"] for record in read_lines(tmp_path / "faces.jsonl")] == list(range(40))


def test_of_a_camera_frames_are_dropped_and_counted(tmp_path: Path) -> None:
    given = threading.Event()

    def pictures() -> Iterator[Frame]:
        yield from (Frame("camera0", i, square(4), i / 30) for i in range(50))
        given.set()

    def slow(image: np.ndarray) -> list[Face]:
        assert given.wait(20)
        return []

    summary = run_demo(slow, Source("camera", "camera0", pictures(), fps=30.0), jsonl=tmp_path / "faces.jsonl")
    records = read_lines(tmp_path / "faces.jsonl")
    assert records[-1]["index"] == 49
    assert summary.frames == len(records) <= 4
    assert summary.frames + summary.dropped == 50


def test_the_predictor_runs_in_a_thread_beside_the_window(tmp_path: Path) -> None:
    names = set()

    def find(image: np.ndarray) -> list[Face]:
        names.add(threading.current_thread().name)
        return []

    run_demo(find, open_source(make_video(tmp_path / "clip.mp4", frames=3)))
    assert names == {"facemtl-work"}


def test_a_window_stays_alive_while_a_camera_is_silent_and_can_be_closed(tmp_path: Path) -> None:
    closed = threading.Event()

    def silent() -> Iterator[Frame]:
        yield Frame("camera0", 0, square(4), 0.0)
        closed.wait(20)

    class Closing(FakeWindow):
        refreshed = 0

        def refresh(self) -> bool:
            self.refreshed += 1
            if self.refreshed == 2:
                closed.set()
            return self.refreshed < 2

    window = Closing()
    summary = run_demo(find_square, Source("camera", "camera0", silent()), window=window)
    assert summary.frames == len(window.shown) == 1


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_switch_parts_of_the_overlay(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", square(30))
    window = FakeWindow(keys={1: ["p"], 2: ["b"]})
    run_demo(find_square, open_source(tmp_path / "a.png"), window=window)
    assert len(window.shown) == 3  # the photo is shown again as the key wants it
    first, second, third = ((image != square(30)).sum() for image in window.shown)
    assert first > second > third == 0


def test_a_key_explains_the_keys(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", square(30))
    window = FakeWindow(keys={1: ["h"], 2: ["h"]})
    run_demo(find_square, open_source(tmp_path / "a.png"), window=window)
    assert ["s snapshot" in status for status in window.statuses] == [False, True, False]


def test_a_key_turns_the_mirror_off(camera: None) -> None:
    window = FakeWindow(patience=3, keys={1: ["m"]})
    run_demo(find_square, open_source("0"), window=window)
    bright = [np.nonzero((image == 230).all(axis=2))[1].min() for image in window.shown]
    assert [x > 64 for x in bright] == [True, False, False]


def test_a_key_takes_a_snapshot_that_is_not_mirrored(camera: None, tmp_path: Path) -> None:
    window = FakeWindow(patience=3, keys={1: ["s"]})
    run_demo(find_square, open_source("0"), window=window, out_dir=tmp_path)
    (snapshot,) = tmp_path.glob("camera0-0-*.faces.png")
    assert np.nonzero((read_image(snapshot) == 230).all(axis=2))[1].max() < 64


def test_a_key_begins_and_ends_a_recording(camera: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    window = FakeWindow(patience=3, keys={1: ["r"], 2: ["r"]})
    summary = run_demo(find_square, open_source("0"), window=window)
    assert ["recording" in status for status in window.statuses] == [False, True, False]
    assert summary.recording is not None
    assert times(summary.recording) == [0]  # the second picture alone
