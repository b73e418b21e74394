"""The prepare.py of a data set, run in this process as a user runs it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

DATASETS = Path(__file__).parents[1] / "datasets"


def run_prepare(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of ``datasets/<name>/prepare.py`` called with these arguments."""
    script = str(DATASETS / name / "prepare.py")
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(script, run_name="__main__")
    return stop.value.code
