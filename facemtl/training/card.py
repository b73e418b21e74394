"""Model cards: what a shipped model is, where it comes from, and every figure that can be measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch.utils.flop_counter import FlopCounterMode

from facemtl.files import write_beside
from facemtl.models.files import load_model
from facemtl.training.metrics import evaluate
from facemtl.training.predictions import Predictions
from facemtl.weights import ModelSpec, sha256

FILES = ("model.onnx", "model.safetensors")
# What people write in a card; the rest is computed.
WRITTEN = ("summary", "terms", "data", "known_failures")


def describe_model(folder: Path) -> dict[str, Any]:
    """The part of a card that follows from the model files: description, size, cost, hashes."""
    model, spec = load_model(folder / "model.safetensors")
    return {
        "model": {**_described(spec), "parameters": count_parameters(model), "macs": count_macs(model, spec)},
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
    }


def card_metrics(predictions: Predictions) -> dict[str, Any]:
    """The figures of one split that a card keeps, in percent, rounded to what rerunning them reproduces."""
    results = evaluate(predictions)
    kept = {"all": _block(results["all"])}
    if results["own_box"] is not None:
        kept["own_box"] = _block(results["own_box"])
    for name, parts in results["slices"].items():
        kept[name.replace(", ", "_")] = {part: _block(block) for part, block in parts.items()}
    return kept


def _block(block: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"faces": block["faces"]}
    raw, corrected = block["landmarks"]["raw"], block["landmarks"]["corrected"]
    if raw["faces"]:
        kept |= {
            "nme": round(raw["nme_percent"], 2),
            "median": round(raw["median_percent"], 2),
            "failures": round(raw["failure_percent"], 1),
            "auc": round(raw["auc"], 3),
            "nme_corrected": round(corrected["nme_percent"], 2),
            "failures_corrected": round(corrected["failure_percent"], 1),
        }
    for task, figures in block["attributes"].items():
        kept[task] = {
            "accuracy": round(100 * figures["accuracy"], 1),
            "balanced_accuracy": round(100 * figures["balanced_accuracy"], 1),
            "ece": round(figures["ece"], 3),
        }
    return kept


def write_card(folder: Path, written: dict[str, Any], training: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Write ``card.toml``.

    Args:
        folder: holds the model files.
        written: the keys of ``WRITTEN``.
        training: recipe, commit and what else tells how it was made.
        metrics: split -> :func:`card_metrics`.
    """
    card = {**written, "training": training, **describe_model(folder), "metrics": metrics}
    write_beside(folder / "card.toml", lambda path: path.write_text(tomli_w.dumps(card), encoding="utf-8"))
