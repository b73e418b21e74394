"""What a process does: the rows of one part after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

import facemtl
from facemtl.annotate.inputs import Item
from facemtl.annotate.pictures import Pictures
from facemtl.annotate.plan import Plan
from facemtl.annotate.rows import row_of, write_rows
from facemtl.errors import FaceMTLError, ModelError
from facemtl.face import Face
from facemtl.predictor import Predictor
from facemtl.weights import DEFAULT_MODEL, find_model

BATCH_PIXELS = 32_000_000  # pixels of pictures in memory at once, where a single one has no more


@dataclass(frozen=True, slots=True)
class PredictorOptions:
    """Opens the same predictor in any process: safe to send there.

    Attributes:
        model, device, threads, tasks, schema, passes, flip: as :class:`facemtl.predictor.Predictor` has them.
        sha256: what the model file must be, so that no process uses another that took its place; see :meth:`pinned`.
    """

    model: str = DEFAULT_MODEL
    device: str = "cpu"
    threads: int = 1
    tasks: tuple[str, ...] | None = None
    schema: str | None = None
    passes: int | None = None
    flip: bool | None = None
    sha256: str | None = None

    def __call__(self) -> Predictor:
        """The predictor; OpenCV gets as many threads as the network, in the whole process.

        Raises:
            ModelError: an unknown model, or not the one that was pinned.
        """
        cv2.setNumThreads(self.threads)
        predict = Predictor(**{name: value for name, value in asdict(self).items() if name != "sha256"})
        if self.sha256 is not None and self._digest() != self.sha256:  # after it was opened: it may change meanwhile
            raise ModelError(f"the file of {self.model} has changed since the annotation began")
        return predict

    def pinned(self) -> PredictorOptions:
        """The same, with the model file as it is now.

        Raises:
            ModelError: an unknown model.
        """
        return replace(self, sha256=self._digest())

    def _digest(self) -> str:
        return sha256(find_model(self.model).read_bytes()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """All that decides what it says, plain values; of :meth:`pinned` options."""
        versions = {"facemtl": facemtl.__version__, "onnxruntime": onnxruntime.__version__, "opencv": cv2.__version__}
        return {**asdict(self), "versions": versions}


class Annotator:
    """Makes the parts of a plan.

    Args:
        plan: the plan.
        open_predictor: opens the predictor.
    """

    def __init__(self, plan: Plan, open_predictor: Callable[[], Predictor]) -> None:
        self._plan = plan
        self._predict = open_predictor()
        _ = self._predict.detector  # if it cannot be opened, no picture is to blame
        self._pictures = Pictures(Path(plan.settings["base"]))

    def make(self, part: int, done: Callable[[int], None] = lambda count: None) -> None:
        """Write the rows of a part; ``done`` hears how many inputs each batch had."""
        rows: list[dict[str, Any]] = []
        for batch in self.rows(*self._plan.items(part)):
            rows += batch
            done(len(batch))
        write_rows(self._plan.path(part), rows)

    def rows(self, first: int, items: list[Item]) -> Iterator[list[dict[str, Any]]]:
        """Rows of inputs that follow one another, a batch at a time.

        They are the same whoever makes those of the other inputs, if these begin at a batch of their part.

        Args:
            first: index of the first input.
            items: the inputs.
        """
        size = self._plan.settings["batch"]
        for start in range(0, len(items), size):
            rows: list[dict[str, Any]] = []
            for batch in self._batches(items[start : start + size]):
                pictures = [picture for _, picture, _, error in batch if error is None]
                results = iter(self._describe(pictures))
                for item, picture, time, error in batch:
                    faces: list[Face] = []
                    if error is None:
                        faces, error = next(results)
                    extent = None if picture is None else (picture.shape[1], picture.shape[0])
                    rows.append(row_of(first + start + len(rows), item, extent, time, faces, error))
            yield rows

    def _batches(self, items: list[Item]) -> Iterator[list[tuple[Item, np.ndarray | None, float | None, str | None]]]:
        """A batch of items with picture and time, or the reason why there is none; large ones in several parts."""
        batch, pixels = [], 0
        for item in items:
            picture = time = error = None
            try:
                picture, time = self._pictures.read(item)
                pixels += picture.shape[0] * picture.shape[1]
            except FaceMTLError as reason:
                error = str(reason)
            batch.append((item, picture, time, error))
            if pixels >= BATCH_PIXELS:
                yield batch
                batch, pixels = [], 0
        if batch:
            yield batch

    def _describe(self, pictures: list[np.ndarray]) -> list[tuple[list[Face], str | None]]:
        """The faces of each picture, or why there are none to tell: one bad picture does not spoil the others."""
        try:
            return [(faces, None) for faces in self._predict.batch(pictures)]
        except Exception as error:  # whatever a detector or network of the user's own raises
            if len(pictures) > 1:
                return [result for picture in pictures for result in self._describe([picture])]
            return [([], f"cannot be described: {type(error).__name__}: {error}")]


def settings_of(
    options: Mapping[str, Any], inputs: list[str], base: Path, column: str, format: str, part_size: int, batch: int
) -> dict[str, Any]:
    """The settings of a plan.

    Args:
        options: what decides what the predictor says.
        inputs, base, column: as :func:`facemtl.annotate.inputs.find_items`.
        format: of :data:`facemtl.annotate.rows.FORMATS`.
        part_size: inputs a part.
        batch: pictures that go to the network at once.
    """
    return {
        "inputs": inputs,
        "base": str(base),
        "column": column,
        "format": format,
        "part_size": part_size,
        "batch": batch,
        "predictor": dict(options),
    }
