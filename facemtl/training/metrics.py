"""Every figure that a model is judged by, from saved predictions; arrays in, plain numbers out.

Landmarks are judged by the *normalised mean error* (NME): the distance between the predicted and the true point,
averaged over the points of a face, over the true inter-ocular distance (the schema's eye pair). It is a fraction
in arrays and a percentage in results.

*Raw* figures take the predictions as they are. *Offset-corrected* figures first remove a constant offset of each
point in the eye frame, because two annotators put the same point at places that differ by a constant
(:func:`offset_corrected`).

A face that was not found (NaN prediction) has no error to average: it is left out of the mean, the median and the
per-point errors, counts as a failure and as zero in the area under the curve, and the share found is given beside.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from facemtl.face import ANGLES, ATTRIBUTES
from facemtl.landmarks import SCHEMAS
from facemtl.shared_points import how_shared
from facemtl.training.predictions import Predictions
from facemtl.training.reliability import expected_calibration_error

FAILURE = 0.10  # NME above which a face has failed; the area under the cumulative error curve also ends here
# Inter-ocular distances in pixels that tell small, middle and large faces apart: fixed, so that sets can be compared.
SIZES = (35, 45)
NORMAL_WITHIN_1 = 0.6827  # share of a normal distribution within one standard deviation
CROSSED_FACES = 30  # a part that two strata have in common is judged from this many faces on
RESAMPLES = 1000
SEED = 0
# 391 of MTFL's 2,995 published test boxes are this one: failures of the detector, filled in by the publisher.
FILLED_BOX = (20.0, 26.0, 111.0, 117.0)


def eye_vectors(points: np.ndarray, eye_pair: tuple[int, int]) -> np.ndarray:
    """(N, K, 2) points -> (N,) complex x + iy from the left to the right eye; NaN without two distinct eyes.

    Dividing an image vector, as a complex number, by this one expresses it in the *eye frame*: the real axis runs
    along the eyes to the viewer's right, the imaginary axis down the face, and the unit is the inter-ocular distance.
    """
    left, right = (_complex(points[:, i]) for i in eye_pair)
    vectors = right - left
    return np.where(np.abs(vectors) > 0, vectors, np.nan)


def eye_residuals(points: np.ndarray, truth: np.ndarray, eye_pair: tuple[int, int]) -> np.ndarray:
    """(N, K) complex prediction minus truth in the eye frame of the truth; NaN where either is missing."""
    return _divide(_complex(points - truth), eye_vectors(truth, eye_pair))


def nme(points: np.ndarray, truth: np.ndarray, eye_pair: tuple[int, int]) -> np.ndarray:
    """(N, K, 2) predicted and true points -> (N,) mean error over the inter-ocular distance, a fraction.

    Points that the truth lacks are left out of the mean. NaN where the face was not found, or where the truth has
    no two distinct eyes.
    """
    labelled = np.isfinite(truth).all(axis=2)
    distances = np.where(labelled, np.hypot(*np.moveaxis(points - truth, 2, 0)), 0.0)
    return distances.sum(axis=1) / np.maximum(labelled.sum(axis=1), 1) / np.abs(eye_vectors(truth, eye_pair))


def offset_corrected(
    points: np.ndarray, truth: np.ndarray, eye_pair: tuple[int, int], halves: np.ndarray
) -> np.ndarray:
    """(N, K, 2) points less the constant offset of each point that the *other* half of the faces shows.

    The offset of a point is the median, over the faces of one half, of prediction minus truth in the eye frame; the
    faces of the other half are moved back by it, and the other way round.

    The frame is that of the *predicted* eyes, so that nothing of a face's truth is used to correct that face. The
    median, not the mean, because a profile face or a failure whose predicted eyes nearly meet has a residual without
    bound in that frame: one such face in forty moved the mean by several times the inter-ocular distance.

    Args:
        halves: (N,) bool, which half a face belongs to. It should not depend on the order of the rows.

    Returns:
        float64; a point that no face of the other half shows stays where it is.
    """
    residuals = _complex(points - truth)
    eyes = eye_vectors(points, eye_pair)
    corrected = points.astype(np.float64)
    for half in (False, True):
        fitted, applied = halves != half, halves == half
        moved = _median(_divide(residuals[fitted], eyes[fitted])) * np.nan_to_num(eyes[applied, None])
        corrected[applied] -= np.stack([moved.real, moved.imag], axis=2)
    return corrected


def landmark_metrics(points: np.ndarray, truth: np.ndarray, eye_pair: tuple[int, int]) -> dict[str, Any]:
    """Landmark figures of (N, K, 2) predicted and true points; NaN where nothing can be measured.

    Returns:
        ``faces`` with true eyes, which all others are about, and the share of them ``found`` (0..1);
        ``nme_percent``, its 95 % interval ``nme_interval_percent`` (percentile bootstrap over faces, fixed seed) and
        ``median_percent``; ``failure_percent``, the share of faces over 10 % NME or not found; ``auc``, the area
        under the cumulative error curve from 0 to 10 % NME, divided by its width, so that 1 is perfect;
        for each point, ``point_nme_percent`` and the mean of prediction minus truth: ``point_offset_px`` ``[x, y]``
        in image pixels and ``point_offset_percent`` in the eye frame of the truth, in percent of the inter-ocular
        distance (x along the eyes, y down the face).
    """
    measurable = np.isfinite(eye_vectors(truth, eye_pair))
    points, truth = points[measurable], truth[measurable]
    errors = nme(points, truth, eye_pair)
    found = errors[np.isfinite(errors)]
    residuals = eye_residuals(points, truth, eye_pair)
    offsets = [_mean(column) for column in residuals.T]
    return {
        "faces": len(errors),
        "found": _mean(np.isfinite(errors)),
        "nme_percent": 100 * _mean(found),
        "nme_interval_percent": [100 * bound for bound in bootstrap_interval(found)],
        "median_percent": 100 * float(np.median(found)) if found.size else np.nan,
        "failure_percent": 100 * _mean(~(errors <= FAILURE)),
        # The curve is a staircase: a face of error e adds 1 / N from e to the end, so the area is a mean.
        "auc": _mean(np.nan_to_num(np.clip(1 - errors / FAILURE, 0, None), nan=0.0)),
        "point_nme_percent": [100 * _mean(np.abs(column)) for column in residuals.T],
        "point_offset_px": [[_mean(x), _mean(y)] for x, y in (points - truth).transpose(1, 2, 0)],
        "point_offset_percent": [[100 * offset.real, 100 * offset.imag] for offset in offsets],
    }


def sigma_metrics(
    points: np.ndarray, corrected: np.ndarray, truth: np.ndarray, sigma: np.ndarray, eye_pair: tuple[int, int]
) -> dict[str, Any]:
    """How well the predicted standard deviations (N, K) tell how far off the points (N, K, 2) are; NaN without faces.

    Returns:
        ``faces`` that were found and have true eyes; ``mean_percent``, the mean sigma in percent of the inter-ocular
        distance; and for the ``raw`` and the offset-``corrected`` points a dictionary of

        * ``rank_correlation`` (Spearman) between the mean sigma of a face and its mean error. Both are divided by the
          true inter-ocular distance, so this is about the NME; ``rank_correlation_px`` leaves both in image pixels,
        * ``point_rank_correlation``, the first of the two for each point alone,
        * ``within_1``, the share (0..1) of standardised residuals (predicted minus true over sigma, x and y each on
          its own) between -1 and 1, which is 0.683 for a normal distribution; and ``rms_z``, their root mean square.
    """
    used = np.isfinite(eye_vectors(truth, eye_pair)) & np.isfinite(points).all(axis=(1, 2))
    truth, sigma = truth[used], sigma[used]
    eyes = np.abs(eye_vectors(truth, eye_pair))
    results: dict[str, Any] = {"faces": int(used.sum()), "mean_percent": 100 * _mean(sigma / eyes[:, None])}
    for kind, found in (("raw", points[used]), ("corrected", corrected[used])):
        errors = np.abs(_complex(found - truth))
        errors = np.where(np.isfinite(errors), errors, np.nan)
        labelled = np.where(np.isfinite(errors), sigma, np.nan)  # of points that the truth lacks nothing is known
        error, spread = (np.array([_mean(row) for row in values]) for values in (errors, labelled))
        residuals = (found - truth) / sigma[..., None]
        residuals = residuals[np.isfinite(residuals)]
        results[kind] = {
            "rank_correlation": rank_correlation(spread / eyes, error / eyes),
            "rank_correlation_px": rank_correlation(spread, error),
            "point_rank_correlation": [
                rank_correlation(s / eyes, e / eyes) for s, e in zip(sigma.T, errors.T, strict=True)
            ],
            "within_1": _mean(np.abs(residuals) <= 1),
            "rms_z": float(np.sqrt(_mean(residuals**2))),
        }
    return results


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of (N,) values, ties sharing their mean rank; NaN where either has no spread."""
    both = np.isfinite(one) & np.isfinite(other)
    return _correlation(rankdata(one[both]), rankdata(other[both]))


def angle_metrics(angles: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, Any]]:
    """Figures of the head's yaw, pitch and roll from (N, 3) predicted and true degrees; NaN where there are none.

    Returns:
        for each angle: ``faces`` counted; ``mae``, the mean absolute error; ``constant_mae``, that of the best constant
        guess (the median of the truth), and ``ratio`` of the two; ``bias``, the mean of predicted minus true; and
        Pearson's ``correlation`` of predicted and true, which is negative where a sign is mixed up.
    """
    results = {}
    for name, predicted, true in zip(ANGLES, angles.T, truth.T, strict=True):
        used = np.isfinite(predicted) & np.isfinite(true)
        error, true = predicted[used] - true[used], true[used]
        constant = _mean(np.abs(true - np.median(true))) if used.any() else np.nan
        mae = _mean(np.abs(error))
        results[name] = {
            "faces": int(used.sum()),
            "mae": mae,
            "constant_mae": constant,
            "ratio": mae / constant if constant else np.nan,
            "bias": _mean(error),
            "correlation": _correlation(predicted[used], true),
        }
    return results


def attribute_metrics(
    labels: np.ndarray, probabilities: np.ndarray, chosen: np.ndarray | None = None
) -> dict[str, Any]:
    """Figures of one attribute, over the faces that have both a label and a prediction; fractions 0..1.

    Args:
        labels: (N,) true class, -1 where missing.
        probabilities: (N, C), NaN where the face was not found.
        chosen: (N,) predicted class; the likeliest if None.

    Returns:
        ``faces`` counted; ``accuracy``; ``commonest``, the accuracy of always guessing the commonest class;
        ``balanced_accuracy``, the mean recall of the classes that occur; ``f1`` and ``average_precision``: with two
        classes those of class 0, with more the mean over the classes that occur, each against the rest; ``ece``, the
        expected calibration error (:mod:`facemtl.training.reliability`); ``confusion`` [true][predicted] counts. NaN
        without faces.
    """
    used = (labels >= 0) & np.isfinite(probabilities).all(axis=1)
    labels, probabilities = labels[used], probabilities[used]
    chosen = probabilities.argmax(axis=1) if chosen is None else chosen[used]
    classes = probabilities.shape[1]
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, chosen), 1)
    hits, occurrences, guesses = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    positive = [c for c in ([0] if classes == 2 else range(classes)) if occurrences[c]]
    return {
        "faces": len(labels),
        "accuracy": _mean(labels == chosen),
        "commonest": float(occurrences.max() / len(labels)) if len(labels) else np.nan,
        "balanced_accuracy": _mean(hits[occurrences > 0] / occurrences[occurrences > 0]),
        "f1": _mean(np.array([2 * hits[c] / (occurrences[c] + guesses[c]) for c in positive])),
        "average_precision": _mean(
            np.array([average_precision_score(labels == c, probabilities[:, c]) for c in positive])
        ),
        "ece": expected_calibration_error(labels, probabilities, chosen),
        "confusion": confusion.tolist(),
    }


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of (N,) values, with a fixed seed; NaN without values."""
    if not values.size:
        return np.nan, np.nan
    rng = np.random.default_rng(SEED)
    values = np.sort(values)  # the same interval whatever the order of the rows
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def corrected_points(predictions: Predictions) -> np.ndarray:
    """(N, K, 2) :func:`offset_corrected` points of saved predictions, with their own halves."""
    eye_pair = SCHEMAS[predictions.schema].eye_pair
    return offset_corrected(predictions.points, predictions.truth, eye_pair, predictions.halves)


def evaluate(predictions: Predictions) -> dict[str, Any]:
    """Everything measured, as a nested plain dictionary that JSON can hold; what cannot be measured is None.

    A *block* is ``{"faces": N, "found": 0..1, "landmarks": {"raw": ..., "corrected": ...}, "sigma": ..., "angles": ...,
    "attributes": {task: ...}}`` with the results of :func:`landmark_metrics`, :func:`sigma_metrics` (None where the
    model gives no sigma), :func:`angle_metrics` (None unless set and model have angles), :func:`attribute_metrics`; a
    model that gives no points is not judged by them, its landmark results are about 0 faces. The dictionary holds
    ``schema``; ``shared``, None unless set and model have different points (:func:`facemtl.shared_points.how_shared`);
    ``all``, the block of every face; ``own_box``, the block of the faces whose box is not MTFL's filled-in constant, or
    None where no box is; and ``slices``: name -> part -> block, see :func:`slice_rows`. Offsets are fitted
    once, on all faces.
    """
    corrected = corrected_points(predictions)
    filled = np.isclose(predictions.boxes, FILLED_BOX).all(axis=1)
    slices: dict[str, dict[str, Any]] = {}
    for name, label, rows in slice_rows(predictions):
        slices.setdefault(name, {})[label] = _block(predictions, corrected, rows)
    return _plain(
        {
            "schema": predictions.schema,
            "shared": predictions.origins and how_shared(*predictions.origins, predictions.schema),
            "all": _block(predictions, corrected, np.ones(len(predictions), dtype=bool)),
            "own_box": _block(predictions, corrected, ~filled) if filled.any() else None,
            "slices": slices,
        }
    )


def slice_rows(predictions: Predictions) -> Iterator[tuple[str, str, np.ndarray]]:
    """The parts that are judged on their own: (name of the slicing, name of the part, (N,) bool rows), none empty.

    They are ``group``; ``pose`` and ``glasses, gender`` by the labels; ``size``, the true inter-ocular distance in
    pixels; every stratum, and every two strata together where they have ``CROSSED_FACES`` faces in common.
    """
    yield from _parts("group", predictions.frame["group"].to_numpy(dtype=str))
    for tasks in (("pose",), ("glasses", "gender")):
        for classes in itertools.product(*(enumerate(ATTRIBUTES[task]) for task in tasks)):
            rows = np.ones(len(predictions), dtype=bool)
            for task, (index, _) in zip(tasks, classes, strict=True):
                rows &= predictions.labels(task) == index
            if rows.any():
                yield ", ".join(tasks), ", ".join(label for _, label in classes), rows
    eyes = np.abs(eye_vectors(predictions.truth, SCHEMAS[predictions.schema].eye_pair))
    small, large = SIZES
    for part, rows in (
        (f"under {small} px", eyes < small),
        (f"{small} to {large} px", (eyes >= small) & (eyes < large)),
        (f"{large} px and over", eyes >= large),
    ):
        if rows.any():
            yield "size", part, rows
    strata = predictions.strata
    for name, parts in strata.items():
        yield from _parts(name, parts)
    for (one, ones), (other, others) in itertools.combinations(strata.items(), 2):
        known = (ones != "") & (others != "")
        crossed = np.where(known, np.char.add(np.char.add(ones, ", "), others), "")
        for slicing, part, rows in _parts(f"{one}, {other}", crossed):
            if rows.sum() >= CROSSED_FACES:
                yield slicing, part, rows


def _parts(slicing: str, parts: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """A part for each text but the empty one."""
    for part in np.unique(parts[parts != ""]).tolist():
        yield slicing, part, parts == part


def _block(predictions: Predictions, corrected: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    eye_pair = SCHEMAS[predictions.schema].eye_pair
    judged = rows & np.isfinite(corrected).any()  # no row at all where the model gives no points
    points, truth = predictions.points[judged], predictions.truth[judged]
    sigma, angles, true_angles = predictions.sigma, predictions.angles, predictions.true_angles
    return {
        "faces": int(rows.sum()),
        "found": _mean(np.isfinite(predictions.boxes[rows]).all(axis=1)),
        "landmarks": {
            "raw": landmark_metrics(points, truth, eye_pair),
            "corrected": landmark_metrics(corrected[judged], truth, eye_pair),
        },
        "sigma": None if sigma is None else sigma_metrics(points, corrected[judged], truth, sigma[judged], eye_pair),
        "angles": None if angles is None or true_angles is None else angle_metrics(angles[rows], true_angles[rows]),
        "attributes": {
            task: attribute_metrics(
                predictions.labels(task)[rows], predictions.probabilities(task)[rows], predictions.chosen(task)[rows]
            )
            for task in predictions.tasks
        },
    }


def _complex(points: np.ndarray) -> np.ndarray:
    return points[..., 0].astype(np.float64) + 1j * points[..., 1]


def _divide(vectors: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """(N, K) by (N,) complex; NaN stays NaN, of which numpy would warn."""
    with np.errstate(invalid="ignore"):
        return vectors / eyes[:, None]


def _mean(values: np.ndarray) -> Any:
    """Mean of the finite values as a Python number; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return finite.mean().item() if finite.size else np.nan


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; NaN where either has no spread."""
    if not one.size or not np.ptp(one) or not np.ptp(other):
        return np.nan
    return float(np.corrcoef(one, other)[0, 1])


def _median(values: np.ndarray) -> np.ndarray:
    """(N, K) complex -> (K,) median of each part over the finite values; 0 where there is none."""
    columns = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.median(c.real) + 1j * np.median(c.imag) if c.size else 0.0 for c in columns])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
