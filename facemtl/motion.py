"""Whether something moved in a video away from the people who are known already: a reason to look for faces again."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SIDE = (
    64  # cells along the longer side of a picture; each is the mean of its pixels, which takes the sensor's noise out
)
CHANGE = 12.0  # grey levels by which the mean of 3 x 3 cells must differ
CELLS = 10  # cells that must: one cell spreads over 9; a face of 40 pixels in 640 covers 16, and spreads over 36
HEAD, BODY = 0.75, 1.75  # half the width of what moves with a face, beside and under it, in sides of its box


class Motion:
    """Compares each frame with the one in which faces were last looked for, so that slow changes add up.

    What the known people cover is left out: wherever their heads have been since then, and all that is under their
    chins, where a body is. A change of the whole picture's brightness alone is no motion.
    """

    def __init__(self) -> None:
        self._now: np.ndarray | None = None
        self._before: np.ndarray | None = None
        self._known: np.ndarray | None = None

    def see(self, frame: np.ndarray, boxes: Sequence[np.ndarray]) -> None:
        """Take the next frame, (H, W, 3) uint8 BGR of the same size as before, with its known faces, (4,) each."""
        height, width = frame.shape[:2]
        cells = SIDE / max(height, width)
        size = max(1, round(width * cells)), max(1, round(height * cells))
        self._now = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        if self._known is None:
            self._known = np.zeros(self._now.shape, dtype=bool)
        for x1, y1, x2, y2 in (box.tolist() for box in boxes):
            x, y, side = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1
            for half, top, bottom in ((HEAD, y - HEAD * side, y + HEAD * side), (BODY, y + side / 2, height)):
                left, right = ((x + sign * half * side) * cells for sign in (-1, 1))
                self._known[_cells(top * cells, bottom * cells), _cells(left, right)] = True

    def remember(self) -> None:
        """Faces are looked for in the frame just seen: later ones are compared with it."""
        self._before, self._known = self._now, None

    def elsewhere(self) -> bool:
        """Whether enough has changed since, away from the known people."""
        if self._before is None:
            return False
        change = self._now.astype(np.float32) - self._before
        change -= np.median(change)
        change[self._known] = 0
        return int((np.abs(cv2.blur(change, (3, 3))) > CHANGE).sum()) >= CELLS


def _cells(start: float, stop: float) -> slice:
    return slice(max(int(start), 0), max(int(np.ceil(stop)), 0))
