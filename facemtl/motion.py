"""Whether something moved in a video away from the people who are known already: a reason to look for faces again."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SIDE = 64  # cells along the longer side of a picture; each is the mean of its pixels: noise of the sensor goes out
CHANGE = 12.0  # grey levels by which the mean of 3 x 3 cells must differ
CELLS = 10  # cells that must: one cell spreads over 9; a face of 40 pixels in 640 covers 16, and spreads over 36
HEAD, BODY = 0.75, 1.75  # half the width of what moves with a face, beside and under it, in sides of its box


class Motion:
    """Compares each frame with the one in which faces were last looked for, so that slow changes add up.

    What the known people cover is left out: wherever their heads have been since then, and all that is under their
    chins, where a body is. A change of the whole picture's brightness alone is no motion.
    """

    def __init__(self) -> None:
        self._frame: np.ndarray | None = None
        self._before: np.ndarray | None = None
        self._known: np.ndarray | None = None

    def see(self, frame: np.ndarray, boxes: Sequence[np.ndarray]) -> None:
        """Take the next frame, (H, W, 3) uint8 BGR of the same size as before, with its known faces, (4,) each.

        It is only looked at if one of the other methods is called, which must be before its pixels change.
        """
        self._frame = frame
        height, width = frame.shape[:2]
        cells = SIDE / max(height, width)
        if self._known is None:
            self._known = np.zeros(_size(frame)[::-1], dtype=bool)
        for x1, y1, x2, y2 in (box.tolist() for box in boxes):
            x, y, side = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1
            for half, top, bottom in ((HEAD, y - HEAD * side, y + HEAD * side), (BODY, y + side / 2, height)):
                left, right = ((x + sign * half * side) * cells for sign in (-1, 1))
                self._known[_cells(top * cells, bottom * cells), _cells(left, right)] = True

    def remember(self) -> None:
        """Faces are looked for in the frame just seen: later ones are compared with it."""
        self._before, self._known = _cell_means(self._frame), None

    def elsewhere(self) -> bool:
        """Whether enough has changed since, away from the known people."""
        if self._before is None:
            return False
        change = _cell_means(self._frame).astype(np.float32) - self._before
        change -= np.median(change)
        change[self._known] = 0
        return int((np.abs(cv2.blur(change, (3, 3))) > CHANGE).sum()) >= CELLS


def _size(frame: np.ndarray) -> tuple[int, int]:
    """Cells along and down a frame."""
    height, width = frame.shape[:2]
    cells = SIDE / max(height, width)
    return max(1, round(width * cells)), max(1, round(height * cells))


def _cell_means(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 BGR -> the mean grey level of each cell, uint8."""
    size = _size(frame)
    height, width = frame.shape[:2]
    if min(height, width) >= 2 * SIDE:  # OpenCV halves a picture several times as fast as it averages larger blocks
        frame = cv2.resize(frame, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), size, interpolation=cv2.INTER_AREA)


def _cells(start: float, stop: float) -> slice:
    return slice(max(int(start), 0), max(int(np.ceil(stop)), 0))
