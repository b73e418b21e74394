"""Crops that are wider than high: the affine map by hand, and points that follow it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dotted_faces import FIVE, SIZE, augment, cache_of

from facemtl.data.transforms import stretched
from facemtl.geometry import apply_affine, crop_matrix, points_to_crop


def test_a_stretched_crop_has_its_middle_and_area_and_is_wider_than_high():
    matrix = crop_matrix(np.array([20.0, 10, 60, 50]), SIZE, roll=0.5, mirror=True)
    wider = stretched(matrix, SIZE, math.log(1.21))
    middle = np.full(2, (SIZE - 1) / 2)
    np.testing.assert_allclose(apply_affine(wider, middle), [40, 30])
    along, down = (np.hypot(*column) for column in wider[:, :2].T)
    assert along == pytest.approx(1.1)
    assert down == pytest.approx(1 / 1.1)
    np.testing.assert_allclose(stretched(wider, SIZE, -math.log(1.21)), matrix, atol=1e-12)


def test_points_follow_a_stretched_crop_and_its_size_is_as_stated():
    cache = cache_of(np.repeat(FIVE[None], 400, axis=0))
    images, points, _ = augment(cache, np.arange(400), refined=1.0, mirror=0.0, stretch=0.2)
    for image, five in zip(images[:20], points[:20], strict=True):
        brightest = np.array(np.unravel_index(image[0].argmax(), image[0].shape))[::-1]
        assert np.abs(brightest - points_to_crop(five[4], SIZE)).max() < 1
    plain = augment(cache, 1, refined=1.0, mirror=0.0)[1][0]
    shape = lambda p: np.log(np.ptp(p[..., 0], axis=-1) / np.ptp(p[..., 1], axis=-1))  # noqa: E731
    assert np.std(shape(points)) == pytest.approx(0.2, rel=0.15)
    assert np.mean(shape(points)) == pytest.approx(shape(plain), abs=0.1)
