#!/usr/bin/env python3
"""How fast: one face through the network, through the predictor, and with the detector; and training.

    python tools/benchmark.py                                        # the default model, one CPU thread
    python tools/benchmark.py tcdcn --threads 2
    python tools/benchmark.py --split heldout                        # the mean over MTFL's faces, see datasets/mtfl
    python tools/benchmark.py --training tools/recipes/tcdcn.toml    # where the time of a training goes
    python tools/benchmark.py --weighing tools/recipes/tcdcn.toml    # what weighing by gradients and watching cost

Every figure is the median over rounds, with the fastest and slowest round beside it; all are measured in turn within
one round, so that a machine whose speed drifts does not favour one of them. No data is needed: the face is that of
examples/astronaut.png (a rendered one would not do, for boxes that hardly show a face are looked at from all sides),
those of trainings are rendered.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facemtl.errors import FaceMTLError
from facemtl.image import read_image
from facemtl.landmarks import POINTS
from facemtl.predictor import Predictor
from facemtl.session import OnnxSession
from facemtl.weights import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    import torch

    from facemtl.training.batches import Batch
    from facemtl.training.engine import Run
    from facemtl.training.recipe import Recipe
    from facemtl.training.training_data import TrainingData

ROUNDS = 9
STEPS = 40  # of a training, in one round
STEPS_PAIRED = 5  # of two ways of weighing, in one round
EXAMPLE = Path(__file__).parents[1] / "examples" / "astronaut.png"
SIDE = 150  # of the picture of one face
FACES = 256
MOST = {"features": 3.0, "parameters": 5.5}  # times a summed backward pass that an aggregator may cost, five tasks
MOST_WATCHING = 0.05  # of the time of a training


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
    cv2.setNumThreads(threads)  # crops are cut by as many as the network has
    session = OnnxSession(find_model(model), threads=threads)
    predict = Predictor(session, threads=threads)
    single = Predictor(session, threads=threads, passes=1, flip=False)
    (found,) = predict(read_image(EXAMPLE))
    x, y = np.int_((found.box[:2] + found.box[2:]) / 2 - SIDE / 2)
    face = np.ascontiguousarray(read_image(EXAMPLE)[y : y + SIDE, x : x + SIDE])
    boxes = found.box[None] - np.array([x, y, x, y])
    spec = session.spec
    crop = np.random.default_rng(0).integers(
        0, 256, (1, spec.channels, spec.input_size, spec.input_size), dtype=np.uint8
    )
    crops = np.repeat(crop, 64, axis=0)
    picture = np.full((480, 640, 3), 90, dtype=np.uint8)
    picture[150 : 150 + SIDE, 200 : 200 + SIDE] = face
    shifted = boxes + np.array([200, 150, 200, 150])
    crowd = [face] * 64
    default = f"{spec.passes} passes{', flip' if spec.flip else ''}"
    cases = {
        "network alone, one crop": (repeat(lambda: session.run(crop, spec.tasks), 500), 500),
        "network alone, 64 crops at once": (repeat(lambda: session.run(crops, spec.tasks), 8), 8 * 64),
        "crop + network + decoding, 1 pass, no flip": (repeat(lambda: single(face, boxes), 200), 200),
        f"the same as shipped: {default}": (repeat(lambda: predict(face, boxes), 200), 200),
        f"as shipped ({default}), in a 640 x 480 picture": (repeat(lambda: predict(picture, shifted), 200), 200),
        f"as shipped ({default}), 64 faces at once": (lambda: predict.batch(crowd, [boxes] * 64), 64),
        "with the detector, 640 x 480 picture": (repeat(lambda: predict(picture), 5), 5),
    }
    if spec.flip:
        plain = Predictor(session, threads=threads, flip=False)
        cases["the same without the mirrored crop"] = (repeat(lambda: plain(face, boxes), 200), 200)
    if spec.locator:
        located = repeat(lambda: session.run(crop, [POINTS], locate=True), 500)
        cases["locator alone, one crop"] = (located, 500)
    print(f"{spec.name}, {threads} CPU thread(s), milliseconds a face: median (fastest, slowest) of {ROUNDS} rounds")
    for name, values in in_turn(cases).items():
        low, middle, high = (1000 * f(values) for f in (min, statistics.median, max))
        print(f"  {middle:8.3f} ({low:.3f}, {high:.3f})  {name}")


def benchmark_faces(model: str, threads: int, split: str) -> None:
    """The mean over real faces, each in its true box: some crops are laid again."""
    from facemtl.data.sample import face_box
    from facemtl.data.sets import read_split

    cv2.setNumThreads(threads)
    session = OnnxSession(find_model(model), threads=threads)
    other = "without" if session.spec.flip else "with"
    ways = {"as shipped": None, f"{other} the mirrored crop": not session.spec.flip}
    predictors = {name: Predictor(session, threads=threads, flip=flip) for name, flip in ways.items()}
    samples = read_split("mtfl", split)
    faces = [(read_image(s.image), face_box(s)[None]) for s in samples[:: max(1, len(samples) // FACES)]]
    print(f"{session.spec.name}, {threads} CPU thread(s), milliseconds a face, the mean over {len(faces)} of {split};")
    print(f"median (fastest, slowest) of {ROUNDS} rounds")
    cases = {
        name: (lambda predict=predict: [predict(*face) for face in faces], len(faces))
        for name, predict in predictors.items()
    }
    for name, values in in_turn(cases).items():
        low, middle, high = (1000 * f(values) for f in (min, statistics.median, max))
        print(f"  {middle:8.3f} ({low:.3f}, {high:.3f})  {name}")


def benchmark_training(recipe_file: Path, device_name: str) -> None:
    """Images a second of a training and of its parts, for either place of augmentation; and what a step waits for."""
    import torch

    from facemtl.models.session import resolve_device
    from facemtl.training.engine import Run
    from facemtl.training.recipe import read_recipe

    device = resolve_device(device_name)
    cv2.setNumThreads(1)  # as a training does; also, OpenCV's thread pool does not survive the fork of the workers
    # Rendered faces stand for all sets; teachers add to a step only losses of what they said.
    recipe = replace(read_recipe(recipe_file), mix={}, teachers=(), init="")
    torch.set_num_threads(recipe.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = rendered_data(recipe, Path(folder))
        runs = {
            place: Run(replace(recipe, augment_on=place), data, Path(folder), device) for place in ("workers", "device")
        }
        sent = {place: run.dataset[0].to(device) for place, run in runs.items()}

        def finished(call: Callable[[], object]) -> Callable[[], None]:
            def many() -> None:
                repeat(call, STEPS)()
                wait_for(device)

            return many

        cases = {
            "drawing, cutting and disturbing, one worker": lambda: runs["workers"].dataset[1],
            "drawing alone, one worker": lambda: runs["device"].dataset[1],
            "cutting and disturbing on the device": lambda: runs["device"].images(sent["device"]),
            "step alone, augmented by workers": lambda: runs["workers"].step(sent["workers"]),
            "step alone, augmentation on the device in it": lambda: runs["device"].step(sent["device"]),
        }
        images = STEPS * recipe.batch_size
        seconds = in_turn({name: (finished(call), images) for name, call in cases.items()})
        parts: dict[str, list[dict[str, float]]] = {place: [] for place in runs}
        for _ in range(ROUNDS):
            for place, run in runs.items():
                whole = f"training, augment_on = {place}, {recipe.workers} worker(s)"
                seconds.setdefault(whole, []).append(time_steps(run) / images)
                parts[place].append(time_parts(run))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{recipe.threads} CPU thread(s)"
    print(f"{recipe.name} on {name}, batches of {recipe.batch_size}, median (slowest, fastest) of {ROUNDS} rounds")
    print("images a second:")
    for name, values in seconds.items():
        low, middle, high = (1 / f(values) for f in (max, statistics.median, min))
        print(f"  {middle:8.0f} ({low:.0f}, {high:.0f})  {name}")
    for place, rounds in parts.items():
        print(f"milliseconds of a step, augment_on = {place}, every part waited for:")
        for part in rounds[0]:
            low, middle, high = (1000 / STEPS * f(r[part] for r in rounds) for f in (max, statistics.median, min))
            print(f"  {middle:8.2f} ({low:.2f}, {high:.2f})  {part}")


def benchmark_weighing(recipe_file: Path, faces: int, only: list[str]) -> None:
    """Backward passes of aggregators beside one of the summed losses, whole steps likewise, and snapshots."""
    import torch

    from facemtl.training.engine import Run
    from facemtl.training.recipe import read_recipe
    from facemtl.training.weighing.registry import WEIGHINGS

    cv2.setNumThreads(1)
    recipe = replace(read_recipe(recipe_file), mix={}, teachers=(), init="", weighing="fixed", weighing_options={})
    torch.set_num_threads(recipe.threads)
    known = [name for name, method in WEIGHINGS.items() if method.options.get("on") == "parameters"]
    if unknown := set(only) - set(known):
        raise FaceMTLError(f"{', '.join(sorted(unknown))}: no aggregator of gradients; there are {', '.join(known)}")
    recipes = {
        f"{name}, on {on}": replace(recipe, snapshots=0, weighing=name, weighing_options={"on": on})
        for on in MOST
        for name in only or known
    }
    watched = "sum of losses, a snapshot"
    recipes[watched] = replace(recipe, snapshots=10**9)
    seconds: dict[str, list[float]] = {"backward": [], "step": []}  # of plain summing
    backward: dict[str, list[float]] = {name: [] for name in recipes}  # beside it
    step: dict[str, list[float]] = {name: [] for name in recipes}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        data = rendered_data(recipe, Path(folder))
        summed = Run(replace(recipe, snapshots=0), data, Path(folder), torch.device("cpu"))
        runs = {name: Run(kept, data, Path(folder), torch.device("cpu")) for name, kept in recipes.items()}
        batch = summed.dataset[0]
        opened.enter_context(runs[watched].watch.opened(0))
        for number in range(ROUNDS + 1):  # one to warm up
            for name, run in runs.items():
                for key, ratios, clock in (("backward", backward, time_backward), ("step", step, time_step)):
                    plain, ours = (sum(part) for part in zip(*in_pairs(clock, summed, run, batch), strict=True))
                    if number:
                        seconds[key].append(plain / STEPS_PAIRED)
                        ratios[name].append(ours / plain)

    def said(ratios: list[float]) -> str:
        return f"{statistics.median(ratios):6.2f} ({min(ratios):.2f}, {max(ratios):.2f})"

    plain = {key: 1000 * statistics.median(values) for key, values in seconds.items()}
    print(f"{recipe.name}, {len(recipe.tasks)} tasks, batches of {recipe.batch_size}, {recipe.threads} CPU thread(s)")
    print(f"sum of losses: backward pass {plain['backward']:.2f} ms, whole step {plain['step']:.2f} ms; beside it,")
    print(
        f"each next to one of summing, median (least, most) of {ROUNDS} rounds: backward pass | step without its batch"
    )
    for name in list(recipes)[:-1]:
        print(f"  {said(backward[name])} | {said(step[name])}  {name}")
    for on, most in MOST.items():
        costs = {name: statistics.median(backward[name]) for name in recipes if name.endswith(f"on {on}")}
        over = [name.split(",")[0] for name, cost in costs.items() if cost > most]
        verdict = f"NO, {len(over)} of {len(costs)} take more: {', '.join(over)}" if over else "yes"
        print(f"dearest on {on}: {max(costs.values()):.2f} times, to be at most {most}: {verdict}")
    steps = recipe.epochs * (faces // recipe.batch_size)
    taken = steps // max(1, steps // recipe.snapshots) if recipe.snapshots else 0
    extra = [ratio - 1 for ratio in step[watched]]
    share = [taken * ratio / steps for ratio in extra]
    print(
        f"a snapshot takes as long as {said(extra).strip()} steps; {taken} in {steps} steps of this recipe on {faces}"
    )
    verdict = "yes" if statistics.median(share) <= MOST_WATCHING else "NO"
    text = f"{100 * statistics.median(share):.2f} % ({100 * min(share):.2f}, {100 * max(share):.2f})"
    print(f"faces are {text} of their time, to be at most {100 * MOST_WATCHING:.0f} %: {verdict}")


def in_pairs(clock: Callable[[Run, Batch], float], plain: Run, run: Run, batch: Batch) -> Iterator[tuple[float, float]]:
    """Seconds of the two, one after the other: the machine's pace changes within seconds."""
    for _ in range(STEPS_PAIRED):
        yield clock(plain, batch), clock(run, batch)


def time_backward(run: Run, batch: Batch) -> float:
    """Seconds of one backward pass of the weighing."""
    run.model.train()
    learned = run._learned(batch.images, batch)[1]
    run.optimiser.zero_grad(set_to_none=True)
    started = time.perf_counter()
    run.weighing.backward(learned, batch, ())
    return time.perf_counter() - started


def time_step(run: Run, batch: Batch) -> float:
    """Seconds of one whole step."""
    started = time.perf_counter()
    run.step(batch)
    return time.perf_counter() - started


def rendered_data(recipe: Recipe, folder: Path) -> TrainingData:
    """Rendered faces, repeated to fill a batch, with labels for every task; those of further points say nothing."""
    from facemtl.data.cache import build_cache
    from facemtl.data.synthetic import write_dataset
    from facemtl.landmarks import SCHEMAS, schema_of
    from facemtl.training.training_data import TrainingData

    samples = write_dataset(folder / "faces", count=FACES, seed=0, size=150)
    channels = recipe.create_model().backbone.channels
    few = build_cache(samples, folder, recipe.patch_size, channels, progress=False)
    faces = few.subset(np.arange(max(FACES, recipe.batch_size)) % FACES)
    sets = {recipe.data: faces}
    for schema in {schema_of(task, recipe.schema) for task in recipe.tasks} - {None, faces.schema}:
        points = np.zeros((len(faces), len(SCHEMAS[schema]), 2), dtype=np.float32)
        sets[schema] = replace(faces, points=points, schema=schema)
    return TrainingData(sets, {recipe.data: few})


def wait_for(device: torch.device) -> None:
    """Return when everything ordered from a GPU is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steady_batches(run: Run) -> Iterator[Batch]:
    """The batches of ``STEPS`` steps, after as many as workers had made beforehand."""
    from facemtl.training.batches import PREFETCH, batch_loader

    ahead = PREFETCH * run.recipe.workers
    batches = iter(batch_loader(run.dataset, 0, ahead + STEPS, run.recipe.workers, pin=run.device.type == "cuda"))
    for batch in itertools.islice(batches, ahead):
        run.step(batch.to(run.device))
    wait_for(run.device)
    return batches


def time_steps(run: Run) -> float:
    """Seconds of ``STEPS`` steps as a training takes them."""
    batches = steady_batches(run)
    started = time.perf_counter()
    for batch in batches:
        run.step(batch.to(run.device))
    wait_for(run.device)
    return time.perf_counter() - started


def time_parts(run: Run) -> dict[str, float]:
    """part -> seconds of ``STEPS`` steps of which each part is waited for, as nothing is in a training."""
    batches, seconds = steady_batches(run), {}
    last = time.perf_counter()

    def lap(part: str) -> None:
        nonlocal last
        wait_for(run.device)
        now = time.perf_counter()
        seconds[part] = seconds.get(part, 0.0) + now - last
        last = now

    for batch in batches:
        lap("waiting for a batch")
        here = batch.to(run.device)
        images = run.images(here)
        lap("bringing it to the device, cutting and disturbing there")
        run.backward(images, here)
        lap("forward and backward pass, losses")
        run.update()
        lap("optimiser and average")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="a shipped model or a path")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--split", choices=("heldout", "test"), help="measure the mean over MTFL's faces instead")
    parser.add_argument("--training", type=Path, metavar="RECIPE", help="measure training instead")
    parser.add_argument("--device", default="auto", help="of training: auto, cpu or cuda")
    parser.add_argument("--weighing", type=Path, metavar="RECIPE", help="measure weighing by gradients, and watching")
    parser.add_argument("--methods", nargs="*", default=[], help="of weighing; default all aggregators of gradients")
    parser.add_argument("--faces", type=int, default=9000, help="training faces, from which a run's steps are counted")
    args = parser.parse_args()
    try:
        if args.weighing:
            benchmark_weighing(args.weighing, args.faces, args.methods)
        elif args.training:
            benchmark_training(args.training, args.device)
        elif args.split:
            benchmark_faces(args.model, args.threads, args.split)
        else:
            benchmark_prediction(args.model, args.threads)
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
