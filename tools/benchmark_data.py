#!/usr/bin/env python3
"""How fast crops come out of the packed cache, and whether a training waits for them.

    python tools/benchmark_data.py                                        # about two minutes on two quiet cores
    python tools/benchmark_data.py --training tools/recipes/tcdcn.toml    # also how long its steps wait

Crops a second, by one process and by two at once (of a core each), of a cache of 10,000 patches of 96 x 96: `patches`
are only fetched, in a shuffled order, a batch at a time; `plain` ones are also cut to 40 x 40, as for a model that is
looked at; `augmented` ones as for training. The median (range) of rounds is shown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

from facemtl.data.cache import PATCH_SCALE, CropCache
from facemtl.data.transforms import Augmentation, plain_crops
from facemtl.errors import FaceMTLError
from facemtl.face import ATTRIBUTES
from facemtl.training.batches import Batch, StepDataset

FACES, PATCH, CROP, BATCH = 10_000, 96, 40, 64
ROUNDS, SECONDS = 5, 1.0
TASKS = ("landmarks", "glasses", "smile", "gender", "pose")


def made_cache(folder: Path, channels: int, faces: int) -> CropCache:
    """Noise with plausible points and labels, memory-mapped from a file as every cache is."""
    path = folder / f"patches-{channels}.npy"
    shape = (faces, PATCH, PATCH) + ((3,) if channels == 3 else ())
    rng = np.random.default_rng(0)
    if not path.exists():
        np.save(path, rng.integers(0, 256, shape, dtype=np.uint8))
    spots = np.array([[-0.3, -0.25], [0.3, -0.25], [0, 0.05], [-0.25, 0.35], [0.25, 0.35]])
    points = (PATCH - 1) / 2 + spots * PATCH / PATCH_SCALE / 1.3 + rng.normal(0, 1, (faces, 5, 2))
    labels = {task: rng.integers(0, len(ATTRIBUTES[task]), faces) for task in TASKS[1:]}
    return CropCache(np.load(path, mmap_mode="r"), np.float32(points), labels, "mtfl5")


def cases(cache: CropCache) -> dict[str, Callable[[int], int]]:
    """name -> what does the work of step i and says how many crops it was."""
    channels = 1 if cache.patches.ndim == 3 else 3
    augmentation = Augmentation(CROP, channels, 1.2, 0.5, 0.0, 0.5, 0.5, "mtfl5")
    dataset = StepDataset({"main": cache}, augmentation, TASKS, BATCH, seed=0)
    order = np.random.default_rng(0).permutation(len(cache))
    batches = len(order) // BATCH

    def rows(step: int) -> np.ndarray:
        first = step % batches * BATCH
        return order[first : first + BATCH]

    return {
        "patches": lambda step: len(np.ascontiguousarray(cache.patches[np.sort(rows(step))])),
        "plain": lambda step: len(plain_crops(cache.subset(rows(step)), CROP, 1.2, "mtfl5")[0]),
        "augmented": lambda step: len(dataset[step].images),
    }


def measure(work: Callable[[int], int], first: int, seconds: float) -> float:
    """Crops a second."""
    work(first)
    began, count, step = time.perf_counter(), 0, first
    while time.perf_counter() - began < seconds:
        step += 1
        count += work(step)
    return count / (time.perf_counter() - began)


def serve(pipe: Connection, folder: Path, channels: int, faces: int, first: int, seconds: float) -> None:
    """A process that measures a case whenever it is told to, from a step of its own on."""
    cv2.setNumThreads(1)
    known = cases(made_cache(folder, channels, faces))
    pipe.send("ready")
    while (name := pipe.recv()) is not None:
        pipe.send(measure(known[name], first, seconds))


def benchmark_cache(channels: int, faces: int, rounds: int, seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = cases(made_cache(folder, channels, faces))
        pipes, processes = [], []
        for i in range(2):
            ours, theirs = context.Pipe()
            processes.append(
                context.Process(target=serve, args=(theirs, folder, channels, faces, 1000 * i, seconds), daemon=True)
            )
            processes[-1].start()
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
        print(f"{'grey' if channels == 1 else 'colour'} patches, crops a second")
        for case in known:
            for used in (pipes[:1], pipes):
                totals = []
                for _ in range(rounds):
                    for pipe in used:
                        pipe.send(case)
                    totals.append(sum(pipe.recv() for pipe in used))
                middle, low, high = statistics.median(totals), min(totals), max(totals)
                print(f"  {middle:9.0f} ({low:.0f} to {high:.0f})  {case}, {len(used)} process(es)", flush=True)
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=Path, metavar="RECIPE", help="also where the time of its steps goes")
    parser.add_argument("--device", default="auto", help="of the training: auto, cpu or cuda")
    parser.add_argument("--faces", type=int, default=FACES, help="in the cache (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a round (default: %(default)s)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        for channels in (1, 3):
            benchmark_cache(channels, args.faces, args.rounds, args.seconds)
        if args.training:
            benchmark_waiting(args.training, args.device, args.rounds)
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def benchmark_waiting(recipe_file: Path, device_name: str, rounds: int) -> None:
    """The time in which a training waits for its batches, all workers at work."""
    import torch
    from benchmark import rendered_data, steady_batches, wait_for

    from facemtl.models.session import resolve_device
    from facemtl.training.engine import Run
    from facemtl.training.recipe import read_recipe

    device = resolve_device(device_name)
    recipe = replace(read_recipe(recipe_file), mix={}, teachers=(), init="")
    torch.set_num_threads(recipe.threads)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(recipe, rendered_data(recipe, Path(folder)), Path(folder), device)

        def step(batch: Batch) -> None:
            run.step(batch.to(device))
            wait_for(device)

        profiles = [profile(steady_batches(run), step) for _ in range(rounds)]
    print(f"{recipe.name}, batches of {recipe.batch_size}, {recipe.workers} worker(s), {device}")
    print(f"milliseconds of a step: of each round the median step; median (range) of {rounds} rounds")
    for part in profiles[0]:
        values = [found[part] for found in profiles]
        print(f"  {statistics.median(values):9.3f} ({min(values):.3f} to {max(values):.3f})  {part}")


def profile(batches: Iterator[Batch], step: Callable[[Batch], None]) -> dict[str, float]:
    """Where the time of training steps goes: part -> milliseconds of the median step, or a share of all steps.

    A step is ``waiting`` from when it asks for its batch until it has it. What of that is the ``hand-over``, its thread
    at work to take the batch, is told by the thread's own clock; the rest is sleep until there is one.
    """
    waits, hands, steps = [], [], []
    while True:
        began, at_work = time.perf_counter(), time.thread_time()
        batch = next(batches, None)
        here = time.perf_counter()
        if batch is None:
            break
        waits.append(here - began)
        hands.append(time.thread_time() - at_work)
        step(batch)
        steps.append(time.perf_counter() - here)
    found = {
        "waiting for a batch": 1000 * statistics.median(waits),
        "of it hand-over": 1000 * statistics.median(hands),
        "the step itself": 1000 * statistics.median(steps),
    }
    return found | {
        "% of all time waiting for a batch": 100 * sum(waits) / (sum(waits) + sum(steps)),
        "% of the median step waiting": 100 * found["waiting for a batch"] / sum(list(found.values())[::2]),
    }


if __name__ == "__main__":
    sys.exit(main())
