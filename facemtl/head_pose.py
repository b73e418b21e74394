"""Head angles by geometry alone: what five points say of yaw, pitch and roll, without a network.

Head coordinates have x to the viewer's right, y down and z out of the face towards the viewer; signs and the order of
the rotations are those of :mod:`facemtl.face`.
"""

from __future__ import annotations

import math

import numpy as np

# The five points of an average head that looks at the viewer, in millimetres from the middle between the eyes. Round
# numbers near what structure from motion finds over MTFL's training rows, tilted so that the mean pitch over the
# training faces of GENKI-4K is that of their labels: five points alone cannot say which pitch is none.
MEAN_FACE = np.array([[-31.0, 0.0, 0.0], [31.0, 0.0, 0.0], [0.0, 39.5, 29.0], [-26.5, 65.5, -9.5], [26.5, 65.5, -9.5]])
_CENTRED = MEAN_FACE - MEAN_FACE.mean(axis=0)
_INVERSE = np.linalg.pinv(_CENTRED)  # (3, 5)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Head to camera, (3, 3) float64, from degrees; yaw acts first, roll last. The camera has the same axes."""
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in map(math.radians, (yaw, pitch, roll)))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return lean @ nod @ turn


def angles_of_rotation(matrices: np.ndarray) -> np.ndarray:
    """The inverse of :func:`rotation`: (..., 3, 3) head to camera -> (..., 3) float64 yaw, pitch and roll in degrees.

    Pitch is within -90 to 90, the others within -180 to 180.
    """
    yaw = np.arctan2(-matrices[..., 2, 0], matrices[..., 2, 2])
    pitch = np.arcsin(matrices[..., 2, 1].clip(-1, 1))
    roll = np.arctan2(-matrices[..., 0, 1], matrices[..., 1, 1])
    return np.degrees(np.stack([yaw, pitch, roll], axis=-1))


def angles_from_five(points: np.ndarray) -> np.ndarray:
    """The angles under which an average head best shows these points.

    An affine camera that takes :data:`MEAN_FACE` to the points is fitted by least squares, and the nearest scaled
    rotation to it taken: pose from orthography and scaling (DeMenthon and Davis, IJCV 1995).

    Good for checking that another source of angles has the same signs and sizes, and for models without ``angles``.
    Every face is taken for the average one, so that a short nose or a smile reads as a nod: yaw and roll are useful,
    pitch hardly is. On GENKI-4K's 437 held-out faces, from the points of the model ``tcdcn``, the mean absolute error
    is 4.2, 7.0 and 2.5 degrees, where a constant guess has 10.2, 5.2 and 5.8; the correlation with the labels 0.86,
    0.56 and 0.82 (``tests/test_head_pose.py`` measures it). Yaw saturates: MTFL's profiles come out at 40 to 45.

    Args:
        points: (..., 5, 2) points of ``mtfl5``, in pixels of any size, y down.

    Returns:
        (..., 3) float64 yaw, pitch and roll in degrees. NaN where a point is not finite, or where all lie in one place
        or on one line. Yaw beyond 90 degrees says that left and right points are swapped.
    """
    points = np.asarray(points, dtype=np.float64)
    angles = np.full((*points.shape[:-2], 3), np.nan)
    finite = np.isfinite(points).all(axis=(-2, -1))
    centred = points[finite] - points[finite].mean(axis=-2, keepdims=True)
    left, stretch, right = np.linalg.svd((_INVERSE @ centred).swapaxes(-2, -1), full_matrices=False)
    across, down = np.moveaxis(left @ right, -2, 0)
    found = angles_of_rotation(np.stack([across, down, np.cross(across, down)], axis=-2))
    found[stretch[:, 1] <= 1e-6 * stretch[:, 0]] = np.nan
    angles[finite] = found
    return angles
