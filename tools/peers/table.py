"""The table of tools/benchmark_peers.py: as CSV, as Markdown, and drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

GIVEN, OWN = "published", "own detector"
MARKERS = {GIVEN: "o", OWN: "s"}
HEADER = (
    "method",
    "boxes",
    "found %",
    "NME % / failures %",
    "offset-corrected",
    "ms landmarks",
    "ms with detection",
    "cores busy",
    "remark",
)


class Time(NamedTuple):
    """Milliseconds a face: median, fastest and slowest round; ``cores``: seconds of all threads a second of clock."""

    median: float
    low: float
    high: float
    cores: float


class Accuracy(NamedTuple):
    """Points of ``faces`` faces in percent: found; NME and failures over 10 % NME, raw and offset-corrected."""

    faces: int
    found: float
    nme: float
    failures: float
    corrected_nme: float
    corrected_failures: float


@dataclass(frozen=True, slots=True)
class Row:
    """One method with one kind of boxes; what could not be measured is None, and ``problem`` says why."""

    method: str
    boxes: str
    version: str = ""
    accuracy: Accuracy | None = None
    landmarks: Time | None = None
    detection: Time | None = None
    problem: str = ""

    @property
    def time(self) -> Time | None:
        """What this row's accuracy costs: with its own detector, the search is part of it."""
        return self.detection if self.boxes == OWN else self.landmarks


class Agreement(NamedTuple):
    """A model of ours and a peer on the ``faces`` that both find, in percent of the inter-ocular distance: the
    offset-corrected errors of both and of the mean of their points, and how far they lie ``apart``.

    ``shared``: the correlation of their errors, over faces on which neither fails. Errors that two networks share that
    have never met are those of the labels, for the most part, or of what both cannot see.
    """

    ours: str
    peer: str
    faces: int
    our_nme: float
    peer_nme: float
    mean_nme: float
    apart: float
    shared: float


AGREEING = (
    "Offset-corrected errors, on the faces that both find, of ours in published boxes, of the peer, and of the mean of "
    "their points; how far they lie apart, in the same percent; and the correlation of their errors where neither "
    "fails. What two networks share that have never met is mostly the labels'."
)


def agreement_table(agreements: Sequence[Agreement]) -> str:
    """As Markdown."""
    cells = [("ours", "peer", "faces", "ours %", "peer %", "mean of both %", "apart %", "correlation")]
    for one in agreements:
        figures = (f"{value:.2f}" for value in one[3:])
        cells.append((one.ours, one.peer, str(one.faces), *figures))
    return _lined_up(cells)


def as_csv(rows: Sequence[Row]) -> str:
    """All figures at full precision, one line a row; empty where there is none."""
    names = [f"{kind}_{field}" for kind in ("landmarks_ms", "detection_ms") for field in ("median", "low", "high")]
    header = ["method", "boxes", *Accuracy._fields, *names, "cores", "version", "problem"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    for row in rows:
        accuracy = row.accuracy or [None] * len(Accuracy._fields)
        times = [value for time in (row.landmarks, row.detection) for value in (time[:3] if time else [None] * 3)]
        cores = row.time.cores if row.time else None
        table.writerow([row.method, row.boxes, *accuracy, *times, cores, row.version, row.problem])
    return text.getvalue()


def as_markdown(rows: Sequence[Row]) -> str:
    """The table for people, its columns lined up."""
    return _lined_up([HEADER, *map(_cells, rows)])


def _lined_up(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    accuracy = row.accuracy
    return (
        row.method,
        row.boxes,
        f"{accuracy.found:.1f}" if accuracy else "-",
        f"{accuracy.nme:.2f} / {accuracy.failures:.1f}" if accuracy else "-",
        f"{accuracy.corrected_nme:.2f} / {accuracy.corrected_failures:.1f}" if accuracy else "-",
        _milliseconds(row.landmarks),
        _milliseconds(row.detection),
        f"{row.time.cores:.2f}" if row.time else "-",
        row.problem.replace("|", "/"),
    )


def _milliseconds(time: Time | None) -> str:
    return f"{time.median:.2f} ({time.low:.2f}, {time.high:.2f})" if time else "-"


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Error against milliseconds a face; a method without both is not drawn, and said to be.

    NME is a mean over the faces found and flatters who finds only easy ones: the last panel counts the others too.
    """
    drawn = [row for row in rows if row.accuracy and math.isfinite(row.accuracy.nme) and row.time]
    methods = list(dict.fromkeys(row.method for row in rows))
    colors = {method: f"C{i % 10}" for i, method in enumerate(methods)}
    figure = Figure(figsize=(12.6, 4.8), layout="constrained")
    panels = {
        "NME %, raw": [row.accuracy.nme for row in drawn],
        "NME %, offset-corrected": [row.accuracy.corrected_nme for row in drawn],
        "failures %, offset-corrected, faces not found included": [row.accuracy.corrected_failures for row in drawn],
    }
    for axes, (name, values) in zip(figure.subplots(1, len(panels), sharex=True), panels.items(), strict=True):
        _panel(axes, name, drawn, values, colors)
    figure.suptitle(title, fontsize=10)
    missing = [method for method in methods if method not in {row.method for row in drawn}]
    handles = [Line2D([], [], color=colors[m], marker="o", linestyle="", label=m) for m in methods if m not in missing]
    for boxes, words in ((GIVEN, "points in the published boxes"), (OWN, "own detector and points")):
        handles.append(_marker(boxes, "#555555", label=words))
    handles += [Line2D([], [], linestyle="", label=f"{method}: not measured") for method in missing]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def _panel(axes: Axes, name: str, rows: Sequence[Row], values: Sequence[float], colors: dict[str, str]) -> None:
    for row, value in zip(rows, values, strict=True):
        axes.add_line(_marker(row.boxes, colors[row.method], [row.time.median], [value]))
        axes.plot([row.time.low, row.time.high], [value, value], color=colors[row.method], linewidth=1)
    axes.set_xscale("log")
    axes.autoscale_view()
    axes.margins(x=0.12, y=0.12)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("milliseconds a face, one thread")
    axes.grid(which="both", color="#eeeeee")
    axes.set_axisbelow(True)


def _marker(boxes: str, color: str, x: Sequence[float] = (), y: Sequence[float] = (), label: str = "") -> Line2D:
    """Filled: given boxes; hollow: its own detector."""
    face = color if boxes == GIVEN else "white"
    return Line2D(x, y, color=color, marker=MARKERS[boxes], markerfacecolor=face, linestyle="", label=label)
