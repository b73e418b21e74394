#!/usr/bin/env python3
"""Annotating against the bare loop, two processes against one, and memory at 1,000 and 20,000 pictures.

    python tools/benchmark_annotate.py           # about seven minutes on two quiet cores

The bare loop reads each picture, detects, and runs the network on what was found. It and annotating take turns, over
the same 640 x 480 pictures and with the same open predictor, so that starting is no part of either. One process and two
take turns over few and over many of them: the seconds include imports, the start of the processes and the count in the
end, the sustained rate is of the pictures that many has more over the seconds that it takes longer, so that all of that
falls out. Memory is the peak of the whole process, over small pictures in folders
of 1,000 and 20,000 (links to a few files). Faces are rendered: no data is needed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from facemtl.annotate import PredictorOptions, annotate
from facemtl.data.synthetic import render_face
from facemtl.image import read_image, write_image
from facemtl.predictor import Predictor

ROUNDS = 5
TURNS = 3
TIMES = (2, 8)  # that the folder of pictures is named, of few and of many
TOOL = Path(__file__).with_name("annotate.py")


def write_photos(folder: Path, count: int) -> list[Path]:
    """640 x 480 pictures, each with a rendered face somewhere."""
    folder.mkdir()
    paths = [folder / f"{i:05d}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        picture = np.full((480, 640, 3), 90, dtype=np.uint8)
        x, y = np.random.default_rng(i).integers(0, (640 - 200, 480 - 200))
        picture[y : y + 200, x : x + 200] = render_face(seed=i, size=200).image
        write_image(path, picture)
    return paths


def link_small(folder: Path, count: int, kinds: int = 20) -> None:
    """``count`` names of ``kinds`` pictures of 80 x 80 pixels."""
    folder.mkdir()
    originals = [folder.with_name(f"small-{i}.jpg") for i in range(kinds)]
    for i, path in enumerate(originals):
        if not path.exists():
            write_image(path, render_face(seed=i, size=80).image)
    for i in range(count):
        os.link(originals[i % kinds], folder / f"{i:06d}.jpg")


def bare_loop(predict: Predictor, paths: list[Path]) -> float:
    """Seconds."""
    started = time.perf_counter()
    for path in paths:
        image = read_image(path)
        predict(image, boxes=predict.detector.detect(image).boxes)
    return time.perf_counter() - started


def annotated(predict: Predictor, photos: Path, out: Path) -> float:
    """Seconds."""
    started = time.perf_counter()
    annotate([str(photos)], out, lambda: predict, {"model": "the same"})
    return time.perf_counter() - started


def run_tool(inputs: list[Path], out: Path, processes: int) -> tuple[float, float, float]:
    """Seconds, seconds of CPU of all its processes, and the peak of the largest one in MiB."""
    arguments = [*map(str, inputs), "--out", str(out), "--processes", str(processes), "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(TOOL), *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{TOOL.name} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def benchmark_processes(photos: Path, count: int, work: Path) -> None:
    """Two processes against one, started and sustained; ``photos`` is a folder of ``count`` pictures."""
    few, many = (times * count for times in TIMES)
    seconds: dict[tuple[int, int], list[float]] = {}
    rates: dict[int, list[float]] = {1: [], 2: []}
    cores: dict[int, list[float]] = {1: [], 2: []}
    for i in range(TURNS):
        for processes in rates:
            took = []
            for times in TIMES:
                took.append(run_tool([photos] * times, work / f"{processes}-{times}-{i}", processes))
                seconds.setdefault((processes, times * count), []).append(took[-1][0])
            longer, more = (took[1][k] - took[0][k] for k in range(2))
            rates[processes].append((many - few) / longer)
            cores[processes].append(more / longer)
    print(f"start included, seconds: median (range) of {TURNS} turns")
    for (processes, pictures), values in seconds.items():
        print(f"  {shown(values)}  {pictures} pictures, {processes} process(es)")
    ratio = statistics.median(one / two for one, two in zip(seconds[1, many], seconds[2, many], strict=True))
    print(f"  {ratio:.2f}  times as fast with two over {many} pictures")
    print(f"sustained, pictures a second: {many - few} more pictures over what they take longer")
    for processes, values in rates.items():
        print(f"  {shown(values)}  {processes} process(es), on {statistics.median(cores[processes]):.2f} cores")
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    print(f"  {ratio:.2f}  times as fast with two (wanted: 1.8)", flush=True)


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=150, help="of the first two measurements")
    parser.add_argument("--few", type=int, default=1_000, help="small pictures, of the memory")
    parser.add_argument("--many", type=int, default=20_000, help="small pictures, of the memory")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    predict = PredictorOptions()()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        paths = write_photos(work / "photos", args.photos)
        bare_loop(predict, paths[:8])
        annotated(predict, work / "photos", work / "first")
        bare, ours = [], []
        for i in range(ROUNDS):
            bare.append(args.photos / bare_loop(predict, paths))
            ours.append(args.photos / annotated(predict, work / "photos", work / f"round{i}"))
        print(f"{args.photos} pictures of 640 x 480, one thread, pictures a second: median (range) of {ROUNDS} rounds")
        print(f"  {shown(bare)}  bare loop\n  {shown(ours)}  annotating")
        ratio = statistics.median(o / b for o, b in zip(ours, bare, strict=True))
        print(f"  {100 * ratio:.1f} %  of the bare loop (wanted: 95)", flush=True)

        benchmark_processes(work / "photos", args.photos, work)

        print("peak memory of one process, MiB")
        for count in (args.few, args.many):
            link_small(work / f"small{count}", count)
            took, _, peak = run_tool([work / f"small{count}"], work / f"out{count}", 1)
            print(f"  {peak:.1f}  {count} pictures of 80 x 80, {count / took:.0f} a second", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
