"""From a picture to faces: detect, crop, run the network, put the answers back into image pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from facemtl.detect import Detector, MtcnnDetector
from facemtl.errors import BoxError, ConfigError, DeviceError, ModelError
from facemtl.face import Attribute, Face
from facemtl.geometry import (
    box_from_five,
    check_boxes,
    crop_matrix,
    points_to_crop,
    roll_of_five,
    warp_crop,
)
from facemtl.image import as_bgr, read_image
from facemtl.landmarks import SCHEMAS
from facemtl.session import DEVICES, OnnxSession, Session
from facemtl.weights import DEFAULT_MODEL, find_model

BATCH = 256  # crops a run of the network: enough to be efficient, and memory stays bounded
MIRROR = np.float32([-1, 1])  # of x and y in network coordinates
LARGEST = 1e6  # crops away from the middle: no working network puts a point there


class Predictor:
    """Finds faces and describes them. Safe to share between threads.

    Args:
        model: a shipped model (see :func:`facemtl.weights.list_models`), a folder with a card, an ``.onnx`` or a
            ``.safetensors`` file (the latter needs torch), or a :class:`facemtl.session.Session`.
        device: ``cpu`` or ``cuda``; there is no silent fallback. A session has its own.
        threads: CPU threads of the network and of the default detector, at least 1.
        detector: finds the faces where no boxes are given; the bundled one by default.
        tasks: leave out the others of the model's tasks; points are always found where the model has them.
        schema: the landmark schema wanted; an error if the model has another.
        passes: how often the crop is laid through the points found before; None: as the model says.
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
        self.schema = self.spec.schema
        if schema is not None and schema != self.schema:
            raise ModelError(f"{self.spec.name} has no schema {schema!r}; it has {self.schema}")
        wanted = self.spec.tasks if tasks is None else tuple(tasks)
        unknown = set(wanted) - set(self.spec.tasks)
        if unknown:
            raise ModelError(f"{self.spec.name} has no task {sorted(unknown)}; it has {', '.join(self.spec.tasks)}")
        self.tasks = tuple(t for t in self.spec.tasks if t in wanted or t == "landmarks")
        if not self.tasks:
            raise ModelError(f"tasks is empty, and {self.spec.name} has no points; it has {', '.join(self.spec.tasks)}")
        self._points_task = ("landmarks",) if "landmarks" in self.tasks else ()
        self._labels = {task: self.spec.attributes[task] for task in self.tasks if task != "landmarks"}
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

    def _describe(self, images: list[np.ndarray], boxes: list[np.ndarray], scores: list[float]) -> list[Face]:
        """One face for each image and box."""
        schema = SCHEMAS[self.schema]
        matrices = [crop_matrix(box, self.spec.input_size, self.spec.crop_scale) for box in boxes]
        for _ in range(self.spec.passes - 1):
            # Mirrored crops are kept for the last pass: here they cost as much and change what comes out by nothing.
            points = self._points(self._run(images, matrices, self._points_task, flip=False), matrices)
            matrices = [self._refined(schema.to_five(p), m) for p, m in zip(points, matrices, strict=True)]
        outputs = self._run(images, matrices, self.tasks, self.spec.flip)
        points = self._points(outputs, matrices)
        attributes = self._attributes(outputs, len(boxes))
        return [
            Face(
                box=np.float32(boxes[i]),
                score=scores[i],
                landmarks=points[i],
                schema=self.schema,
                attributes=attributes[i],
            )
            for i in range(len(boxes))
        ]

    def _refined(self, five: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """The next crop, upright around these points; the old one where they are no face (all in one place)."""
        if np.ptp(five, axis=0).max() < 1e-3:
            return matrix
        return crop_matrix(box_from_five(five), self.spec.input_size, self.spec.crop_scale, roll_of_five(five))

    def _run(
        self, images: list[np.ndarray], matrices: list[np.ndarray], tasks: Sequence[str], flip: bool
    ) -> dict[str, np.ndarray]:
        """Outputs of the network for a crop of each image, averaged with those for the mirrored crop if ``flip``."""
        size = self.spec.input_size
        crops = np.empty((len(images), self.spec.channels, size, size), dtype=np.uint8)
        for crop, image, matrix in zip(crops, images, matrices, strict=True):
            if self.spec.channels == 1:
                crop[0] = warp_crop(image, matrix, size, grey=True)
            else:
                crop[:] = warp_crop(image, matrix, size).transpose(2, 0, 1)
        if flip:
            crops = np.concatenate([crops, crops[..., ::-1]])
        outputs = self._session.run(crops, tasks)
        if not flip:
            return outputs
        count = len(images)
        return {task: (out[:count] + self._mirrored(task, out[count:])) / 2 for task, out in outputs.items()}

    def _mirrored(self, task: str, output: np.ndarray) -> np.ndarray:
        """What the output for a mirrored crop says of the crop itself."""
        if task == "landmarks":
            return output[:, SCHEMAS[self.schema].flip_order] * MIRROR
        return output[:, ::-1] if task == "pose" else output

    def _points(self, outputs: Mapping[str, np.ndarray], matrices: list[np.ndarray]) -> np.ndarray:
        """(N, K, 2) float32 image pixels; K = 0 for a model without landmarks."""
        if "landmarks" not in outputs:
            return np.zeros((len(matrices), 0, 2), dtype=np.float32)
        found = outputs["landmarks"]
        if not -LARGEST <= found.min(initial=0) <= found.max(initial=0) <= LARGEST:  # comparisons with NaN are false
            raise ModelError(f"{self.spec.name} is damaged: its landmarks are not finite, or far too large")
        maps = np.stack(matrices)
        crop_points = points_to_crop(found.astype(np.float64), self.spec.input_size)
        return np.float32(crop_points @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2])

    def _attributes(self, outputs: Mapping[str, np.ndarray], count: int) -> list[dict[str, Attribute]]:
        """Name -> attribute, for each of ``count`` faces."""
        faces: list[dict[str, Attribute]] = [{} for _ in range(count)]
        for task, labels in self._labels.items():
            for face, logits in zip(faces, outputs[task].tolist(), strict=True):
                if not math.isfinite(sum(logits)):
                    raise ModelError(f"{self.spec.name} is damaged: its {task} are not finite")
                shares = softmax(logits)
                best = max(range(len(labels)), key=shares.__getitem__)
                face[task] = Attribute(labels[best], shares[best], dict(zip(labels, shares, strict=True)))
        return faces


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


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities of one face's classes; plain floats, because arrays of two to five numbers cost ten times more."""
    largest = max(logits)
    powers = [math.exp(value - largest) for value in logits]
    total = sum(powers)
    return [power / total for power in powers]
