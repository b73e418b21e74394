"""tools/benchmark_data.py: what it times is what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scripts import load_script

TOOL = Path(__file__).parents[1] / "tools" / "benchmark_data.py"


@pytest.fixture
def benchmark() -> ModuleType:
    return load_script("tools/benchmark_data.py")


@pytest.mark.parametrize("channels", [1, 3])
def test_every_case_makes_a_batch_a_step(benchmark, tmp_path, channels):
    cache = benchmark.made_cache(tmp_path, channels, faces=130)
    assert isinstance(cache.patches, np.memmap)
    for name, work in benchmark.cases(cache).items():
        assert [work(step) for step in range(3)] == [64] * 3, name


def test_a_rate_is_what_was_made_over_the_time_it_took(benchmark, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    steps = []
    rate = benchmark.measure(lambda step: steps.append(step) or 10, first=7, seconds=3)
    assert steps == [7, 8, 9]  # the first is for warmth
    assert rate == 10 * 2 / 4


def test_a_profile_tells_waiting_from_hand_over_and_step(benchmark, monkeypatch):
    """Three steps by two clocks in seconds: that of the wall and that of the thread."""
    wall = iter([0, 1, 5, 5, 8, 12, 12, 13, 17, 17, 18])  # asked, came, stepped: waits of 1, 3 and 1, steps of 4
    thread = iter([0, 0.5, 1, 1.5, 2, 2.5, 3])  # half a second of each wait
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(benchmark.time, "thread_time", lambda: next(thread))
    seen = []
    assert benchmark.profile(iter("abc"), seen.append) == {
        "waiting for a batch": 1000,
        "of it hand-over": 500,
        "the step itself": 4000,
        "% of all time waiting for a batch": 100 * 5 / 17,
        "% of the median step waiting": 20,
    }
    assert seen == ["a", "b", "c"]


@pytest.mark.slow
def test_the_tool_prints_rates_and_waits():
    recipe = TOOL.parent / "recipes" / "tcdcn.toml"
    small = ["--faces", "200", "--rounds", "1", "--seconds", "0.1", "--training", recipe, "--device", "cpu"]
    run = subprocess.run([sys.executable, TOOL, *small], capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    for case in ("patches", "plain", "augmented"):
        assert len(re.findall(rf"\d+  ?\(\d+ to \d+\)  {case}, [12] process", run.stdout)) == 4
    for part in ("waiting for a batch", "of it hand-over", "the step itself", "% of all time waiting for a batch"):
        assert re.search(rf"  [\d.]+ \([\d.]+ to [\d.]+\)  {part}\n", run.stdout), part
