"""The runs of a comparison: every one trained once, judged once, and kept as small files."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from facemtl.data.sample import MISSING, FaceSample, face_box
from facemtl.data.sets import data_root, read_split
from facemtl.errors import ConfigError, DataError
from facemtl.face import ATTRIBUTES
from facemtl.files import make_folder, write_beside
from facemtl.image import read_image
from facemtl.landmarks import POINTS, SCHEMAS
from facemtl.models.session import TorchSession
from facemtl.predictor import Predictor
from facemtl.training.comparison import Comparison
from facemtl.training.costs import Cost, measure
from facemtl.training.engine import MODEL, train
from facemtl.training.metrics import nme
from facemtl.training.placing import check_placing, place
from facemtl.training.recipe import Recipe, recipe_from_dict
from facemtl.training.training_data import TrainingData

# Keys that change nothing about what is read: runs that differ in them alone share it.
NOT_READ = (
    *("name", "seed", "epochs", "warmup_epochs", "learning_rate", "snapshots", "affinity"),
    *("weights", "weighing", "weighing_options", "early_stopping", "sharing", "sharing_options"),
    *("cascade", "cascade_gradients"),
)


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


def run_comparison(
    comparison: Comparison,
    runs: Path,
    results: Path,
    cache: Path,
    root: Path | None = None,
    jobs: int = 1,
    engine: str = "local",
) -> None:
    """Train and evaluate what has no result yet; the results do not depend on where trainings run.

    Args:
        comparison: what to run.
        runs: where trainings are kept; an interrupted one is continued.
        results: ``<method>.seed<k>.<split>.npz``, a few KB each, and ``<method>.seed<k>.cost.json``.
        cache: where patches are kept.
        root: folder of the data set.
        jobs, engine: trainings at a time, and where, see :func:`facemtl.training.placing.place`.

    Raises:
        ConfigError, DependencyError: as there; or ``results`` or ``runs`` holds a run of another recipe.
        DataError: a damaged result, or data that lack a label.
        OutputError: ``results``, ``runs`` or ``cache`` cannot be written.
    """
    check_placing(jobs, engine)
    todo = unfinished(comparison, results)
    if not todo:
        return
    make_folder(results)  # said now, not after hours of training
    runs, results, cache = runs.resolve(), results.resolve(), cache.resolve()  # for processes that run elsewhere
    calls = [
        partial(
            _run_one,
            comparison.run_recipe(name, seed),
            comparison.splits,
            runs / name / f"seed{seed}",
            results,
            cache,
            root and root.resolve(),
        )
        for name, seed in todo
    ]
    ends = place(calls, jobs, engine)
    training_data(comparison.methods[todo[0][0]], cache, root)  # cut once, before several processes want it
    for _ in tqdm(ends, total=len(calls), desc=comparison.name, unit="run"):
        pass


def unfinished(comparison: Comparison, results: Path) -> list[tuple[str, int]]:
    """Method and seed of the runs without a result, all methods with the first seed first.

    Raises:
        ConfigError, DataError: as :func:`load_result`, of those that have one.
    """
    seeds = [*comparison.seeds, *sorted({s for more in comparison.more_seeds.values() for s in more})]
    todo = []
    for seed in seeds:
        for name in comparison.methods:
            if seed not in comparison.seeds_of(name):
                continue
            if all(result_path(results, name, seed, split).is_file() for split in comparison.splits):
                for split in comparison.splits:
                    load_result(comparison, results, name, seed, split)
            else:
                todo.append((name, seed))
    return todo


def result_path(results: Path, method: str, seed: int, split: str) -> Path:
    """Where the result of one run on one split is kept."""
    return results / f"{method}.seed{seed}.{split}.npz"


def cost_path(results: Path, method: str, seed: int) -> Path:
    """Where the cost of the steps of one run is kept."""
    return results / f"{method}.seed{seed}.cost.json"


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
    """method -> task -> (S, N) errors, seeds in their order; S is the method's own number of seeds.

    Raises:
        DataError, ConfigError: as :func:`load_result`, or results about different faces.
    """
    loaded = {
        name: [load_result(comparison, results, name, seed, split).errors for seed in comparison.seeds_of(name)]
        for name in comparison.methods
    }
    faces = {len(values) for runs in loaded.values() for run in runs for values in run.values()}
    if len(faces) > 1:
        raise DataError(f"the {split} results in {results} are about {sorted(faces)} faces: they are of different data")
    return {name: {task: np.stack([run[task] for run in runs]) for task in runs[0]} for name, runs in loaded.items()}


def load_costs(comparison: Comparison, results: Path) -> dict[str, list[Cost]]:
    """method -> cost of its runs, as far as they were measured.

    Raises:
        DataError: a damaged file.
    """
    paths = {
        name: [cost_path(results, name, seed) for seed in comparison.seeds_of(name)] for name in comparison.methods
    }
    return {name: [Cost.load(path) for path in some if path.is_file()] for name, some in paths.items()}


def training_data(recipe: Recipe, cache: Path, root: Path | None) -> TrainingData:
    """The data of a recipe, for the colour that its backbone wants."""
    alike = {key: value for key, value in recipe.to_dict().items() if key not in NOT_READ}
    channels = recipe.create_model().backbone.channels
    return _training_data(json.dumps(alike, sort_keys=True), channels, cache, root)


@lru_cache(maxsize=3)
def _training_data(keys: str, channels: int, cache: Path, root: Path | None) -> TrainingData:
    recipe = recipe_from_dict({**json.loads(keys), "name": "any"})
    return TrainingData.read(recipe, channels, cache, root, progress=False)


def _run_one(
    recipe: Recipe,
    splits: Sequence[str],
    out: Path,
    results: Path,
    cache: Path,
    root: Path | None,
) -> None:
    data = training_data(recipe, cache, root)
    train(recipe, data, out, device="auto", progress=False)
    if splits[-1] == "test":  # not of trials
        measure(recipe, data, out).save(cost_path(results, recipe.name, recipe.seed))
    for split in splits:
        samples, images, boxes = _pictures(recipe.data, split, root)
        result = replace(evaluate_run(out / MODEL, samples, images, boxes), recipe=recipe.to_dict())
        result.save(result_path(results, recipe.name, recipe.seed, split))


@lru_cache(maxsize=2)
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
        check_labels(samples, task, predict.schema)
        if task == POINTS:
            truth = np.stack([s.points for s in samples])
            errors[task] = nme(np.stack([f.landmarks for f in faces]), truth, SCHEMAS[predict.schema].eye_pair)
        else:
            truth = np.array([s.labels[task] for s in samples])
            errors[task] = truth != [ATTRIBUTES[task].index(f.attributes[task].label) for f in faces]
    return RunResult({task: np.float32(values) for task, values in errors.items()})


def check_labels(samples: Sequence[FaceSample], task: str, schema: str) -> None:
    """Raise DataError unless every face has what a task is judged by."""
    for sample in samples:
        if task == POINTS:
            eyes = sample.points[list(SCHEMAS[sample.schema].eye_pair)]
            known = sample.schema == schema and np.isfinite(sample.points).all() and (eyes[0] != eyes[1]).any()
        else:
            known = sample.labels.get(task, MISSING) != MISSING
        if not known:
            raise DataError(f"{sample.source}: {task} is not labelled; every face judged needs it")
