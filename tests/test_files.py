"""Whoever reads a file finds the old one or the new one, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from facemtl.files import beside, write_beside


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
    with pytest.raises(FileNotFoundError):
        write_beside(tmp_path / "report.html", lambda partial: None)
    assert contents(tmp_path) == {"report.html": "old"}


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
