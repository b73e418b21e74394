"""What a model sees of every labelled face, in the picture and in its mirror image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facemtl.data.sample import FaceSample, face_box, read_picture
from facemtl.decode import MIRROR_ANGLES
from facemtl.errors import DataError, ImageError
from facemtl.face import ANGLES, ATTRIBUTES, Face
from facemtl.landmarks import SCHEMAS
from facemtl.predictor import Predictor
from facemtl.shared_points import SharedPoints

BATCH = 32  # pictures in memory together


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a model says of N faces of one schema; points in image index coordinates, NaN where nothing was seen.

    Attributes:
        schema: of ``points`` and ``labelled``: the one that the set's points and the model's have in common.
        points: float64 (N, K, 2), the mean of the picture's and of what its mirror image says, turned back. Whatever
            the model's habits are, this prefers neither side.
        unsure: (N,) mean distance of the two from their mean, image pixels.
        labelled: float64 (N, K, 2) the set's own points, converted to ``schema``.
        sizes: int (N, 2) width and height of each picture.
        probabilities: task -> (N, 2, classes): by the picture, and by its mirror image (pose turned back).
        angles: (N, 3) yaw, pitch, roll in degrees, averaged like the points; NaN where the model gives none.
    """

    schema: str
    points: np.ndarray
    unsure: np.ndarray
    labelled: np.ndarray
    sizes: np.ndarray
    probabilities: Mapping[str, np.ndarray]
    angles: np.ndarray


def see(
    predict: Predictor,
    samples: Sequence[FaceSample],
    shared: SharedPoints | None,
    progress: Callable[[Iterable], Iterable] = iter,
    boxes: Sequence[np.ndarray] | None = None,
) -> Seen:
    """Run a predictor on every face and on its mirror image.

    Args:
        predict: does not average mirror images itself.
        samples: faces of one schema; those whose picture cannot be read or that have no place are passed over.
        shared: what the points of both are turned into; None where they share nothing, and then nothing is labelled.
        progress: wraps what is gone through, such as a bar.
        boxes: where to look, (4,) image pixels each; None: around the labelled points, or in the set's box.
    """
    schema, count = predict.schema if shared is None else shared.schema, len(samples)
    shape = (count, len(SCHEMAS[schema]), 2)
    points, unsure, sizes = np.full(shape, np.nan), np.full(count, np.nan), np.zeros((count, 2), dtype=np.int32)
    tasks = [task for task in predict.tasks if task in ATTRIBUTES]
    probabilities = {task: np.full((count, 2, len(ATTRIBUTES[task])), np.nan) for task in tasks}
    angles = np.full((count, len(ANGLES)), np.nan)
    for start in progress(range(0, count, BATCH)):
        rows, images, places = [], [], []
        for row in range(start, min(start + BATCH, count)):
            try:
                box = face_box(samples[row]) if boxes is None else boxes[row]
                image = read_picture(samples[row].image)
            except (DataError, ImageError):  # reported where pictures and points are looked at
                continue
            rows.append(row)
            images.append(image)
            places.append(box)
        for row, image, (plain, turned) in zip(rows, images, see_both(predict, images, places), strict=True):
            if shared is not None:
                plain, turned = shared.face(plain), shared.face(turned)
            width = image.shape[1]
            sizes[row] = width, image.shape[0]
            if len(plain.landmarks):
                back = mirror_points(turned.landmarks.astype(np.float64), width, schema)
                points[row] = (plain.landmarks + back) / 2
                unsure[row] = np.hypot(*(plain.landmarks - points[row]).T).mean()
            for task in tasks:
                for way, face in enumerate((plain, turned)):
                    shares = [face.attributes[task].probabilities[label] for label in ATTRIBUTES[task]]
                    probabilities[task][row, way] = shares[::-1] if way and task == "pose" else shares
            if plain.pose is not None:
                both = [np.array([getattr(f.pose, angle) for angle in ANGLES]) for f in (plain, turned)]
                angles[row] = (both[0] + both[1] * MIRROR_ANGLES) / 2
    labelled = np.full(shape, np.nan)
    if shared is not None:
        labelled = shared.of_set(np.stack([s.points for s in samples]).astype(np.float64))
    return Seen(schema, points, unsure, labelled, sizes, probabilities, angles)


def see_both(predict: Predictor, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[tuple[Face, Face]]:
    """The face in each box, and the one in the mirrored box of the mirrored picture, whose sides are exchanged."""
    turned = [image[:, ::-1] for image in images]
    flipped = [
        np.array([image.shape[1] - 1 - box[2], box[1], image.shape[1] - 1 - box[0], box[3]])
        for image, box in zip(images, boxes, strict=True)
    ]
    found = predict.batch([*images, *map(np.ascontiguousarray, turned)], [box[None] for box in (*boxes, *flipped)])
    faces = [face for (face,) in found]
    return list(zip(faces[: len(images)], faces[len(images) :], strict=True))


def mirror_points(points: np.ndarray, width: int | np.ndarray, schema: str) -> np.ndarray:
    """(..., K, 2) points -> those of the mirror image of pictures of ``width`` pixels (...): named and placed anew."""
    mirrored = points[..., SCHEMAS[schema].flip_order, :].copy()
    mirrored[..., 0] = np.asarray(width)[..., None] - 1 - mirrored[..., 0]
    return mirrored
