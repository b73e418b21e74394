"""A search for faces in pieces: at once or a piece a frame, with any detector."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from facemtl.detect import Detections
from facemtl.search import Search

FRAME = np.zeros((4, 6, 3), np.uint8)
ONE = Detections(np.float32([[0, 0, 10, 10]]), np.float32([0.9]))


class Whole:
    """A detector that finds what it is told; it keeps the frames."""

    def __init__(self, found: Detections) -> None:
        self.found, self.frames = found, []

    def detect(self, image: np.ndarray) -> Detections:
        self.frames.append(image)
        return self.found


class InPieces(Whole):
    def search(self, image: np.ndarray) -> Iterator[Detections | None]:
        self.frames.append(image)
        yield None
        yield None
        yield self.found


def test_a_detector_without_pieces_does_all_in_the_first() -> None:
    found = Search(Whole(ONE), FRAME, 7, {}).advance()
    assert found.boxes.tolist() == [[0, 0, 10, 10]]
    assert found.boxes.dtype == np.float64
    assert found.scores == pytest.approx([0.9])


def test_pieces_come_one_by_one() -> None:
    search = Search(InPieces(ONE), FRAME, 7, {"a": (np.zeros(4), 1.5)})
    assert (search.number, search.known["a"][1]) == (7, 1.5)
    assert search.advance() is None
    assert search.advance() is None
    assert search.advance().boxes.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_the_rest_can_be_done_at_once(done: int) -> None:
    search = Search(InPieces(ONE), FRAME, 7, {})
    for _ in range(done):
        search.advance()
    assert search.finish().boxes.tolist() == [[0, 0, 10, 10]]


def test_the_frame_may_be_overwritten_meanwhile() -> None:
    frame = FRAME.copy()
    detector = InPieces(ONE)
    search = Search(detector, frame, 7, {})
    frame[:] = 255
    search.finish()
    assert (detector.frames[0] == 0).all()


def test_a_face_that_a_detector_finds_twice_counts_once() -> None:
    twice = Detections(np.float32([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]]), np.float32([0.7, 0.9, 0.8]))
    found = Search(Whole(twice), FRAME, 1, {}).finish()
    assert found.boxes.tolist() == [[1, 0, 11, 10], [20, 0, 30, 10]]
