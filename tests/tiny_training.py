"""Trainings small enough for tests: a few rendered faces and a recipe of a few steps."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

from facemtl.data.sample import FaceSample
from facemtl.data.synthetic import write_dataset, write_mtfl_layout
from facemtl.models.factory import create_model
from facemtl.training.engine import Interrupted, TrainingData, train
from facemtl.training.recipe import Recipe

HELDOUT = 8


def tiny_recipe(**changes: Any) -> Recipe:
    """2 epochs of 4 steps over the 32 training faces of :func:`tiny_faces`."""
    values = {"name": "tiny", "batch_size": 8, "epochs": 2, "patch_size": 64, "workers": 0, "seed": 3}
    return Recipe(**{**values, **changes})


def tiny_faces(folder: Path) -> list[FaceSample]:
    """40 rendered faces, of which the first ``HELDOUT`` are held out."""
    return write_dataset(folder / "faces", HELDOUT + 32, seed=3, size=96)


def tiny_data(recipe: Recipe, faces: list[FaceSample], cache: Path) -> TrainingData:
    channels = create_model(recipe.backbone, recipe.tasks, **recipe.backbone_options).backbone.channels
    return TrainingData.of(recipe, channels, cache, faces[HELDOUT:], faces[:HELDOUT], progress=False)


def tiny_set(folder: Path) -> Path:
    """The folder of a data set ``mtfl_layout`` with 16 training, 8 held-out and 4 test faces."""
    write_mtfl_layout(folder, train=24, test=4, seed=1, size=96)
    rows = (folder / "training.txt").read_text().splitlines(keepends=True)
    (folder / "training.txt").write_text("".join(rows[:16]))
    (folder / "heldout.txt").write_text("".join(rows[16:]))
    return folder


def train_quietly(recipe: Recipe, data: TrainingData, out: Path, max_steps: int | None = None) -> bool:
    """Whether the training finished."""
    try:
        train(recipe, data, out, "cpu", progress=False, max_steps=max_steps)
    except Interrupted:
        return False
    return True


def read_log(out: Path) -> list[dict[str, str]]:
    """The rows of the log, without the one figure that differs from run to run."""
    rows = list(csv.DictReader(io.StringIO((out / "log.csv").read_text())))
    return [{key: text for key, text in row.items() if key != "images_per_second"} for row in rows]


def results(out: Path) -> tuple[bytes, list[dict[str, str]]]:
    """What a finished training leaves: the bytes of its model and its log."""
    return (out / "model.safetensors").read_bytes(), read_log(out)


def copy_run(source: Path, target: Path) -> Path:
    """A copy of the folder of a run."""
    return Path(shutil.copytree(source, target))
