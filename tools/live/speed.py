"""Milliseconds a frame, with tracking, from the pixels to the faces: ours and MediaPipe's face mesh, on one video."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from live.videos import FPS, HEIGHT, WIDTH, backdrop, crowd, cut_out, hand_held, swaying
from peers.client import WORKER, PeerError, PeerProcess, environment_python
from tqdm import tqdm

from facemtl.data.sample import FaceSample
from facemtl.predictor import Predictor
from facemtl.track import Tracker

PEERS = ("facemesh", "facemesh-refined")
WORK = Path("runs/live")  # what peers have to say on standard error
PATIENCE = 600  # seconds for one video of a peer
GRID = 5, 2  # ten faces


def one_face(samples: Sequence[FaceSample], frames: int) -> np.ndarray:
    return hand_held(samples[0], frames)


def ten_faces(samples: Sequence[FaceSample], frames: int) -> np.ndarray:
    heads = [cut_out(sample, 72) for sample in samples[:10]]
    columns, rows = GRID
    paths = [
        swaying(((i % columns + 0.5) * WIDTH / columns, (i // columns + 0.5) * HEIGHT / rows), 14, i) for i in range(10)
    ]
    return crowd(heads, paths, backdrop(samples[10]), frames)[0]


def ours(model: str, video: np.ndarray, threads: int, faces: int) -> dict[str, Any]:
    """Seconds a frame of a tracker that has just been made, as MediaPipe's mesh has."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if allowed:
        os.sched_setaffinity(0, sorted(allowed)[:threads])
    cv2.setNumThreads(1)
    try:
        predict = Predictor(model, threads=threads)
        predict(video[0])  # the detector is made on first use
        tracker, seconds, whole = Tracker(predict), [], 0
        before = time.process_time()
        for i, frame in enumerate(video):
            started = time.perf_counter()
            found = tracker(frame, i / FPS)
            seconds.append(time.perf_counter() - started)
            whole += len(found) == faces
        cpu = time.process_time() - before
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
    return {"wall": seconds, "cpu": cpu, "found": whole, "searches": tracker.detections}


def measure(
    model: str, samples: Sequence[FaceSample], frames: int, rounds: int, environment: Path
) -> list[dict[str, Any]]:
    """A row for each method, number of faces and of threads. All are measured in turn within one round."""
    rows: dict[tuple[str, int, int], dict[str, Any]] = {}
    problems: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        videos = {1: one_face(samples, frames), 10: ten_faces(samples, frames)}
        paths = {}
        for faces, video in videos.items():
            paths[faces] = Path(folder) / f"{faces}.npy"
            np.save(paths[faces], video[..., ::-1])  # MediaPipe wants red first: turning colours is nobody's time
        turns = [(n, f, t) for n in (model, *PEERS) for f in videos for t in (1, 2)]
        for name, faces, threads in tqdm([turn for _ in range(rounds) for turn in turns], disable=None):
            if name in problems:
                continue
            try:
                found = (
                    ours(model, videos[faces], threads, faces)
                    if name == model
                    else theirs(name, paths[faces], faces, threads, environment)
                )
            except PeerError as error:
                problems[name] = str(error)
                continue
            row = rows.setdefault((name, faces, threads), {"walls": [], "cores": []})
            row["walls"].append(found["wall"])
            row["cores"].append(found["cpu"] / sum(found["wall"]))
            row["found"] = found["found"] / frames
            row["searches"] = found.get("searches")
    return [
        {"method": name, "faces": faces, "threads": threads, **figures(row)}
        for (name, faces, threads), row in rows.items()
    ] + [{"method": name, "problem": problem} for name, problem in problems.items()]


def theirs(name: str, path: Path, faces: int, threads: int, environment: Path) -> dict[str, Any]:
    """The same of a peer, in a new process: its threads keep to the processors they started on."""
    python = environment_python(environment)
    if not python.is_file():
        raise PeerError(f"no environment in {environment}: python tools/benchmark_peers.py --make-environment")
    with PeerProcess([str(python), str(WORKER), name], WORK / f"{name}-live.log") as process:
        return process.ask({"do": "video", "path": str(path), "faces": faces, "cpus": threads}, PATIENCE)


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds: medians over the rounds of each round's median and percentiles. The first frame stands apart, for
    it looks for faces where none is known."""
    walls = 1000 * np.array(row["walls"])
    later = walls[:, 1:]
    return {
        "median_ms": float(np.median(np.median(later, axis=1))),
        "p95_ms": float(np.median(np.percentile(later, 95, axis=1))),
        "worst_ms": float(np.median(later.max(axis=1))),
        "first_ms": float(np.median(walls[:, 0])),
        "fastest_round_ms": float(np.median(later, axis=1).min()),
        "cores": float(np.median(row["cores"])),
        "found": row["found"],
        "searches": row["searches"],
    }
