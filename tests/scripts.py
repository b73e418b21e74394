"""Scripts of tools/ and datasets/, which are no packages, run in this process as a user runs them."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def run_script(path: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of a script, such as ``tools/card.py``, called with these arguments."""
    script = str(ROOT / path)
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(script, run_name="__main__")
    return stop.value.code


def load_script(path: str) -> ModuleType:
    """A script, such as ``tools/card.py``, as a module of its own, whose functions a test can call or replace."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_prepare(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of ``datasets/<name>/prepare.py`` called with these arguments."""
    return run_script(f"datasets/{name}/prepare.py", monkeypatch, *arguments)
