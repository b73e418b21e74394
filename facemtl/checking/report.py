"""What a person reads of a check: one HTML file with its pictures inside, and lines of text."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from facemtl.checking.findings import KINDS, NOTE, Finding, Report
from facemtl.data.sample import FaceSample, face_box, read_picture
from facemtl.errors import DataError, ImageError
from facemtl.files import write_beside
from facemtl.geometry import apply_affine, crop_matrix, invert_affine, warp_crop
from facemtl.landmarks import SCHEMAS

SHOWN = 24  # findings of a kind that are shown with pictures
TILE = 160  # side of a picture in pixels
LEFT, RIGHT, MIDDLE = (230, 150, 40), (60, 60, 240), (90, 200, 60)  # BGR
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)


def write_check(report: Report, path: str | Path, title: str, progress: Callable[[Iterable], Iterable] = iter) -> None:
    """Write one HTML file. It shows faces of the data sets, whose terms then apply to it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = []
    for kind in progress(list(KINDS)):
        found = [f for f in report.findings if f.kind == kind]
        if not found:
            continue
        severity, name, meaning = KINDS[kind]
        shown = [(f, [_picture(report.faces[row]) for row in f.rows[:4]]) for f in found if f.rows][:SHOWN]
        whole = [f for f in found if not f.rows]
        section = {"kind": kind, "severity": severity, "name": name, "meaning": meaning, "count": len(found)}
        sections.append(section | {"whole": whole, "shown": shown, "more": len(found) - len(whole) - len(shown)})
    html = environment.get_template("check.html.jinja").render(
        title=title, report=report, sections=sections, alarmed=len(report.alarmed())
    )
    write_beside(Path(path), lambda partial: partial.write_text(html, encoding="utf-8"))


def summary(report: Report, lines_of_each: int = 5) -> str:
    """Counts and the strongest findings, as text for a terminal."""
    lines = []
    for part, facts in report.facts.items():
        lines.append(
            f"{part}: {facts['faces']} faces on {facts['pictures']} pictures, {facts['with all points']} with all "
            f"points ({facts['schema']}), {facts['with a box']} with a box, {facts['grey pictures']} grey"
        )
        for label, counts in facts["labels"].items():
            lines.append(f"  {label}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
        for group, entry in facts.get("shift in x, pixels", {}).items():
            lines.append(
                f"  shift in x, {group}: {entry['shift']:+.2f} px ({entry['low']:+.2f} to {entry['high']:+.2f})"
            )
        if facts.get("agreement"):
            lines.append(
                "  agreement with the model: "
                + ", ".join(f"{label} {value:.3f}" for label, value in facts["agreement"].items())
            )
    counts = Counter(f.kind for f in report.findings)
    for kind, count in counts.items():
        lines += ["", f"{KINDS[kind][0]}: {KINDS[kind][1]} ({kind}): {count}"]
        found = [f for f in report.findings if f.kind == kind]
        lines += [f"  {f.part}: {f.message}" for f in found[:lines_of_each]]
        lines += [f"  ... and {count - lines_of_each} more"] if count > lines_of_each else []
    warned = len(report.alarmed())
    share = 100 * warned / len(report.faces)
    noted = sum(f.severity == NOTE for f in report.findings)
    lines += ["", f"{warned} of {len(report.faces)} faces ({share:.2f} %) have a warning or an error; {noted} notes"]
    return "\n".join(lines)


def _picture(sample: FaceSample) -> dict[str, Any]:
    """Source and picture (data URI, or None where there is none to show) of a face."""
    return {"name": sample.source or str(sample.image), "uri": _uri(sample)}


def _uri(sample: FaceSample) -> str | None:
    try:
        tile = draw_face(read_picture(sample.image), sample)
    except (ImageError, DataError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", tile, _JPEG)[1].tobytes()).decode()


def draw_face(image: np.ndarray, sample: FaceSample) -> np.ndarray:
    """(TILE, TILE, 3) the whole picture with the face's points on it: left ones blue, right ones red, others green.

    Left and right are those of the schema, so that a face whose sides are mixed up shows it.
    """
    height, width = image.shape[:2]
    try:
        box = face_box(sample)
        half = (box[2:] - box[:2]).max() * 0.75
        box = np.concatenate([(box[:2] + box[2:]) / 2 - half, (box[:2] + box[2:]) / 2 + half])
    except DataError:
        half = max(width, height) / 2
        box = np.array([width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half])
    matrix = crop_matrix(box, TILE)
    tile = warp_crop(image, matrix, TILE)
    schema = SCHEMAS[sample.schema]
    radius = 3 if len(schema) <= 29 else 2
    for i, (x, y) in enumerate(apply_affine(invert_affine(matrix), sample.points)):
        if np.isfinite(x) and max(abs(x), abs(y)) < 1e4:
            place = round(float(x) * 16), round(float(y) * 16)
            cv2.circle(tile, place, (radius + 1) << 4, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
            cv2.circle(tile, place, radius << 4, _side(i, sample.schema), -1, cv2.LINE_AA, shift=4)
    return tile


def _side(point: int, schema: str) -> tuple[int, int, int]:
    partner = SCHEMAS[schema].flip_order[point]
    if partner == point:
        return MIDDLE
    name = SCHEMAS[schema].names[point]
    if "left" in name or "right" in name:
        return LEFT if "left" in name else RIGHT
    return LEFT if _left_first(schema, point) else RIGHT


def _left_first(schema: str, point: int) -> bool:
    """Chains without a side in their names (jaw, lips) run from left to right, and back along the lower lip."""
    name = SCHEMAS[schema].names[point]
    earlier = point < SCHEMAS[schema].flip_order[point]
    number = int(name.rsplit("_", 1)[1])
    lower = (name.startswith("outer_lip") and number > 6) or (name.startswith("inner_lip") and number > 4)
    return earlier != lower


def worst(findings: list[Finding], allowed: Iterable[str] = ()) -> str | None:
    """The worst severity among findings of other kinds than those allowed; None without any."""
    left = [f.severity for f in findings if f.kind not in set(allowed)]
    return left[0] if left else None
