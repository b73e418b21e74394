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
        if np.iscomplexobj(boxes):  # NumPy would leave out what is imaginary
            raise TypeError("these are complex")
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BoxError(f"boxes must be numbers of shape (N, 4), x1 y1 x2 y2: {error}") from None
    if array.shape[:1] == (0,):  # no rows, however wide: many detectors say so with (0,) or (0, 5)
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
    # Plain floats: ten times faster than arrays of five numbers, and this runs for every face.
    xs, ys = np.asarray(points, dtype=np.float64).T.tolist()
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    half = BOX_SIDE / 2 * sum(map(math.hypot, (v - x for v in xs), (v - y for v in ys))) / len(xs)
    if not math.isfinite(half) or (len(set(xs)) == 1 and len(set(ys)) == 1):
        raise BoxError(
            f"the five points give no box: they are not finite, or all in one place: {list(zip(xs, ys, strict=True))}"
        )
    return np.array([x - half, y - half, x + half, y + half])


def roll_of_five(points: np.ndarray) -> float:
    """In-plane rotation of (5, 2) MTFL points, radians, clockwise as seen (y points down); 0 is upright.

    The eye line and the line from eyes to mouth both vote, each with its length: a profile face has a short
    eye line that says little.
    """
    (lx, ly), (rx, ry), _, (mlx, mly), (mrx, mry) = points.tolist()
    down_x, down_y = (mlx + mrx - lx - rx) / 2, (mly + mry - ly - ry) / 2
    return math.atan2(ry - ly - down_x, rx - lx + down_y)


def crop_matrix(box: np.ndarray, size: int, scale: float = 1.0, roll: float = 0.0, mirror: bool = False) -> np.ndarray:
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


def crop_side(matrix: np.ndarray, size: int) -> float:
    """Image pixels that the side of a crop of ``size`` pixels covers."""
    (a, b, _), (c, d, _) = matrix.tolist()
    return size * math.sqrt(abs(a * d - b * c))


def crop_roll(matrix: np.ndarray) -> float:
    """The ``roll`` in radians, -pi to pi, that :func:`crop_matrix` was given for a crop that is no mirror image."""
    (a, _, _), (c, _, _) = matrix.tolist()
    return math.atan2(c, a)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(2, 3) matrix on (..., 2) points; a NaN point stays NaN."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert_affine(matrix: np.ndarray) -> np.ndarray:
    """The inverse (2, 3) of a (2, 3) affine map."""
    (a, b, c), (d, e, f) = matrix.tolist()
    det = a * e - b * d
    return np.array([[e, -b, b * f - c * e], [-d, a, c * d - a * f]]) / det


def warp_crop(image: np.ndarray, matrix: np.ndarray, size: int, grey: bool = False) -> np.ndarray:
    """Cut the crop that ``matrix`` (crop -> image) describes; the result is (size, size[, C]) of the image's dtype.

    Bilinear. Where the crop is coarser than the image, the part of the image under it is first averaged over whole
    blocks of pixels, so that small crops of large faces do not alias. Time and memory follow the visible part under
    the crop, not the image and not the box. With ``grey`` a BGR image gives a grey crop (size, size): a third of the
    pixels to resample.
    """
    (a, b, c), (d, e, f) = matrix.tolist()
    last, (height, width) = size - 1, image.shape[:2]
    block = max(1, int(math.sqrt(abs(a * e - b * d))))
    # Two blocks around the crop: interpolation then never reaches a block that this rectangle cuts off.
    x1, x2 = _span(c, a * last, b * last, 2 * block, width)
    y1, y2 = _span(f, d * last, e * last, 2 * block, height)
    if x2 <= x1 or y2 <= y1:  # the crop lies outside the image
        return np.zeros((size, size) if grey else (size, size, *image.shape[2:]), dtype=image.dtype)
    part = image[y1:y2, x1:x2]
    if grey:
        part = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)
    block = min(block, x2 - x1, y2 - y1)  # a larger one would be mostly padding
    if block > 1:
        part = _average_blocks(part, block)
    # index coordinates: image = corner + (block - 1) / 2 + block * part
    start_x, start_y = c - x1 - (block - 1) / 2, f - y1 - (block - 1) / 2
    into_part = np.array([[a, b, start_x], [d, e, start_y]]) / block
    return cv2.warpAffine(part, into_part, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _span(start: float, along: float, down: float, margin: int, length: int) -> tuple[int, int]:
    """The pixels of one image axis, from and to, that lie under a crop with these sides, as far as there are any."""
    low, high = start + min(along, 0) + min(down, 0), start + max(along, 0) + max(down, 0)
    return max(math.floor(low) - margin, 0), min(math.ceil(high) + margin + 1, length)


def _average_blocks(image: np.ndarray, block: int) -> np.ndarray:
    """The means of whole ``block`` x ``block`` pixels."""
    pad_y, pad_x = (-side % block for side in image.shape[:2])
    if pad_x or pad_y:  # what is left over is padded, as everywhere, with black
        image = cv2.copyMakeBorder(image, 0, pad_y, 0, pad_x, cv2.BORDER_CONSTANT)
    size = (image.shape[1] // block, image.shape[0] // block)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def points_to_crop(normalised: np.ndarray, size: int) -> np.ndarray:
    """Network coordinates (..., 2), 0 in the middle and 1 a crop's side, to crop index coordinates."""
    return normalised * size + (size - 1) / 2


def points_from_crop(points: np.ndarray, size: int) -> np.ndarray:
    """The inverse of :func:`points_to_crop`."""
    return (points - (size - 1) / 2) / size
