"""tools/compare.py as a user runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import run_script
from tiny_training import tiny_set

from facemtl.image import read_image

REPOSITORY = Path(__file__).parent.parent
TOOL = REPOSITORY / "tools" / "compare.py"
FILE = """
seeds = [0, 1]

[common]
data = "mtfl_layout"
epochs = 1
batch_size = 8
patch_size = 64

[methods.alone]
tasks = ["landmarks"]
[methods."with noise"]
tasks = ["landmarks", "smile"]
shuffled_labels = ["smile"]
"""

TABLES = {"small.html", "small.md", "small.csv", "small-details.csv"}
PICTURES = ("all", "forest", "costs", "poses")


def run_as_user(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, without FACEMTL_DATA."""
    environment = {key: value for key, value in os.environ.items() if key != "FACEMTL_DATA"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def compare(monkeypatch) -> Callable[..., int]:
    """The tool in this process, which has torch imported already; returns the exit status."""

    def run(folder: Path, *arguments: str | Path) -> int:
        monkeypatch.chdir(folder)
        return run_script("tools/compare.py", monkeypatch, *arguments)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with a comparison file and a data set."""
    folder = tmp_path_factory.mktemp("work")
    tiny_set(folder / "data")
    (folder / "small.toml").write_text(FILE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(folder) -> subprocess.CompletedProcess[str]:
    return run_as_user(folder, "small.toml", "--data-root", "data", "--set", "learning_rate=1e-3")


def test_methods_are_trained_judged_and_told(folder, finished):
    assert finished.returncode == 0, finished.stderr
    results = folder / "docs" / "results" / "small"
    kept = {
        f"{m}.seed{s}.{split}.npz" for m in ("alone", "with noise") for s in (0, 1) for split in ("heldout", "test")
    }
    costs = {f"{m}.seed{s}.cost.json" for m in ("alone", "with noise") for s in (0, 1)}
    pictures = {f"small-{split}-{kind}.png" for split in ("heldout", "test") for kind in PICTURES}
    assert {path.name for path in results.iterdir()} == {*kept, *costs, *pictures, *TABLES}
    assert (folder / "runs" / "small" / "with noise" / "seed1" / "model.safetensors").is_file()

    text = (results / "small.md").read_text(encoding="utf-8")
    assert finished.stdout.strip() == text.strip()
    assert "Made by `python tools/compare.py small.toml --set learning_rate=1e-3`." in text
    assert "### heldout: 8 faces, 2 seeds" in text
    assert "### test: 4 faces, 2 seeds" in text
    lines = [line for line in text.splitlines() if line.startswith("| with noise | landmarks |")]
    assert len(lines) == 2
    assert all(line.split(" | ")[-1] in ("helped |", "hurt |", "undecided |") for line in lines)
    assert "| alone |" not in text
    for split in ("heldout", "test"):
        assert read_image(results / f"small-{split}-forest.png").std() > 5
    assert "4/4" in finished.stderr  # the progress of the runs


def test_a_bad_file_is_one_sentence_and_status_2(tmp_path):
    (tmp_path / "bad.toml").write_text(FILE.replace("epochs", "epoch"), encoding="utf-8")
    run = run_as_user(tmp_path, "bad.toml")
    assert run.returncode == 2
    assert run.stderr.startswith("unknown keys ['epoch'] in recipe 'alone'")
    assert run.stderr.count("\n") == 1
    assert run.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]


def test_tables_only_needs_no_training(folder, finished, compare, tmp_path, capsys):
    shutil.copytree(folder / "docs", tmp_path / "docs")
    results = tmp_path / "docs" / "results" / "small"
    made = [path for path in results.iterdir() if path.name in TABLES or path.suffix == ".png"]
    for path in made:
        path.unlink()
    data = ("--data-root", folder / "data", "--set", "learning_rate=1e-3")
    assert compare(tmp_path, folder / "small.toml", "--tables-only", *data) == 0
    assert capsys.readouterr().out.splitlines()[4:] == finished.stdout.splitlines()[4:]
    assert all(path.is_file() for path in made)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.toml"], "gone.toml cannot be read"),
        (["small.toml", "--data-root", "data"], "made with other values of learning_rate"),
        (["small.toml", "--data-root", "data", "--tables-only", "--results", "nowhere"], "is missing: this run is not"),
        (["small.toml", "--data-root", "nowhere", "--results", "new"], "training.txt is missing"),
        (["small.toml", "--data-root", "data", "--results", "new", "--jobs", "0"], "jobs must be at least 1"),
        (["small.toml", "--data-root", "data", "--results", "small.toml/new"], "the folder small.toml/new cannot be"),
        (["small.toml", "--set", "tasks"], "--set takes key=value"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(folder, finished, compare, capsys, arguments, said):
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert compare(folder, *arguments) == 2
    output, errors = capsys.readouterr()
    assert said in errors
    assert output == ""
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_ctrl_c_saves_and_the_same_command_continues(folder, compare, tmp_path, capsys):
    checkpoint = tmp_path / "runs" / "alone" / "seed0" / "checkpoint.safetensors"

    def press() -> None:
        deadline = time.monotonic() + 60
        while not checkpoint.is_file() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    places = ("--data-root", "data", "--results", tmp_path / "results", "--runs", tmp_path / "runs")
    hand = threading.Thread(target=press)
    hand.start()
    status = compare(folder, "small.toml", *places, "--set", "epochs=5000")
    hand.join()
    assert status == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err
    assert checkpoint.is_file()
    assert not list((tmp_path / "results").iterdir())
