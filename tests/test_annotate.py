"""Annotating: every input has its one row, whatever it is, in whatever order and by however many processes."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from annotate_fakes import IDENTITY, Deadly, content, open_fake, png, write_pictures
from scripts import run_script

from facemtl.annotate import PredictorOptions, Summary, annotate, read_rows, row_schema
from facemtl.annotate import on_processes as processes_module
from facemtl.annotate import work as work_module
from facemtl.annotate.inputs import Item
from facemtl.annotate.plan import Plan, only_one
from facemtl.annotate.rows import arrow_schema, read_part, row_of
from facemtl.annotate.run import check
from facemtl.errors import ConfigError, DataError, ModelError, OutputError, SourceError
from facemtl.weights import DEFAULT_MODEL, find_model

ROOT = Path(__file__).parent.parent
NO_PICTURE = "is not an image of a supported format; convert it to JPEG, PNG, GIF, BMP, WebP or TIFF"
DARK, GREY, BRIGHT, REFUSED, DEADLY = 20, 120, 180, 200, 100


def run(inputs: list[object], out: Path, **options) -> Summary:
    return annotate([str(name) for name in inputs], out, open_fake, IDENTITY, **{"format": "jsonl", **options})


def rows(out: Path) -> list[dict]:
    found = list(read_rows(out))
    assert [row["index"] for row in found] == list(range(len(found)))
    validator = jsonschema.Draft202012Validator(row_schema())
    for row in found:
        validator.validate(row)
    return found


def short(out: Path) -> list[tuple]:
    return [(r["source"], r["member"], r["frame"], r["status"], len(r["faces"])) for r in rows(out)]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Rows


def test_the_rows_of_three_pictures(here):
    write_pictures(here / "in", [GREY, DARK, BRIGHT])
    (here / "in" / "001.png").write_bytes(b"no picture")
    assert run(["in"], here / "out") == Summary(inputs=3, with_faces=2, without=0, failed=1, faces=3)
    first, second, third = rows(here / "out")
    assert {key: value for key, value in second.items() if value is not None} == {
        "version": 1,
        "index": 1,
        "source": "in/001.png",
        "status": "failed",
        "error": NO_PICTURE,
        "faces": [],
    }
    assert (first["width"], first["height"], first["error"], first["time"]) == (32, 30, None, None)
    image = cv2.imread("in/000.png")
    assert first["faces"] == [face.to_dict() for face in open_fake()(image)]
    assert [face["score"] for face in third["faces"]] == [0.9, 0.8]


def test_both_formats_hold_the_same_rows(here):
    write_pictures(here / "in", [GREY, DARK, BRIGHT, REFUSED])
    run(["in"], here / "lines")
    run(["in"], here / "columns", format="parquet")
    assert rows(here / "lines") == rows(here / "columns")
    assert [row["status"] for row in rows(here / "lines")] == ["faces", "no_face", "faces", "failed"]
    assert list(read_rows(here / "columns", ["index", "status"]))[1] == {"index": 1, "status": "no_face"}
    assert list(read_rows(here / "lines", ["index", "status"]))[1] == {"index": 1, "status": "no_face"}


def test_the_columns_are_those_of_the_json_schema():
    def same(kind, schema: dict) -> None:
        if set(schema.get("properties", {})):
            assert [field.name for field in kind] == list(schema["properties"])
            for field in kind:
                same(field.type, schema["properties"][field.name])
        elif "items" in schema and schema["items"].get("properties"):
            same(kind.value_type, schema["items"])
        elif isinstance(schema.get("additionalProperties"), dict):
            same(kind.item_type, schema["additionalProperties"])

    same(arrow_schema(), row_schema())
    assert arrow_schema().metadata == {b"schema": b"urn:facemtl:annotation:1"}


def test_the_document_names_every_column():
    text = (Path(__file__).parent.parent / "docs" / "annotate.md").read_text(encoding="utf-8")
    assert [name for name in row_schema()["properties"] if f"`{name}`" not in text] == []
    assert row_schema()["$id"] in text


def test_a_name_that_is_no_text_is_written_with_escapes():
    row = row_of(0, Item("a\udcff.jpg"), error="is bad")
    assert row["source"] == "a\\xff.jpg"
    json.dumps(row).encode()


def test_a_part_of_another_version_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"version": 2}\n')
    with pytest.raises(DataError, match="rows of version 2, this facemtl reads 1"):
        read_part(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="cannot be read as annotations"):
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        read_part(tmp_path / "a.parquet")


# Inputs


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


def shard(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))


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


# Batches and processes


def test_one_picture_that_breaks_the_predictor_spoils_no_other(here):
    write_pictures(here / "in", [GREY, REFUSED, BRIGHT, GREY])
    run(["in"], here / "out", batch=4)
    assert [(r["status"], r["error"]) for r in rows(here / "out")] == [
        ("faces", None),
        ("failed", "cannot be described: ValueError: no picture of value 200, please"),
        ("faces", None),
        ("faces", None),
    ]


def test_pictures_go_to_the_network_together_and_large_ones_alone(here, monkeypatch):
    seen = []

    class Spy:
        detector = None

        def batch(self, images):
            seen.append(len(images))
            return [[] for _ in images]

    write_pictures(here / "in", [GREY] * 10)
    annotate(["in"], here / "out", Spy, IDENTITY, format="jsonl", part_size=7, batch=3)
    assert seen == [3, 3, 1, 3]
    monkeypatch.setattr(work_module, "BATCH_PIXELS", 2 * 30 * 32)
    seen.clear()
    annotate(["in"], here / "small", Spy, IDENTITY, format="jsonl", part_size=7, batch=3)
    assert seen == [2, 1, 2, 1, 1, 2, 1]


def test_a_predictor_that_cannot_be_opened_is_no_fault_of_the_pictures(here):
    def broken():
        raise ModelError("there is no model")

    write_pictures(here / "in", [GREY])
    with pytest.raises(ModelError, match="there is no model"):
        annotate(["in"], here / "out", broken, IDENTITY)


def test_a_model_file_that_changes_is_not_used(here):
    model = here / "model.onnx"
    shutil.copy(find_model(DEFAULT_MODEL), model)
    options = PredictorOptions(str(model)).pinned()
    assert options.identity()["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert options().spec.name
    shutil.copy(find_model("tcdcn"), model)
    with pytest.raises(ModelError, match=r"model.onnx has changed since the annotation began"):
        options()
    assert options.pinned() != options


def test_two_processes_write_the_same_bytes_as_one(here):
    write_pictures(here / "in", [GREY, DARK, BRIGHT, REFUSED, 90] * 5)
    shard(here / "a.tar", {f"{i}.png": png(60 + i) for i in range(9)})
    one = run(["in", "a.tar"], here / "one", part_size=4, format="parquet")
    two = run(["in", "a.tar"], here / "two", part_size=4, format="parquet", processes=2)
    assert one == two == Summary(34, 24, 5, 5, 29)
    assert content(here / "one") == content(here / "two")


def test_a_process_that_dies_is_replaced(here):
    write_pictures(here / "in", [GREY, DARK, DEADLY, BRIGHT])
    (here / "killer").touch()
    done = annotate(
        ["in"], here / "out", Deadly(here / "killer"), IDENTITY, format="jsonl", processes=2, part_size=2, batch=1
    )
    assert not (here / "killer").exists()
    run(["in"], here / "quiet", part_size=2, batch=1)
    assert done == check(here / "quiet")
    assert content(here / "out") == content(here / "quiet")


def test_a_batch_that_kills_every_process_is_named(here, monkeypatch):
    write_pictures(here / "in", [GREY, DARK, DEADLY, BRIGHT])
    (here / "killer").mkdir()
    monkeypatch.setattr(processes_module, "MOST_DEATHS", 1)
    with pytest.raises(OutputError, match=r"died over inputs 2 to 3 \(in/002.png to in/003.png\).*code -9"):
        annotate(["in"], here / "out", Deadly(here / "killer"), IDENTITY, format="jsonl", processes=2, part_size=2)


def test_an_error_of_a_process_reaches_the_caller(here):
    write_pictures(here / "in", [GREY, DARK])
    with pytest.raises(ModelError, match="nonsense"):
        annotate(["in"], here / "out", PredictorOptions("nonsense"), IDENTITY, processes=2, part_size=1)


# Going on


def test_what_is_there_is_not_made_again(here):
    write_pictures(here / "in", [GREY, DARK, BRIGHT])
    run(["in"], here / "out", part_size=1)
    whole = content(here / "out")
    middle = here / "out" / "parts" / "part-00001.jsonl"
    middle.unlink()
    (here / "out" / "parts" / ".part-1-1.jsonl").write_text("half")
    others = {p: p.stat().st_mtime_ns for p in (here / "out").rglob("part-0000[02]*")}
    (here / "in" / "000.png").unlink()  # nobody looks at it
    run(["in"], here / "out", part_size=1)
    assert content(here / "out") == whole
    assert {p: p.stat().st_mtime_ns for p in others} == others


def test_a_finished_annotation_opens_no_predictor(here):
    write_pictures(here / "in", [GREY])
    done = run(["in"], here / "out")
    again = annotate(["in"], here / "out", lambda: pytest.fail("opened"), IDENTITY, format="jsonl")
    assert again == done


def test_other_settings_are_another_annotation(here):
    write_pictures(here / "in", [GREY])
    run(["in"], here / "out")
    with pytest.raises(ConfigError, match=r"begun with another batch \(batch: 16, now 8\): continue it with the same"):
        run(["in"], here / "out", batch=8)
    with pytest.raises(ConfigError, match="another predictor"):
        annotate(["in"], here / "out", open_fake, {"model": "other"}, format="jsonl")


def test_only_one_may_write(here):
    write_pictures(here / "in", [GREY])
    (here / "out").mkdir()
    with only_one(here / "out"), pytest.raises(OutputError, match="another process annotates"):
        run(["in"], here / "out")


@pytest.mark.parametrize("options", [{"format": "csv"}, {"engine": "spark"}, {"processes": 0}, {"batch": 0}])
def test_arguments_out_of_range(here, options):
    with pytest.raises(ConfigError):
        run(["in"], here / "out", **options)
    assert not (here / "out").exists()


def test_missing_and_doubled_rows_are_found(here):
    write_pictures(here / "in", [GREY, DARK, BRIGHT])
    run(["in"], here / "out", part_size=2)
    first, second = (here / "out" / "parts" / f"part-0000{i}.jsonl" for i in (0, 1))
    text = first.read_text()
    first.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(OutputError, match="expected the row of input 1, found that of 2"):
        check(here / "out")
    first.write_text(text)
    second.unlink()
    with pytest.raises(OutputError, match="1 of 2 parts are not in"):
        check(here / "out")


def test_no_annotation_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no annotation"):
        next(read_rows(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        next(read_rows(tmp_path))


def test_progress_counts_what_was_done_before(here, capsys):
    write_pictures(here / "in", [GREY, DARK, BRIGHT])
    run(["in"], here / "out", part_size=1)
    (here / "out" / "parts" / "part-00002.jsonl").unlink()
    run(["in"], here / "out", part_size=1, progress=True)
    bar = capsys.readouterr().err
    assert "67%" in bar
    assert "3/3" in bar


# The tool


run_tool = partial(run_script, "tools/annotate.py")


def test_the_tool_annotates_a_photo_and_goes_on(here, monkeypatch, capsys):
    threads = cv2.getNumThreads()
    shutil.copy(ROOT / "examples" / "astronaut.png", here)
    for _ in range(2):
        assert run_tool(monkeypatch, "astronaut.png", "--out", "out", "--format", "jsonl", "--tasks", "landmarks") == 0
        assert capsys.readouterr().out == "1 inputs: 1 with 1 faces, 0 without, 0 failed; in out\n"
    ((row,), options) = rows(here / "out"), Plan.open(here / "out").settings["predictor"]
    assert set(row["faces"][0]["attributes"]) == set()
    assert (options["tasks"], len(options["sha256"])) == (["landmarks"], 64)
    cv2.setNumThreads(threads)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["none.jpg", "--out", "out"], "none.jpg is no file and no folder"),
        (["none.jpg", "--out", "out", "--format", "csv"], "format must be one of parquet, jsonl"),
        (["none.jpg", "--out", "out", "--model", "nonsense"], "nonsense"),
    ],
)
def test_the_tool_says_in_a_sentence_what_is_wrong(here, monkeypatch, capsys, arguments, reason):
    assert run_tool(monkeypatch, *arguments) == 2
    assert reason in capsys.readouterr().err
