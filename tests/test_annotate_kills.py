"""Killed at any moment and started again, an annotation ends as if nobody had touched it."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from annotate_fakes import annotate_slowly, content, write_pictures

from facemtl.annotate.run import check

ROOT = Path(__file__).parent.parent
KILLS = 20


@pytest.fixture(scope="module")
def forked():
    """A clean process that has imported everything, from which each attempt is forked: a start costs milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["annotate_fakes"])
    return context


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGKILL nor forks")
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_twenty_kills_change_no_byte(tmp_path, monkeypatch, forked, format):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", [20 + 10 * (i % 21) for i in range(60)])
    annotate_slowly(["in"], tmp_path / "whole", format)
    whole = content(tmp_path / "whole")
    assert len([name for name in whole if name.startswith("parts/")]) == 9
    draw = random.Random(0)
    kills = finished = 0
    while kills < KILLS:
        out = tmp_path / f"out{finished}"
        attempt = forked.Process(target=annotate_slowly, args=(["in"], out, format))
        attempt.start()
        attempt.join(draw.uniform(0, 0.15))
        attempt.kill()
        attempt.join()
        kills += attempt.exitcode == -signal.SIGKILL
        if attempt.exitcode == 0:
            assert content(out) == whole
            finished += 1
    annotate_slowly(["in"], out := tmp_path / f"out{finished}", format)
    assert content(out) == whole


@pytest.mark.slow
def test_twenty_kills_of_the_tool_with_two_processes(tmp_path, mtfl_root):
    """The real detector and network on real faces; about six minutes on two cores."""
    (tmp_path / "in").symlink_to(mtfl_root / "net_7876")
    names = sorted(path.name for path in (tmp_path / "in").iterdir())[:240]
    (tmp_path / "list.csv").write_text("image\n" + "".join(f"in/{name}\n" for name in names))

    def start(out: str) -> subprocess.Popen:
        tool = [sys.executable, str(ROOT / "tools" / "annotate.py"), "list.csv", "--out", out, "--quiet"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*tool, "--processes", "2", "--part-size", "5"], cwd=tmp_path, env=environment)

    begun = time.monotonic()
    assert start("whole").wait() == 0
    seconds = time.monotonic() - begun
    whole = content(tmp_path / "whole")
    draw = random.Random(0)
    kills = finished = 0
    while kills < KILLS:
        process, begun = start(f"out{finished}"), time.monotonic()
        try:
            process.wait(draw.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0
            seconds = min(seconds, time.monotonic() - begun)  # a machine that has become quicker
            assert content(tmp_path / f"out{finished}") == whole
            finished += 1
    assert start(f"out{finished}").wait() == 0
    assert content(tmp_path / f"out{finished}") == whole
    assert check(tmp_path / f"out{finished}").inputs == 240
