"""Presence: values by hand, then real faces and real background."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from facemtl.data.mtfl import read_mtfl
from facemtl.face import Face
from facemtl.geometry import box_from_five
from facemtl.image import read_image
from facemtl.predictor import Predictor
from facemtl.presence import disagreement, presence

BOX = np.array([100.0, 100.0, 200.0, 200.0])
POINTS = np.float32([[135, 135], [165, 135], [150, 150], [138, 165], [162, 165]])


def face(sigma: float | None = None, quality: float | None = None) -> Face:
    sigmas = None if sigma is None else np.full(5, sigma, np.float32)
    return Face(np.float32(BOX), 1.0, POINTS, "mtfl5", landmark_sigma=sigmas, quality=quality)


def test_sigma_counts_in_sides_of_the_face() -> None:
    assert presence(face(sigma=2.25), BOX, BOX) == pytest.approx(0, abs=1e-5)
    assert presence(face(sigma=2.1), BOX, BOX) == pytest.approx(1, abs=1e-5)  # 0.0015 sides under the limit
    assert presence(face(sigma=2.4), BOX, BOX) == pytest.approx(-1, abs=1e-5)
    assert presence(face(sigma=4.2), BOX, 2 * BOX) == pytest.approx(1, abs=1e-5)
    assert presence(face(sigma=90.0), BOX, BOX) == -8


def test_without_sigma_the_points_must_repeat_their_box() -> None:
    assert presence(face(), BOX, BOX) == 2.5
    assert presence(face(), BOX, BOX + 6 / math.sqrt(2)) == pytest.approx(0)
    assert presence(face(), BOX, BOX + 12 / math.sqrt(2)) == pytest.approx(-7.5)


def test_a_quality_of_the_network_comes_first() -> None:
    assert presence(face(sigma=0.1, quality=0.5), BOX, BOX) == 0
    assert presence(face(sigma=0.1, quality=0.2), BOX, BOX) == pytest.approx(math.log(0.25))
    assert presence(face(quality=0.0), BOX, BOX) == -8
    assert presence(face(quality=1.0), BOX, BOX) == 8


def test_disagreement_counts_shift_and_growth() -> None:
    assert disagreement(BOX, BOX) == 0
    assert disagreement(BOX, BOX + np.array([6, 0, 6, 0])) == pytest.approx(1)  # 0.06 of a side
    half = 50 * math.exp(0.04)
    assert disagreement(BOX, np.array([150 - half, 150 - half, 150 + half, 150 + half])) == pytest.approx(1)
    assert disagreement(10 * BOX, 10 * BOX + np.array([60, 0, 60, 0])) == pytest.approx(1)


@pytest.mark.parametrize("model", ["facemtl-s", "tcdcn"])
def test_real_faces_and_their_background_part(model: str, mtfl_root: Path) -> None:
    """The first held-out faces of lfw_5590, and the corner of the same pictures that is farthest from the face."""
    predict, rng = Predictor(model), np.random.default_rng(0)
    samples = [s for s in read_mtfl(mtfl_root, "heldout") if s.image.parent.name == "lfw_5590"][:20]
    on_face, beside = [], []
    for sample in samples:
        image = read_image(sample.image)
        height, width = image.shape[:2]
        box = box_from_five(sample.points)
        side, centre = box[2] - box[0], (box[:2] + box[2:]) / 2
        x, y = (0 if c > length / 2 else length - side for c, length in zip(centre, (width, height), strict=True))
        shifts = np.tile(rng.normal(0, 0.01 * side, 2), 2)
        for given, odds in ((box + shifts, on_face), (np.array([x, y, x + side, y + side]), beside)):
            for _ in range(2):  # the second box follows from the first, as in a track
                (found,) = predict(image, boxes=[given])
                last, given = given, box_from_five(found.landmarks)
            odds.append(presence(found, last, given))
    assert np.mean(np.array(on_face) > 0) >= 0.95
    assert np.mean(np.array(beside) > 0) <= (0.05 if model == "facemtl-s" else 0.3)
