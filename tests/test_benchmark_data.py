"""tools/benchmark_data.py: what it times is what it says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TOOL = Path(__file__).parents[1] / "tools" / "benchmark_data.py"


@pytest.fixture
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@pytest.mark.slow
def test_the_tool_prints_rates_and_waits():
    recipe = TOOL.parent / "recipes" / "tcdcn.toml"
    small = ["--faces", "200", "--rounds", "1", "--seconds", "0.1", "--training", recipe, "--device", "cpu"]
    run = subprocess.run([sys.executable, TOOL, *small], capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    for case in ("patches", "plain", "augmented"):
        assert len(re.findall(rf"\d+  ?\(\d+ to \d+\)  {case}, [12] process", run.stdout)) == 4
    assert re.search(r"[\d.]+ %  of it waiting for a batch", run.stdout)
