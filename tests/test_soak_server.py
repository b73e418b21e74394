"""The soak of the service, short: it counts right, and its own check can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def soak(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "soak_server.py"), "--out", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_short_soak_finds_nothing_wrong(tmp_path):
    done = soak(tmp_path, "--requests", "40", "--every", "10", "--clients", "2", "--most", "500")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "errors that were not provoked: 0" in done.stdout
    summary = json.loads((tmp_path / "soak.json").read_text())
    assert (summary["requests"], sum(summary["counts"].values())) == (40, 40)
    assert summary["counts"]["a face: 200"] > 20
    assert [count for count, _, _ in summary["memory_mib"]][-1] == 40
    assert (tmp_path / "soak.png").stat().st_size > 5000


def test_a_service_that_answers_otherwise_fails_the_soak(tmp_path):
    done = soak(tmp_path, "--requests", "8", "--clients", "1", "--serve", "--max-pixels", "1000")
    assert done.returncode == 1
    assert "a face: 413 and not 200" in done.stdout
