"""From a picture to faces: detect, crop, run the network, put the answers back into image pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from facemtl.decode import (
    average_mirrored,
    check_outputs,
    face_attributes,
    image_points,
    image_poses,
    image_sigmas,
)
from facemtl.detect import Detector, MtcnnDetector
from facemtl.errors import BoxError, ConfigError, DeviceError, ModelError
from facemtl.face import ANGLES_TASK, Face
from facemtl.geometry import box_from_five, check_boxes, crop_matrix, crop_roll, crop_side, roll_of_five, warp_crop
from facemtl.image import as_bgr, read_image
from facemtl.landmarks import POINTS, SCHEMAS
from facemtl.quality import FITTED, quality
from facemtl.session import DEVICES, OnnxSession, Session
from facemtl.weights import DEFAULT_MODEL, SIGMA, find_model

# A crop that was laid through older points is laid again where it was off by more: sides of the crop, and their log.
OFF, RESIZED = 0.08, 0.12
# Where the quality of a face is less, its box is looked at from all sides: the first pass may have been lost.
DOUBTED = 0.5
BATCH = 256  # crops a run of the network: enough to be efficient, and memory stays bounded


class Predictor:
    """Finds faces and describes them. Safe to share between threads.

    Args:
        model: a shipped model (see :func:`facemtl.weights.list_models`), a folder with a card, an ``.onnx`` or a
            ``.safetensors`` file (the latter needs torch), or a :class:`facemtl.session.Session`.
        device: ``cpu`` or ``cuda``; there is no silent fallback. A session has its own.
        threads: CPU threads of the network and of the default detector, at least 1.
        detector: finds the faces where no boxes are given; the bundled one by default.
        tasks: leave out the other attributes and angles of the model; points are always found where it has them.
        schema: the landmark schema of the points, where the model has several; None: its main one. Standard deviations
            are of the main points alone.
        passes: how often the crop is laid, each time through the points found before. If it is several times, then once
            more where the last one turns out to have been off by a twelfth of its side, and from all sides of the box
            where there hardly is a face (:attr:`facemtl.face.Face.quality` under 0.5). None: as the model says.
        flip: average the last pass with the mirrored crop; None: as the model says.

    Raises:
        ModelError: an unknown, damaged or unfitting model, an unknown task or schema.
        DeviceError: an unknown device, or one that is not there.
        ConfigError: fewer than one thread.
    """

    def __init__(
        self,
        model: str | Path | Session = DEFAULT_MODEL,
        device: str = "cpu",
        threads: int = 1,
        detector: Detector | None = None,
        tasks: Sequence[str] | None = None,
        schema: str | None = None,
        passes: int | None = None,
        flip: bool | None = None,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"threads must be at least 1; got {threads}")
        self._session = _open(model, device, threads)
        self.spec = self._session.spec.override(passes, flip)
        self.schema = self.spec.schema if schema is None else schema
        point_tasks = self.spec.point_tasks()
        if self.schema not in {self.spec.schema, *point_tasks}:
            known = ", ".join(point_tasks) or self.spec.schema
            raise ModelError(f"{self.spec.name} has no schema {schema!r}; it has {known}")
        wanted = self.spec.tasks if tasks is None else tuple(tasks)
        unknown = set(wanted) - set(self.spec.tasks)
        if unknown:
            raise ModelError(f"{self.spec.name} has no task {sorted(unknown)}; it has {', '.join(self.spec.tasks)}")
        self._points_task = point_tasks.get(self.schema)
        others = set(wanted) - set(point_tasks.values())
        self.tasks = tuple(task for task in self.spec.tasks if task == self._points_task or task in others)
        if not self.tasks:
            raise ModelError(f"tasks is empty, and {self.spec.name} has no points; it has {', '.join(self.spec.tasks)}")
        self._has_quality = self.spec.uncertainty and self.spec.name in FITTED
        self._has_sigma = self.spec.uncertainty and self._points_task == POINTS
        more = [POINTS] if self._has_quality or self.spec.passes > 1 else []
        more += [SIGMA] if self._has_quality or self._has_sigma else []
        self._outputs = tuple(dict.fromkeys([*self.tasks, *more]))
        self._threads = threads
        if detector is not None:
            self.detector = detector

    @cached_property
    def detector(self) -> Detector:
        """Made on first use: who passes boxes never needs one."""
        return MtcnnDetector(threads=self._threads)

    def __call__(
        self, image: np.ndarray | str | os.PathLike[str], boxes: np.ndarray | Sequence[Sequence[float]] | None = None
    ) -> list[Face]:
        """The faces of one picture, surest first; or one for each of ``boxes``, in their order.

        Args:
            image: uint8 BGR (H, W, 3), another array that :func:`facemtl.image.as_bgr` takes, or a path.
            boxes: (N, 4) ``x1 y1 x2 y2`` in image pixels; skips the detector.

        Raises:
            ImageError: a picture that cannot be read.
            BoxError: boxes that are not finite or have no area.
            ModelError: the network gives numbers that are not finite.
        """
        return self.batch([image], None if boxes is None else [boxes])[0]

    def batch(
        self,
        images: Iterable[np.ndarray | str | os.PathLike[str]],
        boxes: Iterable[np.ndarray | Sequence[Sequence[float]]] | None = None,
    ) -> list[list[Face]]:
        """The faces of several pictures, a list each; the network runs over all of them at once.

        Args:
            images: as in :meth:`__call__`; all are in memory together.
            boxes: for each image, (N, 4) as in :meth:`__call__`.

        Raises:
            ImageError, BoxError: as :meth:`__call__`, and boxes for another number of images.
            ModelError: the network gives numbers that are not finite.
        """
        pictures = [_load(image) for image in images]
        if boxes is None:
            found = [self.detector.detect(picture) for picture in pictures]
            all_boxes = [check_boxes(f.boxes) for f in found]
            all_scores = [f.scores for f in found]
        else:
            all_boxes = [check_boxes(b) for b in boxes]
            all_scores = [np.ones(len(b)) for b in all_boxes]
            if len(all_boxes) != len(pictures):
                raise BoxError(f"{len(pictures)} images but boxes for {len(all_boxes)}")
        owner = [i for i, b in enumerate(all_boxes) for _ in b]
        flat_boxes = [box for b in all_boxes for box in b]
        flat_scores = [float(score) for s in all_scores for score in s]
        faces: list[list[Face]] = [[] for _ in pictures]
        for start in range(0, len(owner), BATCH):
            part = slice(start, start + BATCH)
            described = self._describe([pictures[i] for i in owner[part]], flat_boxes[part], flat_scores[part])
            for i, face in zip(owner[part], described, strict=True):
                faces[i].append(face)
        return faces

    def follow(self, image: np.ndarray, boxes: np.ndarray, rolls: Sequence[float]) -> list[Face]:
        """Faces whose points were found in the frame before: one for each box, in their order.

        The crops are laid through the older points, as a later pass does, and so one pass is enough; it is repeated
        where the new points say that their crop was off by a twelfth of its side or more.

        Args:
            image: as in :meth:`__call__`, no path.
            boxes: (N, 4) face boxes of those points (:func:`facemtl.geometry.box_from_five`), moved on.
            rolls: N angles of those points (:func:`facemtl.geometry.roll_of_five`), radians.

        Raises:
            ImageError, BoxError, ModelError: as :meth:`__call__`.
        """
        picture, boxes, spec = as_bgr(image), list(check_boxes(boxes)), self.spec
        if not boxes:
            return []
        # A model of one pass has only seen crops as upright as the picture.
        rolls = rolls if spec.passes > 1 else [0.0] * len(boxes)
        crops = [
            crop_matrix(box, spec.input_size, spec.crop_scale, roll) for box, roll in zip(boxes, rolls, strict=True)
        ]
        count = len(boxes)
        return self._laid([picture] * count, boxes, [1.0] * count, crops)

    def _was_off(self, crop: np.ndarray, better: np.ndarray) -> bool:
        """Whether the middles of two crops, or their sides, are far apart."""
        size = self.spec.input_size
        middle = (size - 1) / 2
        (a, b, c), (d, e, f) = (better - crop).tolist()
        side = crop_side(crop, size)
        apart = math.hypot(a * middle + b * middle + c, d * middle + e * middle + f)
        turned = abs(math.remainder(crop_roll(better) - crop_roll(crop), math.tau))
        return apart > OFF * side or max(abs(math.log(crop_side(better, size) / side)), turned / 2) > RESIZED

    def _describe(self, images: list[np.ndarray], boxes: list[np.ndarray], scores: list[float]) -> list[Face]:
        """One face for each image and box."""
        spec = self.spec
        first = spec.locator if spec.passes > 1 and spec.locator else spec
        matrices = [crop_matrix(box, spec.input_size, first.crop_scale) for box in boxes]
        for number in range(spec.passes - 1):
            found = self._run(images, matrices, (POINTS,), locate=first is not spec and number == 0)[POINTS]
            matrices = self._next(image_points(found, matrices, spec.input_size), matrices)
        faces = self._laid(images, boxes, scores, matrices)
        if spec.passes > 1:
            for i, face in enumerate(faces):
                if face.quality is not None and face.quality < DOUBTED:
                    upright, *turned = self._from_all_sides(images[i], boxes[i], scores[i])
                    best = max(face, upright, *turned, key=lambda found: found.quality)
                    # Where no side shows a face, it is taken to stand upright, as most do.
                    faces[i] = best if best.quality >= DOUBTED else upright
        return faces

    def _from_all_sides(self, image: np.ndarray, box: np.ndarray, score: float) -> list[Face]:
        """What the network itself finds in the box as it is, lying on either side, and upside down."""
        spec = self.spec
        crops = [crop_matrix(box, spec.input_size, spec.crop_scale, quarter * math.pi / 2) for quarter in range(4)]
        return self._laid([image] * 4, [box] * 4, [score] * 4, crops)

    def _laid(
        self, images: list[np.ndarray], boxes: list[np.ndarray], scores: list[float], matrices: list[np.ndarray]
    ) -> list[Face]:
        """One face for each image and crop; from a better crop where the points say that it was off."""
        spec = self.spec
        outputs = self._run(images, matrices, self._outputs, flip=spec.flip)
        main = image_points(outputs[POINTS], matrices, spec.input_size) if POINTS in outputs else None
        if spec.passes > 1:
            laid = self._next(main, matrices)
            off = [i for i, (old, new) in enumerate(zip(matrices, laid, strict=True)) if self._was_off(old, new)]
            if off:
                again = self._run([images[i] for i in off], [laid[i] for i in off], self._outputs, flip=spec.flip)
                for name, output in again.items():
                    outputs[name][off] = output
                matrices = [laid[i] if i in off else matrix for i, matrix in enumerate(matrices)]
                main = image_points(outputs[POINTS], matrices, spec.input_size)
        return self._faces(boxes, scores, matrices, outputs, main)

    def _next(self, main: np.ndarray, matrices: list[np.ndarray]) -> list[np.ndarray]:
        """The crops through main points (N, K, 2), image pixels, that were found in these."""
        five = SCHEMAS[self.spec.schema].to_five(main)
        return [self._refined(points, matrix) for points, matrix in zip(five, matrices, strict=True)]

    def _faces(
        self,
        boxes: list[np.ndarray],
        scores: list[float],
        matrices: list[np.ndarray],
        outputs: dict[str, np.ndarray],
        main: np.ndarray | None,
    ) -> list[Face]:
        """What the network says of the crops that these matrices describe; its main points already in the image."""
        spec, count = self.spec, len(boxes)
        points = np.zeros((count, 0, 2), dtype=np.float32)
        if self._points_task == POINTS:
            points = main
        elif self._points_task:
            points = image_points(outputs[self._points_task], matrices, spec.input_size)
        found_sigmas = image_sigmas(outputs[SIGMA], matrices, spec) if SIGMA in outputs else []
        sigmas = found_sigmas if self._has_sigma else [None] * count
        qualities = [None] * count
        if self._has_quality:
            qualities = self._qualities(SCHEMAS[spec.schema].to_five(main), found_sigmas)
        poses = image_poses(outputs[ANGLES_TASK], matrices) if ANGLES_TASK in outputs else [None] * count
        attributes = face_attributes(outputs, count, spec)
        return [
            Face(
                box=np.float32(boxes[i]),
                score=scores[i],
                landmarks=points[i],
                schema=self.schema,
                attributes=attributes[i],
                landmark_sigma=sigmas[i],
                pose=poses[i],
                quality=qualities[i],
            )
            for i in range(count)
        ]

    def _qualities(self, main: np.ndarray, sigmas: list[np.ndarray]) -> list[float | None]:
        """Of each face, by its five points and the standard deviations of the main ones; points that are no face have
        none."""
        found = []
        for five, sigma in zip(main, sigmas, strict=True):
            # Plain floats: this runs for every face.
            xs, ys = five.T.tolist()
            if max(max(xs) - min(xs), max(ys) - min(ys)) < 1e-3:
                found.append(0.0)
            else:
                x1, _, x2, _ = box_from_five(five).tolist()
                found.append(quality(self.spec.name, sum(sigma.tolist()) / len(sigma) / (x2 - x1)))
        return found

    def _refined(self, five: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """The next crop, upright around these points; the old one where they are no face (all in one place)."""
        xs, ys = five.T.tolist()  # plain floats: this runs for every face
        if max(max(xs) - min(xs), max(ys) - min(ys)) < 1e-3:
            return matrix
        return crop_matrix(box_from_five(five), self.spec.input_size, self.spec.crop_scale, roll_of_five(five))

    def _run(
        self,
        images: list[np.ndarray],
        matrices: list[np.ndarray],
        names: Sequence[str],
        locate: bool = False,
        flip: bool = False,
    ) -> dict[str, np.ndarray]:
        """Outputs of the network, or of its locator, for a crop of each image; with ``flip`` averaged with those for
        the mirrored crop."""
        size = self.spec.input_size
        crops = np.empty((len(images), self.spec.channels, size, size), dtype=np.uint8)
        for crop, image, matrix in zip(crops, images, matrices, strict=True):
            if self.spec.channels == 1:
                crop[0] = warp_crop(image, matrix, size, grey=True)
            else:
                crop[:] = warp_crop(image, matrix, size).transpose(2, 0, 1)
        if flip:
            crops = np.concatenate([crops, crops[..., ::-1]])
        outputs = self._session.run(crops, names, locate)
        check_outputs(outputs, self.spec)
        return average_mirrored(outputs, self.spec) if flip else outputs


def _load(image: np.ndarray | str | os.PathLike[str]) -> np.ndarray:
    return as_bgr(image) if isinstance(image, np.ndarray) else read_image(image)


def _open(model: str | Path | Session, device: str, threads: int) -> Session:
    if device not in DEVICES:
        raise DeviceError(f"unknown device {device!r}; known: {', '.join(DEVICES)}")
    if not isinstance(model, str | Path):
        if device != "cpu":
            raise DeviceError(f"a session runs where it was opened: leave device={device!r} out")
        return model
    suffix = Path(model).suffix
    if suffix == ".safetensors":
        return _torch_session(find_model(model), device, threads)
    if device == "cuda" and suffix != ".onnx" and "CUDAExecutionProvider" not in _providers():
        # The torch build of a training environment reaches the GPU where the plain onnxruntime does not.
        return _torch_session(find_model(model, ".safetensors"), device, threads)
    return OnnxSession(find_model(model), device, threads)


def _providers() -> list[str]:
    import onnxruntime

    return onnxruntime.get_available_providers()


def _torch_session(path: Path, device: str, threads: int) -> Session:
    try:
        from facemtl.models.session import TorchSession
    except ImportError as error:
        raise DeviceError(
            f"{path.name} on {device!r} needs torch (pip install 'facemtl[train]') or, with an .onnx file, "
            f"onnxruntime-gpu: {error}"
        ) from None
    return TorchSession.load(path, device, threads)
