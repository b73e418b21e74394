"""Trainings small enough for tests: a few rendered faces and a recipe of a few steps."""

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facemtl.data.sample import FaceSample
from facemtl.data.synthetic import write_dataset, write_mtfl_layout
from facemtl.landmarks import SCHEMAS
from facemtl.training.engine import Interrupted, Run, train
from facemtl.training.recipe import Recipe
from facemtl.training.training_data import TrainingData

HELDOUT = 8
SMALL_GRIDNET = {"input_size": 32, "stem": 8, "widths": [8, 16], "depths": [1, 1], "neck": 8, "hidden": 32}


def tiny_recipe(**changes: Any) -> Recipe:
    """2 epochs of 4 steps over the 32 training faces of :func:`tiny_faces`."""
    values = {"name": "tiny", "batch_size": 8, "epochs": 2, "patch_size": 64, "workers": 0, "seed": 3}
    return Recipe(**{**values, **changes})


def tiny_faces(folder: Path) -> list[FaceSample]:
    """40 rendered faces, of which the first ``HELDOUT`` are held out."""
    return write_dataset(folder / "faces", HELDOUT + 32, seed=3, size=96)


def tiny_data(recipe: Recipe, faces: list[FaceSample], cache: Path) -> TrainingData:
    channels = recipe.create_model().backbone.channels
    return TrainingData.of(recipe, channels, cache, faces[HELDOUT:], faces[:HELDOUT], progress=False)


def mixed_recipe(**changes: Any) -> Recipe:
    """Seven tasks of :func:`tiny_sets`, none of which labels them all, with everything that a recipe can switch on."""
    values = {
        "backbone": "gridnet",
        "backbone_options": SMALL_GRIDNET,
        "tasks": ("landmarks", "landmarks_ibug68", "glasses", "smile", "gender", "pose", "angles"),
        "mix": {"mtfl": 0.5, "genki4k": 0.25, "udacity68": 0.25},
        "balance": 0.3,
        "uncertainty": True,
        "dropout": 0.2,
        "points_loss": "l1",
        "eye_scaled": True,
        "smoothing": 0.1,
        "weights": {"landmark_sigma": 0.01, "landmarks_ibug68": 0.04},
    }
    return tiny_recipe(**{**values, **changes})


def tiny_sets(faces: list[FaceSample]) -> dict[str, list[FaceSample]]:
    """The same faces as three sets: points and attributes, angles and smile, 68 points."""
    return {
        "mtfl": [replace(face, angles=None) for face in faces],
        "genki4k": [
            replace(face, points=np.full_like(face.points, np.nan), labels={"smile": face.labels["smile"]})
            for face in faces
        ],
        "udacity68": [
            replace(face, points=sixty_eight(face.points), schema="ibug68", labels={}, angles=None) for face in faces
        ],
    }


def sixty_eight(five: np.ndarray) -> np.ndarray:
    """Stands for the 68 points of a face: somewhere among its five, which ``to_five`` gives back."""
    points = np.random.default_rng(0).dirichlet(np.ones(5), 68) @ five
    for place, indices in zip(five, SCHEMAS["ibug68"].five, strict=True):
        turn = 2 * np.pi * np.arange(len(indices)) / len(indices)
        ring = 0.0 if len(indices) == 1 else 3 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        points[list(indices)] = place + ring
    return np.float32(points)


def mixed_data(recipe: Recipe, faces: list[FaceSample], cache: Path) -> TrainingData:
    train, heldout = tiny_sets(faces[HELDOUT:]), tiny_sets(faces[:HELDOUT])
    return TrainingData.of(recipe, 3, cache, train, heldout, progress=False)


def tiny_set(folder: Path) -> Path:
    """The folder of a data set ``mtfl_layout`` with 16 training, 8 held-out and 4 test faces."""
    write_mtfl_layout(folder, train=24, test=4, seed=1, size=96)
    rows = (folder / "training.txt").read_text().splitlines(keepends=True)
    (folder / "training.txt").write_text("".join(rows[:16]))
    (folder / "heldout.txt").write_text("".join(rows[16:]))
    return folder


def new_run(recipe: Recipe, data: TrainingData, out: Path) -> Run:
    """The moving parts of a training that has not begun."""
    torch.manual_seed(recipe.seed)
    return Run(recipe, data, out, torch.device("cpu"))


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
