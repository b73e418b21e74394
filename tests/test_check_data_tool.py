"""tools/check_data.py as a user runs it, and mistakes planted in real faces."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scripts import run_script

from facemtl.checking.findings import KINDS, Part
from facemtl.checking.planting import ONE_IN, leaked, self_test, table
from facemtl.checking.sets import read_parts
from facemtl.data.mtfl import read_mtfl
from facemtl.data.udacity68 import read_udacity68
from facemtl.errors import DataError

run = partial(run_script, "tools/check_data.py")


@pytest.fixture
def faces(tiny_mtfl, tmp_path) -> Path:
    """40 and 16 rendered faces of our own to spoil."""
    return Path(shutil.copytree(tiny_mtfl, tmp_path / "faces"))


def rows(root: Path, name: str) -> list[str]:
    return (root / name).read_text().splitlines()


class Pictures(HTMLParser):
    """Counts the pictures of a page, and what it would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.within = self.elsewhere = 0

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href") and not value.startswith("#"):
                self.within += value.startswith("data:image/jpeg;base64,")
                self.elsewhere += not value.startswith("data:")


def test_faces_without_a_mistake_pass(faces, tmp_path, monkeypatch, capsys):
    status = run(monkeypatch, f"mtfl_layout={faces}:train,test", "--model", "none", "--out", tmp_path / "out")
    shown = capsys.readouterr().out
    assert status == 0, shown
    assert "mtfl_layout train: 40 faces on 40 pictures, 40 with all points (mtfl5)" in shown
    assert "0 of 56 faces (0.00 %) have a warning or an error" in shown
    facts = json.loads((tmp_path / "out" / "report.json").read_text())["facts"]
    smiles = facts["mtfl_layout test"]["labels"]["smile"]
    assert smiles["smiling"] + smiles["not_smiling"] == 16 and smiles["missing"] == 0
    assert facts["mtfl_layout test"]["sizes"].popitem()[1] == 16


def spoil(root: Path) -> None:
    """A picture cut short, a test picture in training, exchanged eyes, and a point far outside."""
    lines = rows(root, "training.txt")
    names = [line.split()[0] for line in lines]
    cut = root / names[0]
    cut.write_bytes(cut.read_bytes()[:200])
    shutil.copy(root / rows(root, "testing.txt")[0].split()[0], root / names[1])
    fields = lines[2].split()
    fields[1], fields[2], fields[6], fields[7] = fields[2], fields[1], fields[7], fields[6]
    lines[2] = " ".join(fields)
    fields = lines[3].split()
    fields[5] = "900"
    lines[3] = " ".join(fields)
    (root / "training.txt").write_text("\n".join(lines) + "\n")


def test_mistakes_are_found_shown_and_fail(faces, tmp_path, monkeypatch, capsys):
    spoil(faces)
    out = tmp_path / "out"
    assert run(monkeypatch, f"mtfl_layout={faces}:train,test", "--model", "none", "--out", out) == 1
    assert "leak: 1" in re.sub(r"\(leak\)", "leak", capsys.readouterr().out)
    report = json.loads((out / "report.json").read_text())
    found = {(f["kind"], f["faces"][0]["source"]) for f in report["findings"]}
    assert {
        ("broken_image", "training.txt:1"),
        ("leak", "training.txt:2"),
        ("implausible_face", "training.txt:3"),
        ("points_outside", "training.txt:4"),
    } <= found
    page = (out / "report.html").read_text(encoding="utf-8")
    pictures = Pictures()
    pictures.feed(page)
    assert pictures.within >= 4 and pictures.elsewhere == 0
    assert KINDS["leak"][1] in page and "training.txt:2" in page


def test_the_exit_status_is_what_ci_asks_for(faces, tmp_path, monkeypatch):
    lines = rows(faces, "training.txt")
    shutil.copy(faces / lines[1].split()[0], faces / lines[0].split()[0])
    common = (f"mtfl_layout={faces}:train,test", "--model", "none", "--out", tmp_path / "out")
    assert run(monkeypatch, *common) == 0  # copies within a split, with other labels: a warning
    assert run(monkeypatch, *common, "--fail-on", "warning") == 1
    allowed = ("contradicting_copies", "duplicate")
    assert run(monkeypatch, *common, "--fail-on", "note", "--allow", *allowed) == 0
    spoil(faces)
    assert run(monkeypatch, *common, "--fail-on", "never") == 0


def test_what_cannot_be_checked_is_one_sentence(faces, tmp_path, monkeypatch, capsys):
    for name in (f"mtfl_layout={tmp_path / 'nowhere'}:train", "no_such_set", f"mtfl_layout={faces}"):
        assert run(monkeypatch, name, "--model", "none", "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
    assert run(monkeypatch, f"mtfl_layout={faces}:train", "--model", "nobody", "--out", tmp_path / "out") == 2
    assert run(monkeypatch, f"mtfl_layout={faces}:train", "--asked", "0") == 2
    capsys.readouterr()
    blocked = faces / "training.txt" / "out"
    assert run(monkeypatch, f"mtfl_layout={faces}:test", "--model", "nobody", "--out", blocked) == 2  # before the model
    assert capsys.readouterr().err == f"error: the folder {blocked} cannot be made: Not a directory\n"


def test_the_parts_of_a_set(faces, genki_root):
    assert [str(p) for p in read_parts(f"mtfl_layout={faces}:train,test")] == ["mtfl_layout train", "mtfl_layout test"]
    assert [str(p) for p in read_parts(f"genki4k={genki_root}")] == ["genki4k train", "genki4k heldout"]
    with pytest.raises(DataError, match="unknown data set 'nobody'; known: mtfl"):
        read_parts("nobody:train")


def test_the_model_is_asked(faces, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    run(monkeypatch, f"mtfl_layout={faces}:test", "--asked", "8", "--out", out)
    facts = json.loads((out / "report.json").read_text())["facts"]["mtfl_layout test"]
    assert facts["asked of the model"] == facts["compared with the model"] == 8
    assert set(facts["agreement"]) == {"glasses", "smile", "gender", "pose"}
    assert facts["points compared as"] == "mtfl5, exact"
    assert "agreement with the model: " in capsys.readouterr().out


# --- mistakes planted in real faces ---------------------------------------------------------------------------------


def caught(parts: list[Part], faces: int) -> dict[str, tuple[int, int, int, int]]:
    catches = self_test(parts, faces, "facemtl-s")
    print("\n" + table(catches))
    return {c.mistake: (c.planted, c.caught, c.unharmed, c.others) for c in catches}


def check_catches(found: dict[str, tuple[int, int, int, int]]) -> None:
    """Every mistake of a whole part and every leak is caught, nearly every one of single faces, and at most 2 % of
    the others are called wrong. A mirrored picture of a symmetric face in its middle cannot be told from itself."""
    for mistake, (planted, times, unharmed, others) in found.items():
        if "whole part" in mistake or "leaked" in mistake or "swapped" in mistake or "flip order" in mistake:
            assert times == planted > 0, mistake
        elif "mirrored" in mistake:
            assert times >= 0.9 * planted > 0, mistake
        assert unharmed <= 0.02 * others, mistake


@pytest.mark.slow
def test_planted_mistakes_are_caught_in_real_faces(mtfl_root):
    check_catches(caught([Part("mtfl", "heldout", read_mtfl(mtfl_root, "heldout"))], 300))


@pytest.mark.slow
def test_planted_mistakes_are_caught_in_real_faces_of_68_points(udacity_root):
    check_catches(caught([Part("udacity68", "heldout", read_udacity68(udacity_root, "heldout"))], 300))


def test_a_leaked_copy_has_its_points_where_they_belong(mtfl_root, tmp_path):
    sample = read_mtfl(mtfl_root, "heldout")[0]
    copy = leaked(sample, tmp_path)
    side = (copy.points[1] - copy.points[0])[0] / (sample.points[1] - sample.points[0])[0]
    assert side == pytest.approx(0.6, abs=0.01) and copy.image.suffix == ".jpg" and ONE_IN == 10
