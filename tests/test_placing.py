"""Where the trainings of a comparison run: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from tiny_training import tiny_set

from facemtl.errors import ConfigError, DataError, DependencyError
from facemtl.training.comparison import read_comparison
from facemtl.training.comparison_runs import run_comparison
from facemtl.training.placing import place

COMPARISON = """
seeds = [4]
[common]
data = "mtfl_layout"
epochs = 1
batch_size = 8
patch_size = 64
passes = 1
[methods.both]
tasks = ["landmarks", "smile"]
[methods.landmarks]
tasks = ["landmarks"]
[methods.smile]
tasks = ["smile"]
"""


def refuse() -> None:
    raise DataError("a label is missing")


def die_once(note: Path) -> str:
    """Ends its process without a word, the first time."""
    if not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "made again"


def where_data_are() -> str | None:
    return os.environ.get("FACEMTL_DATA")


def test_every_call_is_made_once_and_what_one_raises_is_raised_here():
    calls = [partial(pow, 2, i) for i in range(6)]
    assert list(place(calls, 1)) == [1, 2, 4, 8, 16, 32]
    assert sorted(place(calls, 2)) == [1, 2, 4, 8, 16, 32]
    for jobs in (1, 2):
        with pytest.raises(DataError, match="a label is missing"):
            list(place([refuse], jobs))


def test_arguments_out_of_their_range():
    with pytest.raises(ConfigError, match="jobs must be at least 1, found 0"):
        place([], 0)
    with pytest.raises(ConfigError, match="unknown engine 'spark'; known: local, ray"):
        place([], 1, "spark")


def test_without_ray_the_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"pip install 'facemtl\[scale\]'"):
        list(place([refuse], 1, "ray"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of many kinds
def test_ray_makes_the_same_files_also_where_a_process_dies(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("FACEMTL_DATA", "/somewhere")
    tiny_set(tmp_path / "data")
    (tmp_path / "small.toml").write_text(COMPARISON, encoding="utf-8")
    comparison = read_comparison(tmp_path / "small.toml")
    for engine in ("local", "ray"):
        folders = [tmp_path / engine / name for name in ("runs", "results")]
        if engine == "ray":
            ray.init(num_cpus=2, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}})
        run_comparison(comparison, *folders, tmp_path / "cache", tmp_path / "data", jobs=2, engine=engine)
    try:
        local, there = (
            {path.name: path.read_bytes() for path in (tmp_path / engine / "results").glob("*.npz")}
            for engine in ("local", "ray")
        )
        assert len(local) == 6
        assert there == local
        assert list(place([partial(die_once, tmp_path / "note")], 1, "ray")) == ["made again"]
        assert list(place([where_data_are], 1, "ray")) == ["/somewhere"]
        with pytest.raises(DataError, match="a label is missing"):
            list(place([refuse], 1, "ray"))
    finally:
        ray.shutdown()
