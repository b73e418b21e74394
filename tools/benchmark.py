#!/usr/bin/env python3
"""How fast: one face through the network, through the predictor, and with the detector; and training.

    python tools/benchmark.py                                        # the default model, one CPU thread
    python tools/benchmark.py tcdcn --threads 2
    python tools/benchmark.py --training tools/recipes/tcdcn.toml    # loader alone, step alone, both

Every figure is the median over rounds, with the fastest and slowest round beside it; all are measured in turn within
one round, so that a machine whose speed drifts does not favour one of them. Faces are rendered: no data is needed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facemtl.errors import FaceMTLError
from facemtl.predictor import Predictor
from facemtl.session import OnnxSession
from facemtl.weights import DEFAULT_MODEL, find_model

ROUNDS = 9


def in_turn(cases: dict[str, tuple[Callable[[], object], int]]) -> dict[str, list[float]]:
    """name -> seconds a unit, one figure a round; each case is (what to call, how many units one call is)."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for call, _ in cases.values():
        call()
    for _ in range(ROUNDS):
        for name, (call, units) in cases.items():
            started = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - started) / units)
    return seconds


def repeat(call: Callable[[], object], times: int) -> Callable[[], None]:
    def many() -> None:
        for _ in range(times):
            call()

    return many


def benchmark_prediction(model: str, threads: int) -> None:
    from facemtl.data.synthetic import render_face

    session = OnnxSession(find_model(model), threads=threads)
    predict = Predictor(session, threads=threads)
    single = Predictor(session, threads=threads, passes=1, flip=False)
    face = render_face(seed=0, size=150)
    spec = session.spec
    crop = np.random.default_rng(0).integers(
        0, 256, (1, spec.channels, spec.input_size, spec.input_size), dtype=np.uint8
    )
    crops = np.repeat(crop, 64, axis=0)
    picture = np.full((480, 640, 3), 90, dtype=np.uint8)
    picture[150:300, 200:350] = face.image
    boxes = face.box[None]
    shifted = boxes + np.array([200, 150, 200, 150])
    crowd = [face.image] * 64
    default = f"{spec.passes} passes{', flip' if spec.flip else ''}"
    cases = {
        "network alone, one crop": (repeat(lambda: session.run(crop, spec.tasks), 500), 500),
        "network alone, 64 crops at once": (repeat(lambda: session.run(crops, spec.tasks), 8), 8 * 64),
        "crop + network + decoding, 1 pass, no flip": (repeat(lambda: single(face.image, boxes), 200), 200),
        f"the same as shipped: {default}": (repeat(lambda: predict(face.image, boxes), 200), 200),
        f"as shipped ({default}), in a 640 x 480 picture": (repeat(lambda: predict(picture, shifted), 200), 200),
        f"as shipped ({default}), 64 faces at once": (lambda: predict.batch(crowd, [boxes] * 64), 64),
        "with the detector, 640 x 480 picture": (repeat(lambda: predict(picture), 5), 5),
    }
    print(f"{spec.name}, {threads} CPU thread(s), milliseconds a face: median (fastest, slowest) of {ROUNDS} rounds")
    for name, values in in_turn(cases).items():
        low, middle, high = (1000 * f(values) for f in (min, statistics.median, max))
        print(f"  {middle:8.3f} ({low:.3f}, {high:.3f})  {name}")


def benchmark_training(recipe_file: Path) -> None:
    """Images a second of what a training does, on rendered faces."""
    import cv2
    import torch

    from facemtl.data.synthetic import write_dataset
    from facemtl.models.factory import create_model
    from facemtl.training.batches import StepDataset, batch_loader
    from facemtl.training.engine import Run, TrainingData
    from facemtl.training.recipe import read_recipe

    cv2.setNumThreads(1)  # as a training does; also, OpenCV's thread pool does not survive the fork of the workers
    recipe = read_recipe(recipe_file)
    model = create_model(recipe.backbone, recipe.tasks, recipe.schema, **recipe.backbone_options)
    with tempfile.TemporaryDirectory() as folder:
        samples = write_dataset(Path(folder), count=256, seed=0, size=150)
        data = TrainingData.of(
            recipe, model.backbone.channels, Path(folder) / "cache", samples, samples, progress=False
        )
        run = Run(recipe, data, Path(folder) / "run", torch.device("cpu"))
        torch.set_num_threads(recipe.threads)
        augmentation = recipe.augmentation(model.backbone.input_size, model.backbone.channels)
        steps = 40
        dataset = StepDataset(data.train, augmentation, recipe.batch_size, seed=0)
        batch = dataset[0]

        def load() -> None:
            for step in range(steps):
                dataset[step]

        def both() -> None:
            for made in batch_loader(dataset, 0, steps, recipe.workers):
                run.step(made)

        images = steps * recipe.batch_size
        cases = {
            "loader alone, one process": (load, images),
            "step alone": (repeat(lambda: run.step(batch), steps), images),
            f"both, {recipe.workers} worker(s) (their start included)": (both, images),
        }
        print(
            f"{recipe.name}, {recipe.threads} thread(s), images a second: median (slowest, fastest) of {ROUNDS} rounds"
        )
        for name, values in in_turn(cases).items():
            low, middle, high = (1 / f(values) for f in (max, statistics.median, min))
            print(f"  {middle:8.0f} ({low:.0f}, {high:.0f})  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="a shipped model or a path")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--training", type=Path, metavar="RECIPE", help="measure training instead")
    args = parser.parse_args()
    try:
        if args.training:
            benchmark_training(args.training)
        else:
            benchmark_prediction(args.model, args.threads)
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
