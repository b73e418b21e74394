#!/usr/bin/env python3
"""Ship a trained model: copy it to weights/<name>, export it, measure it and write its card.

    python tools/card.py runs/tcdcn                # first time, or anew after another training
    python tools/card.py --refresh weights/tcdcn   # only measure again what stands there

What people write in a card (summary, terms, data, known_failures) is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from facemtl.data.sample import face_box
from facemtl.data.sets import data_root, read_split
from facemtl.errors import FaceMTLError
from facemtl.models.files import load_model, save_model
from facemtl.predictor import Predictor
from facemtl.training.card import WRITTEN, card_metrics, write_card
from facemtl.training.engine import MODEL
from facemtl.training.export import export_onnx
from facemtl.training.predictions import predict_samples
from facemtl.weights import load_card


def measure(model: Path, data: str) -> dict[str, dict]:
    """split -> figures: the test split in its published boxes, the held-out rows in the boxes of their points."""
    predict = Predictor(model)
    metrics = {}
    for split in ("test", "heldout"):
        samples = read_split(data, split)
        boxes = np.stack([s.box if s.box is not None else face_box(s) for s in samples])
        metrics[split] = card_metrics(predict_samples(predict, samples, boxes, data_root(data)))
    return metrics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished training")
    parser.add_argument("--refresh", type=Path, metavar="FOLDER", help="measure a shipped model again")
    parser.add_argument(
        "--commit", default="HEAD", help="what the training ran from; default the checkout as it is now"
    )
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="where shipped models stand")
    args = parser.parse_args()
    if (args.run is None) == (args.refresh is None):
        parser.error("name the folder of a run, or --refresh a shipped model")
    try:
        if args.refresh:
            folder, training = args.refresh, load_card(args.refresh)["training"]
        else:
            recipe = json.loads((args.run / "recipe.json").read_text())
            folder = args.weights / recipe["name"]
            save_model(folder / MODEL, *load_model(args.run / MODEL))
            commit = subprocess.run(
                ["git", "rev-parse", "--verify", args.commit], capture_output=True, text=True, check=True
            ).stdout
            training = {
                "recipe": f"tools/recipes/{recipe['name']}.toml",
                "commit": commit.strip(),
                "data": recipe["data"],
            }
        export_onnx(folder / MODEL, folder / "model.onnx")
        old = load_card(folder) if (folder / "card.toml").is_file() else {}
        written = {key: old.get(key, "") for key in WRITTEN}
        metrics = measure(folder / "model.onnx", training["data"])
        write_card(folder, written, training, metrics)
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    print(folder / "card.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
