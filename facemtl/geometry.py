"""From a face box to a crop and back: the one file that training and inference share.

A crop is described by one affine matrix that maps *crop* index coordinates to *image* index coordinates
(the centre of the first pixel is (0, 0) in both). The crop is a square of ``size`` pixels that covers a
square of the image; it may reach past the border, where it is padded with black and never clamped.

The *face box* of this package is the square of side ``BOX_SIDE * d`` around the mean of the five MTFL points,
``d`` being their mean distance from that mean: the size and place at which common face detectors put their box.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from facemtl.errors import BoxError

# Measured between MTFL's points and detector boxes; 5th to 95th percentile of the ratio: 3.0 to 4.0.
BOX_SIDE = 3.45


def check_boxes(boxes: np.ndarray) -> np.ndarray:
    """Anything that reads as (N, 4) ``x1 y1 x2 y2`` -> float64 (N, 4).

    Raises:
        BoxError: a wrong shape, a number that is not finite, or a box without area; names the box.
    """
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BoxError(f"boxes must be numbers of shape (N, 4), x1 y1 x2 y2: {error}") from None
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise BoxError(f"boxes must have shape (N, 4), x1 y1 x2 y2; got {array.shape}")
    for i, box in enumerate(array):
        if not np.isfinite(box).all():
            raise BoxError(f"box {i} is not finite: {box.tolist()}")
        if box[2] <= box[0] or box[3] <= box[1]:
            raise BoxError(f"box {i} has no area (x2 > x1 and y2 > y1 are required): {box.tolist()}")
        if np.abs(box).max() > 1e6:
            raise BoxError(f"box {i} lies more than a million pixels away: {box.tolist()}")
    return array


def box_from_five(points: np.ndarray) -> np.ndarray:
    """(5, 2) MTFL points -> the face box (4,) float64 ``x1 y1 x2 y2`` that this package's networks expect.

    Raises:
        BoxError: points that are not finite, or all in one place.
    """
    mean = points.mean(axis=0, dtype=np.float64)
    half = BOX_SIDE / 2 * float(np.hypot(*(points - mean).T).mean())
    if not (math.isfinite(half) and half > 0):
        raise BoxError("the five points give no box: they are not finite, or all in one place")
    return np.array([mean[0] - half, mean[1] - half, mean[0] + half, mean[1] + half])


def roll_of_five(points: np.ndarray) -> float:
    """In-plane rotation of (5, 2) MTFL points, radians, clockwise as seen (y points down); 0 is upright.

    The eye line and the line from eyes to mouth both vote, each with its length: a profile face has a short
    eye line that says little.
    """
    (lx, ly), (rx, ry), _, (mlx, mly), (mrx, mry) = points.tolist()
    down_x, down_y = (mlx + mrx - lx - rx) / 2, (mly + mry - ly - ry) / 2
    return math.atan2(ry - ly - down_x, rx - lx + down_y)


def crop_matrix(
    box: np.ndarray, size: int, scale: float = 1.0, roll: float = 0.0, mirror: bool = False
) -> np.ndarray:
    """The affine map (2, 3) float64 from crop to image index coordinates.

    Args:
        box: (4,) ``x1 y1 x2 y2``, image pixels; a box that is not square counts as the square of its mean side.
        size: side of the crop in pixels.
        scale: side of the crop over the side of the box; over 1 shows context around the face.
        roll: the crop is turned by this many radians (clockwise as seen), so that a head rolled by it stands upright.
        mirror: the crop shows the face as in a mirror.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    step = ((x2 - x1) + (y2 - y1)) / 2 * scale / size
    cos, sin = step * math.cos(roll), step * math.sin(roll)
    ux, uy = (-cos, -sin) if mirror else (cos, sin)
    middle = (size - 1) / 2
    return np.array(
        [
            [ux, -sin, (x1 + x2) / 2 - middle * (ux - sin)],
            [uy, cos, (y1 + y2) / 2 - middle * (uy + cos)],
        ]
    )


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(2, 3) matrix on (..., 2) points; a NaN point stays NaN."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert_affine(matrix: np.ndarray) -> np.ndarray:
    """The inverse (2, 3) of a (2, 3) affine map."""
    (a, b, c), (d, e, f) = matrix.tolist()
    det = a * e - b * d
    return np.array([[e, -b, b * f - c * e], [-d, a, c * d - a * f]]) / det


def warp_crop(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Cut the crop that ``matrix`` (crop -> image) describes; the result is (size, size[, C]) of the image's dtype.

    Bilinear. Where the crop is coarser than the image, the part of the image under it is first averaged over whole
    blocks of pixels, so that small crops of large faces do not alias and the cost does not grow with the image.
    """
    block = int(math.sqrt(abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])))
    if block >= 2:
        image, matrix = _average_blocks(image, matrix, size, block)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _average_blocks(image: np.ndarray, matrix: np.ndarray, size: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Average ``block`` x ``block`` pixels around the crop; returns the smaller image and the matrix that goes with it."""
    corners = apply_affine(matrix, np.array([[0, 0], [size - 1, 0], [0, size - 1], [size - 1, size - 1]]))
    low = np.floor(corners.min(axis=0)).astype(int) - 2 * block
    count = (np.ceil(corners.max(axis=0)).astype(int) + 2 * block - low) // block + 1
    high = low + count * block
    height, width = image.shape[:2]
    x1, y1, x2, y2 = max(low[0], 0), max(low[1], 0), min(high[0], width), min(high[1], height)
    if x2 <= x1 or y2 <= y1:  # the crop lies outside the image: nothing to average
        return image, matrix
    # Whole blocks only: the grid starts at the visible corner and what is left over is padded, as everywhere, with black.
    part = image[y1:y2, x1:x2]
    pad_x, pad_y = -(x2 - x1) % block, -(y2 - y1) % block
    if pad_x or pad_y:
        part = cv2.copyMakeBorder(part, 0, pad_y, 0, pad_x, cv2.BORDER_CONSTANT)
    small = cv2.resize(
        part, (part.shape[1] // block, part.shape[0] // block), interpolation=cv2.INTER_AREA
    )
    # index coordinates: image = block * small + (block - 1) / 2 + corner
    moved = matrix / block
    moved[:, 2] -= ((block - 1) / 2 + np.array([x1, y1])) / block
    return small, moved


def points_to_crop(normalised: np.ndarray, size: int) -> np.ndarray:
    """Network coordinates (..., 2), 0 in the middle and 1 a crop's side, to crop index coordinates."""
    return normalised * size + (size - 1) / 2


def points_from_crop(points: np.ndarray, size: int) -> np.ndarray:
    """The inverse of :func:`points_to_crop`."""
    return (points - (size - 1) / 2) / size
