#!/usr/bin/env python3
"""Tracking, measured: milliseconds a frame beside MediaPipe, jitter and lag, identity switches, memory over an hour.

    python tools/benchmark_live.py                          # everything, into docs/results/live
    python tools/benchmark_live.py --parts speed steadiness # some of it; what was measured before stays
    python tools/benchmark_live.py --rounds 1 --frames 60 --soak-frames 3000 --out runs/live-try   # does it run

Videos are made by moving real stills, MTFL's held-out training rows ($FACEMTL_DATA). docs/live.md says how, and what is
compared with what. Time it on a quiet machine. Each part is written when it is done (live.json, live.md, plots): a run
that was interrupted goes on with --parts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from facemtl.data.sample import FaceSample
from facemtl.data.sets import data_root, read_split
from facemtl.errors import FaceMTLError
from facemtl.files import write_beside
from facemtl.predictor import Predictor
from facemtl.weights import DEFAULT_MODEL

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from live import identities, soak, speed, steadiness

FACES = 24  # stills that the parts choose from
PARTS = ("speed", "steadiness", "identities", "soak")
JITTER_LIMIT, LAG_LIMIT = 0.3, 1.0  # percent of the distance of the eyes; frames


def stills(data: Path | None) -> list[FaceSample]:
    """Held-out faces in photos of people (lfw_5590), spread over the file."""
    samples = [s for s in read_split("mtfl", "heldout", data_root("mtfl", data)) if s.image.parent.name == "lfw_5590"]
    return samples[:: max(1, len(samples) // FACES)][:FACES]


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    load = f", load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}, Python {platform.python_version()}"


def measure(part: str, args: argparse.Namespace, samples: Sequence[FaceSample]) -> dict[str, Any]:
    before = {"machine": machine(), "model": args.model}
    if part == "speed":
        rows = speed.measure(args.model, samples, args.frames, args.rounds, args.environment)
        return before | {"frames": args.frames, "rounds": args.rounds, "rows": rows}
    predict = Predictor(args.model)
    if part == "steadiness":
        return before | steadiness.measure(predict, samples[:8])
    if part == "identities":
        first, last = args.scenes
        return before | identities.measure(predict, samples, range(first, last + 1))
    return before | soak.measure(predict, samples, args.soak_frames)


def speed_text(found: dict[str, Any]) -> str:
    lines = [
        f"640 x 480, {found['frames']} frames, {found['rounds']} rounds in turn, without the first frame of each; "
        f"{found['machine']}. Milliseconds a frame, end to end without drawing.",
        "",
        "| method | faces | threads | median | 95th percentile | worst | first frame | cores busy | all faces found |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        if "problem" in row:
            lines.append(f"| {row['method']} | | | {row['problem']} | | | | | |")
            continue
        lines.append(
            f"| {row['method']} | {row['faces']} | {row['threads']} | {row['median_ms']:.2f} | {row['p95_ms']:.2f} | "
            f"{row['worst_ms']:.1f} | {row['first_ms']:.1f} | {row['cores']:.2f} | {row['found']:.1%} |"
        )
    return "\n".join(lines)


def name_of(setting: Sequence[float] | None) -> str:
    return "none" if setting is None else f"{setting[0]:g} Hz + {setting[1]:g}"


def steadiness_text(found: dict[str, Any]) -> str:
    speeds = list(found["rows"][0]["lag"])
    lines = [
        f"{found['still_faces']} still faces; moving ones by speed in face sizes a second: {found['moving_faces']}. "
        "Jitter in percent of the distance of the eyes, lag in frames of a thirtieth of a second.",
        "",
        f"| filter | jitter | worst face | {' | '.join(f'lag at {v}' for v in speeds)} |",
        f"| --- | --- | --- | {' | '.join('---' for _ in speeds)} |",
    ]
    for row in found["rows"]:
        chosen = row["setting"] is not None and list(row["setting"]) == list(found["chosen"])
        lags = " | ".join(f"{row['lag'][v]:.2f}" for v in speeds)
        name = f"**{name_of(row['setting'])}**, shipped" if chosen else name_of(row["setting"])
        lines.append(f"| {name} | {row['jitter']:.3f} | {row['worst_jitter']:.3f} | {lags} |")
    return "\n".join(lines)


def identities_text(found: dict[str, Any]) -> str:
    return "\n".join(
        f"* {title}: **{sum(found[key])}** identity switches in {len(found[key])} scenes of five faces and ten "
        f"crossings, none in {found[key].count(0)} of them"
        for key, title in (
            ("rendered", "Rendered faces, simulated network"),
            ("real", "Cut-out stills, the real network"),
        )
    )


def soak_text(found: dict[str, Any]) -> str:
    return (
        f"{found['frames']} frames ({found['frames'] / 90_000:.2f} hours at 25 a second), {found['faces']} faces, "
        f"{found['ids']} ids: memory grew by **{found['megabytes_per_10000_frames']:.3f} MB** in 10,000 frames, and "
        f"stayed within {found['range_after_warm_up']:.1f} MB after the first 10,000."
    )


TEXTS = {
    "speed": ("Speed", speed_text),
    "steadiness": ("Jitter and lag", steadiness_text),
    "identities": ("Identity switches", identities_text),
    "soak": ("An hour", soak_text),
}


def draw_steadiness(found: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(6.4, 4.4))
    for row in found["rows"]:
        worst = max(row["lag"].values())
        chosen = row["setting"] is not None and list(row["setting"]) == list(found["chosen"])
        axes.plot(worst, row["jitter"], "o", color="tab:red" if chosen else "tab:blue")
        axes.annotate(name_of(row["setting"]), (worst, row["jitter"]), textcoords="offset points", xytext=(6, 3))
    axes.axhline(JITTER_LIMIT, color="grey", linestyle="--")
    axes.axvline(LAG_LIMIT, color="grey", linestyle="--")
    axes.set_xlabel("largest lag over the speeds, frames")
    axes.set_ylabel("jitter, % of the distance of the eyes")
    axes.margins(0.2)  # room for the names
    axes.set_xlim(left=-0.1)
    axes.set_ylim(bottom=0)
    axes.set_title("One-Euro filters of points; red: shipped; dashed: what is asked for", fontsize=9)
    figure.tight_layout()
    return figure


def draw_soak(found: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    axes.plot([i for i, _ in found["memory"]], [megabytes for _, megabytes in found["memory"]])
    axes.set_xlabel("frames")
    axes.set_ylabel("resident memory, MB")
    axes.set_ylim(0, 1.2 * max(megabytes for _, megabytes in found["memory"]))  # a flat line is not the frame
    figure.tight_layout()
    return figure


PLOTS = {"steadiness": draw_steadiness, "soak": draw_soak}


def write(out: Path, results: dict[str, Any]) -> str:
    """live.json, live.md and the plots of what there is; returns the text."""
    sections = []
    for part in PARTS:
        if part not in results:
            continue
        title, text = TEXTS[part]
        plot = f"\n\n![{title}]({part}.png)" if part in PLOTS else ""
        sections.append(f"## {title}: {results[part]['model']}\n\n{text(results[part])}{plot}")
    document = "\n\n".join(["# Live, measured by `python tools/benchmark_live.py`", *sections]) + "\n"
    write_beside(
        out / "live.json", lambda path: path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    )
    write_beside(out / "live.md", lambda path: path.write_text(document, encoding="utf-8"))
    return document


def run(args: argparse.Namespace) -> None:
    stored = args.out / "live.json"
    results = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
    samples = stills(args.data_root)
    for part in args.parts:
        print(f"measuring {part}", file=sys.stderr, flush=True)
        results[part] = json.loads(json.dumps(measure(part, args, samples)))
        document = write(args.out, results)
        if part in PLOTS:
            figure = PLOTS[part](results[part])
            write_beside(args.out / f"{part}.png", lambda path, figure=figure: figure.savefig(path, dpi=110))
            plt.close(figure)
    print(document)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help=f"shipped or a file (default: {DEFAULT_MODEL})")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--frames", type=int, default=300, help="of the videos for speed (default: 300)")
    parser.add_argument("--rounds", type=int, default=5, help="of timing (default: 5)")
    parser.add_argument(
        "--scenes",
        nargs=2,
        type=int,
        default=[0, 11],
        metavar=("FIRST", "LAST"),
        help="of crossing faces (default: 0 11); try what you change on others, with another --out",
    )
    parser.add_argument("--soak-frames", type=int, default=90_000, help="(default: 90000, an hour at 25 a second)")
    parser.add_argument("--environment", type=Path, default=Path(".venv-peers"), help="of MediaPipe (.venv-peers)")
    parser.add_argument("--data-root", type=Path, help="MTFL's folder (default: the one in $FACEMTL_DATA)")
    parser.add_argument("--out", type=Path, default=Path("docs/results/live"), help="(default: docs/results/live)")
    try:
        run(parser.parse_args(arguments))
    except FaceMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
