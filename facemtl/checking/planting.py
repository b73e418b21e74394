"""Mistakes planted in copies of real faces, to see what a check catches and what it calls wrong that is not.

Everything planted is known, so that the check can be judged: a mistake counts as caught when a finding of its kind
names the face (or, for a whole part, the part). What is called wrong on the faces as they are is a false alarm, unless
somebody has looked at it; the share is given as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from facemtl.checking.check import Progress, check, no_progress
from facemtl.checking.comparison import orders
from facemtl.checking.findings import NOTE, Part
from facemtl.data.sample import FaceSample, read_picture
from facemtl.errors import DataError
from facemtl.image import write_image
from facemtl.landmarks import SCHEMAS
from facemtl.session import Session

ONE_IN = 10  # faces that get a mistake of a single face
LEAK_SIZE, LEAK_QUALITY = 0.6, 60  # how a test picture is resized and encoded before it turns up in training

# A mistake: (sample, a folder for new pictures) -> the sample with it
Mistake = Callable[[FaceSample, Path], FaceSample]


@dataclass(frozen=True, slots=True)
class Catch:
    """What became of one kind of mistake.

    Attributes:
        mistake: what was planted, and where.
        planted, caught: faces, or whole parts.
        unharmed: faces without it that a warning or an error names; over ``others``, those there are.
    """

    mistake: str
    planted: int
    caught: int
    unharmed: int
    others: int


def swapped_eyes(sample: FaceSample, _: Path) -> FaceSample:
    """Left and right of the eyes exchanged."""
    return _reordered(sample, orders(SCHEMAS[sample.schema])["left and right of the eyes"])


def wrong_flip_order(sample: FaceSample, folder: Path) -> FaceSample:
    """A mirrored picture whose points moved with it and kept their names: left and right of all are exchanged."""
    mirrored = mirrored_picture(sample, folder)
    points = sample.points.copy()
    points[:, 0] = read_picture(sample.image).shape[1] - 1 - points[:, 0]
    return replace(mirrored, points=points, box=None)


def mirrored_picture(sample: FaceSample, folder: Path) -> FaceSample:
    """The picture mirrored, its labels left as they were."""
    image = np.ascontiguousarray(read_picture(sample.image)[:, ::-1])
    return replace(sample, image=_written(image, folder))


def one_based(sample: FaceSample, _: Path) -> FaceSample:
    """Coordinates that count from 1, read as if they counted from 0."""
    return replace(sample, points=sample.points + np.float32(1))


def half_a_pixel(sample: FaceSample, _: Path) -> FaceSample:
    """Coordinates that count from the corner of the first pixel, read as if they counted from its centre."""
    return replace(sample, points=sample.points + np.float32(0.5))


def leaked(sample: FaceSample, folder: Path) -> FaceSample:
    """A smaller copy, encoded anew under another name, with the points where they belong."""
    image = read_picture(sample.image)
    height, width = (max(8, round(LEAK_SIZE * side)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    scale = np.float32([width / image.shape[1], height / image.shape[0]])
    path = _name(folder, ".jpg")
    path.write_bytes(cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, LEAK_QUALITY))[1].tobytes())
    box = None if sample.box is None else np.float32(sample.box * np.tile(scale, 2))
    points = (sample.points + np.float32(0.5)) * scale - np.float32(0.5)
    return replace(sample, image=path, points=points, box=box, source=f"leaked:{sample.source}")


# mistake -> (what makes it, the kind of finding that names it)
OF_FACES: dict[str, tuple[Mistake, str]] = {
    "swapped eyes": (swapped_eyes, "points_exchanged"),
    "wrong flip order": (wrong_flip_order, "points_exchanged"),
    "mirrored image": (mirrored_picture, "mirrored"),
}
OF_PARTS: dict[str, tuple[Mistake, str]] = {
    "swapped eyes": (swapped_eyes, "points_exchanged"),
    "wrong flip order": (wrong_flip_order, "points_exchanged"),
    "mirrored images": (mirrored_picture, "mirrored"),
    "1-based read as 0-based": (one_based, "pixel_shift"),
    "half a pixel": (half_a_pixel, "pixel_shift"),
}


def self_test(
    parts: Sequence[Part],
    faces: int,
    model: str | Path | Session | None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> list[Catch]:
    """Plant every mistake in up to ``faces`` faces of each part, evenly drawn, one kind after the other.

    Raises:
        DataError: no part whose faces have all their points.
    """
    drawn = [Part(p.name, p.split, p.samples[:: max(1, -(-len(p.samples) // faces))]) for p in parts]
    drawn = [p for p in drawn if p.samples and all(np.isfinite(s.points).all() for s in p.samples)]
    if not drawn:
        raise DataError("mistakes are planted in faces that have all their points; none of these parts has")

    def alarms(planted: Sequence[Part]) -> tuple[set[int], dict[str, set[int]], set[tuple[str, str]]]:
        report = check(planted, model, threads, progress=progress)
        rows: dict[str, set[int]] = {}
        for finding in report.findings:
            rows.setdefault(finding.kind, set()).update(finding.rows)
        return report.alarmed(), rows, {(f.kind, f.part) for f in report.findings if not f.rows and f.severity != NOTE}

    total = sum(len(p.samples) for p in drawn)
    before, _, known = alarms(drawn)
    catches = [Catch("nothing: false alarms", 0, 0, len(before), total)]
    catches += [Catch(f"nothing: {kind} in {part}", 0, 0, 0, 0) for kind, part in sorted(known)]
    with tempfile.TemporaryDirectory() as folder:
        for name, (mistake, kind) in OF_FACES.items():
            planted, wrong, first = [], set(), 0
            for part in drawn:
                samples = list(part.samples)
                for i in range(first % ONE_IN, len(samples), ONE_IN):
                    samples[i] = mistake(samples[i], Path(folder))
                    wrong.add(first + i)
                planted.append(Part(part.name, part.split, samples))
                first += len(samples)
            alarmed, rows, _ = alarms(planted)
            caught = wrong & rows.get(kind, set())
            catches.append(
                Catch(
                    f"{name}, one face in {ONE_IN}", len(wrong), len(caught), len(alarmed - wrong), total - len(wrong)
                )
            )
        for name, (mistake, kind) in OF_PARTS.items():
            planted = [Part(p.name, p.split, [mistake(s, Path(folder)) for s in p.samples]) for p in drawn]
            _, _, whole = alarms(planted)
            caught = sum((kind, str(p)) in whole for p in drawn)
            catches.append(Catch(f"{name}, whole part", len(drawn), caught, 0, 0))
        catches.append(_leaks(drawn, Path(folder), progress))
    return catches


def table(catches: Sequence[Catch]) -> str:
    """The catches as lines of text."""
    lines = [f"{'planted':<42}{'wrong':>7}{'caught':>8}{'others':>8}{'alarmed':>9}"]
    for c in catches:
        share = f"{100 * c.unharmed / c.others:.2f} %" if c.others else ""
        lines.append(f"{c.mistake:<42}{c.planted:>7}{c.caught:>8}{c.others:>8}{share:>9}")
    return "\n".join(lines)


def _leaks(drawn: Sequence[Part], folder: Path, progress: Progress) -> Catch:
    """Every tenth face turns up, smaller and encoded anew, among the training faces of a set of its own."""
    originals = [s for p in drawn for s in p.samples]
    copies = [leaked(s, folder) for s in originals[::ONE_IN]]
    away = Part("planted", "planted", copies)
    report = check([*drawn, away], None, progress=progress)
    rows = {row for f in report.findings if f.kind == "leak" for row in f.rows}
    caught = sum(len(originals) + i in rows for i in range(len(copies)))
    # Another frame of the same video is a copy of the leaked one too, and rightly found.
    copied = {row for f in report.findings if f.kind in ("duplicate", "contradicting_copies") for row in f.rows}
    planted = {*range(0, len(originals), ONE_IN), *range(len(originals), len(originals) + len(copies))}
    others = rows - planted - copied
    return Catch("leaked, encoded anew and resized", len(copies), caught, len(others), len(originals) - len(copies))


def _reordered(sample: FaceSample, order: Sequence[int]) -> FaceSample:
    return replace(sample, points=sample.points[list(order)])


def _written(image: np.ndarray, folder: Path) -> Path:
    path = _name(folder, ".png")
    write_image(path, image)
    return path


def _name(folder: Path, suffix: str) -> Path:
    return folder / f"{len(list(folder.iterdir())):06d}{suffix}"
