"""Predictions of no model, for the tests of metrics, reports and tools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facemtl.face import ATTRIBUTES
from facemtl.landmarks import SCHEMAS
from facemtl.training.predictions import Predictions


def random_predictions(
    count: int = 60, schema: str = "mtfl5", tasks: Sequence[str] = tuple(ATTRIBUTES), lost: int = 0
) -> Predictions:
    """Faces of about 40 pixels between the eyes, predicted with about 4 % NME; the first ``lost`` were not found."""
    rng = np.random.default_rng(5)
    size = len(SCHEMAS[schema])
    left, right = SCHEMAS[schema].eye_pair
    truth = rng.uniform(20, 120, size=(count, size, 2))
    truth[:, left] = rng.uniform([30, 40], [50, 60], size=(count, 2))
    truth[:, right] = truth[:, left] + rng.uniform([35, -5], [45, 5], size=(count, 2))
    points = truth + rng.normal(scale=1.3, size=truth.shape)
    boxes = np.tile([10.0, 10.0, 130.0, 130.0], (count, 1))
    points[:lost], boxes[:lost] = np.nan, np.nan
    labels = {task: rng.integers(len(classes), size=count) for task, classes in ATTRIBUTES.items()}
    probabilities = {task: rng.dirichlet(np.ones(len(ATTRIBUTES[task])), size=count) for task in tasks}
    for array in probabilities.values():
        array[:lost] = np.nan
    return Predictions.from_arrays(
        schema=schema,
        images=[f"{'ab'[i % 2]}/{i:03d}.png" for i in range(count)],
        groups=["ab"[i % 2] for i in range(count)],
        boxes=boxes,
        truth=truth,
        points=points,
        labels=labels,
        probabilities=probabilities,
    )
