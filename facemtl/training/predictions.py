"""Saved predictions: one row a face, with its truth, so that every figure can be computed again without the model.

The columns are listed in :mod:`facemtl.training.prediction_columns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from facemtl.data.sample import MISSING, FaceSample, face_box
from facemtl.errors import DataError
from facemtl.face import ANGLES, ANGLES_TASK, ATTRIBUTES, Face
from facemtl.files import write_beside
from facemtl.geometry import check_boxes
from facemtl.landmarks import SCHEMAS
from facemtl.shared_points import SharedPoints
from facemtl.training.prediction_columns import (
    BOX_COLUMNS,
    ORIGINS,
    PREDICTED_ANGLES,
    STRATUM,
    TRUE_ANGLES,
    point_columns,
    probability_columns,
    read_table,
    sigma_columns,
    table_suffix,
)

if TYPE_CHECKING:
    from facemtl.predictor import Predictor

BOX_KINDS = ("published", "truth", "detector")
# A detection that covers less of the true face box than this is a detection of something else.
MIN_IOU = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The predictions of one model on N faces, beside the truth.

    Attributes:
        schema: landmark schema of truth and predictions, a key of :data:`facemtl.landmarks.SCHEMAS`, with K points.
        tasks: predicted attribute -> its class labels, in the order of the probabilities.
        frame: N rows with the columns of :mod:`facemtl.training.prediction_columns` (without ``schema``).
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
        chosen: Mapping[str, np.ndarray] | None = None,
        sigma: np.ndarray | None = None,
        angles: np.ndarray | None = None,
        true_angles: np.ndarray | None = None,
        strata: Mapping[str, Sequence[str]] | None = None,
    ) -> Predictions:
        """From arrays as the accessors return them: (N, 4) boxes, (N, K, 2) points, (N,) labels, (N, C) probabilities,
        (N,) chosen classes, (N, K) sigma, (N, 3) angles, (N,) strata; None leaves the columns out.

        ``labels`` may hold attributes that are not predicted: landmark errors are also told apart by them.
        """
        columns: dict[str, np.ndarray | list[str]] = {"image": list(images), "group": list(groups)}
        columns |= {name: np.asarray(boxes, dtype=np.float64)[:, i] for i, name in enumerate(BOX_COLUMNS)}
        for kind, array in (("true", truth), ("pred", points)):
            flat = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
            columns |= dict(zip(point_columns(kind, schema), flat.T, strict=True))
        for task in ATTRIBUTES:
            if task in labels or task in probabilities:
                given = labels.get(task, np.full(len(truth), MISSING))
                columns[f"{task}_true"] = np.asarray(given, dtype=np.int64)
            if task in probabilities:
                array = np.asarray(probabilities[task], dtype=np.float64)
                columns |= dict(zip(probability_columns(task), array.T, strict=True))
            if task in (chosen or {}):
                columns[f"{task}_chosen"] = np.asarray(chosen[task], dtype=np.int64)
        further = ((sigma, sigma_columns(schema)), (true_angles, TRUE_ANGLES), (angles, PREDICTED_ANGLES))
        for array, names in further:
            if array is not None:
                columns |= dict(zip(names, np.asarray(array, dtype=np.float64).T, strict=True))
        columns |= {f"{STRATUM}{name}": list(parts) for name, parts in (strata or {}).items()}
        tasks = {task: classes for task, classes in ATTRIBUTES.items() if task in probabilities}
        return cls(schema, tasks, pd.DataFrame(columns))

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what :meth:`save` wrote; the suffix tells the format.

        Raises:
            DataError: a file that cannot be read, an unknown suffix, missing columns, or values of the wrong kind.
        """
        path = Path(path)
        return cls(*read_table(path))

    def save(self, path: str | Path) -> None:
        """Write a ``.parquet`` or ``.csv`` file; folders on the way are made.

        Raises:
            DataError: an unknown suffix.
        """
        path = Path(path)
        frame = self.frame.assign(schema=self.schema)
        if table_suffix(path) == ".csv":
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
        return self._values(point_columns("true", self.schema)).reshape(len(self), -1, 2)

    @property
    def points(self) -> np.ndarray:
        """(N, K, 2) float64 predicted points, image index coordinates; NaN where the face was not found."""
        return self._values(point_columns("pred", self.schema)).reshape(len(self), -1, 2)

    @property
    def origins(self) -> tuple[str, str] | None:
        """The landmark schemas of set and model, where what they have in common is judged; None where it is one."""
        return tuple(self.frame[column].iloc[0] for column in ORIGINS) if ORIGINS[0] in self.frame else None

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
        return self._values(probability_columns(task))

    def chosen(self, task: str) -> np.ndarray:
        """(N,) int64 predicted class of a key of ``tasks``; -1 where the face was not found."""
        if f"{task}_chosen" in self.frame:
            return self.frame[f"{task}_chosen"].to_numpy(dtype=np.int64)
        shares = self.probabilities(task)
        found = np.isfinite(shares).all(axis=1)
        return np.where(found, np.where(found[:, None], shares, 0.0).argmax(axis=1), MISSING)

    @property
    def sigma(self) -> np.ndarray | None:
        """(N, K) float64 predicted standard deviation of each point, image pixels; NaN where the face was not found.

        None where the model gives none.
        """
        columns = sigma_columns(self.schema)
        return self._values(columns) if columns[0] in self.frame else None

    @property
    def angles(self) -> np.ndarray | None:
        """(N, 3) float64 predicted yaw, pitch and roll, degrees; None where the model gives none."""
        return self._values(PREDICTED_ANGLES) if PREDICTED_ANGLES[0] in self.frame else None

    @property
    def true_angles(self) -> np.ndarray | None:
        """(N, 3) float64 labelled yaw, pitch and roll, degrees, NaN where missing; None where the set gives none."""
        return self._values(TRUE_ANGLES) if TRUE_ANGLES[0] in self.frame else None

    @property
    def strata(self) -> dict[str, np.ndarray]:
        """Name -> (N,) text, the part of the set that each face belongs to; empty where unknown."""
        columns = [column for column in self.frame if column.startswith(STRATUM)]
        return {column.removeprefix(STRATUM): self.frame[column].to_numpy(dtype=str) for column in columns}

    def _values(self, columns: Iterable[str]) -> np.ndarray:
        return self.frame[list(columns)].to_numpy(dtype=np.float64)


def face_boxes(samples: Sequence[FaceSample], kind: str) -> np.ndarray | None:
    """(N, 4) face boxes in image pixels: those that come with the set (``published``) or around the true points, the
    set's own where there are none (``truth``); None, ``detector``, lets the predictor look.

    Raises:
        DataError: an unknown kind, or samples without such a box.
    """
    if kind not in BOX_KINDS:
        raise DataError(f"unknown boxes {kind!r}; known: {', '.join(BOX_KINDS)}")
    if kind == "detector":
        return None
    if kind == "truth":
        return np.stack([face_box(sample) for sample in samples])
    without = [sample.source for sample in samples if sample.box is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(samples)} faces have no published box, such as {without[0]}: "
            "use --boxes truth or --boxes detector"
        )
    return np.stack([sample.box for sample in samples])


def labelled_tasks(samples: Sequence[FaceSample]) -> set[str]:
    """The attributes that some sample is labelled with, and ``angles`` where one has any."""
    tasks = {task for sample in samples for task, label in sample.labels.items() if label != MISSING}
    return tasks | ({ANGLES_TASK} if any(sample.angles is not None for sample in samples) else set())


def predict_samples(
    predict: Predictor,
    samples: Sequence[FaceSample],
    boxes: np.ndarray | None = None,
    root: Path | None = None,
    shared: SharedPoints | None = None,
) -> Predictions:
    """Run a predictor over labelled faces, one at a time, with a progress bar.

    Args:
        predict: where its ``schema`` is not that of the samples, it is judged by attributes and angles alone, and its
            points are NaN.
        boxes: (N, 4) face boxes, image pixels. None is the whole pipeline: the predictor's own detector looks, and
            the detection that overlaps the true face most stands for it (:func:`face_of_sample`); a face without
            one is *not found* and keeps NaN.
        root: folder of the data set; images are then named relative to it.
        shared: turn the points of both sides into what they share (:func:`facemtl.shared_points.shared_points`).

    Raises:
        DataError: no samples, samples of several schemas, or nothing that the samples label and the predictor gives.
        BoxError: as :func:`facemtl.geometry.check_boxes`.
    """
    schemas = sorted({sample.schema for sample in samples})
    if len(schemas) != 1:
        raise DataError(f"samples of one schema are needed; got {', '.join(schemas) or 'no samples'}")
    if shared is None and schemas[0] != predict.schema and not labelled_tasks(samples) & set(predict.tasks):
        raise DataError(
            f"the predictor gives points of the schema {predict.schema}, but there are samples of {schemas[0]}, "
            "and they label nothing else that it gives"
        )
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
    if shared is None:
        return _gather(samples, faces, root)
    common = [replace(s, points=np.float32(shared.of_set(s.points)), schema=shared.schema) for s in samples]
    found = _gather(common, [None if face is None else shared.face(face) for face in faces], root)
    return replace(found, frame=found.frame.assign(**dict(zip(ORIGINS, (schemas[0], predict.schema), strict=True))))


def face_of_sample(faces: Sequence[Face], sample: FaceSample) -> Face | None:
    """The detected face whose box overlaps :func:`face_box` most; None if none reaches an IoU of ``MIN_IOU``."""
    if not faces:
        return None
    overlaps = _iou(np.stack([face.box for face in faces]), face_box(sample))
    best = int(overlaps.argmax())
    return faces[best] if overlaps[best] >= MIN_IOU else None


def _gather(samples: Sequence[FaceSample], faces: Sequence[Face | None], root: Path | None) -> Predictions:
    found = [face for face in faces if face is not None]
    schema = samples[0].schema
    pointed = [face is not None and face.schema == schema and len(face.landmarks) > 0 for face in faces]
    known = [task for task in ATTRIBUTES if any(task in sample.labels for sample in samples)]
    nowhere = np.full((len(SCHEMAS[schema]), 2), np.nan)
    unknown = np.full(3, np.nan)

    def probabilities(task: str, face: Face | None) -> list[float]:
        classes = ATTRIBUTES[task]
        return [np.nan if face is None else face.attributes[task].probabilities[label] for label in classes]

    predicted = [task for task in ATTRIBUTES if any(task in face.attributes for face in found)]
    shares = {task: np.array([probabilities(task, face) for face in faces]) for task in predicted}
    chosen = {
        task: np.array([MISSING if f is None else ATTRIBUTES[task].index(f.attributes[task].label) for f in faces])
        for task in predicted
    }

    sigma = angles = true_angles = None
    if any(given and face.landmark_sigma is not None for face, given in zip(faces, pointed, strict=True)):
        sigma = np.stack([f.landmark_sigma if g else nowhere[:, 0] for f, g in zip(faces, pointed, strict=True)])
    if any(face.pose is not None for face in found):
        angles = np.stack([[getattr(f.pose, angle) for angle in ANGLES] if f else unknown for f in faces])
    if any(sample.angles is not None for sample in samples):
        true_angles = np.stack([unknown if sample.angles is None else sample.angles for sample in samples])
    return Predictions.from_arrays(
        schema=schema,
        images=[(s.image.relative_to(root) if root else s.image).as_posix() for s in samples],
        groups=[sample.group for sample in samples],
        boxes=np.stack([np.full(4, np.nan) if face is None else face.box for face in faces]),
        truth=np.stack([sample.points for sample in samples]),
        points=np.stack([f.landmarks if given else nowhere for f, given in zip(faces, pointed, strict=True)]),
        labels={task: np.array([sample.labels.get(task, MISSING) for sample in samples]) for task in known},
        probabilities=shares,
        chosen={task: classes for task, classes in chosen.items() if not _likeliest(classes, shares[task])},
        sigma=sigma,
        angles=angles,
        true_angles=true_angles,
        strata={
            name: [sample.strata.get(name, "") for sample in samples]
            for name in sorted({name for sample in samples for name in sample.strata})
        },
    )


def _likeliest(chosen: np.ndarray, shares: np.ndarray) -> bool:
    """Whether (N,) classes say no more than (N, C) probabilities do."""
    found = chosen != MISSING
    return bool((chosen[found] == shares[found].argmax(axis=1)).all())


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(M, 4) boxes against one (4,) -> (M,) intersection over union."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    return shared / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared)
