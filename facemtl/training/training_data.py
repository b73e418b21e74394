"""The faces that a recipe trains on, read, cut into patches and checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facemtl.data.cache import CropCache, build_cache
from facemtl.data.sample import FaceSample
from facemtl.data.sets import data_root, read_split
from facemtl.errors import ConfigError, DataError
from facemtl.face import ANGLES_TASK
from facemtl.landmarks import POINTS, points_task
from facemtl.training.peer_points import with_peer_points
from facemtl.training.recipe import Recipe
from facemtl.training.robust import with_wrong_labels


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The faces a training reads, data set by data set, the main one first: to learn from, and only to look at."""

    train: Mapping[str, CropCache]
    heldout: Mapping[str, CropCache]

    @classmethod
    def read(
        cls, recipe: Recipe, channels: int, cache: Path, root: Path | None = None, progress: bool = True
    ) -> TrainingData:
        """Read and cut a recipe's data sets; ``cache`` is where patches are kept, ``root`` the main set's folder."""
        names = [recipe.data, *(name for name in recipe.mix if name != recipe.data)]
        roots = {name: data_root(name, root if name == recipe.data else None) for name in names}
        train, heldout = ({n: read_split(n, split, roots[n]) for n in names} for split in ("train", "heldout"))
        return cls.of(recipe, channels, cache, train, heldout, progress)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        channels: int,
        cache: Path,
        train: list[FaceSample] | Mapping[str, list[FaceSample]],
        heldout: list[FaceSample] | Mapping[str, list[FaceSample]],
        progress: bool = True,
    ) -> TrainingData:
        """The same from samples (a list is the main set), of which the recipe may use a share and shuffle labels."""
        sets = (part if isinstance(part, Mapping) else {recipe.data: part} for part in (train, heldout))
        train, heldout = ({recipe.data: [], **part} for part in sets)  # the main set first
        for part, sets in (("training", train), ("held-out", heldout)):
            _check_labels(recipe, part, sets)

        def cut(samples: list[FaceSample]) -> CropCache:
            return build_cache(samples, cache, recipe.patch_size, channels, progress)

        def taught(name: str, cache: CropCache) -> CropCache:
            if not recipe.peer_points:
                return cache
            path, tasks = Path(recipe.peer_points) / f"{name}.npz", recipe.taught or recipe.tasks
            return with_peer_points(cache, train[name], path, tasks, recipe.schema)

        used = {name: _used_rows(taught(name, cut(samples)), recipe) for name, samples in train.items()}
        if len(used[recipe.data]) < recipe.batch_size:
            raise DataError(f"{len(used[recipe.data])} training faces do not fill one batch of {recipe.batch_size}")
        return cls(used, {name: cut(samples) for name, samples in heldout.items()})


def _check_labels(recipe: Recipe, part: str, sets: Mapping[str, list[FaceSample]]) -> None:
    """Raise unless every task of the recipe has labels somewhere in the sets."""
    labelled: set[str] = set()
    for name, samples in sets.items():
        if not samples:
            raise DataError(f"there are no {part} faces in {name}")
        first = samples[0]
        if any(np.isfinite(s.points).any() for s in samples):
            labelled.add(POINTS if first.schema == recipe.schema else points_task(first.schema))
        if any(s.angles is not None and np.isfinite(s.angles).any() for s in samples):
            labelled.add(ANGLES_TASK)
        labelled |= set(first.labels)
    missing = [task for task in recipe.tasks if task not in labelled]
    if missing:
        raise ConfigError(
            f"the {part} data has no labels for {missing}, it has {sorted(labelled)}: leave them out of tasks, or add "
            "a data set that has them to mix"
        )


def _used_rows(patches: CropCache, recipe: Recipe) -> CropCache:
    """The share of a set that the recipe uses, with the labels shuffled or wrong that it wants so."""
    rng = np.random.default_rng(0)  # the same rows for every seed, so that seeds differ by training alone
    rows = np.sort(rng.permutation(len(patches))[: max(1, round(recipe.fraction * len(patches)))])
    used = patches if len(rows) == len(patches) else patches.subset(rows)
    labels = {
        task: rng.permutation(values) if task in recipe.shuffled_labels else values
        for task, values in used.labels.items()
    }
    return with_wrong_labels(replace(used, labels=labels), recipe.label_noise, recipe.schema)
