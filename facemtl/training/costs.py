"""What a step of a method costs beside plain summing: time and memory, measured side by side in the same process."""

from __future__ import annotations

import json
import time
import weakref
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from facemtl.errors import DataError
from facemtl.files import write_beside
from facemtl.models.session import resolve_device
from facemtl.training.batches import Batch
from facemtl.training.engine import Run
from facemtl.training.recipe import Recipe
from facemtl.training.training_data import TrainingData

ROUNDS = 3  # of each, in turn, after one to warm up
# What makes a recipe one of plain summing on hard sharing: the same tasks, network and batch.
PLAIN = {
    **{"weighing": "fixed", "weighing_options": {}, "early_stopping": False},
    **{"sharing": "hard", "sharing_options": {}, "cascade": {}, "cascade_gradients": False},
    **{"periods": {}, "joins": {}, "leaves": {}},
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one training step, batch and crops given.

    Attributes:
        seconds, plain_seconds: the median of a few steps, of the method and of plain summing, taken in turn.
        bytes, plain_bytes: the most memory that tensors took beyond what was there before the step.
        parameters, plain_parameters: numbers that are trained.
    """

    seconds: float
    plain_seconds: float
    bytes: int
    plain_bytes: int
    parameters: int
    plain_parameters: int

    def save(self, path: Path) -> None:
        text = json.dumps(asdict(self), indent=1) + "\n"
        write_beside(path, lambda partial: partial.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: Path) -> Cost:
        """Raises DataError for a damaged file."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} cannot be read as the cost of a run; delete it: {error}") from None


def plain(recipe: Recipe) -> Recipe:
    """Plain summing of the same tasks on the same network."""
    return replace(recipe, **PLAIN)


def measure(recipe: Recipe, data: TrainingData, out: Path, device: str = "auto") -> Cost:
    """Measure steps of a recipe and of plain summing; nothing is written, ``out`` is where a run would write.

    CPU time where there is no GPU, so that what else the machine does counts for little.
    """
    where = resolve_device(device)
    torch.set_num_threads(recipe.threads)
    pair = [Run(one, data, out, where) for one in (recipe, plain(recipe))]
    batch = pair[0].dataset[0].to(where)
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(1 + ROUNDS):
        for run, kept in zip(pair, seconds, strict=True):
            started = _clock(where)
            run.step(batch)
            if number:
                kept.append(_clock(where) - started)
    peaks = [_peak(run, batch, where) for run in pair]
    sizes = [sum(p.numel() for p in run.model.parameters() if p.requires_grad) for run in pair]
    return Cost(median(seconds[0]), median(seconds[1]), peaks[0], peaks[1], sizes[0], sizes[1])


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def _peak(run: Run, batch: Batch, device: torch.device) -> int:
    """Bytes that one step takes at most, beyond what is there before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run.step(batch)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _Counted() as counted:
        run.step(batch)
    return counted.most


class _Counted(TorchDispatchMode):
    """Within, counts the bytes of the tensors that live at the same time and were made within."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        results = function(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for made in tree_leaves(results):
            # What shares memory with something given is a view of it, or it changed in place.
            if isinstance(made, torch.Tensor) and made.untyped_storage()._cdata not in given:
                self._add(made.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._seen:
            return

        def gone(_: weakref.ref) -> None:
            self.now -= size
            del self._seen[place]

        self._seen[place] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)
