"""The whole check: pictures, copies, counts, shapes, and what a model says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.checking.against_model import Seen, see
from facemtl.checking.comparison import Comparison, check_labels
from facemtl.checking.copies import find_copies, judge_copies
from facemtl.checking.counts import check_boxes, check_outside, check_shapes, check_unlabelled, count_part
from facemtl.checking.findings import Finding, Part, Report, ranked
from facemtl.checking.pictures import Pictures, look_at
from facemtl.data.sample import FaceSample, StoredPicture, face_box
from facemtl.errors import ConfigError, DataError
from facemtl.predictor import Predictor
from facemtl.session import Session
from facemtl.shared_points import shared_points

# (things, what is done to them) -> the things, with a bar
Progress = Callable[[Iterable, str], Iterable]


def no_progress(things: Iterable, _: str) -> Iterable:
    return things


def check(
    parts: Sequence[Part],
    model: str | Path | Session | None,
    threads: int = 1,
    asked: int | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Check the faces of all parts, one by one and against each other.

    Args:
        parts: splits of one or of several data sets; within one, all faces have the same landmark schema.
        model: what is asked about every face, as :class:`facemtl.predictor.Predictor` takes it; None: no model, and
            then implausible faces are ranked by shape alone, and nobody says what is wrong with them.
        threads: CPU threads of the network.
        asked: the model is asked about this many faces of each part, evenly drawn; None: about all.
        progress: shows a bar.

    Raises:
        DataError: no faces, or a part with several schemas.
        ModelError: as ``Predictor``.
    """
    faces = [sample for part in parts for sample in part.samples]
    if not faces:
        raise DataError("there are no faces to check")
    names = [str(part) for part in parts for _ in part.samples]
    rows_of: dict[Path | StoredPicture, list[int]] = defaultdict(list)
    for row, sample in enumerate(faces):
        rows_of[sample.image].append(row)
    pictures = look_at(list(rows_of), lambda things: progress(things, "pictures"))
    findings = _broken(pictures, rows_of, faces, names)
    findings += judge_copies(find_copies(pictures), list(rows_of.values()), faces, names)
    index = {path: i for i, path in enumerate(pictures.paths)}

    facts: dict[str, dict[str, Any]] = {}
    first, used = 0, None
    for part in (part for part in parts if part.samples):
        schemas = sorted({s.schema for s in part.samples})
        if len(schemas) > 1:
            raise DataError(f"{part}: a part has faces of one schema, found {', '.join(schemas)}")
        name, samples = str(part), part.samples
        sizes = pictures.sizes[[index[s.image] for s in samples]]
        facts[name] = count_part(samples) | _of_pictures(pictures, {index[s.image] for s in samples})
        outside, found = check_outside(samples, sizes, name, first)
        facts[name]["with points outside"] = outside
        findings += found + check_unlabelled(samples, name, first) + check_boxes(samples, name, first)
        findings += check_shapes(samples, name, first)
        if model is not None:
            used, found = _ask(model, threads, part, first, asked, progress, facts[name])
            findings += found
        first += len(samples)
    return Report(faces, names, facts, ranked(findings), used)


def _ask(
    model: str | Path | Session,
    threads: int,
    part: Part,
    first: int,
    asked: int | None,
    progress: Progress,
    facts: dict[str, Any],
) -> tuple[str, list[Finding]]:
    """What a model says of one part; adds to its facts."""
    step = 1 if asked is None else max(1, -(-len(part.samples) // asked))
    samples = part.samples[::step]
    facts["asked of the model"] = len(samples)
    predict = Predictor(model, threads=threads, flip=False)
    try:
        shared = shared_points(samples[0].schema, predict.spec.point_tasks())
        predict = Predictor(model, threads=threads, flip=False, schema=shared.model_schema)
    except ConfigError:  # the points of neither lead to the other's: attributes and angles are still asked
        shared = None
    seen = see(predict, samples, shared, lambda things: progress(things, f"{part}: {predict.spec.name}"))

    def look_again(rows: np.ndarray) -> Seen:
        again = [samples[row] for row in rows]
        mirrored = [_mirrored_box(s, width) for s, width in zip(again, seen.sizes[rows, 0], strict=True)]
        return see(predict, again, shared, lambda things: progress(things, f"{part}: mirrored?"), mirrored)

    comparison = Comparison(seen, samples, str(part), 0, look_again)
    comparison.run()
    agreement, doubts = check_labels(seen, samples, str(part), 0)
    facts |= comparison.facts
    if shared is not None:
        facts["points compared as"] = f"{shared.schema}, {'exact' if shared.exact else 'approximate'}"
    facts["agreement"] = agreement
    findings = [*comparison.findings, *doubts]
    moved = [Finding(f.kind, f.part, f.message, f.score, tuple(first + step * row for row in f.rows)) for f in findings]
    return predict.spec.name, moved


def _mirrored_box(sample: FaceSample, width: int) -> np.ndarray:
    x1, y1, x2, y2 = face_box(sample)
    return np.array([width - 1 - x2, y1, width - 1 - x1, y2])


def _broken(
    pictures: Pictures,
    rows_of: dict[Path | StoredPicture, list[int]],
    faces: Sequence[FaceSample],
    names: Sequence[str],
) -> list[Finding]:
    return [
        Finding("broken_image", names[rows[0]], f"{faces[rows[0]].source}: {error}", rows=tuple(rows))
        for i, error in pictures.errors.items()
        for rows in [rows_of[pictures.paths[i]]]
    ]


def _of_pictures(pictures: Pictures, indices: set[int]) -> dict[str, Any]:
    rows = sorted(indices - set(pictures.errors))
    sizes = Counter("{} x {}".format(*pictures.sizes[i]) for i in rows)
    return {
        "broken pictures": len(indices) - len(rows),
        "grey pictures": int(pictures.grey[rows].sum()),
        "sizes": dict(sizes.most_common(3)),
        "other sizes": len(sizes) - min(len(sizes), 3),
    }
