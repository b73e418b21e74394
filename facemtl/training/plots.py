"""The pictures of an evaluation report, each as a matplotlib figure; nothing here touches global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from facemtl.face import ANGLES
from facemtl.landmarks import SCHEMAS
from facemtl.training.metrics import (
    FAILURE,
    NORMAL_WITHIN_1,
    attribute_metrics,
    eye_residuals,
    eye_vectors,
)
from facemtl.training.predictions import Predictions
from facemtl.training.reliability import reliability

RAW, CORRECTED = "#2f6db5", "#e0792f"
INK, FAINT = "#333333", "#bbbbbb"
SIGMA_BINS = 10
WIDEST_Z = 4.0  # standardised residuals beyond are drawn at the edge
MANY = 20  # points, above which marks and labels shrink


def error_curve(errors: Mapping[str, np.ndarray]) -> Figure:
    """Cumulative error curves: name -> (N,) NME, NaN for a face that was not found."""
    figure, axes = _figure(5.6, 4.0)
    for (name, values), color in zip(errors.items(), (RAW, CORRECTED), strict=False):
        found = np.sort(values[np.isfinite(values)])
        share = np.arange(len(found) + 1) / len(values)
        axes.step(100 * np.append(found, 1e3), np.append(share[1:], share[-1]), where="post", color=color, label=name)
    axes.axvline(100 * FAILURE, color=FAINT, linestyle="--", linewidth=1)
    axes.set(
        xlim=(0, 150 * FAILURE), ylim=(0, 1), xlabel="NME, % of the inter-ocular distance", ylabel="share of faces"
    )
    axes.legend(loc="lower right", frameon=False)
    return figure


def point_errors(schema: str, raw: Sequence[float | None], corrected: Sequence[float | None]) -> Figure:
    """Mean error of each point, percent of the inter-ocular distance, raw beside offset-corrected; None: no bar."""
    names = [name.replace("_", " ") for name in SCHEMAS[schema].names]
    figure, axes = _figure(5.6, max(4.0, 0.16 * len(names)))
    places = np.arange(len(names))
    bars = (("raw", raw, -0.2, RAW), ("offset-corrected", corrected, 0.2, CORRECTED))
    for label, errors, shift, color in bars:
        values = np.array(errors, dtype=float)  # None becomes NaN
        axes.barh(places + shift, values, height=0.38, color=color, label=label)
        if len(names) <= MANY:
            for place, value in zip(places[np.isfinite(values)], values[np.isfinite(values)], strict=True):
                axes.text(value, place + shift, f" {value:.2f}", va="center", fontsize=8, color=INK)
    axes.set_yticks(places, names, fontsize=8 if len(names) <= MANY else 6)
    axes.set_xlabel("mean error, % of the inter-ocular distance")
    axes.margins(x=0.12)
    axes.set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def residual_scatter(predictions: Predictions) -> Figure:
    """Prediction minus truth of every face, drawn around the median face, in the eye frame of the truth."""
    eye_pair = SCHEMAS[predictions.schema].eye_pair
    truth = predictions.truth
    middle = truth[:, list(eye_pair)].mean(axis=1, keepdims=True)
    shape = (truth - middle) @ np.array([1, 1j]) / eye_vectors(truth, eye_pair)[:, None]
    residuals = eye_residuals(predictions.points, truth, eye_pair)
    centres = [_centre(column[np.isfinite(column)]) for column in shape.T]
    figure, axes = _figure(5.6, 4.6)
    for i, (centre, column) in enumerate(zip(centres, residuals.T, strict=True)):
        if np.isfinite(column).any():
            _cloud(axes, centre, column[np.isfinite(column)], f"C{i % 10}", 9 if len(centres) <= MANY else 4)
    drawn = np.array([centre for centre in centres if np.isfinite(centre)])
    axes.set(
        xlim=(drawn.real.min() - 0.5, drawn.real.max() + 0.5),
        ylim=(drawn.imag.max() + 0.5, drawn.imag.min() - 0.5),
        xlabel="along the eyes, inter-ocular distances",
        ylabel="down the face",
        aspect="equal",
    )
    return figure


def confusion_matrices(attributes: Mapping[str, dict], classes: Mapping[str, tuple[str, ...]]) -> Figure:
    """One matrix a task: counts, coloured by the share of the true class. ``attributes``: task -> its metrics."""
    wide = [1.6 + 0.75 * len(classes[task]) for task in attributes]
    figure = Figure(figsize=(sum(wide) * 0.95, 4.0), layout="constrained", dpi=110)
    grid = figure.subplots(1, len(wide), squeeze=False, width_ratios=wide)[0]
    for axes, (task, metrics) in zip(grid, attributes.items(), strict=True):
        counts = np.array(metrics["confusion"])
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 0.55 else INK
            text = f"{count}\n{100 * share[row, column]:.0f} %"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
        labels = [label.replace("_", " ") for label in classes[task]]
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=8)
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.set_title(task, fontsize=10)
        axes.set_xlabel("predicted", fontsize=8)
    grid[0].set_ylabel("true", fontsize=8)
    return figure


def reliability_plots(curves: Mapping[str, Predictions], tasks: Sequence[str]) -> Figure:
    """Accuracy against confidence for each task, in bins of equal mass; the dashed line is perfect calibration.

    ``curves``: name -> predictions of the same model, such as before and after calibration; the legend gives the
    expected calibration error of each in percent.
    """
    figure = Figure(figsize=(2.9 * len(tasks), 3.1), layout="constrained", dpi=110)
    grid = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(grid, tasks, strict=True):
        for (name, predictions), color in zip(curves.items(), (RAW, CORRECTED), strict=False):
            labels, probabilities = predictions.labels(task), predictions.probabilities(task)
            chosen, used = predictions.chosen(task), (labels >= 0) & np.isfinite(probabilities).all(axis=1)
            confidence, accuracy, _ = reliability(labels[used], probabilities[used], chosen[used])
            low = 1 / probabilities.shape[1]
            label = f"{name} {100 * attribute_metrics(labels, probabilities, chosen)['ece']:.1f} %".strip()
            axes.plot(confidence, accuracy, "o-", color=color, markersize=4, linewidth=1, label=label)
        axes.plot((low, 1), (low, 1), color=FAINT, linestyle="--", linewidth=1)
        axes.set(xlim=(low, 1.02), ylim=(0, 1.02))
        axes.set_title(task, fontsize=10)
        axes.set_xlabel("confidence", fontsize=9)
        axes.legend(loc="lower right", frameon=False, fontsize=8, title="calibration error", title_fontsize=8)
        _tidy(axes)
    grid[0].set_ylabel("accuracy", fontsize=9)
    return figure


def sigma_plots(
    truth: np.ndarray, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], eye_pair: tuple[int, int]
) -> Figure:
    """What sigma promises and what it holds. ``curves``: name -> (N, K, 2) points and their (N, K) sigma.

    Left: in ten bins of equal mass of sigma, the half width that holds 68.3 % of the residuals (x and y each on its
    own); the dashed line is perfect. Right: the residuals over their sigma, beside the normal distribution.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    eyes = np.abs(eye_vectors(truth, eye_pair))[:, None]
    normal = np.linspace(-WIDEST_Z, WIDEST_Z, 201)
    right.fill_between(normal, np.exp(-(normal**2) / 2) / np.sqrt(2 * np.pi), color="#eeeeee", label="normal")
    ends = []
    for (name, (points, sigma)), color in zip(curves.items(), (RAW, CORRECTED), strict=False):
        residuals = 100 * (points - truth) / eyes[..., None]
        spread = np.broadcast_to((100 * sigma / eyes)[..., None], residuals.shape)
        used = np.isfinite(residuals) & np.isfinite(spread)
        residuals, spread = residuals[used], spread[used]
        order = np.argsort(spread, kind="stable")
        bins = [part for part in np.array_split(order, SIGMA_BINS) if part.size]
        promised = [spread[part].mean() for part in bins]
        held = [np.quantile(np.abs(residuals[part]), NORMAL_WITHIN_1) for part in bins]
        left.plot(promised, held, "o-", color=color, markersize=4, linewidth=1, label=name)
        ends += [*promised, *held]
        z = np.clip(residuals / spread, -WIDEST_Z, WIDEST_Z)
        right.hist(z, bins=41, range=(-WIDEST_Z, WIDEST_Z), density=True, histtype="step", color=color, label=name)
    low, high = 0.9 * min(ends), 1.1 * max(ends)
    left.plot((low, high), (low, high), color=FAINT, linestyle="--", linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="sigma, % of the inter-ocular distance", ylabel="68.3 % are within, %")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    right.set(xlabel="residual over sigma", ylabel="density", xlim=(-WIDEST_Z, WIDEST_Z))
    for axes in (left, right):
        _tidy(axes)
        axes.legend(frameon=False, fontsize=8)
    return figure


def angle_scatter(angles: np.ndarray, truth: np.ndarray) -> Figure:
    """Predicted against true yaw, pitch and roll, (N, 3) degrees; dashed is perfect, dotted the best constant guess."""
    figure = Figure(figsize=(9.0, 3.2), layout="constrained", dpi=110)
    for axes, name, predicted, true in zip(figure.subplots(1, 3), ANGLES, angles.T, truth.T, strict=True):
        used = np.isfinite(predicted) & np.isfinite(true)
        _tidy(axes)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("true, degrees", fontsize=9)
        if used.any():
            axes.scatter(true[used], predicted[used], s=5, alpha=0.4, color=RAW, linewidths=0)
            axes.axline((0, 0), slope=1, color=FAINT, linestyle="--", linewidth=1)
            axes.axhline(np.median(true[used]), color=FAINT, linestyle=":", linewidth=1)
    figure.axes[0].set_ylabel("predicted, degrees", fontsize=9)
    return figure


def _centre(places: np.ndarray) -> complex:
    """Median of complex places; NaN without any."""
    return np.median(places.real) + 1j * np.median(places.imag) if places.size else np.nan


def _cloud(axes: Axes, centre: complex, residuals: np.ndarray, color: str, cross: float) -> None:
    """Dots where the point fell, a cross at its true place, and a line from there to the mean."""
    mean = centre + residuals.mean()
    axes.scatter((centre + residuals).real, (centre + residuals).imag, s=3, alpha=0.2, color=color, linewidths=0)
    axes.plot(centre.real, centre.imag, "+", color="black", markersize=cross)
    axes.plot((centre.real, mean.real), (centre.imag, mean.imag), "-", color="black", linewidth=1.2)
    axes.plot(mean.real, mean.imag, "o", color="black", markersize=cross / 3)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = figure.subplots()
    _tidy(axes)
    return figure, axes


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
