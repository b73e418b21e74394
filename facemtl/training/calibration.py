"""Probabilities that mean what they say: temperatures, thresholds to abstain by, a scale of sigma, from held-out faces.

Everything is fitted on saved predictions *as the network gave them* (:func:`recalibrated` undoes what a model file
already holds). What a fit is worth is measured on faces that it has not seen: :func:`check` fits on one half of the
faces and measures on the other, both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from facemtl.data.sample import MISSING
from facemtl.landmarks import SCHEMAS
from facemtl.training.metrics import attribute_metrics, sigma_metrics
from facemtl.training.predictions import Predictions
from facemtl.training.reliability import ece_by_chance, expected_calibration_error
from facemtl.weights import ModelSpec

TARGET = 0.95  # accuracy that the faces which are answered should reach
# The rarest answer that a threshold may leave: of a handful of faces every accuracy can be had by luck.
LEAST_ANSWERED = 30
TEMPERATURES = (0.05, 20.0)
HALVINGS = 50
SMALLEST = 1e-300  # probability under which a logarithm would not be finite


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fields of :class:`facemtl.weights.ModelSpec` that are fitted after training; the default changes nothing."""

    temperatures: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    sigma_scale: float = 1.0
    offsets: Mapping[str, Sequence[float]] = field(default_factory=dict)
    priors: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: ModelSpec) -> Calibration:
        """What a model's description holds."""
        return cls(spec.temperatures, spec.thresholds, spec.sigma_scale, spec.offsets, spec.priors)

    def put_into(self, spec: ModelSpec) -> ModelSpec:
        """The same model, calibrated like this."""
        return replace(
            spec,
            offsets=self.offsets,
            priors=self.priors,
            temperatures=self.temperatures,
            thresholds=self.thresholds,
            sigma_scale=float(self.sigma_scale),
        )


def recalibrated(predictions: Predictions, new: Calibration, old: Calibration | None = None) -> Predictions:
    """The predictions of a model calibrated as ``old`` (None: not at all), had it been calibrated as ``new``."""
    old = old or Calibration()
    columns: dict[str, np.ndarray] = {}
    for task in predictions.tasks:
        logits = _logits(predictions.probabilities(task)) * old.temperatures.get(task, 1.0)
        logits += np.asarray(new.offsets.get(task, 0.0)) - np.asarray(old.offsets.get(task, 0.0))
        probabilities = softmax(logits / new.temperatures.get(task, 1.0), axis=1)
        columns |= {f"{task}_p{j}": column for j, column in enumerate(probabilities.T)}
        if task in new.priors:
            columns[f"{task}_chosen"] = chosen_classes(probabilities, new.priors[task])
    if predictions.sigma is not None:
        scaled = predictions.sigma * (new.sigma_scale / old.sigma_scale)
        columns |= {f"sigma_{i}": column for i, column in enumerate(scaled.T)}
    former = [column for column in predictions.frame if column.endswith("_chosen")]
    return replace(predictions, frame=predictions.frame.drop(columns=former).assign(**columns))


def chosen_classes(probabilities: np.ndarray, prior: Sequence[float] | None) -> np.ndarray:
    """(N,) int64, the likeliest class of (N, C) probabilities relative to a prior; -1 where they are NaN."""
    found = np.isfinite(probabilities).all(axis=1)
    relative = np.where(found[:, None], probabilities, 0.0) / (1.0 if prior is None else np.asarray(prior))
    return np.where(found, relative.argmax(axis=1), MISSING)


def fit(
    predictions: Predictions, target: float = TARGET, priors: Mapping[str, Sequence[float]] | None = None
) -> Calibration:
    """Fit every attribute that has labels, and sigma where there is one, on uncalibrated predictions.

    Args:
        target: see :func:`fit_threshold`.
        priors: attribute -> how common its classes are, see :func:`fit_prior`; its label is chosen relative to that.
    """
    temperatures, thresholds, offsets, fitted = {}, {}, {}, {}
    for task in predictions.tasks:
        labels, probabilities = _labelled(predictions, task)
        if not len(labels):
            continue
        prior = None
        if task in (priors or {}):
            fitted[task] = prior = tuple(map(float, priors[task]))
        temperatures[task], found = _fit_shares(labels, probabilities, prior)
        if prior:
            offsets[task] = found
        calibrated = softmax((_logits(probabilities) + found) / temperatures[task], axis=1)
        chosen = chosen_classes(calibrated, prior)
        thresholds[task] = fit_threshold(labels, calibrated, chosen, target)
    scale = (
        1.0 if predictions.sigma is None else fit_sigma_scale(predictions.points, predictions.truth, predictions.sigma)
    )
    return Calibration(temperatures, thresholds, scale, offsets, fitted)


def _fit_shares(
    labels: np.ndarray, probabilities: np.ndarray, prior: Sequence[float] | None
) -> tuple[float, tuple[float, ...]]:
    """The temperature, and the offsets of the logits before it, which are 0 without a prior."""
    if prior is None:
        return fit_temperature(labels, probabilities), (0.0,) * probabilities.shape[1]
    return fit_prior(labels, probabilities, prior)


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The number to divide logits by for the greatest likelihood of (N,) labels; within ``TEMPERATURES``.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017). (N, C) probabilities stand
    for the logits, from which they differ by a constant a face.
    """
    logits, rows = _logits(probabilities), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def fit_prior(labels: np.ndarray, probabilities: np.ndarray, prior: Sequence[float]) -> tuple[float, tuple[float, ...]]:
    """A temperature and the offsets of the logits before it, for the greatest likelihood of (N,) labels.

    A training that shows rare classes more often than they are, as ``balance`` does, believes in them too much. What
    it believes too much is a power of the prior (C,): two numbers are fitted, however many classes there are.

    Returns:
        the temperature; the offsets, a multiple of the prior's logarithm, whose mean is 0.
    """
    logits, rows = _logits(probabilities), np.arange(len(labels))
    common = _logits(np.asarray(prior, dtype=np.float64))
    common -= common.mean()

    def loss(values: np.ndarray) -> float:
        return -log_softmax((logits + values[1] * common) / np.exp(values[0]), axis=1)[rows, labels].mean()

    log_temperature, power = minimize(loss, np.zeros(2), bounds=[np.log(TEMPERATURES), (-2, 2)]).x
    return float(np.exp(log_temperature)), tuple((power * common).tolist())


def fit_threshold(labels: np.ndarray, probabilities: np.ndarray, chosen: np.ndarray, target: float = TARGET) -> float:
    """The smallest confidence such that the faces at or over it are answered with the accuracy ``target``.

    Thresholds that answer fewer than ``LEAST_ANSWERED`` faces are not considered. 0 where all faces together reach the
    target; where no threshold does, that of the greatest accuracy. It lies midway between two faces.
    """
    confidence = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], (labels == chosen)[order]
    accuracy = np.cumsum(right) / np.arange(1, len(right) + 1)
    last = np.append(confidence[1:] < confidence[:-1], True)  # of equal confidences all faces are answered, or none
    possible = np.flatnonzero(last & (np.arange(1, len(right) + 1) >= min(LEAST_ANSWERED, len(right))))
    reached = possible[accuracy[possible] >= target]
    last_answered = reached[-1] if reached.size else possible[np.argmax(accuracy[possible])]
    if last_answered == len(right) - 1:
        return 0.0
    return float(confidence[last_answered] + confidence[last_answered + 1]) / 2


def fit_sigma_scale(points: np.ndarray, truth: np.ndarray, sigma: np.ndarray) -> float:
    """The factor on (N, K) sigma that makes the standardised residuals, along x and y, have a root mean square of 1.

    That is what a standard deviation is. Tails are heavier than normal ones, so that somewhat more than 68.3 % of the
    residuals lie within one. 1 without faces.
    """
    residuals = (points - truth) / sigma[..., None]
    residuals = residuals[np.isfinite(residuals)]
    return float(np.sqrt(np.mean(residuals**2))) if residuals.size else 1.0


def crossed(
    predictions: Predictions, target: float = TARGET, priors: Mapping[str, Sequence[float]] | None = None
) -> tuple[Predictions, tuple[Calibration, Calibration]]:
    """Every face calibrated by what the other half shows: for measuring, as no face has a say in its own calibration.

    Returns:
        the calibrated predictions, and the calibrations of the halves that :attr:`Predictions.halves` calls False and
        True, each fitted on the other one.
    """
    halves = predictions.halves
    fitted = fit(_part(predictions, halves), target, priors), fit(_part(predictions, ~halves), target, priors)
    frame, other = (recalibrated(predictions, calibration).frame for calibration in fitted)
    frame.loc[halves] = other.loc[halves]
    return replace(predictions, frame=frame), fitted


def check(
    predictions: Predictions, target: float = TARGET, priors: Mapping[str, Sequence[float]] | None = None
) -> dict[str, Any]:
    """What calibration does to faces that it was not fitted on; uncalibrated predictions in, plain numbers out.

    Returns:
        ``target``; ``attributes``: task -> ``faces`` with a label, ``ece_before`` and ``ece_after`` as lists of the two
        halves, ``ece_by_chance`` what the latter would be were the probabilities right
        (:func:`facemtl.training.reliability.ece_by_chance`); ``ece_any_half``, the same as ``ece_after`` of random
        halves (:func:`errors_of_halves`): mean, 5th and 95th percentile; ``ece``, ``accuracy`` and
        ``balanced_accuracy`` of both halves together after; ``coverage``, the share of faces that are answered, and
        ``answered_accuracy``, that of those; ``sigma``, None where there is none: ``within_1_before``,
        ``within_1_after`` and ``rms_z_after`` as lists of the two halves.
    """
    after, fitted = crossed(predictions, target, priors)
    halves = predictions.halves
    pairs = [[_part(table, halves == half) for half in (False, True)] for table in (predictions, after)]
    attributes = {}
    for task in predictions.tasks:
        if any(task not in calibration.temperatures for calibration in fitted):
            continue
        used = _used(after, task)
        labels, probabilities, chosen = (
            values[used] for values in (after.labels(task), after.probabilities(task), after.chosen(task))
        )
        limits = np.array([calibration.thresholds[task] for calibration in fitted])
        confidence = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]
        answered = confidence >= limits[halves[used].astype(int)]
        right = labels == chosen
        errors = errors_of_halves(*_labelled(predictions, task), (priors or {}).get(task))
        together = attribute_metrics(labels, probabilities, chosen)
        before_ece, after_ece = ([_ece(table, task) for table in pair] for pair in pairs)
        attributes[task] = {
            "faces": len(labels),
            "ece_before": before_ece,
            "ece_after": after_ece,
            "ece_by_chance": [_ece_by_chance(table, task) for table in pairs[1]],
            "ece_any_half": [float(errors.mean()), *np.percentile(errors, [5, 95]).tolist()],
            "ece": together["ece"],
            "accuracy": together["accuracy"],
            "balanced_accuracy": together["balanced_accuracy"],
            "coverage": float(answered.mean()),
            "answered_accuracy": float(right[answered].mean()) if answered.any() else None,
        }
    sigma = None
    if predictions.sigma is not None:
        before_sigma, after_sigma = ([_standardised(table) for table in pair] for pair in pairs)
        sigma = {
            "within_1_before": [within for within, _ in before_sigma],
            "within_1_after": [within for within, _ in after_sigma],
            "rms_z_after": [rms for _, rms in after_sigma],
        }
    return {"target": target, "attributes": attributes, "sigma": sigma}


def errors_of_halves(labels: np.ndarray, probabilities: np.ndarray, prior: Sequence[float] | None = None) -> np.ndarray:
    """The calibration errors of the halves of ``HALVINGS`` random halvings (with a fixed seed), each half calibrated by
    what the other one shows.

    Of a few hundred faces the error of one half says little: that of another half may be twice as large. Labels (N,)
    and uncalibrated probabilities (N, C), without missing ones, two faces or more.
    """
    rng, errors = np.random.default_rng(0), []
    for _ in range(HALVINGS):
        order = rng.permutation(len(labels))
        halves = np.array_split(order, 2)
        for seen, other in (halves, halves[::-1]):
            temperature, offsets = _fit_shares(labels[seen], probabilities[seen], prior)
            shares = softmax((_logits(probabilities[other]) + offsets) / temperature, axis=1)
            errors.append(expected_calibration_error(labels[other], shares, chosen_classes(shares, prior)))
    return np.array(errors)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, SMALLEST))


def _used(predictions: Predictions, task: str) -> np.ndarray:
    """(N,) bool, the faces with a label and a prediction."""
    return (predictions.labels(task) >= 0) & np.isfinite(predictions.probabilities(task)).all(axis=1)


def _labelled(predictions: Predictions, task: str) -> tuple[np.ndarray, np.ndarray]:
    used = _used(predictions, task)
    return predictions.labels(task)[used], predictions.probabilities(task)[used]


def _part(predictions: Predictions, rows: np.ndarray) -> Predictions:
    return replace(predictions, frame=predictions.frame[rows])


def _ece(predictions: Predictions, task: str) -> float:
    return attribute_metrics(predictions.labels(task), predictions.probabilities(task), predictions.chosen(task))["ece"]


def _ece_by_chance(predictions: Predictions, task: str) -> float:
    used = _used(predictions, task)
    return ece_by_chance(predictions.probabilities(task)[used], predictions.chosen(task)[used])


def _standardised(predictions: Predictions) -> tuple[float, float]:
    """Share of standardised residuals within 1, and their root mean square, of the points as they are."""
    points = predictions.points
    eye_pair = SCHEMAS[predictions.schema].eye_pair
    figures = sigma_metrics(points, points, predictions.truth, predictions.sigma, eye_pair)["raw"]
    return figures["within_1"], figures["rms_z"]
