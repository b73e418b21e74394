"""Trainings that several workers share, for tests: run by torchrun as a script, or one worker a call."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from tiny_training import mixed_recipe, tiny_faces, tiny_sets, train_quietly

from facemtl.training import engine
from facemtl.training.checkpoint import save_checkpoint
from facemtl.training.distributed import WorkerLost, joined
from facemtl.training.recipe import Recipe
from facemtl.training.training_data import TrainingData

# What the recipes have in common: no batch statistics, labels missing in every set, several outputs a task; and no loss
# with a kink, where the last bit of an error turns a gradient round (angles and points by absolute differences).
COMMON = {
    **{"backbone": "tcdcn", "backbone_options": {}, "dropout": 0.0, "epochs": 1, "points_loss": "smooth_l1"},
    "tasks": ("landmarks", "landmarks_ibug68", "glasses", "smile", "gender", "pose"),
}
# AdamW divides each gradient by its size and so makes steps of last bits; SGD leaves them what they are.
PLAIN = {"optimiser": "sgd", "learning_rate": 0.01}
CASES = {
    "summed": {},
    "pcgrad": {"weighing": "pcgrad", "affinity": True, **PLAIN},
    "pcgrad on features": {"weighing": "pcgrad", "weighing_options": {"on": "features"}, **PLAIN},
    "upgrad": {"weighing": "upgrad", **PLAIN},
    "gradnorm": {"weighing": "gradnorm", "uncertainty": False, **PLAIN},
    "uncertainty weighting": {"weighing": "uw", **PLAIN},
    "dynamic": {"weighing": "dynamic", "weighing_options": {"covariance": 1e-2}, **PLAIN},
    "famo": {"weighing": "famo", "uncertainty": False, **PLAIN},
}


def case(name: str) -> Recipe:
    return mixed_recipe(**COMMON | CASES[name])


def case_data(folder: Path) -> TrainingData:
    """For every case; the second call finds the files of the first."""
    faces = tiny_faces(folder)
    train, heldout = tiny_sets(faces[8:]), tiny_sets(faces[:8])
    return TrainingData.of(case("summed"), 1, folder / "cache", train, heldout, progress=False)


def work(folder: Path, out: Path, names: list[str], stops: tuple[int | None, ...] = (None,)) -> None:
    """What each worker does: train each case, with stops between; checkpoints take long to write, as on a busy disk."""
    if stops != (None,):
        engine.save_checkpoint = _written_slowly
    with joined() as world:
        with world.first():
            data = case_data(folder)
        for name in names:
            for stop in stops:
                torch.manual_seed(world.rank)  # a training must not depend on what was drawn before
                train_quietly(case(name), data, out / name, max_steps=stop)


def _written_slowly(*state: object) -> None:
    time.sleep(0.5)
    save_checkpoint(*state)


def forked(rank: int, size: int, port: int, *arguments: object) -> None:
    """:func:`work` as one of several workers on this machine, without torchrun."""
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "TORCHELASTIC_RUN_ID": "tests"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    try:
        work(*arguments)
    except WorkerLost as lost:
        (Path(arguments[1]) / f"lost{rank}.txt").write_text(str(lost))
        sys.exit(1)


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
