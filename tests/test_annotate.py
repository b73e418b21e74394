"""Annotating: every input has its one row, whatever it is, in whatever order and by however many processes."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import cv2
import pytest
from annotate_fakes import (
    BRIGHT,
    DARK,
    DEADLY,
    GREY,
    IDENTITY,
    NO_PICTURE,
    REFUSED,
    Deadly,
    content,
    open_fake,
    png,
    rows,
    run,
    shard,
    write_pictures,
)
from scripts import run_script

from facemtl.annotate import PredictorOptions, Summary, annotate, read_rows, row_schema
from facemtl.annotate import on_processes as processes_module
from facemtl.annotate import work as work_module
from facemtl.annotate.inputs import Item
from facemtl.annotate.plan import Plan, only_one
from facemtl.annotate.rows import arrow_schema, read_part, row_of
from facemtl.annotate.run import check
from facemtl.errors import ConfigError, DataError, ModelError, OutputError
from facemtl.weights import DEFAULT_MODEL, find_model

ROOT = Path(__file__).parent.parent


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
