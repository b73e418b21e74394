"""tools/benchmark_annotate.py in small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import load_script

TOOL = Path(__file__).parent.parent / "tools" / "benchmark_annotate.py"


@pytest.mark.slow
def test_it_prints_the_three_figures():
    small = ["--photos", "3", "--few", "4", "--many", "8"]
    run = subprocess.run([sys.executable, TOOL, *small], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    for figure in (
        r"[\d.]+ %  of the bare loop",
        r"  24 pictures, 2 process\(es\)",
        r"[\d.]+  times as fast with two over 24 pictures",
        r"2 process\(es\), on -?[\d.]+ cores",
        r"-?[\d.]+  times as fast with two \(wanted",
        r"[\d.]+  8 pictures of 80 x 80",
    ):
        assert re.search(figure, run.stdout), figure


def test_the_sustained_rate_leaves_the_start_out(monkeypatch, capsys, tmp_path):
    """A start of 5 s with one process and of 7 s with two, which then take 0.1 and 0.05 s a picture, 0.1 s of CPU."""
    benchmark = load_script("tools/benchmark_annotate.py")

    def run_tool(inputs, out, processes):
        pictures = 10 * len(inputs)
        return 3 + 2 * processes + pictures * 0.1 / processes, 1 + 0.1 * pictures, 250.0

    monkeypatch.setattr(benchmark, "run_tool", run_tool)
    benchmark.benchmark_processes(tmp_path, 10, tmp_path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "start included, seconds: median (range) of 3 turns",
        "7.0 (7.0 to 7.0) 20 pictures, 1 process(es)",
        "13.0 (13.0 to 13.0) 80 pictures, 1 process(es)",
        "8.0 (8.0 to 8.0) 20 pictures, 2 process(es)",
        "11.0 (11.0 to 11.0) 80 pictures, 2 process(es)",
        "1.18 times as fast with two over 80 pictures",
        "sustained, pictures a second: 60 more pictures over what they take longer",
        "10.0 (10.0 to 10.0) 1 process(es), on 1.00 cores",
        "20.0 (20.0 to 20.0) 2 process(es), on 2.00 cores",
        "2.00 times as fast with two (wanted: 1.8)",
    ]
