"""Quality: a probability that a crop shows a face."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from facemtl.data.mtfl import read_mtfl
from facemtl.geometry import box_from_five
from facemtl.image import read_image
from facemtl.predictor import Predictor
from facemtl.quality import FITTED, quality


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FITTED, "a", (3.0, 0.02))


def test_values_by_hand(model: None) -> None:
    assert quality("a", 0.02) == 0.5
    assert quality("a", 0.01) == pytest.approx(8 / 9)  # 2 ** 3 to 1
    assert quality("a", 0.04) == pytest.approx(1 / 9)


def test_it_falls_as_the_points_get_less_sure_and_stays_a_probability(model: None) -> None:
    values = [quality("a", sigma) for sigma in (0.0, 1e-300, 0.001, 0.01, 0.015, 0.02, 0.1, 1.0, 1e6)]
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.999999 > 1e-6 > values[-1]


def test_another_model_has_none(model: None) -> None:
    assert quality("b", 0.02) is None


def test_what_is_shipped_falls_with_sigma() -> None:
    assert all(slope > 0 and 0 < limit < 0.2 and math.isfinite(slope) for slope, limit in FITTED.values())


def test_real_faces_have_more_quality_than_what_is_beside_them(mtfl_root: Path) -> None:
    """Held-out faces of lfw_5590, whose photos have room: the face, its lower half covered, and a corner without it."""
    predict, rows = Predictor(), []
    for sample in [s for s in read_mtfl(mtfl_root, "heldout") if s.image.parent.name == "lfw_5590"][30:50]:
        image = read_image(sample.image)
        box = box_from_five(sample.points)
        x1, y1, x2, y2 = np.round(box).astype(int).tolist()
        covered = image.copy()
        covered[(y1 + 2 * y2) // 3 - (y2 - y1) // 3 : y2, max(x1, 0) : x2] = 128
        corner = np.array([0, 0, (x2 - x1) / 2, (x2 - x1) / 2])
        pairs = ((image, box), (covered, box), (image, corner))
        rows.append([predict(picture, boxes=[given])[0].quality for picture, given in pairs])
    face, half, beside = np.array(rows).T
    assert np.mean(face > 0.5) == 1.0
    assert np.mean(beside < 0.5) >= 0.95
    assert half.mean() < face.mean() - 0.1
