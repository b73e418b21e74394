"""The demo: what it writes for photos, videos and cameras, and what is left after an interruption."""

import io
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from sound_files import loud, times, with_sound

from facemtl import pipeline, sources
from facemtl.demo import run_demo
from facemtl.errors import DependencyError, ImageError, OutputError, SourceError
from facemtl.face import Face
from facemtl.image import read_image, write_image
from facemtl.sources import Frame, Source, open_source

REAL_CAPTURE = cv2.VideoCapture


def square(x: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A bright square of 20 pixels at ``x``, 40 on a dark picture."""
    image = np.full((height, width, 3), 20, np.uint8)
    image[40:60, x : x + 20] = 230
    return image


def find_square(image: np.ndarray) -> list[Face]:
    """Stands for a Predictor: the bright square is the face, its corners and centre are the points."""
    ys, xs = np.nonzero(image[..., 0] > 125)
    if not len(xs):
        return []
    x1, y1, x2, y2 = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
    points = [[x1, y1], [x2, y1], [(x1 + x2) / 2, (y1 + y2) / 2], [x1, y2], [x2, y2]]
    return [Face(np.float32([x1, y1, x2, y2]), 1.0, np.float32(points), "mtfl5")]


def make_video(path: Path, frames: int = 12, fps: float = 12.5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (128, 96))
    for i in range(frames):
        writer.write(square(4 * i))
    writer.release()
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_video(path: Path) -> tuple[float, list[np.ndarray]]:
    capture = REAL_CAPTURE(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return capture.get(cv2.CAP_PROP_FPS), frames


def files_under(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


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


def test_a_photo_gives_an_annotated_picture_and_a_line(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", square(30))
    out = tmp_path / "out"
    summary = run_demo(find_square, open_source(tmp_path / "a.png"), out_dir=out, jsonl=out / "faces.jsonl")
    assert files_under(out) == ["a.png.faces.png", "faces.jsonl"]
    annotated = read_image(out / "a.png.faces.png")
    assert annotated.shape == (96, 128, 3)
    assert (annotated != square(30)).any()
    (record,) = read_lines(out / "faces.jsonl")
    assert (record["name"], record["index"], record["timestamp"]) == ("a.png", 0, None)
    assert record["faces"][0]["box"] == [30, 40, 49, 59]
    assert record["faces"][0]["landmarks"]["nose_tip"] == [39.5, 49.5]
    assert (summary.frames, summary.faces, summary.errors, summary.pictures) == (1, 1, 0, 1)


def test_a_broken_photo_in_a_folder_gets_its_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    (photos / "sub").mkdir(parents=True)
    write_image(photos / "a.png", square(30))
    (photos / "b.jpg").write_bytes(b"no picture")
    write_image(photos / "sub" / "a.png", np.zeros((30, 30, 3), np.uint8))
    summary = run_demo(find_square, open_source(photos), out_dir=out, jsonl=tmp_path / "faces.jsonl")
    assert files_under(out) == ["a.png.faces.png", "sub/a.png.faces.png"]
    first, second, third = read_lines(tmp_path / "faces.jsonl")
    assert len(first["faces"]) == 1
    assert "b.jpg" in second["error"]
    assert "faces" not in second
    assert (third["name"], third["faces"]) == ("sub/a.png", [])
    assert (summary.frames, summary.faces, summary.errors) == (2, 1, 1)


def test_a_picture_that_the_predictor_refuses_is_an_error_line_too(tmp_path: Path) -> None:
    def refuse(image: np.ndarray) -> list[Face]:
        raise ImageError("too small")

    write_image(tmp_path / "a.png", square(30))
    summary = run_demo(refuse, open_source(tmp_path), out_dir=tmp_path / "out", jsonl=tmp_path / "faces.jsonl")
    assert read_lines(tmp_path / "faces.jsonl") == [
        {"name": "a.png", "index": 0, "timestamp": None, "error": "too small"}
    ]
    assert (summary.frames, summary.errors, summary.pictures) == (0, 1, 0)


def test_results_in_the_folder_of_the_photos_are_not_taken_for_photos(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", square(30))
    for _ in range(2):
        assert run_demo(find_square, open_source(tmp_path), out_dir=tmp_path).frames == 1
    assert files_under(tmp_path) == ["a.png", "a.png.faces.png"]
    assert (read_image(tmp_path / "a.png") == square(30)).all()


def test_a_video_is_annotated_with_its_rate_size_and_length(tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / "clip.mp4"))
    summary = run_demo(find_square, source, out_dir=tmp_path / "out", jsonl=tmp_path / "faces.jsonl")
    assert summary.recording == tmp_path / "out" / "clip.mp4.faces.mp4"
    assert files_under(tmp_path / "out") == ["clip.mp4.faces.mp4"]
    fps, frames = read_video(summary.recording)
    assert fps == 12.5
    assert len(frames) == 12
    assert frames[0].shape == (96, 128, 3)
    records = read_lines(tmp_path / "faces.jsonl")
    assert [r["index"] for r in records] == list(range(12))
    assert [r["timestamp"] for r in records] == pytest.approx([i / 12.5 for i in range(12)])
    for i, record in enumerate(records):
        assert record["faces"][0]["box"] == pytest.approx([4 * i, 40, 4 * i + 19, 59], abs=2)


def test_max_frames_ends_a_video_early(tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / "clip.mp4"))
    summary = run_demo(find_square, source, out_dir=tmp_path, max_frames=5)
    assert summary.frames == 5
    assert len(read_video(summary.recording)[1]) == 5


def test_a_video_of_odd_size_loses_a_row_and_a_column(tmp_path: Path) -> None:
    frames = (Frame("odd.mkv", i, square(8, 95, 127), i / 10) for i in range(3))
    summary = run_demo(find_square, Source("video", "odd.mkv", frames, fps=10.0), out_dir=tmp_path)
    assert [frame.shape for frame in read_video(summary.recording)[1]] == [(94, 126, 3)] * 3


def test_a_stream_that_changes_its_size_keeps_that_of_its_first_frame(tmp_path: Path) -> None:
    frames = (Frame("a.ts", i, square(8, 96 * (1 + i), 128), i / 10) for i in range(2))
    summary = run_demo(find_square, Source("video", "a.ts", frames), out_dir=tmp_path)
    _, written = read_video(summary.recording)
    assert [frame.shape for frame in written] == [(96, 128, 3)] * 2


def test_a_video_without_frames_leaves_no_recording(tmp_path: Path) -> None:
    frames = (Frame("a.mkv", i, None, error="nothing") for i in range(1))
    summary = run_demo(find_square, Source("video", "a.mkv", frames), out_dir=tmp_path / "out")
    assert summary.recording is None
    assert files_under(tmp_path / "out") == []


def test_an_interrupted_video_is_closed_and_kept(tmp_path: Path) -> None:
    seen = []

    def interrupted_at_the_sixth(image: np.ndarray) -> list[Face]:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(image)
        return find_square(image)

    source = open_source(make_video(tmp_path / "clip.mp4"))
    out = tmp_path / "out"
    summary = run_demo(interrupted_at_the_sixth, source, out_dir=out, jsonl=out / "faces.jsonl")
    assert summary.interrupted
    assert files_under(out) == ["clip.mp4.faces.mp4", "faces.jsonl"]
    assert len(read_video(summary.recording)[1]) == len(read_lines(out / "faces.jsonl")) == 5


def test_after_an_error_of_the_predictor_nothing_half_done_is_left(tmp_path: Path) -> None:
    seen = []

    def broken_at_the_third(image: np.ndarray) -> list[Face]:
        seen.append(image)
        if len(seen) == 3:
            raise RuntimeError("bug")
        return []

    out = tmp_path / "out"
    source = open_source(make_video(tmp_path / "clip.mp4"))
    with pytest.raises(RuntimeError, match="bug"):
        run_demo(broken_at_the_third, source, out_dir=out, jsonl=out / "faces.jsonl")
    assert files_under(out) == []


def test_earlier_results_stay_until_new_ones_are_whole(tmp_path: Path) -> None:
    lines = tmp_path / "faces.jsonl"
    lines.write_text("earlier\n", encoding="utf-8")
    write_image(tmp_path / "a.png", square(30))
    contents = []

    def look_at_the_file(image: np.ndarray) -> list[Face]:
        contents.append(lines.read_text(encoding="utf-8"))
        return []

    run_demo(look_at_the_file, open_source(tmp_path / "a.png"), jsonl=lines)
    assert contents == ["earlier\n"]
    assert read_lines(lines)[0]["faces"] == []


def test_a_place_that_cannot_be_written_to_is_an_error_before_the_work(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", square(30))
    never = pytest.fail
    with pytest.raises(OutputError, match="is a folder"):
        run_demo(never, open_source(tmp_path / "a.png"), jsonl=tmp_path)
    for place in ({"out_dir": tmp_path / "a.png"}, {"jsonl": tmp_path / "a.png" / "faces.jsonl"}):
        with pytest.raises(OutputError, match=r"a\.png cannot be made"):
            run_demo(never, open_source(tmp_path / "a.png"), **place)


@pytest.mark.parametrize(("height", "width"), [(1, 2), (2, 1)])
def test_a_picture_too_small_for_a_video_is_an_error(height: int, width: int, tmp_path: Path) -> None:
    frames = (Frame("dot.mkv", i, np.zeros((height, width, 3), np.uint8), 0.0) for i in range(1))
    with pytest.raises(OutputError, match=f"{width} x {height} pixels"):
        run_demo(find_square, Source("video", "dot.mkv", frames), out_dir=tmp_path)
    assert files_under(tmp_path) == []


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


def test_progress_says_how_far_how_fast_and_how_long(tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / "clip.mp4"))
    text = io.StringIO()
    run_demo(find_square, source, max_frames=10, progress=text)
    last = text.getvalue().split("\r")[-1]
    assert last.startswith("100%")
    assert re.search(r"10/10 \[\d\d:\d\d<00:00, .*frame/s\]", last)


@pytest.mark.parametrize(("package", "place"), [("av", {"out_dir": "out"}), ("tqdm", {"progress": io.StringIO()})])
def test_without_its_package_the_error_names_the_extra(
    package: str, place: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DependencyError, match=r"facemtl\[video\]"):
        run_demo(pytest.fail, open_source(make_video(tmp_path / "clip.mp4")), **place)


# --- the stages side by side ----------------------------------------------------------------------------------------


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


# --- keys -----------------------------------------------------------------------------------------------------------


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


# --- sound and times ------------------------------------------------------------------------------------------------


def test_the_sound_and_the_times_of_a_video_are_kept(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "clip.mp4", "aac")
    summary = run_demo(find_square, open_source(source), out_dir=tmp_path / "out")
    assert times(summary.recording) == pytest.approx([i / 10 for i in range(20)], abs=1e-3)
    assert loud(summary.recording) == pytest.approx((0.5, 1.0, 2.0), abs=0.1)
    assert read_video(summary.recording)[0] == 10


def test_a_video_cut_short_has_its_sound_until_then(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "clip.mp4", "aac")
    summary = run_demo(find_square, open_source(source), out_dir=tmp_path / "out", max_frames=12)
    assert loud(summary.recording)[2] == pytest.approx(1.2, abs=0.1)
