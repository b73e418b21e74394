"""Predictions of no model, for the tests of metrics, reports and tools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facemtl.face import ATTRIBUTES
from facemtl.landmarks import SCHEMAS
from facemtl.training.predictions import Predictions


def random_predictions(
    count: int = 60, schema: str = "mtfl5", tasks: Sequence[str] = tuple(ATTRIBUTES), lost: int = 0, more: bool = False
) -> Predictions:
    """Faces of about 40 pixels between the eyes, predicted with about 4 % NME; the first ``lost`` were not found.

    ``more``: also sigma, which is right about some points being worse than others, angles and two strata.
    """
    rng = np.random.default_rng(5)
    size = len(SCHEMAS[schema])
    left, right = SCHEMAS[schema].eye_pair
    truth = rng.uniform(20, 120, size=(count, size, 2))
    truth[:, left] = rng.uniform([30, 40], [50, 60], size=(count, 2))
    truth[:, right] = truth[:, left] + rng.uniform([35, -5], [45, 5], size=(count, 2))
    points = truth + rng.normal(scale=1.3, size=truth.shape)
    sigma = rng.uniform(0.3, 3.0, size=(count, size))
    if more:
        points = truth + rng.normal(size=truth.shape) * sigma[..., None]
    true_angles = rng.normal(scale=[15.0, 8.0, 10.0], size=(count, 3))
    angles = true_angles + rng.normal(scale=4.0, size=(count, 3))
    boxes = np.tile([10.0, 10.0, 130.0, 130.0], (count, 1))
    for array in (points, boxes, sigma, angles):
        array[:lost] = np.nan
    labels = {task: rng.integers(len(classes), size=count) for task, classes in ATTRIBUTES.items()}
    probabilities = {task: rng.dirichlet(np.ones(len(ATTRIBUTES[task])), size=count) for task in tasks}
    for array in probabilities.values():
        array[:lost] = np.nan
    strata = {
        "age": [("adult", "child")[i % 2] for i in range(count)],
        "place": [("here", "there", "")[i % 3] for i in range(count)],
    }
    return Predictions.from_arrays(
        schema=schema,
        images=[f"{'ab'[i % 2]}/{i:03d}.png" for i in range(count)],
        groups=["ab"[i % 2] for i in range(count)],
        boxes=boxes,
        truth=truth,
        points=points,
        labels=labels,
        probabilities=probabilities,
        sigma=sigma if more else None,
        angles=angles if more else None,
        true_angles=true_angles if more else None,
        strata=strata if more else None,
    )
