"""Quality: a probability that a crop shows a face."""

from __future__ import annotations

import math

import pytest

from facemtl.quality import FITTED, quality


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FITTED, "a", (3.0, 0.02))


def test_values_by_hand() -> None:
    assert quality("a", 0.02) == 0.5
    assert quality("a", 0.01) == pytest.approx(8 / 9)  # 2 ** 3 to 1
    assert quality("a", 0.04) == pytest.approx(1 / 9)


def test_it_falls_as_the_points_get_less_sure_and_stays_a_probability() -> None:
    values = [quality("a", sigma) for sigma in (0.0, 1e-300, 0.001, 0.01, 0.015, 0.02, 0.1, 1.0, 1e6)]
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.999999 > 1e-6 > values[-1]


def test_another_model_has_none() -> None:
    assert quality("b", 0.02) is None


def test_what_is_shipped_falls_with_sigma() -> None:
    assert all(slope > 0 and 0 < limit < 0.2 and math.isfinite(slope) for slope, limit in FITTED.values())
