"""`facemtl serve` as a user starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from facemtl import cli
from facemtl.errors import DependencyError, SourceError
from facemtl.serve.run import onnx_file, serve
from facemtl.weights import DEFAULT_MODEL, find_model

ROOT = Path(__file__).parents[1]


def _heed_ctrl_c() -> None:
    """Where tests run in the background Ctrl-C is ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*options: str) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "facemtl", "serve", *options]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
    )


def test_it_says_where_it_is_answers_and_ends_with_ctrl_c():
    with start("--port", "0", "--tasks", "landmarks,smile", "--max-pixels", "100000") as process:
        address, _, hint = process.stdout.readline().partition(" ")
        assert "Ctrl-C" in hint
        assert address.startswith("http://127.0.0.1:")
        data = (ROOT / "examples" / "astronaut.png").read_bytes()
        answer = httpx.post(f"{address}predict", files={"image": ("a.png", data)}, timeout=60)
        assert answer.status_code == 413
        assert "100000" in answer.json()["detail"]
        assert httpx.get(f"{address}model.json").json()["tasks"] == ["landmarks", "smile"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == ""


def test_a_port_that_is_taken_is_one_sentence(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status = cli.main(["serve", "--port", str(taken.getsockname()[1])])
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("facemtl: cannot listen at 127.0.0.1 port ")
    assert error.count("\n") == 1


def test_an_address_of_another_machine_is_said():
    with pytest.raises(SourceError, match=r"192\.0\.2\.1"):
        serve(None, None, host="192.0.2.1")


def test_a_name_that_is_none_is_said():
    with pytest.raises(SourceError, match="nowhere"):
        serve(None, None, host="nowhere.invalid")


@pytest.mark.parametrize("missing", ["starlette.applications", "uvicorn", "python_multipart"])
def test_without_the_extra_its_name_is_said(monkeypatch, missing):
    for name in [name for name in sys.modules if name.startswith("facemtl.serve.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DependencyError, match=r"facemtl\[serve\]"):
        serve(None, None)


def test_help_and_wrong_options(capsys):
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    text = capsys.readouterr().out
    for word in ("examples:", "127.0.0.1", "--max-bytes", "--queue", "--seconds"):
        assert word in text
    with pytest.raises(SystemExit):
        cli.main(["serve", "--port", "70000"])
    assert "0 to 65535" in capsys.readouterr().err


def test_the_file_for_the_browser():
    assert onnx_file(DEFAULT_MODEL) == find_model(DEFAULT_MODEL)
    assert onnx_file(find_model(DEFAULT_MODEL)) == find_model(DEFAULT_MODEL)
    assert onnx_file(find_model(DEFAULT_MODEL, ".safetensors")) is None
