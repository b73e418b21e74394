"""The Python in the documents is run as it stands there, on rendered faces, and every file they name is there."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from unittest.mock import patch

import pytest
from utkface_layout import write_utkface

from facemtl.data.sets import DATA_SETS
from facemtl.data.synthetic import write_dataset
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import SCHEMAS
from facemtl.models.factory import BACKBONES
from facemtl.weights import DEFAULT_MODEL, weights_folder

ROOT = Path(__file__).parents[1]
GUIDE = "docs/add_a_task.md"
MOST_LINES = 29


def python_blocks(document: str) -> list[tuple[int, str]]:
    """The number of the line before each block, and the block."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)), block[1]) for block in found]


def run_blocks(document: str) -> dict:
    """Run the blocks one after the other, as one script; a traceback names the lines of the document."""
    names: dict = {"__name__": "__main__"}
    with patch.dict(ATTRIBUTES), patch.dict(DATA_SETS), patch.dict(BACKBONES):
        for line, code in python_blocks(document):
            exec(compile("\n" * line + code, document, "exec"), names)
    return names


def write_table(folder: Path) -> None:
    """Rendered faces with the table that the guide reads; one face has no label."""
    names = [f"{point}_{axis}" for point in SCHEMAS["mtfl5"].names for axis in "xy"]
    samples = write_dataset(folder, 48, seed=1, size=96)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "split", *names, "smile"])
        for i, sample in enumerate(samples):
            smile = ATTRIBUTES["smile"][sample.labels["smile"]] if i else ""
            split = "train" if i < 40 else "heldout"
            table.writerow([sample.image.name, split, *sample.points.ravel(), smile])


def test_the_guide_to_a_task_a_data_set_and_a_backbone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path))
    write_utkface(tmp_path / "utkface", 96)
    write_table(tmp_path / "my_faces")
    names = run_blocks(GUIDE)
    assert list(names["found"].attributes["age"].probabilities) == ["child", "adult", "senior"]
    runs = {path.parent.name for path in (tmp_path / "runs").glob("*/model.safetensors")}
    assert runs == {"utkface", "my_faces", "both", "tiny"}
    with Path("runs/both/log.csv").open(newline="", encoding="utf-8") as file:
        assert {"labelled/gender", "heldout_utkface/gender_accuracy", "heldout/nme"} <= set(
            csv.DictReader(file).fieldnames
        )
    parameters = sum(p.numel() for p in names["Tiny"]().parameters())
    assert f"{parameters:,} parameters" in (ROOT / GUIDE).read_text(encoding="utf-8")


def test_the_readme(tmp_path, monkeypatch):
    if not (weights_folder() / DEFAULT_MODEL).is_dir():
        pytest.skip(f"the README uses the shipped model, and there is no weights/{DEFAULT_MODEL}")
    for name in ("examples", "tools"):  # from the root of a checkout, which stays as it is
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    assert python_blocks("README.md")
    run_blocks("README.md")


def test_examples_of_the_guide_are_short():
    blocks = python_blocks(GUIDE)
    assert len(blocks) == 6
    for line, code in blocks:
        assert code.count("\n") <= MOST_LINES, f"the example at line {line} of {GUIDE}"


def test_files_that_the_guide_names_are_there():
    named = re.findall(r"\b(?:facemtl|tools|datasets|tests)/[\w/-]+\.\w+", (ROOT / GUIDE).read_text(encoding="utf-8"))
    assert "facemtl/face.py" in named
    assert [name for name in named if not (ROOT / name).is_file()] == []
