"""Annotated video: rate, times, size and sound are those of the source."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from sound_files import loud, picture, times, with_sound

from facemtl.errors import DependencyError, OutputError
from facemtl.recording import Recording


def test_rate_times_and_pictures(tmp_path: Path) -> None:
    moments = [0.0, 0.08, 0.16, 0.4, 0.44]  # of a source whose frames come as they like
    recording = Recording(tmp_path / "a.mp4", 12.5)
    for i, moment in enumerate(moments):
        recording.write(picture(40 * i), moment + 3.0)
    recording.close()
    assert times(tmp_path / "a.mp4") == pytest.approx(moments, abs=1e-4)
    with av.open(str(tmp_path / "a.mp4")) as file:
        values = [float(frame.to_ndarray(format="bgr24").mean()) for frame in file.decode(video=0)]
        assert not file.streams.audio
    assert values == pytest.approx([0, 40, 80, 120, 160], abs=6)
    assert recording.frames == 5


@pytest.mark.parametrize("fps", [10.0, 12.5, 25.0, 30000 / 1001])
def test_players_are_told_the_rate_of_the_source(fps: float, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.mp4", fps)
    for i in range(10):
        recording.write(picture(90), i / fps)
    recording.close()
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-3)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 10


def test_times_that_do_not_go_on_are_mended(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.mp4", 10.0)
    for moment in (0.0, 0.0, 0.05, 1.0):
        recording.write(picture(90), moment)
    recording.close()
    assert times(tmp_path / "a.mp4") == pytest.approx([0, 0.1, 0.2, 1.0], abs=1e-4)


def test_an_odd_size_loses_a_row_and_a_column_and_a_later_size_is_fitted_in(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.mp4", 10.0)
    recording.write(picture(200, 95, 127), 0.0)
    recording.write(picture(200, 190, 127), 0.1)  # twice as high: half as wide, black beside
    recording.close()
    with av.open(str(tmp_path / "a.mp4")) as file:
        first, second = (frame.to_ndarray(format="bgr24") for frame in file.decode(video=0))
    assert first.shape == second.shape == (94, 126, 3)
    assert second[47, 63].min() > 180
    assert max(second[47, 5].max(), second[47, 120].max()) < 20


@pytest.mark.parametrize(("codec", "name"), [("aac", "a.mp4"), ("mp3", "a.mkv"), ("pcm_s16le", "a.avi")])
@pytest.mark.parametrize("start", [0.0, 0.3], ids=["whole", "from 0.3 s"])
def test_the_sound_stays_where_it_was(codec: str, name: str, start: float, tmp_path: Path) -> None:
    source = with_sound(tmp_path / name, codec)
    recording = Recording(tmp_path / "out.mp4", 10.0, sound=source)
    for i in range(20):
        if i / 10 >= start:
            recording.write(picture(90), i / 10)
    recording.close(to_the_end=True)
    begins, ceases, ends = loud(tmp_path / "out.mp4")
    assert (begins, ceases, ends) == pytest.approx((0.5 - start, 1.0 - start, 2.0 - start), abs=0.1)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.audio[0].codec_context.codec.canonical_name == codec.replace("pcm_s16le", "aac")


def test_sound_counts_from_the_first_frame_as_the_times_of_frames_do(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.mkv", "mp3", video_from=0.4)
    recording = Recording(tmp_path / "out.mp4", 10.0, sound=source)
    for i in range(20):
        recording.write(picture(90), i / 10)
    recording.close(to_the_end=True)
    assert loud(tmp_path / "out.mp4")[:2] == pytest.approx((0.5, 1.0), abs=0.1)


def test_a_recording_that_ends_early_takes_the_sound_until_then(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.mp4", "aac")
    recording = Recording(tmp_path / "out.mp4", 10.0, sound=source)
    for i in range(8):
        recording.write(picture(90), i / 10)
    recording.close()
    assert loud(tmp_path / "out.mp4")[2] == pytest.approx(0.8, abs=0.1)


def test_a_source_without_sound_gives_a_silent_file(tmp_path: Path) -> None:
    test_rate_times_and_pictures(tmp_path)
    recording = Recording(tmp_path / "out.mp4", 10.0, sound=tmp_path / "a.mp4")
    recording.write(picture(90), 0.0)
    recording.close(to_the_end=True)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert not file.streams.audio


@pytest.mark.parametrize(("height", "width"), [(1, 2), (2, 1)])
def test_a_picture_too_small_for_a_video_is_an_error(height: int, width: int, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.mp4", 10.0)
    with pytest.raises(OutputError, match=f"{width} x {height} pixels"):
        recording.write(picture(0, height, width), 0.0)
    recording.close()


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written as a video"):
        Recording(tmp_path / "nowhere" / "a.mp4", 10.0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error() -> None:
    recording = Recording(Path("/dev/full"), 10.0)
    with pytest.raises(OutputError, match="written whole"):
        for i in range(300):
            recording.write(np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8), i / 10)
        recording.close()


def test_without_pyav_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DependencyError, match=r"facemtl\[video\]"):
        Recording(tmp_path / "a.mp4", 10.0)
