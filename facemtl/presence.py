"""Whether there still is a face where a tracker looked, from what the network says of its crop anyway.

A model whose quality was fitted (:mod:`facemtl.quality`) says it itself. For the others:
measured on 307 held-out faces of MTFL (crops displaced by 5 % of the face box and resized by 5 %, standard deviations)
and on 299 boxes of the background of the same pictures (0.5 to 1.2 times as large, at most 5 % of them on the face),
each followed for four frames, the next box being that of the last points:

=====================================  =============================  =================================================
what                                   facemtl-s                      tcdcn, which gives no ``landmark_sigma``
=====================================  =============================  =================================================
mean ``landmark_sigma`` over box side  area under the curve 1.000;
                                       faces at most 0.021 (half
                                       under 0.011), background at
                                       least 0.030 at first and
                                       0.021 after four frames
:func:`disagreement` over 1                                           faces 1 % in any of three frames, background
                                                                      88 % in the first and 93 % in any of three
=====================================  =============================  =================================================

The geometry of the five points says next to nothing (their distance from the faces' mean shape, in its covariance:
area 0.55 to 0.79, and the *background* is nearer to the mean), nor do the attributes' confidences say enough (0.79 to
0.95). Faces that are small, blurred, dark or nearly in profile are rarer among these rows than in life.
"""

from __future__ import annotations

import math

import numpy as np

from facemtl.face import Face

SIGMA_LIMIT, SIGMA_STEP = 0.0225, 0.0015  # in sides of the face box: where faces end, and log-odds by how far
MOST_AGREEMENT = 2.5  # log-odds of a box that its points repeat exactly; weaker evidence than sigma, hence bounded
SHIFT, GROWTH = 0.06, 0.04  # of a box from frame to frame that count as 1: in sides, and in the logarithm of the side
LARGEST = 8.0  # log-odds beyond which nothing is believed


def presence(face: Face, given: np.ndarray, box: np.ndarray) -> float:
    """Log-odds that there is a face: over 0 it is likelier there than not.

    The face's ``quality`` where the model has one, else its ``landmark_sigma``, else how well its points repeat the
    box they were looked for in. The latter two are a weighing of measured separations with equal odds beforehand, not
    a calibrated probability.

    Args:
        face: what the network found.
        given: (4,) ``x1 y1 x2 y2``, the box it was given, predicted from the frame before.
        box: (4,) the face box of the points it found.
    """
    if face.quality is not None:
        odds = math.log(max(face.quality, 1e-9) / max(1 - face.quality, 1e-9))
    elif face.landmark_sigma is not None:
        odds = (SIGMA_LIMIT - float(face.landmark_sigma.mean()) / float(box[2] - box[0])) / SIGMA_STEP
    else:
        odds = MOST_AGREEMENT * (1 - disagreement(given, box) ** 2)
    return min(max(odds, -LARGEST), LARGEST)


def disagreement(given: np.ndarray, box: np.ndarray) -> float:
    """How far a box (4,) is from the one the network was given: shift and growth, each in units of what is usual."""
    x1, y1, x2, y2 = given.tolist()
    u1, v1, u2, v2 = box.tolist()
    side = (x2 - x1 + y2 - y1) / 2
    shift = math.hypot(u1 + u2 - x1 - x2, v1 + v2 - y1 - y2) / 2 / side
    return math.hypot(shift / SHIFT, math.log((u2 - u1) / side) / GROWTH)
