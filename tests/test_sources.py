"""Sources: photos, folders, video files and cameras give frames, or say why not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from bright_square import make_video

from facemtl import sources
from facemtl.errors import ImageError, SourceError
from facemtl.image import write_image
from facemtl.sources import open_source


def grey(value: int = 90, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


class FakeCamera:
    """Stands for cv2.VideoCapture; gives ``pictures`` in order, None being a frame it misses, then only misses."""

    def __init__(self, pictures: list[np.ndarray | Exception | None], opened: bool = True) -> None:
        self.pictures = list(pictures)
        self.opened = opened
        self.released = False

    def isOpened(self) -> bool:
        return self.opened

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_WIDTH: 64.0, cv2.CAP_PROP_FRAME_HEIGHT: 48.0}[prop]

    def set(self, prop: int, value: float) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        image = self.pictures.pop(0) if self.pictures else None
        if isinstance(image, Exception):
            raise image
        return image is not None, image

    def release(self) -> None:
        self.released = True


def plug_in(monkeypatch: pytest.MonkeyPatch, pictures: list[np.ndarray | None]) -> FakeCamera:
    camera = FakeCamera(pictures)
    plug_in_again(monkeypatch, camera)
    return camera


def plug_in_again(monkeypatch: pytest.MonkeyPatch, *cameras: FakeCamera) -> list[tuple]:
    """Each opening gives the next of ``cameras``, and then one that cannot be opened; returns what was opened."""
    opened, left = [], list(cameras)

    def capture(*arguments: object) -> FakeCamera:
        opened.append(arguments)
        return left.pop(0) if left else FakeCamera([], opened=False)

    monkeypatch.setattr(sources.cv2, "VideoCapture", capture)
    monkeypatch.setattr(sources, "CAMERA_PAUSE", 0.0)
    monkeypatch.setattr(sources, "REOPEN_PAUSE", 0.0)
    return opened


def test_a_photo_is_one_frame_without_time(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", grey(33))
    source = open_source(str(tmp_path / "a.png"))
    (frame,) = source
    assert (source.kind, source.name, source.count, source.fps, source.size) == ("photo", "a.png", 1, None, None)
    assert (frame.name, frame.index, frame.timestamp, frame.error) == ("a.png", 0, None, None)
    assert (frame.image == grey(33)).all()


def test_a_broken_photo_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"a\.png"):
        open_source(tmp_path / "a.png")


def test_a_folder_is_read_in_order_with_its_folders(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "sub/c.bmp", ".hidden/d.png", "._e.png", "a.png.faces.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"") if path.suffix == ".txt" else write_image(path, grey())
    source = open_source(tmp_path)
    assert (source.kind, source.name, source.count) == ("folder", tmp_path.name, 3)
    assert [(f.name, f.index) for f in source] == [("a.png", 0), ("b.JPG", 1), ("sub/c.bmp", 2)]


def test_a_broken_photo_in_a_folder_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", grey())
    (tmp_path / "b.png").write_bytes(b"no picture")
    write_image(tmp_path / "c.png", grey())
    first, second, third = open_source(tmp_path)
    assert second.image is None
    assert "b.png" in second.error
    assert first.error is third.error is None
    assert [f.index for f in (first, second, third)] == [0, 1, 2]


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no photos.*\.jpg"):
        open_source(tmp_path)


@pytest.mark.parametrize("spec", ["nowhere.png", "nowhere/", "c:/a.png", "-1", ""])
def test_what_is_not_there_is_an_error(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError):
        open_source(spec)


@pytest.mark.parametrize(("codec", "name"), [("mp4v", "clip.mp4"), ("MJPG", "clip.avi")])
def test_a_video_keeps_its_rate_size_and_times(codec: str, name: str, tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / name, frames=10, codec=codec))
    assert (source.kind, source.name, source.count, source.fps, source.size) == ("video", name, 10, 12.5, (128, 96))
    frames = list(source)
    assert [f.index for f in frames] == list(range(10))
    assert [f.timestamp for f in frames] == pytest.approx([i / 12.5 for i in range(10)])
    assert {f.name for f in frames} == {name}
    for i, frame in enumerate(frames):
        columns = np.nonzero(frame.image[50].mean(axis=1) > 125)[0]
        assert (columns[0], columns[-1]) == pytest.approx((4 * i, 4 * i + 19), abs=2)


def test_a_video_that_was_cut_off_says_so_at_its_end(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.avi", frames=40, codec="MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    *frames, last = open_source(tmp_path / "cut.avi")
    assert 0 < len(frames) < 30
    assert all(f.error is None for f in frames)
    assert last.image is None
    assert last.index == len(frames)
    assert "promises 40" in last.error


def test_a_damaged_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match=r"a\.mp4 cannot be opened as a video"):
        open_source(tmp_path / "a.mp4")


def test_a_missing_camera_is_an_error() -> None:
    with pytest.raises(SourceError, match="camera 99 cannot be opened"):
        open_source("99")


def test_a_camera_counts_seconds_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = plug_in(monkeypatch, [grey(1), grey(2)])
    source = open_source("0")
    assert (source.kind, source.name, source.count, source.fps, source.size) == (
        "camera",
        "camera0",
        None,
        30,
        (64, 48),
    )
    first, second = next(source.frames), next(source.frames)
    assert 0 <= first.timestamp <= second.timestamp < 5
    assert [int(f.image[0, 0, 0]) for f in (first, second)] == [1, 2]
    source.close()
    assert camera.released


def test_missed_frames_of_a_camera_are_reported_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, [grey(), None, None, grey()])
    source = open_source(0)
    frames = [next(source.frames) for _ in range(4)]
    assert [f.error is None for f in frames] == [True, False, False, True]
    assert "try 2 of 20" in frames[2].error
    assert [f.index for f in frames] == [0, 1, 2, 3]


def test_a_camera_that_stays_away_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = plug_in(monkeypatch, [None] * 20 + [grey()])  # the picture starts the count of misses anew
    errors = []
    with pytest.raises(SourceError, match="camera0 gave no picture and was opened 25 times in vain"):
        for frame in open_source("0"):
            errors.append(frame.error)
    assert [error is None for error in errors] == [False] * 20 + [True] + [False] * (20 + 25)
    assert "is gone: opened again (try 25 of 25)" in errors[-1]
    assert camera.released


def test_a_camera_that_comes_back_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first, dead, second = FakeCamera([grey(1)]), FakeCamera([], opened=False), FakeCamera([grey(2)])
    opened = plug_in_again(monkeypatch, first, dead, second)
    source = open_source("0")
    frames = [next(source.frames) for _ in range(24)]
    assert [f.image is not None for f in frames] == [True] + [False] * 22 + [True]
    assert [f.index for f in frames] == list(range(24))
    assert [f.timestamp for f in frames] == sorted(f.timestamp for f in frames)
    assert int(frames[-1].image[0, 0, 0]) == 2
    assert (first.released, dead.released, second.released) == (True, True, False)
    assert opened == [(0,)] * 3


@pytest.mark.parametrize("nothing", [np.zeros((0, 0, 3), np.uint8), cv2.error("driver")], ids=["empty", "error"])
def test_empty_pictures_and_failing_drivers_are_missed_frames(nothing: object, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, [grey(), nothing, grey()])
    source = open_source(0)
    assert [next(source.frames).image is None for _ in range(3)] == [False, True, False]


def test_another_size_is_reported_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plug_in(monkeypatch, [grey(), grey(), grey(90, 60, 80), grey(90, 60, 80)])
    source = open_source(0)
    assert [next(source.frames).image.shape for _ in range(4)] == [(48, 64, 3)] * 2 + [(60, 80, 3)] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "the pictures of camera0 have another size now: 80 x 60"
    ]


@pytest.mark.parametrize("address", ["rtsp://me:secret@10.0.0.5:554/cam/1", "http://10.0.0.5/cam/1"])
def test_an_address_is_a_stream_with_time_limits_and_without_its_password(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = plug_in_again(monkeypatch, FakeCamera([grey(7)]))
    source = open_source(address)
    assert (source.kind, source.name, source.live, source.still) == ("stream", "10.0.0.5.cam.1", True, False)
    assert int(next(source.frames).image[0, 0, 0]) == 7
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 10_000]
    assert opened == [(address, cv2.CAP_FFMPEG, limits)]


def test_an_address_where_nothing_answers_is_an_error_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in_again(monkeypatch)
    with pytest.raises(SourceError, match=r"^10\.0\.0\.5\.cam cannot be opened: nothing answers"):
        open_source("rtsp://me:secret@10.0.0.5/cam")
