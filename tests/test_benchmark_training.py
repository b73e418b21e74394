"""tools/benchmark.py: every part of a training is timed, for either place of augmentation; real faces are."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
from scripts import load_script


@pytest.fixture
def benchmark() -> ModuleType:
    return load_script("tools/benchmark.py")


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


def test_weighing_and_watching_are_measured_beside_plain_summing(benchmark, tmp_path, monkeypatch, capsys):
    for name, value in {"ROUNDS": 2, "STEPS_PAIRED": 1, "FACES": 8}.items():
        monkeypatch.setattr(benchmark, name, value)
    path = tmp_path / "some.toml"
    path.write_text("batch_size = 8\npatch_size = 64\nworkers = 0\nepochs = 20\n")
    arguments = ["--weighing", str(path), "--methods", "pcgrad", "mean", "--faces", "80"]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments])
    assert benchmark.main() == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "some, 5 tasks, batches of 8, 1 CPU thread(s)"
    figure = r" +[\d.]+ \([\d.]+, [\d.]+\)"
    found = [re.fullmatch(rf"{figure} \|{figure}  (.+)", line) for line in lines]
    names = [row[1] for row in found if row]
    assert names == [f"{name}, on {on}" for on in ("features", "parameters") for name in ("pcgrad", "mean")]
    for on, most in (("features", "3.0"), ("parameters", "5.5")):
        assert any(
            re.fullmatch(rf"dearest on {on}: [\d.]+ times, to be at most {most}: (yes|NO, .+)", x) for x in lines
        )
    # 20 epochs of 80 // 8 steps; every 6th of them is looked at.
    assert re.fullmatch(r"a snapshot takes as long as .+ steps; 33 in 200 steps of this recipe on 80", lines[-2])
    assert re.fullmatch(r"faces are [\d.]+ % \(.+\) of their time, to be at most 5 %: (yes|NO)", lines[-1])


def test_a_method_that_weighs_no_gradients_is_named(benchmark, tmp_path, monkeypatch, capsys):
    path = tmp_path / "some.toml"
    path.write_text("workers = 0\n")
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--weighing", str(path), "--methods", "dwa"])
    assert benchmark.main() == 2
    assert capsys.readouterr().err.startswith("dwa: no aggregator of gradients; there are aligned_mtl,")


def test_real_faces_are_timed_as_shipped_and_without_the_mirrored_crop(benchmark, mtfl_root, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "ROUNDS", 2)
    monkeypatch.setattr(benchmark, "FACES", 4)
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--split", "heldout"])
    assert benchmark.main() == 0
    head, kind, *lines = capsys.readouterr().out.splitlines()
    assert head == "facemtl-s, 1 CPU thread(s), milliseconds a face, the mean over 4 of heldout;"
    assert kind == "median (fastest, slowest) of 2 rounds"
    found = [re.fullmatch(r" +([\d.]+) \(([\d.]+), ([\d.]+)\)  (.+)", line).groups() for line in lines]
    assert [name for *_, name in found] == ["as shipped", "without the mirrored crop"]
    assert all(0 < float(low) <= float(middle) <= float(high) for middle, low, high, _ in found)
