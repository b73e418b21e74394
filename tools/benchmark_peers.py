#!/usr/bin/env python3
"""Models of this project beside its peers, on the same faces: how accurate, and how many milliseconds a face.

    python tools/benchmark_peers.py --make-environment      # once 1.2 GB into .venv-peers; then measure
    python tools/benchmark_peers.py tcdcn tcdcn-single --out docs/results/peers

Faces: MTFL's test split. Each peer runs in a process of its own, in an environment of its own (tools/peers), on one
thread. A peer that is not there or fails has a row that says why. docs/peers.md says what is compared with what.
Writes peers.csv, peers.md and peers.png. What the peers found is kept in runs/peers until the faces, the worker or the
peer change (--fresh: find it again); times are measured every time.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from peers.client import PEERS, WORKER, PeerError, environment_python, make_environment
from peers.methods import WORK, Method, OwnModel, Peer, published_boxes
from peers.table import (
    AGREEING,
    GIVEN,
    OWN,
    Accuracy,
    Agreement,
    Row,
    Time,
    agreement_table,
    as_csv,
    as_markdown,
    draw,
)
from tqdm import tqdm

from facemtl.data.sample import FaceSample, face_box
from facemtl.data.sets import data_root, read_split
from facemtl.errors import FaceMTLError
from facemtl.files import write_beside
from facemtl.landmarks import SCHEMAS
from facemtl.training.metrics import FAILURE, corrected_points, eye_residuals, landmark_metrics, nme
from facemtl.training.predictions import Predictions
from facemtl.weights import DEFAULT_MODEL

# mode of a method -> the boxes its row is about
ROW_OF_MODE = {"boxes": GIVEN, "detect": OWN}


def spread(samples: Sequence[FaceSample], count: int | None) -> list[FaceSample]:
    """``count`` of the samples, evenly over the file; all if None or more than there are."""
    if count is None or count >= len(samples):
        return list(samples)
    return [samples[i] for i in np.linspace(0, len(samples) - 1, count).round().astype(int)]


def accuracy(predictions: Predictions) -> Accuracy:
    """By the very functions that judge our own models."""
    eye_pair = SCHEMAS[predictions.schema].eye_pair
    raw, corrected = (
        landmark_metrics(points, predictions.truth, eye_pair)
        for points in (predictions.points, corrected_points(predictions))
    )
    return Accuracy(
        raw["faces"],
        100 * raw["found"],
        raw["nme_percent"],
        raw["failure_percent"],
        corrected["nme_percent"],
        corrected["failure_percent"],
    )


def measure_accuracy(methods: Sequence[Method], samples: Sequence[FaceSample]) -> list[Row]:
    """A row for each method and kind of boxes it can use, without times."""
    rows = []
    for method in methods:
        for mode, boxes in ROW_OF_MODE.items():
            if mode in method.modes:
                say(f"{method.name}, {boxes}")
                try:
                    figures, problem = accuracy(method.predictions(mode, samples)), ""
                except PeerError as error:
                    figures, problem = None, str(error)
                rows.append(Row(method.name, boxes, method.version, figures, problem=problem))
    return rows


def measure_times(
    methods: Sequence[Method], samples: Sequence[FaceSample], rounds: int
) -> tuple[dict[tuple[str, str], Time], dict[str, str]]:
    """(method, mode) -> time, and method -> problem.

    All are measured in turn within one round, so that a machine whose speed drifts favours none; the first warms up.
    """
    problems: dict[str, str] = {}
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in tqdm(range(-1, rounds), desc="rounds", disable=None):
        for method in methods:
            try:
                if method.name in problems:
                    continue
                if number < 0:
                    method.load(samples)
                for mode in method.modes:
                    measured = method.round(mode)
                    if number >= 0:
                        seconds.setdefault((method.name, mode), []).append(measured)
            except PeerError as error:
                problems[method.name] = f"while timed: {error}"
    times = {}
    for key, measured in seconds.items():
        walls = [1000 * wall / len(samples) for wall, _ in measured]
        cores = statistics.median(cpu / wall for wall, cpu in measured)
        times[key] = Time(statistics.median(walls), min(walls), max(walls), cores)
    return times, problems


def with_times(row: Row, times: Mapping[tuple[str, str], Time], problems: Mapping[str, str]) -> Row:
    """The row with what was measured of its method; a method that failed half-way has no times."""
    if row.method in problems:
        return replace(row, problem="; ".join(filter(None, (row.problem, problems[row.method]))))
    landmarks = times.get((row.method, "boxes")) or times.get((row.method, "again"))
    return replace(row, landmarks=landmarks, detection=times.get((row.method, "detect")) if row.boxes == OWN else None)


def dlib_side(peer: Peer, samples: Sequence[FaceSample]) -> str:
    """The figure behind ``DLIB_SIDE`` of the worker, on faces that are no test faces."""
    found = peer.found("detect", samples)
    ratios = []
    for i, box in zip(found["owner"], found["boxes"], strict=True):
        x1, y1, x2, y2 = face_box(samples[i])
        if x1 < (box[0] + box[2]) / 2 < x2 and y1 < (box[1] + box[3]) / 2 < y2:
            ratios.append((box[2] - box[0]) / (x2 - x1))
    return f"dlib's rectangles: {statistics.median(ratios):.3f} of the face box, median of {len(ratios)} held-out faces"


def open_peers(args: argparse.Namespace, open_until: ExitStack) -> tuple[list[Peer], list[Row]]:
    """The peers that run, and a row for each that does not."""
    python = environment_python(args.environment)
    reasons: dict[str, str] = {}
    if args.make_environment:
        say(f"making {args.environment}")
        reasons = make_environment(args.environment, args.python)
    peers, failed = [], []
    for name in args.peers:
        try:
            if not python.is_file():
                raise PeerError(f"no environment in {args.environment}: run once with --make-environment")
            peer = Peer(name, [str(python), str(WORKER), name], args.fresh)
        except PeerError as error:
            uninstalled = [f"{package}: {reasons[package]}" for package in PEERS[name] if package in reasons]
            failed.append(Row(name, "-", problem="; ".join([str(error), *uninstalled])))
        else:
            open_until.callback(peer.close)
            peers.append(peer)
    return peers, failed


def machine() -> str:
    """The processor, as far as anything says, and how busy it was."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}, Python {platform.python_version()}"


def measure_agreement(
    ours: Sequence[OwnModel], peers: Sequence[Peer], samples: Sequence[FaceSample]
) -> list[Agreement]:
    """Each model of ours in given boxes beside each peer that works, on the faces that both find, offset-corrected."""
    eye_pair = SCHEMAS["mtfl5"].eye_pair
    own = {method.name: method.predictions("boxes", samples) for method in ours}
    found = []
    for peer in peers:
        try:
            theirs = peer.predictions("detect", samples)
        except PeerError:  # its row says so
            continue
        for name, predictions in own.items():
            truth, points = predictions.truth, [corrected_points(predictions), corrected_points(theirs)]
            errors = [nme(one, truth, eye_pair) for one in points]
            both, near = np.isfinite(errors).all(axis=0), (np.array(errors) <= FAILURE).all(axis=0)
            residuals = [eye_residuals(one, truth, eye_pair)[near].ravel() for one in points]
            found.append(
                Agreement(
                    name,
                    peer.name,
                    int(both.sum()),
                    *(100 * float(error[both].mean()) for error in errors),
                    100 * float(nme(np.mean(points, axis=0), truth, eye_pair)[both].mean()),
                    100 * float(nme(truth + points[0] - points[1], truth, eye_pair)[both].mean()),
                    float(np.vdot(*residuals).real / np.linalg.norm(residuals[0]) / np.linalg.norm(residuals[1])),
                )
            )
    return found


def document(rows: Sequence[Row], faces: int, timed: str, agreements: Sequence[Agreement] = ()) -> str:
    """peers.md."""
    versions = dict.fromkeys(f"{row.method}: {row.version}" for row in rows if row.version)
    return "\n".join(
        [
            f"{faces} faces of MTFL's test split. {timed}",
            "",
            as_markdown(rows),
            "",
            "; ".join(versions) + ".",
            "",
            *([AGREEING, "", agreement_table(agreements), ""] if agreements else []),
        ]
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="*", default=[DEFAULT_MODEL], help=f"shipped or files (default: {DEFAULT_MODEL})"
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="(default: all)")
    parser.add_argument("--data-root", type=Path, help="MTFL's folder (default: the one in $FACEMTL_DATA)")
    parser.add_argument("--count", type=positive, help="measure on so many faces, evenly over the split (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="of timing; 0: accuracy alone (default: 7)")
    parser.add_argument("--timed", type=positive, default=100, help="faces a round (default: 100)")
    parser.add_argument("--environment", type=Path, default=Path(".venv-peers"), help="(default: .venv-peers)")
    parser.add_argument("--make-environment", action="store_true", help="make it first, unless it is there")
    parser.add_argument("--python", default=sys.executable, help="to make it with; 3.12 at most (default: this one)")
    parser.add_argument("--fresh", action="store_true", help="do not use what the peers found before")
    parser.add_argument("--dlib-side", action="store_true", help="print how large dlib's own rectangles are, and stop")
    parser.add_argument("--out", type=Path, default=WORK, help=f"folder to write to (default: {WORK})")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def run(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    root = data_root("mtfl", args.data_root)
    with ExitStack() as open_until:
        if args.dlib_side:
            args.peers = ["dlib"]
        peers, failed = open_peers(args, open_until)
        if args.dlib_side:
            if failed:
                raise PeerError(failed[0].problem)
            print(dlib_side(peers[0], read_split("mtfl", "heldout", root)))
            return
        samples = spread(read_split("mtfl", "test", root), args.count)
        published_boxes(samples)  # an error now, not after minutes
        methods = [*map(OwnModel, dict.fromkeys(args.models)), *peers]
        rows = measure_accuracy(methods, samples)
        timed = "Not timed."
        if args.rounds > 0:
            some = spread(samples, args.timed)
            working = {row.method for row in rows if row.accuracy}
            times, problems = measure_times([m for m in methods if m.name in working], some, args.rounds)
            rows = [with_times(row, times, problems) for row in rows]
            timed = (
                f"Milliseconds a face on one thread: median (fastest, slowest) of {args.rounds} rounds of {len(some)} "
                f"faces, all methods in turn; {machine()}."
            )
    rows += failed
    write_beside(args.out / "peers.csv", lambda path: path.write_text(as_csv(rows), encoding="utf-8"))
    text = document(rows, len(samples), timed, measure_agreement(methods[: len(methods) - len(peers)], peers, samples))
    write_beside(args.out / "peers.md", lambda path: path.write_text(text, encoding="utf-8"))
    print(text)
    if args.rounds > 0:
        figure = draw(rows, f"{len(samples)} faces of MTFL's test split")
        write_beside(args.out / "peers.png", lambda path: figure.savefig(path, dpi=120))
    say(f"written to {args.out}")


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        run(parse(arguments))
    except (FaceMTLError, PeerError) as error:
        say(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
