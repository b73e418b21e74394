"""Whoever reads a file finds the old one or the new one, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from facemtl.errors import OutputError
from facemtl.files import beside, make_folder, write_beside


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write_beside(tmp_path / "a" / "b" / "report.html", lambda partial: partial.write_text("new"))
    assert contents(tmp_path / "a" / "b") == {"report.html": "new"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise RuntimeError("disk full")

    (tmp_path / "report.html").write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        write_beside(tmp_path / "report.html", fail)
    assert contents(tmp_path) == {"report.html": "old"}


def test_a_writer_that_writes_nothing_is_an_error_and_the_old_file_stays(tmp_path):
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(OutputError, match=r"report\.html cannot be written: No such file or directory"):
        write_beside(tmp_path / "report.html", lambda partial: None)
    assert contents(tmp_path) == {"report.html": "old"}


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"the folder .*file/run cannot be made: Not a directory"):
        make_folder(tmp_path / "file" / "run")
    with pytest.raises(OutputError, match=r"the folder .*file cannot be made: File exists"):
        write_beside(tmp_path / "file" / "log.csv", lambda partial: partial.write_text("new"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder cannot be written: Is a directory"):
        write_beside(tmp_path / "folder", lambda partial: partial.write_text("new"))
    assert contents(tmp_path / "folder") == {}


def test_the_old_file_stays_until_the_new_one_is_whole_also_with_two_writers(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("old")
    with beside(path) as first, beside(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert path.read_text() == "old"
        assert first.parent == second.parent == tmp_path
        assert {first.suffix, second.suffix, first.name[0], second.name[0]} == {".csv", "."}
    assert contents(tmp_path) == {"log.csv": "first"}  # the first context ends last
