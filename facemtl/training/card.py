"""Model cards: what a shipped model is, where it comes from, and every figure that can be measured again.

What is measured, and where, is the table :data:`MEASUREMENTS`. Figures are percent, or degrees, or what the field gives
as a fraction of one (AUC, calibration error, correlations); all are rounded to what rerunning them reproduces.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from torch.utils.flop_counter import FlopCounterMode

from facemtl.data.sample import FaceSample, face_box
from facemtl.data.sets import data_root, read_split
from facemtl.files import write_beside
from facemtl.models.files import load_model
from facemtl.predictor import Predictor
from facemtl.training.calibration import Calibration, check, recalibrated
from facemtl.training.eight_bit import is_eight_bit
from facemtl.training.metrics import evaluate
from facemtl.training.predictions import Predictions, labelled_tasks, predict_samples
from facemtl.weights import ModelSpec, sha256

FILES = ("model.onnx", "model.safetensors")
# What people write in a card; the rest is computed.
WRITTEN = ("summary", "terms", "data", "known_failures")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Faces on which a model is measured.

    Attributes:
        data: a key of :data:`facemtl.data.sets.DATA_SETS`; None is the set that the model was trained for.
        split: of it.
        detector: whether the default detector finds the boxes, misses counted, rather than the set or its true points.
        parts: whether the parts of the set are kept too.
    """

    data: str | None
    split: str
    detector: bool = False
    parts: bool = False


MEASUREMENTS = {
    "test": Measurement(None, "test", parts=True),
    "heldout": Measurement(None, "heldout", parts=True),
    "heldout_detector": Measurement(None, "heldout", detector=True),
    "udacity68_heldout": Measurement("udacity68", "heldout", parts=True),
    "udacity68_heldout_detector": Measurement("udacity68", "heldout", detector=True),
    "genki4k_heldout": Measurement("genki4k", "heldout", parts=True),
    "utkface_heldout": Measurement("utkface", "heldout"),
    "utkface_test": Measurement("utkface", "test", parts=True),
}
# Calibration is fitted, half by half, on the predictions of this one.
CALIBRATED_ON = "heldout_detector"


def applicable(spec: ModelSpec, main: str) -> list[str]:
    """The keys of ``MEASUREMENTS`` that say something about a model trained for the set ``main``.

    A further set counts where it is there and labels something that the model gives.

    Raises:
        DataError: the main set is not there.
    """
    return [
        name
        for name, measurement in MEASUREMENTS.items()
        if measurement.data is None
        or (
            measurement.data != main
            and data_root(measurement.data).is_dir()
            and _judges(read_split(measurement.data, measurement.split), spec)
        )
    ]


def _judges(samples: list[FaceSample], spec: ModelSpec) -> bool:
    pointed = samples[0].schema in spec.point_tasks() and any(np.isfinite(sample.points).any() for sample in samples)
    return pointed or bool(labelled_tasks(samples) & set(spec.tasks))


def measure(model: str | Path, name: str, main: str) -> Predictions:
    """The predictions of a model on the faces of one measurement.

    Raises:
        DataError: the set is not there.
    """
    measurement = MEASUREMENTS[name]
    data = measurement.data or main
    samples = read_split(data, measurement.split)
    predict = Predictor(model)
    if samples[0].schema != predict.schema and samples[0].schema in predict.spec.point_tasks():
        predict = Predictor(model, schema=samples[0].schema)
    boxes = None
    if not measurement.detector:
        boxes = np.stack([face_box(sample) if sample.box is None else sample.box for sample in samples])
    return predict_samples(predict, samples, boxes, data_root(data))


def describe_model(folder: Path) -> dict[str, Any]:
    """The part of a card that follows from the model files: description, size, cost, hashes."""
    model, spec = load_model(folder / "model.safetensors")
    return {
        "model": {
            **_described(spec),
            "eight_bit": is_eight_bit(folder / "model.onnx"),
            "parameters": count_parameters(model),
            "macs": count_macs(model, spec),
        },
        "sha256": {name: sha256(folder / name) for name in FILES},
    }


def count_parameters(model: torch.nn.Module) -> int:
    """Trained numbers."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: torch.nn.Module, spec: ModelSpec) -> int:
    """Multiply-accumulates of one crop in convolutions and matrix products; flips and passes multiply them."""
    crop = torch.zeros((1, spec.channels, spec.input_size, spec.input_size), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(crop)
    return counter.get_total_flops() // 2


def _described(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "backbone": spec.backbone,
        "tasks": list(spec.tasks),
        "schema": spec.schema,
        "input_size": spec.input_size,
        "channels": spec.channels,
        "crop_scale": spec.crop_scale,
        "passes": spec.passes,
        "flip": spec.flip,
        "points_head": spec.points_head,
        "uncertainty": spec.uncertainty,
        **({"locator": _described(spec.locator)} if spec.locator else {}),
    }


def card_metrics(predictions: Predictions, name: str) -> dict[str, Any]:
    """The figures of one measurement, a key of ``MEASUREMENTS``, that a card keeps."""
    measurement = MEASUREMENTS[name]
    results = evaluate(predictions)
    kept: dict[str, Any] = {"all": _whole(results["all"], measurement.detector)}
    if results["own_box"] is not None:
        kept["own_box"] = _whole(results["own_box"], measurement.detector)
    for slicing, parts in results["slices"].items() if measurement.parts else ():
        if len(parts) > 1:
            kept[slicing.replace(", ", "_")] = {part: _part(block) for part, block in parts.items()}
    return kept


def _whole(block: dict[str, Any], detected: bool) -> dict[str, Any]:
    kept: dict[str, Any] = {"faces": block["faces"]} | ({"found": _percent(block["found"])} if detected else {})
    raw, corrected = block["landmarks"]["raw"], block["landmarks"]["corrected"]
    if raw["nme_percent"] is not None:
        kept |= {
            "nme": round(raw["nme_percent"], 2),
            "median": round(raw["median_percent"], 2),
            "failures": round(raw["failure_percent"], 1),
            "auc": round(raw["auc"], 3),
            "nme_corrected": round(corrected["nme_percent"], 2),
            "failures_corrected": round(corrected["failure_percent"], 1),
        }
    sigma = block["sigma"]
    if sigma and sigma["faces"] > 1:
        kept["sigma"] = {
            "rank_correlation": round(sigma["raw"]["rank_correlation"], 3),
            "rank_correlation_corrected": round(sigma["corrected"]["rank_correlation"], 3),
            "within_1": _percent(sigma["raw"]["within_1"]),
            "within_1_corrected": _percent(sigma["corrected"]["within_1"]),
            "mean": round(sigma["mean_percent"], 2),
        }
    for angle, figures in (block["angles"] or {}).items():
        if figures["faces"] > 1:
            kept[angle] = {
                "error": round(figures["mae"], 2),
                "constant_guess": round(figures["constant_mae"], 2),
                "ratio": round(figures["ratio"], 3),
                "correlation": round(figures["correlation"], 3),
            }
    for task, figures in block["attributes"].items():
        if figures["faces"]:
            kept[task] = {
                "accuracy": _percent(figures["accuracy"]),
                "balanced_accuracy": _percent(figures["balanced_accuracy"]),
                "ece": round(figures["ece"], 3),
            }
    return kept


def _part(block: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"faces": block["faces"]}
    raw, corrected = block["landmarks"]["raw"], block["landmarks"]["corrected"]
    if raw["faces"]:
        kept |= {
            "nme": round(raw["nme_percent"], 2),
            "failures": round(raw["failure_percent"], 1),
            "nme_corrected": round(corrected["nme_percent"], 2),
        }
    attributes = {task: figures for task, figures in block["attributes"].items() if figures["faces"]}
    if attributes:
        kept["accuracy"] = {task: _percent(figures["accuracy"]) for task, figures in attributes.items()}
    return kept


def card_calibration(predictions: Predictions, spec: ModelSpec) -> dict[str, Any]:
    """What calibration a model carries, and what such a calibration does to faces that it was not fitted on.

    Args:
        predictions: of the calibrated model, on ``CALIBRATED_ON``.
        spec: its description.
    """
    checked = check(recalibrated(predictions, Calibration(), Calibration.of(spec)), priors=spec.priors)
    kept: dict[str, Any] = {"measured_on": CALIBRATED_ON, "target": _percent(checked["target"])}
    for task, figures in checked["attributes"].items():
        kept[task] = {
            **{
                name: [round(value, 3) for value in values[task]]
                for name, values in (("prior", spec.priors), ("offsets", spec.offsets))
                if task in values
            },
            "temperature": round(spec.temperatures.get(task, 1.0), 3),
            "threshold": round(spec.thresholds.get(task, 0.0), 3),
            "ece_before": [round(value, 3) for value in figures["ece_before"]],
            "ece_after": [round(value, 3) for value in figures["ece_after"]],
            "ece_by_chance": [round(value, 3) for value in figures["ece_by_chance"]],
            "ece_any_half": [round(value, 3) for value in figures["ece_any_half"]],
            "coverage": _percent(figures["coverage"]),
            "answered_accuracy": _percent(figures["answered_accuracy"] or 0.0),
        }
    if (sigma := checked["sigma"]) is not None:
        kept["sigma"] = {
            "scale": round(spec.sigma_scale, 3),
            "within_1_before": [_percent(value) for value in sigma["within_1_before"]],
            "within_1_after": [_percent(value) for value in sigma["within_1_after"]],
            "rms_after": [round(value, 2) for value in sigma["rms_z_after"]],
        }
    return kept


def _percent(share: float) -> float:
    return round(100 * share, 1)


def write_card(
    folder: Path,
    written: dict[str, Any],
    training: dict[str, Any],
    metrics: dict[str, Any],
    calibration: dict[str, Any] | None = None,
) -> None:
    """Write ``card.toml``.

    Args:
        folder: holds the model files.
        written: the keys of ``WRITTEN``.
        training: recipe, commit and what else tells how it was made.
        metrics: key of ``MEASUREMENTS`` -> :func:`card_metrics`.
        calibration: :func:`card_calibration`, for a model that is calibrated.
    """
    fitted = {"calibration": calibration} if calibration else {}
    card = {**written, "training": training, **describe_model(folder), **fitted, "metrics": metrics}
    write_beside(folder / "card.toml", lambda path: path.write_text(tomli_w.dumps(card), encoding="utf-8"))
