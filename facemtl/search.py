"""A search for faces that is spread over the frames of a video: the detector must not make an ordinary frame late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from facemtl.detect import Detections, Detector, nms

OVERLAP = 0.5  # share of their union from which two boxes of a detector are one face


class Search:
    """One search of one frame, done at once or a piece a frame.

    A detector that has a method ``search`` as :class:`facemtl.detect.MtcnnDetector` can be asked for a piece at a time;
    any other does all of its work in the first piece.

    Args:
        detector: what looks for faces.
        frame: (H, W, 3) uint8 BGR; copied, for the caller may reuse it while the search goes on.
        number: of the frame.
        known: key -> (box (4,), log-odds) of the faces that were followed in that frame.
    """

    def __init__(
        self, detector: Detector, frame: np.ndarray, number: int, known: Mapping[Any, tuple[np.ndarray, float]]
    ) -> None:
        self.number = number
        self.known = dict(known)
        pieces = getattr(detector, "search", None)
        self._pieces: Iterator[Detections | None] = (
            iter([detector.detect(frame)]) if pieces is None else pieces(frame.copy())
        )

    def advance(self) -> Detections | None:
        """Do a piece; what was found, each face once, when it was the last one."""
        return _each_once(next(self._pieces))

    def finish(self) -> Detections:
        """Do the rest at once."""
        for found in self._pieces:
            if found is not None:
                return _each_once(found)
        raise AssertionError("a search ends with what it found")


def _each_once(found: Detections | None) -> Detections | None:
    if found is None:
        return None
    keep = nms(found.boxes, found.scores, OVERLAP)  # a detector of the user's own may find a face twice
    return Detections(found.boxes[keep].astype(np.float64), found.scores[keep])
