"""The demo: what it writes for photos, videos and cameras, and what is left after an interruption."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemtl import sources
from facemtl.demo import run_demo
from facemtl.errors import ImageError, OutputError, SourceError
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
    """Stands for cv2.VideoCapture on a camera that shows the square at x = 4, three times, and is then unplugged."""

    left = 3

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
    """Camera 0 is a :class:`FakeCamera` whose pictures come 0.3 s apart."""
    seconds = iter(0.3 * i for i in range(1000))
    monkeypatch.setattr(sources.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(sources, "CAMERA_PAUSE", 0.0)
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda source: FakeCamera() if isinstance(source, int) else REAL_CAPTURE(source)
    )


class FakeWindow:
    """Stands for Window; the user ends the show after ``patience`` pictures."""

    def __init__(self, patience: int = 1000) -> None:
        self.patience = patience
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

    def pressed(self) -> list[str]:
        return []


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
    fps, written = read_video(summary.recording)
    assert fps == 25
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
    with pytest.raises(SourceError, match="camera0 gave no picture"):
        run_demo(find_square, open_source("0"), out_dir=out, jsonl=out / "faces.jsonl")
    recording, lines = sorted(out.iterdir())
    assert recording.match("camera0-*.faces.mp4")
    fps, frames = read_video(recording)
    assert fps == 10
    assert len(frames) == 7  # pictures at 0, 0.3 and 0.6 s, ten frames a second
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


def test_a_mirrored_view_is_annotated_where_the_face_is_seen(camera: None) -> None:
    plain, mirrored = FakeWindow(1), FakeWindow(1)
    run_demo(find_square, open_source("0"), window=plain, mirror=False)
    run_demo(find_square, open_source("0"), window=mirrored)
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


def test_progress_says_how_far_how_fast_and_how_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 10))  # a frame each ten seconds
    monkeypatch.setattr("facemtl.demo.time.monotonic", lambda: next(seconds))
    source = open_source(make_video(tmp_path / "clip.mp4"))
    text = io.StringIO()
    run_demo(find_square, source, max_frames=10, progress=text)
    lines = text.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "1/10 frames, 0.1/s, 1:30 left"
    assert lines[-1] == "10/10 frames, 0.1/s, 0:00 left"
