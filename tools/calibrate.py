#!/usr/bin/env python3
"""Calibrate a model on held-out faces: probabilities, thresholds to abstain by, the scale of sigma.

    python tools/calibrate.py runs/tcdcn                # before tools/card.py ships it
    python tools/calibrate.py weights/tcdcn --dry-run   # only say what it would be
    python tools/calibrate.py runs/x --pose-balance 0.5 # rare poses count for more than they are common

Writes what was fitted into the description inside model.safetensors, from where the export to ONNX takes it on, and
draws runs/calibration/NAME.png. The network stays as it is, and what a former calibration did is undone first. After
calibrating a shipped model run tools/card.py --refresh.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from facemtl.data.sets import DATA_SETS, data_root, read_split
from facemtl.errors import FaceMTLError, ModelError
from facemtl.face import ATTRIBUTES
from facemtl.files import make_folder, write_beside
from facemtl.models.files import load_model, save_model
from facemtl.predictor import Predictor
from facemtl.training.calibration import Calibration, check, crossed, fit, prior_offsets, recalibrated
from facemtl.training.engine import MODEL
from facemtl.training.metrics import attribute_metrics
from facemtl.training.plots import reliability_plots
from facemtl.training.predictions import BOX_KINDS, Predictions, face_boxes, predict_samples

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with a model.safetensors: a run, or a shipped model")
    parser.add_argument("--data", choices=DATA_SETS, default="mtfl", help="whose held-out rows (default: mtfl)")
    parser.add_argument(
        "--boxes",
        choices=BOX_KINDS,
        default="detector",
        help="face boxes; faces that the detector misses are left out (default: detector)",
    )
    parser.add_argument(
        "--pose-balance",
        type=float,
        default=0.0,
        metavar="STRENGTH",
        help="take STRENGTH * log(share in training) off the logits of pose; a table says what each does (default: 0)",
    )
    parser.add_argument("--figure", type=Path, help="picture to draw (default: runs/calibration/NAME.png)")
    parser.add_argument("--dry-run", action="store_true", help="change no model")
    args = parser.parse_args()
    try:
        path = args.folder / MODEL
        if not path.is_file():
            raise ModelError(f"{args.folder} holds no {MODEL}")
        model, spec = load_model(path)
        figure = args.figure or Path("runs/calibration") / f"{spec.name}.png"
        make_folder(figure.parent)  # said now, not after all faces
        samples = read_split(args.data, "heldout")
        found = predict_samples(Predictor(path), samples, face_boxes(samples, args.boxes), data_root(args.data))
        plain = recalibrated(found, Calibration(), Calibration.of(spec))
        prior = pose_shares(args.data) if "pose" in spec.attributes else None
        offsets = {} if prior is None or not args.pose_balance else {"pose": prior_offsets(prior, args.pose_balance)}
        fitted = fit(plain, offsets=offsets)
        say(plain, fitted)
        if prior is not None:
            say_prior(plain, prior)
        draw(plain, list(fitted.temperatures), offsets, figure)
        print(f"\n{figure}")
        if not args.dry_run:
            save_model(path, model, fitted.put_into(spec))
            print(path)
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def say(plain: Predictions, fitted: Calibration) -> None:
    """Print what was fitted, and what such a fit does to the other half of the faces."""
    checked = check(plain, offsets=fitted.offsets)
    print(f"{'%':<10}{'temperature':>12}{'threshold':>11}{'ECE of the halves':>26}{'answered':>10}{'accuracy':>10}")
    for task, figures in checked["attributes"].items():
        before, after = (" ".join(f"{100 * v:.1f}" for v in figures[key]) for key in ("ece_before", "ece_after"))
        print(
            f"{task:<10}{fitted.temperatures[task]:>12.3f}{fitted.thresholds[task]:>11.3f}{f'{before} -> {after}':>26}"
            f"{100 * figures['coverage']:>10.1f}{100 * (figures['answered_accuracy'] or 0):>10.1f}"
        )
    if checked["sigma"]:
        before, after = (
            " ".join(f"{100 * v:.1f}" for v in checked["sigma"][f"within_1_{k}"]) for k in ("before", "after")
        )
        rms = " ".join(f"{value:.2f}" for value in checked["sigma"]["rms_z_after"])
        print(f"sigma: scale {fitted.sigma_scale:.3f}; residuals within it, %: {before} -> {after}; rms after: {rms}")


def pose_shares(data: str) -> np.ndarray:
    """(5,) float64, how common the pose classes are in training."""
    labels = np.array([sample.labels["pose"] for sample in read_split(data, "train")])
    counts = np.bincount(labels[labels >= 0], minlength=len(ATTRIBUTES["pose"]))
    return counts / counts.sum()


def say_prior(plain: Predictions, prior: np.ndarray) -> None:
    """Print what each strength of --pose-balance does, every face calibrated by the other half."""
    print("\npose, %: strength, accuracy, balanced accuracy, ECE")
    for strength in STRENGTHS:
        moved, _ = crossed(plain, offsets={"pose": prior_offsets(prior, strength)})
        figures = attribute_metrics(moved.labels("pose"), moved.probabilities("pose"))
        shown = (100 * figures[key] for key in ("accuracy", "balanced_accuracy", "ece"))
        print(f"{strength:>6.2f}" + "".join(f"{value:>8.1f}" for value in shown))


def draw(plain: Predictions, tasks: list[str], offsets: dict[str, tuple[float, ...]], path: Path) -> None:
    """Reliability before and after, each face calibrated by the other half."""
    figure = reliability_plots({"before": plain, "after": crossed(plain, offsets=offsets)[0]}, tasks)
    write_beside(path, lambda partial: figure.savefig(partial, format="png"))


if __name__ == "__main__":
    sys.exit(main())
