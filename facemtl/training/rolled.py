"""Faces shown at an angle: what a model still knows of a head that lies on its side or hangs upside down."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from facemtl.face import Face
from facemtl.geometry import apply_affine, check_boxes, crop_matrix, warp_crop
from facemtl.image import as_bgr, read_image
from facemtl.predictor import Predictor

AROUND = 3.0  # side of the picture that is shown over the side of the face box: all crops and their jitter lie inside


class RolledPredictor:
    """A predictor that is shown each face turned around the middle of its box; what it finds is turned back.

    Args:
        predict: the predictor.
        roll: degrees by which the pictures are turned, clockwise as seen.
    """

    def __init__(self, predict: Predictor, roll: float) -> None:
        self._predict = predict
        self.roll = roll
        self.spec, self.schema, self.tasks = predict.spec, predict.schema, predict.tasks

    def __call__(self, image: np.ndarray | str, *, boxes: np.ndarray) -> list[Face]:
        """One face for each of (N, 4) ``boxes``, image pixels, as :meth:`facemtl.predictor.Predictor.__call__`."""
        picture = as_bgr(image) if isinstance(image, np.ndarray) else read_image(image)
        return [self._face(picture, box) for box in check_boxes(boxes)]

    def _face(self, picture: np.ndarray, box: np.ndarray) -> Face:
        side = (box[2] - box[0] + box[3] - box[1]) / 2
        size = max(round(float(side * AROUND)), 1)
        matrix = crop_matrix(box, size, AROUND, math.radians(-self.roll))
        middle, half = (size - 1) / 2, size / AROUND / 2
        shown = np.array([[middle - half] * 2 + [middle + half] * 2])
        face = self._predict(warp_crop(picture, matrix, size), boxes=shown)[0]
        pose = face.pose and replace(face.pose, roll=math.remainder(face.pose.roll - self.roll, 360))
        return replace(face, box=np.float32(box), landmarks=np.float32(apply_affine(matrix, face.landmarks)), pose=pose)
