"""The same annotation through Ray Data on two nodes, one of whose workers is killed half-way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from annotate_fakes import IDENTITY, Noted, Slow, content, write_pictures

from facemtl.annotate import annotate
from facemtl.annotate import run as run_module
from facemtl.annotate.plan import Plan
from facemtl.errors import DependencyError

ROOT = Path(__file__).parent.parent


def test_without_ray_the_engine_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    write_pictures(tmp_path / "in", [120])
    with pytest.raises(DependencyError, match=r"pip install 'facemtl\[scale\]'"):
        annotate(["in"], "out", Slow(), IDENTITY, engine="ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of many kinds
def test_two_nodes_and_a_worker_killed_half_way(tmp_path, monkeypatch):
    """One to three minutes, most of them Ray's."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", [20 + 10 * (i % 21) for i in range(200)])
    done = annotate(["in"], tmp_path / "whole", Slow(), IDENTITY, part_size=5)
    (notes := tmp_path / "notes").mkdir()
    killed: list[str] = []

    def kill_half_way(plan: Plan, missing: list[int]) -> nullcontext:
        def wait_and_kill() -> None:
            while len(plan.missing()) > plan.parts // 2:
                time.sleep(0.01)
            killed.extend(note.name for note in notes.iterdir())
            for pid in killed:
                os.kill(int(pid), signal.SIGKILL)

        threading.Thread(target=wait_and_kill, daemon=True).start()
        return nullcontext(lambda count: None)

    monkeypatch.setattr(run_module, "_bar", kill_half_way)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    ray.init(address=cluster.address, runtime_env={"env_vars": paths}, log_to_driver=False)
    try:
        assert sum(node["Alive"] for node in ray.nodes()) == 2
        found = annotate(
            *(["in"], tmp_path / "out", Noted(notes), IDENTITY),
            part_size=5,
            engine="ray",
            processes=2,
            progress=True,
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed
    assert len(list(notes.iterdir())) > len(killed)  # others took over
    assert found == done
    assert content(tmp_path / "out") == content(tmp_path / "whole")
