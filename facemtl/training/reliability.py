"""Whether probabilities mean what they say: accuracy against confidence, and how far they lie apart."""

from __future__ import annotations

import numpy as np

CALIBRATION_BINS = 15
CHANCES = 200  # draws of labels from probabilities


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of faces in each of up to 15 bins of equal mass, low confidence first.

    Confidence is the probability of the chosen class. Equal confidences share a bin, so that the order of the
    rows does not matter; bins that stay empty are left out. All faces must have a label and a prediction.
    """
    confidence = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]
    correct = labels == chosen
    if not len(labels):
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    edges = np.quantile(confidence, np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS)
    _, bins, count = np.unique(np.searchsorted(edges, confidence), return_inverse=True, return_counts=True)
    return np.bincount(bins, confidence) / count, np.bincount(bins, correct) / count, count


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, chosen: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over the bins of :func:`reliability`, each with its share of the faces;
    NaN without faces."""
    if not len(labels):
        return np.nan
    confidence, accuracy, count = reliability(labels, probabilities, chosen)
    return float(np.abs(confidence - accuracy) @ count / len(labels))


def ece_by_chance(probabilities: np.ndarray, chosen: np.ndarray) -> float:
    """The calibration error of probabilities that are right: labels are drawn from them, with a fixed seed.

    (N, C) and (N,), without NaN. With few faces a bin it is far from 0: no calibration can be told from a better one
    below. NaN without faces.
    """
    if not len(chosen):
        return np.nan
    rng = np.random.default_rng(0)
    shares = np.cumsum(probabilities, axis=1)
    errors = []
    for _ in range(CHANCES):
        labels = (rng.uniform(size=(len(chosen), 1)) * shares[:, -1:] >= shares[:, :-1]).sum(axis=1)
        errors.append(expected_calibration_error(labels, probabilities, chosen))
    return float(np.mean(errors))
