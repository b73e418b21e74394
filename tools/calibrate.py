#!/usr/bin/env python3
"""Calibrate a model on held-out faces: probabilities, thresholds to abstain by, the scale of sigma.

    python tools/calibrate.py runs/tcdcn                # before tools/card.py ships it
    python tools/calibrate.py weights/tcdcn --dry-run   # only say what it would be
    python tools/calibrate.py runs/x --balanced pose    # rare poses are chosen where they are likelier than usual

Writes what was fitted into the description inside model.safetensors, from where the export to ONNX takes it on, and
draws runs/calibration/NAME.png. The network stays as it is, and what a former calibration did is undone first. After
calibrating a shipped model run tools/card.py --refresh.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from facemtl.data.sample import MISSING
from facemtl.data.sets import DATA_SETS, data_root, read_split
from facemtl.errors import DataError, FaceMTLError, ModelError
from facemtl.face import ATTRIBUTES
from facemtl.files import make_folder, write_beside
from facemtl.models.files import load_model, save_model
from facemtl.predictor import Predictor
from facemtl.training.calibration import Calibration, check, crossed, fit, recalibrated
from facemtl.training.engine import MODEL
from facemtl.training.plots import reliability_plots
from facemtl.training.predictions import BOX_KINDS, Predictions, face_boxes, predict_samples


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
        "--balanced",
        nargs="*",
        choices=ATTRIBUTES,
        default=[],
        help="attributes whose label is the class that is likeliest relative to its share in training, which is the "
        "choice for the balanced accuracy; probabilities are not touched by that (default: none)",
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
        if absent := set(args.balanced) - set(spec.attributes):
            raise ModelError(f"{spec.name} has no {', '.join(sorted(absent))}; it has {', '.join(spec.attributes)}")
        priors = {task: training_shares(args.data, task) for task in args.balanced}
        fitted = fit(plain, priors=priors)
        say(plain, fitted)
        draw(plain, list(fitted.temperatures), priors, figure)
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
    checked = check(plain, priors=fitted.priors)
    print(
        f"{'%':<10}{'temperature':>12}{'threshold':>11}{'ECE of the halves':>26}{'by chance':>11}{'of any half':>18}"
        f"{'accuracy':>10}{'balanced':>10}{'answered':>10}{'accuracy':>10}"
    )
    for task, figures in checked["attributes"].items():
        before, after, chance = (
            " ".join(f"{100 * v:.1f}" for v in figures[f"ece_{key}"]) for key in ("before", "after", "by_chance")
        )
        mean, low, high = (100 * value for value in figures["ece_any_half"])
        print(
            f"{task:<10}{fitted.temperatures[task]:>12.3f}{fitted.thresholds[task]:>11.3f}"
            f"{f'{before} -> {after}':>26}{chance:>11}{f'{mean:.1f} ({low:.1f}, {high:.1f})':>18}"
            f"{100 * figures['accuracy']:>10.1f}{100 * figures['balanced_accuracy']:>10.1f}"
            f"{100 * figures['coverage']:>10.1f}{100 * (figures['answered_accuracy'] or 0):>10.1f}"
        )
    if checked["sigma"]:
        before, after = (
            " ".join(f"{100 * v:.1f}" for v in checked["sigma"][f"within_1_{k}"]) for k in ("before", "after")
        )
        rms = " ".join(f"{value:.2f}" for value in checked["sigma"]["rms_z_after"])
        print(f"sigma: scale {fitted.sigma_scale:.3f}; residuals within it, %: {before} -> {after}; rms after: {rms}")


def training_shares(data: str, task: str) -> list[float]:
    """How common each class of an attribute is among the training faces.

    Raises:
        DataError: a class of which there is none.
    """
    labels = np.array([sample.labels.get(task, MISSING) for sample in read_split(data, "train")])
    counts = np.bincount(labels[labels >= 0], minlength=len(ATTRIBUTES[task]))
    if not counts.all():
        names = [name for name, count in zip(ATTRIBUTES[task], counts, strict=True) if not count]
        raise DataError(f"{data} has no training faces of {task} {', '.join(names)}: nothing can be balanced")
    return (counts / counts.sum()).tolist()


def draw(plain: Predictions, tasks: list[str], priors: dict[str, list[float]], path: Path) -> None:
    """Reliability before and after, each face calibrated by the other half."""
    figure = reliability_plots({"before": plain, "after": crossed(plain, priors=priors)[0]}, tasks)
    write_beside(path, lambda partial: figure.savefig(partial, format="png"))


if __name__ == "__main__":
    sys.exit(main())
