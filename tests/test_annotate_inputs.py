"""What annotating takes as inputs: folders, globs, lists, archives and videos, whole or damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotate_fakes import (
    BRIGHT,
    DARK,
    GREY,
    NO_PICTURE,
    png,
    rows,
    run,
    shard,
    write_pictures,
)

from facemtl.annotate.plan import Plan
from facemtl.errors import SourceError


def test_a_folder_is_read_below_and_sorted(here):
    for name in ("b/2.png", "b/.hidden.png", "b/1.png", "a.PNG", "c/d/3.png", ".git/4.png", "z.faces.png"):
        write_pictures((here / "in" / name).parent, [GREY])
        (here / "in" / name).write_bytes(png(GREY))
    for path in (here / "in").rglob("000.png"):
        path.unlink()
    (here / "in" / "notes.txt").write_text("not a picture")
    run(["in"], here / "out")
    assert [row["source"] for row in rows(here / "out")] == ["in/a.PNG", "in/b/1.png", "in/b/2.png", "in/c/d/3.png"]


def test_globs_ranges_and_what_is_named_twice(here):
    write_pictures(here / "in", [GREY] * 12)
    (here / "in" / "a[1].png").write_bytes(png(DARK))
    run(["in/{009..011}.png", "in/*1.png", "in/a[1].png", "in/011.png"], here / "out")
    names = ["009", "010", "011", "001", "011", "a[1]", "011"]
    assert [row["source"] for row in rows(here / "out")] == [f"in/{name}.png" for name in names]
    with pytest.raises(SourceError, match=r"in/012.png is no file"):
        run(["in/{011..012}.png"], here / "other")


def test_a_list_names_files_relative_to_itself(here):
    write_pictures(here / "lists" / "in", [GREY, DARK])
    (here / "lists" / "a.csv").write_text("\ufeffname,image\nx,in/001.png\ny,\nz,in/000.png\nw,in/none.png\n")
    run(["lists/a.csv"], here / "out")
    assert [(r["source"], r["status"], r["error"]) for r in rows(here / "out")] == [
        ("lists/in/001.png", "no_face", None),
        ("lists/a.csv", "failed", "names no file in row 2"),
        ("lists/in/000.png", "faces", None),
        ("lists/in/none.png", "failed", "does not exist"),
    ]


def test_a_parquet_list_has_a_column_of_any_name(here):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_pictures(here / "in", [GREY, DARK])
    write_table(pa.table({"file": ["in/001.png", None, "in/000.png"]}), here / "a.parquet")
    run(["a.parquet"], here / "out", column="file")
    assert [r["status"] for r in rows(here / "out")] == ["no_face", "failed", "faces"]
    with pytest.raises(SourceError, match=r"a\.parquet has no column 'image'; it has file"):
        run(["a.parquet"], here / "other")


def test_archives_give_their_photos_and_refuse_the_rest(here):
    files = {
        "000.png": png(GREY),
        "000.json": b"{}",
        "x/../../001.png": png(GREY),
        "002.png": png(DARK),
        "clip.mp4": b"",
        "003.png": b"bad",
    }
    shard(here / "faces-000.tar", files)
    with zipfile.ZipFile(here / "faces.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    run(["faces-{000..000}.tar", "faces.zip"], here / "out", part_size=2)
    for source in ("faces-000.tar", "faces.zip"):
        assert [(r["member"], r["status"], r["error"]) for r in rows(here / "out") if r["source"] == source] == [
            ("000.png", "faces", None),
            ("x/../../001.png", "failed", "has a name that leads out of its archive"),
            ("002.png", "no_face", None),
            ("clip.mp4", "failed", "lies in an archive, where only photos are read: unpack it"),
            (
                "003.png",
                "failed",
                NO_PICTURE,
            ),
        ]


def test_a_cut_archive_gives_what_is_whole_and_a_row_for_the_rest(here):
    shard(here / "a.tar", {"0.png": png(GREY), "1.png": png(GREY)})
    whole = (here / "a.tar").read_bytes()
    (here / "a.tar").write_bytes(whole[:1536])
    run(["a.tar"], here / "out")
    assert [(r["source"], r["member"], r["error"]) for r in rows(here / "out")] == [
        ("a.tar", "0.png", None),
        ("a.tar", "1.png", "cannot be read from its archive: unexpected end of data"),
        ("a.tar", None, "is damaged or no archive: unexpected end of data"),
    ]


def test_a_picture_too_long_for_the_cap_is_not_read(here, monkeypatch):
    from facemtl.annotate import pictures

    monkeypatch.setattr(pictures, "MAX_BYTES", 1000)
    shard(here / "a.tar", {"0.png": bytes(1001)})
    run(["a.tar"], here / "out")
    assert rows(here / "out")[0]["error"] == "has more bytes than the limit of 0.000953674 MiB"


def write_clip(path: Path, values: list[int]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for value in values:
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()


def test_a_video_has_a_row_a_frame(here):
    values = [DARK, GREY, BRIGHT, DARK, GREY]
    write_clip(here / "clip.avi", values)
    run(["clip.avi"], here / "out", part_size=2)
    found = rows(here / "out")
    assert [(r["frame"], r["status"]) for r in found] == list(
        enumerate(["no_face", "faces", "faces", "no_face", "faces"])
    )
    assert [r["time"] for r in found] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert {(r["width"], r["height"]) for r in found} == {(64, 48)}


def test_a_video_and_an_archive_inside_a_folder_that_cannot_be_opened(here):
    write_pictures(here / "in", [GREY])
    (here / "in" / "clip.mp4").write_bytes(b"no video")
    (here / "in" / "more.tgz").write_bytes(b"no archive")
    run(["in"], here / "out")
    assert [(r["source"], r["status"]) for r in rows(here / "out")] == [
        ("in/000.png", "faces"),
        ("in/clip.mp4", "failed"),
        ("in/more.tgz", "failed"),
    ]


@pytest.mark.parametrize(
    "argument, reason", [("none.jpg", "is no file and no folder"), ("x/*.jpg", "matches no file"), ("in", "nothing to")]
)
def test_arguments_that_name_nothing(here, argument, reason):
    (here / "in").mkdir()
    with pytest.raises(SourceError, match=reason):
        run([argument], here / "out")


def test_a_source_that_changed_since_the_plan_is_a_reason(here, monkeypatch):
    shard(here / "a.tar", {"0.png": png(GREY), "1.png": png(GREY), "2.png": png(GREY)})
    write_pictures(here / "in", [GREY])
    make = Plan.make.__func__

    def make_and_change(cls, *arguments):
        plan = make(cls, *arguments)
        shard(here / "a.tar", {"0.png": png(GREY), "other.png": png(GREY)})
        (here / "in" / "000.png").unlink()
        return plan

    monkeypatch.setattr(Plan, "make", classmethod(make_and_change))
    run(["a.tar", "in"], here / "out")
    assert [row["error"] for row in rows(here / "out")] == [
        None,
        "is no more in the archive: entry 1 is other.png",
        "is no more there: a.tar has changed since its content was listed",
        "does not exist",
    ]
