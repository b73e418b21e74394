"""Saved predictions: one row a face, with its truth, so that every figure can be computed again without the model.

Columns of the table (Parquet or CSV):

    schema                          landmark schema of the points, the same in every row
    image, group                    path as text (best relative to the data set's folder); part of the data set
    x1 y1 x2 y2                     the box that the network was given, image pixels; NaN where the face was not found
    true_<i>_x true_<i>_y           point i of the data set, image index coordinates; NaN where missing
    pred_<i>_x pred_<i>_y           point i as predicted; NaN in all points where the face was not found, or where the
                                    model gives no points
    <task>_true                     class index of the data set (order of ``ATTRIBUTES``); -1 where missing
    <task>_p<j>                     predicted probability of class j, only for the tasks that the model has
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from facemtl.data.sample import MISSING, FaceSample, face_box
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES, Face
from facemtl.files import write_beside
from facemtl.geometry import check_boxes
from facemtl.landmarks import SCHEMAS

if TYPE_CHECKING:
    from facemtl.predictor import Predictor

TEXT_COLUMNS = ("schema", "image", "group")
BOX_COLUMNS = ("x1", "y1", "x2", "y2")
# A detection that covers less of the true face box than this is a detection of something else.
MIN_IOU = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The predictions of one model on N faces, beside the truth.

    Attributes:
        schema: landmark schema of truth and predictions, a key of :data:`facemtl.landmarks.SCHEMAS`, with K points.
        tasks: predicted attribute -> its class labels, in the order of the probabilities.
        frame: N rows with the columns listed at the top of this module (without ``schema``).
    """

    schema: str
    tasks: Mapping[str, tuple[str, ...]]
    frame: pd.DataFrame

    @classmethod
    def from_arrays(
        cls,
        *,
        schema: str,
        images: Sequence[str],
        groups: Sequence[str],
        boxes: np.ndarray,
        truth: np.ndarray,
        points: np.ndarray,
        labels: Mapping[str, np.ndarray],
        probabilities: Mapping[str, np.ndarray],
    ) -> Predictions:
        """From arrays as the accessors return them: (N, 4) boxes, (N, K, 2) points, (N,) labels, (N, C) probabilities.

        ``labels`` may hold attributes that are not predicted: landmark errors are also told apart by them.
        """
        columns: dict[str, np.ndarray | list[str]] = {"image": list(images), "group": list(groups)}
        columns |= {name: np.asarray(boxes, dtype=np.float64)[:, i] for i, name in enumerate(BOX_COLUMNS)}
        for kind, array in (("true", truth), ("pred", points)):
            flat = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
            columns |= dict(zip(_point_columns(kind, schema), flat.T, strict=True))
        for task in ATTRIBUTES:
            if task in labels or task in probabilities:
                given = labels.get(task, np.full(len(truth), MISSING))
                columns[f"{task}_true"] = np.asarray(given, dtype=np.int64)
            if task in probabilities:
                array = np.asarray(probabilities[task], dtype=np.float64)
                columns |= dict(zip(_probability_columns(task), array.T, strict=True))
        tasks = {task: classes for task, classes in ATTRIBUTES.items() if task in probabilities}
        return cls(schema, tasks, pd.DataFrame(columns))

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what :meth:`save` wrote; the suffix tells the format.

        Raises:
            DataError: a file that cannot be read, an unknown suffix, missing columns, or values of the wrong kind.
        """
        path = Path(path)
        try:
            frame = _reader(path)(path)
        except (OSError, ValueError) as error:  # the errors of pandas and pyarrow derive from ValueError
            raise DataError(f"{path} cannot be read as a table of predictions: {error}") from None
        return _from_frame(frame, path)

    def save(self, path: str | Path) -> None:
        """Write a ``.parquet`` or ``.csv`` file; folders on the way are made.

        Raises:
            DataError: an unknown suffix.
        """
        path = Path(path)
        frame = self.frame.assign(schema=self.schema)
        if _suffix(path) == ".csv":
            write_beside(path, lambda partial: frame.to_csv(partial, index=False))
        else:
            write_beside(path, lambda partial: frame.to_parquet(partial, index=False))

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) float64 ``x1 y1 x2 y2``, image pixels; NaN where the face was not found."""
        return self._values(BOX_COLUMNS)

    @property
    def truth(self) -> np.ndarray:
        """(N, K, 2) float64 labelled points, image index coordinates; NaN where missing."""
        return self._values(_point_columns("true", self.schema)).reshape(len(self), -1, 2)

    @property
    def points(self) -> np.ndarray:
        """(N, K, 2) float64 predicted points, image index coordinates; NaN where the face was not found."""
        return self._values(_point_columns("pred", self.schema)).reshape(len(self), -1, 2)

    @property
    def halves(self) -> np.ndarray:
        """(N,) bool, two halves of the images: every other one in the order of their names, all rows of it together."""
        return np.unique(self.frame["image"].to_numpy(dtype=str), return_inverse=True)[1] % 2 == 0

    def labels(self, task: str) -> np.ndarray:
        """(N,) int64 true class of any attribute, predicted or not; -1 where missing."""
        if f"{task}_true" not in self.frame:
            return np.full(len(self), MISSING)
        return self.frame[f"{task}_true"].to_numpy(dtype=np.int64)

    def probabilities(self, task: str) -> np.ndarray:
        """(N, C) float64 predicted probabilities of a key of ``tasks``; NaN where the face was not found."""
        return self._values(_probability_columns(task))

    def _values(self, columns: Iterable[str]) -> np.ndarray:
        return self.frame[list(columns)].to_numpy(dtype=np.float64)


def predict_samples(
    predict: Predictor, samples: Sequence[FaceSample], boxes: np.ndarray | None = None, root: Path | None = None
) -> Predictions:
    """Run a predictor over labelled faces, one at a time, with a progress bar.

    Args:
        predict: its ``schema`` must be that of the samples.
        boxes: (N, 4) face boxes, image pixels. None is the whole pipeline: the predictor's own detector looks, and
            the detection that overlaps the true face most stands for it (:func:`face_of_sample`); a face without
            one is *not found* and keeps NaN.
        root: folder of the data set; images are then named relative to it.

    Raises:
        DataError: no samples, or samples of another schema than the predictor's.
        BoxError: as :func:`facemtl.geometry.check_boxes`.
    """
    others = {sample.schema for sample in samples} - {predict.schema}
    if others or not samples:
        found = f"samples of {', '.join(sorted(others))}" if others else "no samples"
        raise DataError(f"the predictor gives points of the schema {predict.schema}, but there are {found}")
    if boxes is not None:
        boxes = check_boxes(boxes)
        if len(boxes) != len(samples):
            raise DataError(f"{len(samples)} samples need as many boxes, got {len(boxes)}")
    faces: list[Face | None] = []
    for i, sample in enumerate(tqdm(samples, desc="predict", unit="face", disable=None)):
        if boxes is None:
            faces.append(face_of_sample(predict(sample.image), sample))
        else:
            faces.append(predict(sample.image, boxes=boxes[i : i + 1])[0])
    return _gather(predict.schema, samples, faces, root)


def face_of_sample(faces: Sequence[Face], sample: FaceSample) -> Face | None:
    """The detected face whose box overlaps :func:`face_box` most; None if none reaches an IoU of ``MIN_IOU``."""
    if not faces:
        return None
    overlaps = _iou(np.stack([face.box for face in faces]), face_box(sample))
    best = int(overlaps.argmax())
    return faces[best] if overlaps[best] >= MIN_IOU else None


def _gather(schema: str, samples: Sequence[FaceSample], faces: Sequence[Face | None], root: Path | None) -> Predictions:
    found = [face for face in faces if face is not None]
    tasks = [task for task in ATTRIBUTES if any(task in face.attributes for face in found)]
    known = [task for task in ATTRIBUTES if any(task in sample.labels for sample in samples)]
    nowhere = np.full((len(SCHEMAS[schema]), 2), np.nan)

    def probabilities(task: str, face: Face | None) -> list[float]:
        classes = ATTRIBUTES[task]
        return [np.nan if face is None else face.attributes[task].probabilities[label] for label in classes]

    return Predictions.from_arrays(
        schema=schema,
        images=[(s.image.relative_to(root) if root else s.image).as_posix() for s in samples],
        groups=[sample.group for sample in samples],
        boxes=np.stack([np.full(4, np.nan) if face is None else face.box for face in faces]),
        truth=np.stack([sample.points for sample in samples]),
        points=np.stack([face.landmarks if face and len(face.landmarks) else nowhere for face in faces]),
        labels={task: np.array([sample.labels.get(task, MISSING) for sample in samples]) for task in known},
        probabilities={task: np.array([probabilities(task, face) for face in faces]) for task in tasks},
    )


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(M, 4) boxes against one (4,) -> (M,) intersection over union."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    return shared / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared)


def _point_columns(kind: str, schema: str) -> list[str]:
    return [f"{kind}_{i}_{axis}" for i in range(len(SCHEMAS[schema])) for axis in "xy"]


def _probability_columns(task: str) -> list[str]:
    return [f"{task}_p{j}" for j in range(len(ATTRIBUTES[task]))]


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise DataError(f"predictions are kept in .parquet or .csv files, not in {path.name!r}")
    return suffix


def _reader(path: Path) -> Callable[[Path], pd.DataFrame]:
    return _read_csv if _suffix(path) == ".csv" else pd.read_parquet


def _read_csv(path: Path) -> pd.DataFrame:
    # Only an empty field is missing: a folder may be named "NA".
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXT_COLUMNS, str))
    return frame.fillna(dict.fromkeys(TEXT_COLUMNS, ""))


def _from_frame(frame: pd.DataFrame, path: Path) -> Predictions:
    names = frame["schema"].unique().tolist() if "schema" in frame else []
    if len(names) != 1 or names[0] not in SCHEMAS:
        found = f"it holds {', '.join(map(str, names))}" if names else "it is missing or empty"
        raise DataError(f"{path}: the column schema must be one of {', '.join(SCHEMAS)} in every row, but {found}")
    schema = names[0]
    tasks = {task: classes for task, classes in ATTRIBUTES.items() if f"{task}_p0" in frame}
    labelled = [f"{task}_true" for task in ATTRIBUTES if task in tasks or f"{task}_true" in frame]
    numbers = [*BOX_COLUMNS, *_point_columns("true", schema), *_point_columns("pred", schema), *labelled]
    numbers += [column for task in tasks for column in _probability_columns(task)]
    columns = ["image", "group", *numbers]
    if missing := [column for column in columns if column not in frame]:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise DataError(f"{path} is no table of predictions of the schema {schema}: it lacks {shown}")
    if texts := [column for column in numbers if not pd.api.types.is_numeric_dtype(frame[column])]:
        raise DataError(f"{path}: the columns {', '.join(texts[:10])} must hold numbers")
    for column in labelled:
        count = len(ATTRIBUTES[column.removesuffix("_true")])
        if bad := sorted(set(frame[column]) - set(range(MISSING, count)), key=str):
            raise DataError(f"{path}: {column} must be a class index 0 to {count - 1} or -1; found {bad[:5]}")
    return Predictions(schema, tasks, frame.drop(columns="schema"))
