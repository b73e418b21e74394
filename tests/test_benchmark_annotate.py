"""tools/benchmark_annotate.py in small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "benchmark_annotate.py"


@pytest.mark.slow
def test_it_prints_the_three_figures():
    small = ["--photos", "3", "--few", "4", "--many", "8"]
    run = subprocess.run([sys.executable, TOOL, *small], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    for figure in (r"[\d.]+ %  of the bare loop", r"[\d.]+  times as fast with two", r"[\d.]+  8 pictures of 80 x 80"):
        assert re.search(figure, run.stdout)
