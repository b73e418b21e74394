#!/usr/bin/env python3
"""Ship a trained model: copy it to weights/<name>, export it, measure it and write its card.

    python tools/card.py runs/tcdcn                # first time, or anew after another training
    python tools/card.py runs/tcdcn --eight-bit    # exported in whole numbers of 8 bits, for CPUs
    python tools/card.py --refresh weights/tcdcn   # only measure again what stands there

The model is measured on every set that is there and labels something it gives. What people write in a card (summary,
terms, data, known_failures) is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from facemtl.errors import FaceMTLError
from facemtl.models.files import load_model, save_model
from facemtl.session import OnnxSession
from facemtl.training.card import (
    CALIBRATED_ON,
    WRITTEN,
    applicable,
    card_calibration,
    card_metrics,
    measure,
    write_card,
)
from facemtl.training.eight_bit import is_eight_bit, training_crops
from facemtl.training.engine import MODEL
from facemtl.training.export import export_onnx
from facemtl.weights import load_card


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished training")
    parser.add_argument("--refresh", type=Path, metavar="FOLDER", help="measure a shipped model again")
    parser.add_argument(
        "--commit", default="HEAD", help="what the training ran from; default the checkout as it is now"
    )
    parser.add_argument(
        "--eight-bit",
        action="store_true",
        help="export in whole numbers of 8 bits, by the training faces (default: as what stands there is; new: not)",
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
            folder, training = args.weights / recipe["name"], training_of(recipe, args.commit)
            save_model(folder / MODEL, *load_model(args.run / MODEL))
        onnx, spec = folder / "model.onnx", load_model(folder / MODEL)[1]
        if args.run or OnnxSession(onnx).spec != spec:  # it was calibrated where it stands
            whole_numbers = args.eight_bit or (onnx.is_file() and is_eight_bit(onnx))
            crops = training_crops(folder / MODEL, training["data"]) if whole_numbers else None
            export_onnx(folder / MODEL, onnx, crops)
        old = load_card(folder) if (folder / "card.toml").is_file() else {}
        written = {key: old.get(key, "") for key in WRITTEN}
        metrics, calibration = {}, None
        for name in applicable(spec, training["data"]):
            print(f"{spec.name}: {name}")
            predictions = measure(onnx, name, training["data"])
            metrics[name] = card_metrics(predictions, name)
            if name == CALIBRATED_ON and spec.temperatures:
                calibration = card_calibration(predictions, spec)
        write_card(folder, written, training, metrics, calibration)
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    print(folder / "card.toml")
    return 0


def training_of(recipe: dict[str, Any], commit: str) -> dict[str, Any]:
    """How the model was made: its recipe, commit and data; the sets of a mixture, and the teachers, where there are."""
    revision = ["git", "rev-parse", "--verify", commit]
    made = {
        "recipe": f"tools/recipes/{recipe['name']}.toml",
        "commit": subprocess.run(revision, capture_output=True, text=True, check=True).stdout.strip(),
        "data": recipe["data"],
    }
    return made | {key: recipe[key] for key in ("mix", "teachers", "peer_points", "init") if recipe.get(key)}


if __name__ == "__main__":
    sys.exit(main())
