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
from facemtl.files import write_beside
from facemtl.image import read_image
from facemtl.landmarks import POINTS, SCHEMAS
from facemtl.models.session import TorchSession
from facemtl.predictor import Predictor
from facemtl.training.engine import MODEL, train
from facemtl.training.metrics import nme
from facemtl.training.recipe import Recipe, recipe_from_dict
from facemtl.training.training_data import TrainingData

SPLITS = ("heldout", "test")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods, each a recipe without its seed, and the seeds they are all trained with.

    Attributes:
        against: the method that all others are compared with; empty for the single-task model of each task.
    """

    name: str
    methods: Mapping[str, Recipe]
    seeds: tuple[int, ...]
    against: str = ""

    def baseline(self, task: str) -> str:
        """The method that a task is compared with: ``against``, or the one that learns this task alone.

        Raises:
            ConfigError: there is none.
        """
        if self.against and task in self.judged_tasks(self.against):
            return self.against
        for name, recipe in self.methods.items():
            if recipe.tasks == (task,) and not recipe.shuffled_labels:
                return name
        raise ConfigError(f"the comparison has no method with tasks = [{task!r}]: the single-task baseline is missing")

    def run_recipe(self, method: str, seed: int) -> Recipe:
        """The recipe of one run."""
        return replace(self.methods[method], seed=seed, workers=0)

    def judged_tasks(self, method: str) -> tuple[str, ...]:
        """The tasks of a method that can be judged on the faces of its main data set: the main points and the
        attributes, as far as they had true labels."""
        recipe = self.methods[method]
        return tuple(t for t in recipe.tasks if t in (POINTS, *ATTRIBUTES) and t not in recipe.shuffled_labels)


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
        """Write a compressed ``.npz``; errors of points keep 11 bits, as float16."""
        arrays = {
            task: values.astype(np.float16 if task == "landmarks" else bool) for task, values in self.errors.items()
        }
        recipe = np.array(json.dumps(self.recipe, sort_keys=True))
        write_beside(path, lambda partial: np.savez_compressed(partial, recipe=recipe, **arrays))

    @classmethod
    def load(cls, path: Path) -> RunResult:
        """Raises DataError for a missing or damaged file."""
        if not path.is_file():
            raise DataError(f"the result {path} is missing: this run is not finished; train it without --tables-only")
        try:
            # Opened here, because numpy leaves a damaged file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                recipe = json.loads(kept["recipe"].item())
                return cls({k: kept[k].astype(np.float32) for k in kept.files if k != "recipe"}, recipe)
        # What numpy raises of a cut or altered file depends on where it is hit.
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{path} cannot be read as the result of a run; delete it to train again: {error}"
            ) from None


def read_comparison(path: Path, settings: Mapping[str, object] | None = None) -> Comparison:
    """Read a comparison: ``seeds``, the table ``[common]`` of recipe keys, and ``[methods.<name>]`` tables over it.

    With ``against = "<name>"`` all methods are compared with that one instead of single-task models.

    Args:
        path: the TOML file.
        settings: recipe keys that override those of every method.

    Raises:
        ConfigError: a missing file, an unknown key, a value that cannot work, or no baseline for a task.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the comparison {path} cannot be read: {error}") from None
    against = values.pop("against", "")
    if set(values) != {"seeds", "common", "methods"}:
        raise ConfigError(
            f"{path} must have the keys seeds, common, methods, and may have against; it has {sorted(values)}"
        )
    seeds, common, tables = values["seeds"], values["common"], values["methods"]
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        raise ConfigError(f"{path}: seeds must be a list of one or more numbers from 0 up, found {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: each seed once, found {seeds}: a run counted twice would make intervals too narrow")
    given = [common, tables, *(tables.values() if isinstance(tables, dict) else ())]
    if not tables or not all(isinstance(table, dict) for table in given):
        raise ConfigError(f"{path} must have a table [common] and at least one table [methods.<name>]")
    methods = {
        name: recipe_from_dict({**common, **changes, **(settings or {}), "name": name})
        for name, changes in tables.items()
    }
    if len({recipe.data for recipe in methods.values()}) > 1:
        raise ConfigError(f"{path}: all methods must have the same data, or their errors cannot be compared")
    if against and against not in methods:
        raise ConfigError(f"{path}: against = {against!r} is none of the methods {', '.join(methods)}")
    comparison = Comparison(path.stem, methods, tuple(seeds), against)
    for method in methods:
        for task in comparison.judged_tasks(method):
            comparison.baseline(task)  # said now, not after hours of training
    return comparison


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
        jobs: processes, at least 1.

    Raises:
        ConfigError: ``results`` or ``runs`` holds a run of another recipe.
        DataError: a damaged result, or data that lack a label.
    """
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1, found {jobs}")
    todo = []
    for seed in comparison.seeds:
        for name in comparison.methods:
            if all(result_path(results, name, seed, split).is_file() for split in SPLITS):
                for split in SPLITS:
                    load_result(comparison, results, name, seed, split)
            else:
                todo.append((name, seed))
    if not todo:
        return
    first = comparison.methods[todo[0][0]]
    training_data(first, cache, root)  # cut once, before several processes want it
    tasks = (
        joblib.delayed(_run_one)(comparison.run_recipe(name, seed), runs / name / f"seed{seed}", results, cache, root)
        for name, seed in todo
    )
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    for _ in tqdm(parallel(tasks), total=len(todo), desc=comparison.name, unit="run"):
        pass


def result_path(results: Path, method: str, seed: int, split: str) -> Path:
    """Where the result of one run on one split is kept."""
    return results / f"{method}.seed{seed}.{split}.npz"


def load_result(comparison: Comparison, results: Path, method: str, seed: int, split: str) -> RunResult:
    """The kept result of one run.

    Raises:
        DataError: missing or damaged.
        ConfigError: it is of another recipe than the comparison's; names the keys that differ.
    """
    path = result_path(results, method, seed, split)
    result = RunResult.load(path)
    # Read as a recipe, so that a key that is younger than the result has its default.
    made, wanted = recipe_from_dict(result.recipe).to_dict(), comparison.run_recipe(method, seed).to_dict()
    differ = [key for key in wanted if made[key] != wanted[key]]
    if differ:
        raise ConfigError(
            f"{path} was made with other values of {', '.join(differ)}; use another --results, or delete it"
        )
    return result


def load_errors(comparison: Comparison, results: Path, split: str) -> dict[str, dict[str, np.ndarray]]:
    """method -> task -> (S, N) errors, seeds in their order.

    Raises:
        DataError, ConfigError: as :func:`load_result`, or results about different faces.
    """
    loaded = {
        name: [load_result(comparison, results, name, seed, split).errors for seed in comparison.seeds]
        for name in comparison.methods
    }
    faces = {len(values) for runs in loaded.values() for run in runs for values in run.values()}
    if len(faces) > 1:
        raise DataError(f"the {split} results in {results} are about {sorted(faces)} faces: they are of different data")
    return {name: {task: np.stack([run[task] for run in runs]) for task in runs[0]} for name, runs in loaded.items()}


def training_data(recipe: Recipe, cache: Path, root: Path | None) -> TrainingData:
    """The data of a recipe, for the colour that its backbone wants."""
    model = recipe.create_model()
    return TrainingData.read(recipe, model.backbone.channels, cache, root, progress=False)


def _run_one(recipe: Recipe, out: Path, results: Path, cache: Path, root: Path | None) -> None:
    train(recipe, training_data(recipe, cache, root), out, device="auto", progress=False)
    for split in SPLITS:
        samples, images, boxes = _pictures(recipe.data, split, root)
        result = replace(evaluate_run(out / MODEL, samples, images, boxes), recipe=recipe.to_dict())
        result.save(result_path(results, recipe.name, recipe.seed, split))


@lru_cache(maxsize=len(SPLITS))
def _pictures(data: str, split: str, root: Path | None) -> tuple[list[FaceSample], list[np.ndarray], list[np.ndarray]]:
    """Samples, decoded images and boxes of a split: the set's own boxes where it has them, else those of the points."""
    samples = read_split(data, split, data_root(data, root))
    boxes = [s.box if s.box is not None else face_box(s) for s in samples]
    return samples, [read_image(s.image) for s in samples], boxes


def evaluate_run(
    model: Path, samples: Sequence[FaceSample], images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]
) -> RunResult:
    """Errors of one model on one crop a face, neither flipped nor refined: every method is judged on the same crops.

    Tasks that the faces' data set does not know, angles and points of further schemas, are not judged.

    Raises:
        DataError: a face without a label or point that the model is to be judged by.
    """
    predict = Predictor(TorchSession.load(model), passes=1, flip=False)
    faces = [face for found in predict.batch(images, [box[None] for box in boxes]) for face in found]
    errors: dict[str, np.ndarray] = {}
    for task in predict.tasks:
        if task not in (POINTS, *ATTRIBUTES):
            continue
        if task == POINTS:
            truth = np.stack([s.points for s in samples])
            errors[task] = nme(np.stack([f.landmarks for f in faces]), truth, SCHEMAS[predict.schema].eye_pair)
            unknown = np.isnan(truth).any(axis=(1, 2)) | ~np.isfinite(errors[task])
        else:
            truth = np.array([s.labels.get(task, MISSING) for s in samples])
            errors[task] = truth != [ATTRIBUTES[task].index(f.attributes[task].label) for f in faces]
            unknown = truth == MISSING
        if unknown.any():
            raise DataError(f"{samples[unknown.argmax()].source}: {task} is not labelled; every face judged needs it")
    return RunResult({task: np.float32(values) for task, values in errors.items()})
