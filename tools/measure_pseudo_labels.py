#!/usr/bin/env python3
"""What pseudo labels gain: some of MTFL labelled, more of it pseudo-labelled, against labels alone and labels for all.

    python tools/measure_pseudo_labels.py                     # about half an hour on two quiet cores
    python tools/measure_pseudo_labels.py --steps 400 --pictures 1000 --seeds 2

Three trainings a seed, of as many steps each and judged by MTFL's held-out rows:
`labelled` by a share of the training rows alone; `pseudo` by these and by what `labelled` itself says, twice, of
further pictures whose labels nobody looks at; `all` by these and by the true labels of the further pictures: what there
is to gain. Every step of docs/pseudo_labels.md is the real one: annotate, filter, train on the table.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from facemtl.annotate import annotate
from facemtl.data.pseudo_labels import Limits, write_pseudo_labels
from facemtl.data.sample import FaceSample
from facemtl.data.sets import data_root, read_split
from facemtl.data.table import read_table
from facemtl.detect import Detections, MtcnnDetector
from facemtl.errors import FaceMTLError
from facemtl.predictor import Predictor
from facemtl.training.engine import train
from facemtl.training.recipe import Recipe, read_recipe
from facemtl.training.training_data import TrainingData

RECIPE = Path(__file__).parent / "recipes" / "tcdcn.toml"
WARMUP = 50  # steps
FIGURES = ("nme", "glasses_accuracy", "smile_accuracy", "gender_accuracy", "pose_accuracy")


class Remembering:
    """The default detector, which looks at every picture once."""

    def __init__(self) -> None:
        self._detector, self._found = MtcnnDetector(), {}

    def detect(self, image: np.ndarray) -> Detections:
        key = sha256(image.tobytes()).digest()
        if key not in self._found:
            self._found[key] = self._detector.detect(image)
        return self._found[key]


def figures(
    recipe: Recipe, steps: int, train_on: Mapping[str, list], heldout: Mapping[str, list], cache: Path, out: Path
) -> tuple[Path, dict[str, float]]:
    """The trained model, and what the last row of its log says of MTFL's held-out rows."""
    shown = sum(len(train_on["mtfl"]) for _ in train_on)  # an epoch: every set as often as the main one
    per_epoch = shown // recipe.batch_size
    mix = dict.fromkeys(train_on, 1.0) if len(train_on) > 1 else {}
    recipe = replace(recipe, mix=mix, epochs=max(1, round(steps / per_epoch)), warmup_epochs=WARMUP / per_epoch)
    data = TrainingData.of(recipe, recipe.create_model().backbone.channels, cache, train_on, heldout, progress=False)
    model = train(recipe, data, out, "cpu", progress=False)
    with (out / "log.csv").open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return model, {name: float(last[f"heldout/{name}"]) for name in FIGURES}


def pseudo_labelled(model: Path, pictures: list[FaceSample], root: Path, detector: Remembering, out: Path) -> list:
    """(training samples, samples only looked at) of what a model says twice of these pictures."""
    listed = out / "pictures.csv"
    out.mkdir(parents=True, exist_ok=True)
    listed.write_text("image\n" + "".join(f"{sample.image}\n" for sample in pictures), encoding="utf-8")
    identity = {"model": sha256(model.read_bytes()).hexdigest()}
    for name, looks in (("twice", {"passes": 2, "flip": True}), ("once", {"passes": 1, "flip": False})):
        open_predictor = partial(Predictor, model, detector=detector, **looks)
        annotate([str(listed)], out / name, open_predictor, {**identity, **looks}, base=root)
    counts = write_pseudo_labels(out / "twice", out / "once", out / "table", Limits())
    print("    " + ", ".join(f"{count} {reason}" for reason, count in counts.most_common()), flush=True)
    return [read_table(out / "table", split) for split in ("train", "heldout")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/pseudo_labels"), help="default: %(default)s")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where cut patches are kept")
    parser.add_argument("--share", type=float, default=0.1, help="of the training rows labelled (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=4000, help="further ones (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3000, help="of each training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    try:
        root = data_root("mtfl")
        rows, heldout = (read_split("mtfl", split) for split in ("train", "heldout"))
        order = np.random.default_rng(0).permutation(len(rows))
        labelled = [rows[i] for i in order[: round(args.share * len(rows))]]
        further = [rows[i] for i in order[len(labelled) : len(labelled) + args.pictures]]
        counts = f"{len(labelled)} labelled, {len(further)} further pictures, {len(heldout)} held out"
        print(f"{counts}, {args.steps} steps", flush=True)
        detector = Remembering()
        results: dict[str, list[dict[str, float]]] = {"labelled": [], "pseudo": [], "all": []}
        for seed in range(args.seeds):
            recipe = replace(read_recipe(RECIPE), seed=seed)
            out = args.out.resolve() / f"seed{seed}"
            run = partial(figures, recipe, args.steps, cache=args.cache)
            only = {"mtfl": heldout}
            model, found = run({"mtfl": labelled}, only, out=out / "labelled")
            results["labelled"].append(found)
            pseudo, looked_at = pseudo_labelled(model, further, root, detector, out)
            sets = {"mtfl": labelled, "table": pseudo}
            results["pseudo"].append(run(sets, {**only, "table": looked_at}, out=out / "pseudo")[1])
            results["all"].append(run({"mtfl": labelled + further}, only, out=out / "all")[1])
            for arm, values in results.items():
                print(f"  seed {seed} {arm}: " + ", ".join(f"{k} {v:.2f}" for k, v in values[-1].items()), flush=True)
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print("held-out rows of MTFL, percent: mean (standard deviation over seeds)")
    for arm, values in results.items():
        columns = {name: np.array([v[name] for v in values]) for name in FIGURES}
        print(f"  {arm:9s}" + "  ".join(f"{k} {v.mean():.2f} ({v.std(ddof=1):.2f})" for k, v in columns.items()))
    gains = {
        k: np.array([p[k] - b[k] for p, b in zip(results["pseudo"], results["labelled"], strict=True)]) for k in FIGURES
    }
    print("  pseudo - labelled, seed by seed: " + "  ".join(f"{k} {np.round(v, 2).tolist()}" for k, v in gains.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
