"""Methods against single-task baselines: the same backbone, crops, steps and seeds; every run trained once and kept."""

from __future__ import annotations

import json
import tomllib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from tqdm import tqdm

from facemtl.data.sample import MISSING, FaceSample, face_box
from facemtl.data.sets import data_root, read_split
from facemtl.errors import ConfigError, DataError
from facemtl.face import ATTRIBUTES
from facemtl.image import read_image
from facemtl.landmarks import SCHEMAS
from facemtl.models.factory import create_model
from facemtl.models.session import TorchSession
from facemtl.predictor import Predictor
from facemtl.training.engine import MODEL, TrainingData, train
from facemtl.training.metrics import nme
from facemtl.training.recipe import Recipe, recipe_from_dict

SPLITS = ("heldout", "test")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods, each a recipe without its seed, and the seeds they are all trained with."""

    name: str
    methods: Mapping[str, Recipe]
    seeds: tuple[int, ...]

    def baseline(self, task: str) -> str:
        """The method that learns this task alone.

        Raises:
            ConfigError: there is none.
        """
        for name, recipe in self.methods.items():
            if recipe.tasks == (task,) and not recipe.shuffled_labels:
                return name
        raise ConfigError(f"the comparison has no method with tasks = [{task!r}]: the single-task baseline is missing")

    def judged_tasks(self, method: str) -> tuple[str, ...]:
        """The tasks of a method that it could learn: those with true labels."""
        recipe = self.methods[method]
        return tuple(task for task in recipe.tasks if task not in recipe.shuffled_labels)


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """What one trained model did on the faces of one split.

    Attributes:
        errors: task -> (N,) float32; NME as a fraction for ``landmarks``, 1 for a miss and 0 for a hit elsewhere.
        recipe: what the model was trained from, as :meth:`Recipe.to_dict`.
    """

    errors: Mapping[str, np.ndarray]
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".part")
        with beside.open("wb") as file:
            np.savez_compressed(
                file,
                **{
                    task: values.astype(np.float16) if task == "landmarks" else values.astype(bool)
                    for task, values in self.errors.items()
                },
            )
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> RunResult:
        """Raises DataError for a damaged file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls({task: file[task].astype(np.float32) for task in file.files})
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path} cannot be read as the result of a run; delete it to train again: {error}"
            ) from None


def read_comparison(path: Path, settings: Mapping[str, object] | None = None) -> Comparison:
    """Read a comparison: ``seeds``, the table ``[common]`` of recipe keys, and ``[methods.<name>]`` tables over it.

    Args:
        path: the TOML file.
        settings: recipe keys that override those of every method.

    Raises:
        ConfigError: a missing file or an unknown key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the comparison {path} cannot be read: {error}") from None
    if set(values) != {"seeds", "common", "methods"}:
        raise ConfigError(f"{path} must have exactly the keys seeds, common, methods; it has {sorted(values)}")
    methods = {
        name: recipe_from_dict({**values["common"], **changes, **(settings or {}), "name": name})
        for name, changes in values["methods"].items()
    }
    if not methods or not values["seeds"]:
        raise ConfigError(f"{path} needs at least one method and one seed")
    return Comparison(path.stem, methods, tuple(values["seeds"]))


def run_comparison(
    comparison: Comparison,
    runs: Path,
    results: Path,
    cache: Path,
    root: Path | None = None,
    jobs: int = 1,
) -> None:
    """Train and evaluate what has no result yet, ``jobs`` trainings at a time; the results do not depend on ``jobs``.

    Args:
        comparison: what to run.
        runs: where trainings are kept; an interrupted one is continued.
        results: ``<method>.seed<k>.<split>.npz``, a few KB each.
        cache: where patches are kept.
        root: folder of the data set.
        jobs: processes.
    """
    todo = [
        (name, seed)
        for seed in comparison.seeds
        for name in comparison.methods
        if not all(result_path(results, name, seed, split).is_file() for split in SPLITS)
    ]
    if not todo:
        return
    first = comparison.methods[todo[0][0]]
    training_data(first, cache, root)  # cut once, before several processes want it
    tasks = (
        joblib.delayed(_run_one)(comparison.methods[name], seed, runs / name / f"seed{seed}", results, cache, root)
        for name, seed in todo
    )
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    for _ in tqdm(parallel(tasks), total=len(todo), desc=comparison.name, unit="run"):
        pass


def result_path(results: Path, method: str, seed: int, split: str) -> Path:
    """Where the result of one run on one split is kept."""
    return results / f"{method}.seed{seed}.{split}.npz"


def load_errors(comparison: Comparison, results: Path, split: str) -> dict[str, dict[str, np.ndarray]]:
    """method -> task -> (S, N) errors, seeds in their order."""
    loaded = {
        name: [RunResult.load(result_path(results, name, seed, split)).errors for seed in comparison.seeds]
        for name in comparison.methods
    }
    return {
        name: {task: np.stack([run[task] for run in runs]) for task in comparison.methods[name].tasks}
        for name, runs in loaded.items()
    }


def training_data(recipe: Recipe, cache: Path, root: Path | None) -> TrainingData:
    """The data of a recipe, for the colour that its backbone wants."""
    model = create_model(recipe.backbone, recipe.tasks, recipe.schema, **recipe.backbone_options)
    return TrainingData.read(recipe, model.backbone.channels, cache, root, progress=False)


def _run_one(recipe: Recipe, seed: int, out: Path, results: Path, cache: Path, root: Path | None) -> None:
    recipe = recipe_from_dict({**recipe.to_dict(), "seed": seed, "workers": 0})
    train(recipe, training_data(recipe, cache, root), out, device="auto", progress=False)
    for split in SPLITS:
        samples, images, boxes = _pictures(recipe.data, split, root)
        result = evaluate_run(out / MODEL, samples, images, boxes)
        result.save(result_path(results, recipe.name, seed, split))


@lru_cache(maxsize=len(SPLITS))
def _pictures(data: str, split: str, root: Path | None) -> tuple[list[FaceSample], list[np.ndarray], list[np.ndarray]]:
    """Samples, decoded images and boxes of a split: the set's own boxes where it has them, else those of the points."""
    samples = read_split(data, split, data_root(data, root))
    boxes = [s.box if s.box is not None else face_box(s) for s in samples]
    return samples, [read_image(s.image) for s in samples], boxes


def evaluate_run(
    model: Path, samples: Sequence[FaceSample], images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]
) -> RunResult:
    """Errors of one model on one crop a face, neither flipped nor refined: every method is judged on the same crops."""
    predict = Predictor(TorchSession.load(model), passes=1, flip=False)
    faces = [face for found in predict.batch(images, [box[None] for box in boxes]) for face in found]
    errors: dict[str, np.ndarray] = {}
    for task in predict.tasks:
        if task == "landmarks":
            truth = np.stack([s.points for s in samples])
            errors[task] = nme(np.stack([f.landmarks for f in faces]), truth, SCHEMAS[predict.schema].eye_pair)
        else:
            labels = ATTRIBUTES[task]
            missed = [
                labels.index(f.attributes[task].label) != s.labels[task] for f, s in zip(faces, samples, strict=True)
            ]
            errors[task] = np.array(missed)
    return RunResult({task: np.float32(values) for task, values in errors.items()})
