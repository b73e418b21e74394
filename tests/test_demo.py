"""The demo on photos and videos: what it writes, and what is left after an interruption."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from bright_square import find_square, make_video, read_lines, read_video, square
from sound_files import loud, times, with_sound

from facemtl.demo import run_demo
from facemtl.errors import DependencyError, ImageError, OutputError
from facemtl.face import Face
from facemtl.image import read_image, write_image
from facemtl.sources import Frame, Source, open_source


def files_under(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


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


# --- sound and times --------------------------------------------------------------------------------------------------


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
