"""tools/train.py and tools/export.py as a user runs them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_training import read_log, tiny_set

from facemtl.session import OnnxSession
from facemtl.weights import ModelSpec

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
RECIPE = """
name = "small"
data = "mtfl_layout"
tasks = ["landmarks", "smile"]
batch_size = 8
patch_size = 64
epochs = 1
"""


def command(tool: str, *arguments) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]


def run(folder: Path, tool: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(tool, *arguments), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with a recipe, a data set and a finished run of one epoch."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "small.toml").write_text(RECIPE)
    tiny_set(folder / "set")
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> subprocess.CompletedProcess:
    return run(folder, "train.py", "small.toml", "--data-root", "set", "--set", "weights.smile=0.5", "--device", "cpu")


def test_a_training_of_one_epoch_says_where_the_model_is(folder, trained):
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == "runs/small/model.safetensors\n"
    assert "2/2" in trained.stderr  # the bar: 16 faces are two batches of 8
    assert {path.name for path in (folder / "runs" / "small").iterdir()} == {
        *("checkpoint.safetensors", "log.csv", "model.safetensors", "recipe.json", "tensorboard", "watch.csv")
    }
    assert [row["epoch"] for row in read_log(folder / "runs" / "small")] == ["1"]
    assert [path.suffix for path in (folder / "runs" / "cache").iterdir()] == [".npy", ".npy"]


def test_export_says_how_well_every_head_agrees_and_where_the_file_is(folder, trained):
    done = run(folder, "export.py", "runs/small/model.safetensors")
    assert done.returncode == 0, done.stderr
    *heads, last = done.stdout.splitlines()
    assert [line.split(": largest difference to torch ")[0] for line in heads] == ["landmarks", "smile"]
    assert max(float(line.split()[-1]) for line in heads) <= 1e-4
    assert last == "runs/small/model.onnx"
    spec = OnnxSession(folder / last).spec
    assert isinstance(spec, ModelSpec)
    assert (spec.name, spec.tasks) == ("small", ("landmarks", "smile"))


def test_ctrl_c_stops_all_processes_saves_and_exits_130(folder, tmp_path):
    # Ctrl-C in a terminal reaches the tool and its workers alike.
    arguments = ("small.toml", "--data-root", "set", "--out", tmp_path, "--set", "epochs=2000", "--quiet")
    process = subprocess.Popen(
        command("train.py", *arguments),
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not (tmp_path / "checkpoint.safetensors").exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert errors.startswith("stopped at step ")
    assert f"of 4000; the same command continues from {tmp_path}" in errors
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        (
            "train.py",
            ["small.toml", "--set", "epoch=3"],
            "unknown keys ['epoch'] in recipe 'small'; known: name, data,",
        ),
        ("export.py", ["small.toml"], "small.toml is missing or damaged"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_status_2(folder, tool, arguments, sentence):
    done = run(folder, tool, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("train.py", ["--set KEY=VALUE", "--data-root", "--max-steps", "tools/recipes/tcdcn.toml", "130 interrupted"]),
        ("export.py", ["--out", ".safetensors"]),
    ],
)
def test_help_shows_options_and_examples(tmp_path, tool, words):
    done = run(tmp_path, tool, "--help")
    assert done.returncode == 0
    for word in words:
        assert word in done.stdout
