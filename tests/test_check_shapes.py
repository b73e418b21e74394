"""Shapes of faces: what their mean is, which are far from it, and whether it is its own mirror image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facemtl.checking.shapes import aligned, fit_shapes, misfits
from facemtl.landmarks import SCHEMAS

FIVE = np.array([[-20.0, -15], [20, -15], [0, 3], [-16, 20], [16, 20]])


def faces(count: int = 200, spread: float = 0.8, seed: int = 0) -> np.ndarray:
    """(N, 5, 2) faces anywhere, of any size, turned by up to 30 degrees."""
    rng = np.random.default_rng(seed)
    shapes = FIVE + rng.normal(0, spread, (count, 5, 2))
    turn = rng.uniform(-0.5, 0.5, count)
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], axis=1).reshape(-1, 2, 2)
    moved = np.einsum("nij,nkj->nki", rotation, shapes) * rng.uniform(0.5, 4, (count, 1, 1))
    return moved + rng.uniform(0, 500, (count, 1, 2))


def test_alignment_takes_out_place_size_and_turn():
    mean = np.array([0, 1, 1j])
    turned = 3j * mean + (5 - 2j)  # three times as large, turned by a right angle
    points = np.stack([turned.real, turned.imag], axis=-1)
    assert aligned(points[None], mean)[0] == pytest.approx(mean)
    four = np.array([0, 1, 1j, 9])  # the missing one lies anywhere
    points = np.concatenate([points, [[np.nan, np.nan]]])
    laid = aligned(points[None], four)[0]
    assert laid[:3] == pytest.approx(mean) and np.isnan(laid[3])
    assert np.isnan(aligned(points[None, 1:], four[1:])).all()  # two points alone place nothing


def test_the_mean_shape_is_that_of_the_faces_whatever_a_few_of_them_are():
    points = faces()
    points[:10] = points[:10, [1, 0, 2, 4, 3]]
    mean = fit_shapes(points).mean
    unit = np.hypot(*(FIVE - FIVE.mean(axis=0)).T).mean()
    assert aligned(FIVE[None], mean)[0] == pytest.approx(mean, abs=0.02)
    assert np.abs(mean).mean() == pytest.approx(1)
    assert np.abs(mean[0] - mean[1]) * unit == pytest.approx(40, abs=0.5)


def test_a_face_that_is_none_stands_out_and_others_do_not():
    points = faces()
    wrong = {3: [1, 0, 2, 3, 4], 50: [0, 1, 2, 4, 3], 120: [2, 1, 0, 3, 4]}
    for row, order in wrong.items():
        points[row] = points[row, order]
    distances = fit_shapes(points).distances(points)
    others = np.delete(distances, list(wrong))
    assert set(np.argsort(-distances)[:3].tolist()) == set(wrong)
    assert np.median(others) == pytest.approx(1, abs=0.2) and distances[list(wrong)].min() > 3 * others.max()


def test_missing_points_neither_count_nor_hide_the_rest():
    points = faces()
    points[7, 2] = np.nan
    points[8, :3] = np.nan
    distances = fit_shapes(points).distances(points)
    assert distances[7] < 3 and np.isnan(distances[8])


def test_few_faces_make_no_model():
    assert fit_shapes(faces(29)) is None
    assert fit_shapes(np.zeros((50, 5, 2))) is None  # all points in one place


def test_a_flip_order_that_the_faces_do_not_have():
    schema = SCHEMAS["mtfl5"]
    mean = fit_shapes(faces()).mean
    assert misfits(mean, schema) == []
    eyes = replace(schema, flip_order=(0, 1, 2, 4, 3))
    assert misfits(mean, eyes) == [(0, 0, 1), (1, 1, 0)]
    nothing = replace(schema, flip_order=(0, 1, 2, 3, 4))
    assert [point for point, _, _ in misfits(mean, nothing)] == [0, 1, 3, 4]
    columns = mean[[0, 3, 2, 1, 4]]  # a set whose columns stand in another order: eye 1 and mouth corner 3 exchanged
    assert {point for point, _, _ in misfits(columns, schema)} == {0, 1, 3, 4}
