"""tools/benchmark.py --training: every part of a training is timed, for either place of augmentation and any recipe."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "benchmark.py"


@pytest.fixture
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return benchmark


@pytest.mark.parametrize(
    "recipe",
    [
        'backbone = "tcdcn"',
        'backbone = "gridnet"\nbackbone_options = { input_size = 64 }\nuncertainty = true\n'
        'teachers = ["none.safetensors"]\nmix = { mtfl = 0.5, udacity68 = 0.5 }\n'
        'tasks = ["landmarks", "landmarks_ibug68", "pose", "angles"]',
    ],
    ids=["one set", "several sets, further points, angles, teachers"],
)
def test_every_part_of_a_training_is_timed(benchmark, tmp_path, monkeypatch, capsys, recipe):
    for name, value in {"ROUNDS": 1, "STEPS": 2, "FACES": 8}.items():
        monkeypatch.setattr(benchmark, name, value)
    path = tmp_path / "some.toml"
    path.write_text(f"batch_size = 12\npatch_size = 64\nworkers = 0\n{recipe}\n")
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--training", str(path), "--device", "cpu"])
    assert benchmark.main() == 0
    head, title, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("some on 1 CPU thread(s), batches of 12")
    assert title == "images a second:"
    figures = [re.fullmatch(r" +([\d.]+) \(([\d.]+), ([\d.]+)\)  (.+)", line) for line in lines]
    assert [line for line, found in zip(lines, figures, strict=True) if not found] == [
        f"milliseconds of a step, augment_on = {place}, every part waited for:" for place in ("workers", "device")
    ]
    names = [found[4] for found in figures if found]
    assert len(names) == 7 + 2 * 4
    assert names[5:7] == [f"training, augment_on = {place}, 0 worker(s)" for place in ("workers", "device")]
    assert names[7:11] == names[11:]
    assert all(float(found[1]) > 0 for found in figures[:7])


def test_a_device_that_is_not_there_is_one_sentence(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--training", str(tmp_path / "no.toml"), "--device", "tpu"])
    assert benchmark.main() == 2
    assert "unknown device 'tpu'" in capsys.readouterr().err
