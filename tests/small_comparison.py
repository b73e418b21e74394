"""A comparison file of four methods and two seeds, small enough to be run in a test."""

from __future__ import annotations

from pathlib import Path

FILE = """
seeds = [4, 7]

[common]
data = "mtfl_layout"
tasks = ["landmarks", "smile"]
epochs = 1
batch_size = 8
patch_size = 64

[methods.both]
[methods.landmarks]
tasks = ["landmarks"]
[methods.smile]
tasks = ["smile"]
passes = 1
[methods."both shuffled"]
shuffled_labels = ["smile"]
"""


def written(folder: Path, text: str = FILE) -> Path:
    """The path of ``text`` as ``small.toml``."""
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path
