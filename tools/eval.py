#!/usr/bin/env python3
"""Measure a model on a labelled set, or compute every figure again from saved predictions.

    python tools/eval.py tcdcn --data mtfl --split test --boxes published
    python tools/eval.py tcdcn --data utkface
    python tools/eval.py --predictions runs/eval/tcdcn-mtfl-test-published/predictions.parquet

A model that gives points of several schemas is judged by those of the set. Where it lacks them, both are judged by the
richest schema that both can be turned into, and the report says how exact that is.

Writes predictions.parquet, metrics.json and report.html (one file; it shows faces of the set) and prints a summary.
Exit status: 0 finished, 2 something is wrong with the input.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from facemtl.data.sets import DATA_SETS, data_root, read_split
from facemtl.errors import DataError, FaceMTLError
from facemtl.files import make_folder, write_beside
from facemtl.landmarks import SCHEMAS
from facemtl.predictor import Predictor
from facemtl.session import DEVICES
from facemtl.shared_points import shared_points
from facemtl.training.metrics import evaluate
from facemtl.training.predictions import BOX_KINDS, Predictions, face_boxes, predict_samples
from facemtl.training.report import summary_text, write_report
from facemtl.training.rolled import RolledPredictor


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        if args.out:
            make_folder(args.out)  # said now, not after all faces
        if args.predictions:
            predictions, title = Predictions.load(args.predictions), args.predictions.stem
            out = args.out or args.predictions.parent
        else:
            predictions, model = predict(args)
            title = f"{model} on {args.data} {args.split}, {args.boxes} boxes"
            name = f"{model}-{args.data}-{args.split}-{args.boxes}"
            if args.roll:
                title, name = f"{title}, turned by {args.roll:g} degrees", f"{name}-roll{args.roll:g}"
            out = args.out or Path("runs/eval") / name
            predictions.save(out / "predictions.parquet")
        figures = json.dumps(evaluate(predictions), indent=1, allow_nan=False)
        write_beside(out / "metrics.json", lambda path: path.write_text(figures + "\n", encoding="utf-8"))
        write_report(predictions, out / "report.html", title, image_root(args))
    except FaceMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(summary_text(predictions))
    print(f"\nwritten to {out}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("weights", nargs="?", help="a shipped model's name, or a model file")
    what.add_argument("--predictions", type=Path, help="saved .parquet or .csv; no model is run")
    parser.add_argument("--data", choices=DATA_SETS, default="mtfl", help="labelled set (default: mtfl)")
    parser.add_argument("--data-root", type=Path, help="folder of the set (default: its folder in $FACEMTL_DATA)")
    parser.add_argument("--split", choices=("test", "heldout"), default="test", help="part of the set (default: test)")
    parser.add_argument(
        "--boxes",
        choices=BOX_KINDS,
        default="published",
        help="face boxes: those that come with the set, around the true points, or the detector's (default: published)",
    )
    parser.add_argument(
        "--schema", choices=SCHEMAS, help="points to judge (default: the set's, where the model has them)"
    )
    parser.add_argument("--passes", type=int, help="passes through the network (default: as the model says)")
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average the last pass with the mirrored crop (default: as the model says)",
    )
    parser.add_argument(
        "--roll",
        type=float,
        default=0.0,
        metavar="DEGREES",
        help="turn each picture around the middle of its face box, clockwise; 180 is upside down (default: 0)",
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where the network runs (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the network (default: 1)")
    parser.add_argument("--out", type=Path, help="folder to write to (default: runs/eval/NAME, or beside the file)")
    return parser.parse_args(arguments)


def image_root(args: argparse.Namespace) -> Path | None:
    """Where the pictures of saved predictions are, if anything says so: a report without them is still a report."""
    try:
        return data_root(args.data, args.data_root)
    except DataError:
        return None


def predict(args: argparse.Namespace) -> tuple[Predictions, str]:
    """Predictions for the split, and the model's name."""
    root = data_root(args.data, args.data_root)
    samples = read_split(args.data, args.split, root)
    options = {"device": args.device, "threads": args.threads, "passes": args.passes, "flip": args.flip}
    predictor = Predictor(args.weights, schema=args.schema, **options)
    schema = samples[0].schema if samples else predictor.schema
    shared = None
    offered = predictor.spec.point_tasks() if args.schema is None else (args.schema,)
    if schema != predictor.schema and offered and any(np.isfinite(sample.points).any() for sample in samples):
        shared = shared_points(schema, offered)
        predictor = Predictor(args.weights, schema=shared.model_schema, **options)
        shared = None if shared.model_schema == schema else shared
    boxes = face_boxes(samples, args.boxes)
    if args.roll:
        if boxes is None:
            raise DataError("pictures are turned around their boxes: use --boxes published or --boxes truth")
        predictor = RolledPredictor(predictor, args.roll)
    return predict_samples(predictor, samples, boxes, root, shared), predictor.spec.name


if __name__ == "__main__":
    sys.exit(main())
