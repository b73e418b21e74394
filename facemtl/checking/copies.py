"""Pictures that are there more than once: the same bytes, encoded anew, resized or mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facemtl.checking.findings import Finding
from facemtl.checking.pictures import MIRROR_BITS, THUMB, Pictures, bytes_of
from facemtl.data.sample import MISSING, FaceSample
from facemtl.landmarks import SCHEMAS

BITS = 14  # of 64 that may differ before two pictures are not even compared
ALIKE = 0.99  # correlation of two thumbnails from which on they are one picture
TURNED_APART = 5.0  # degrees by which the angles of one picture may differ
ONE_FRAME = 0.999  # correlation that two frames of a video do not reach when the face moves between them
APART = 0.1  # mean distance of the points of one picture, over the mean distance of five from their mean
SAME, ENCODED, RESIZED, MIRRORED = "the same file", "encoded anew", "resized", "mirrored"
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Copy:
    """Two pictures that are one: ``first`` < ``second``, indices of :class:`Pictures`; how, and how alike (0..1)."""

    first: int
    second: int
    how: str
    alike: float


def find_copies(pictures: Pictures) -> list[Copy]:
    """All pairs, in the order of the pictures. Candidates share most bits of their hash; their thumbnails decide."""
    hashes, thumbs = pictures.hashes, pictures.thumbs
    mirrored = thumbs.reshape(-1, THUMB, THUMB)[:, :, ::-1].reshape(len(thumbs), -1)
    seen = np.array([i not in pictures.errors for i in range(len(pictures))], dtype=bool)
    found: list[Copy] = []
    for start in range(0, len(hashes), _CHUNK):
        rows = slice(start, start + _CHUNK)
        for how, mask, others in (("", np.uint64(0), thumbs), (MIRRORED, MIRROR_BITS, mirrored)):
            apart = np.bitwise_count(hashes[rows, None] ^ hashes[None, start:] ^ mask)
            one, other = np.nonzero(apart <= BITS)
            one, other = one + start, other + start
            ordered = (one < other) & seen[one] & seen[other]
            one, other = one[ordered], other[ordered]
            alike = np.einsum("ij,ij->i", thumbs[one], others[other]) if len(one) else np.zeros(0)
            for i, j, value in zip(one[alike >= ALIKE], other[alike >= ALIKE], alike[alike >= ALIKE], strict=True):
                found.append(Copy(int(i), int(j), how or _plainly(pictures, i, j), float(value)))
    best: dict[tuple[int, int], Copy] = {}
    for copy in found:  # a picture that is its own mirror image comes twice
        key = copy.first, copy.second
        if key not in best or best[key].how == MIRRORED:
            best[key] = copy
    return [best[key] for key in sorted(best)]


def _plainly(pictures: Pictures, i: int, j: int) -> str:
    if tuple(pictures.sizes[i]) != tuple(pictures.sizes[j]):
        return RESIZED
    return SAME if bytes_of(pictures.paths[i]) == bytes_of(pictures.paths[j]) else ENCODED


def judge_copies(
    copies: Sequence[Copy], rows_of: Sequence[Sequence[int]], faces: Sequence[FaceSample], parts: Sequence[str]
) -> list[Finding]:
    """Leaks (parts of different splits), contradictions and mere copies, one finding a pair of pictures.

    Args:
        copies: of pictures.
        rows_of: picture -> the faces on it, indices into ``faces``.
        faces: all faces.
        parts: face -> its part, whose last word is the split.
    """
    findings = []
    for copy in copies:
        one, other = rows_of[copy.first], rows_of[copy.second]
        here, there = parts[one[0]], parts[other[0]]
        names = f"{faces[one[0]].source or faces[one[0]].image} and {faces[other[0]].source or faces[other[0]].image}"
        splits = {parts[row].rsplit(" ", 1)[1] for row in (*one, *other)}
        differing = _differing(faces[one[0]], faces[other[0]], copy) if len(one) == len(other) == 1 else []
        rows = (*one, *other)
        if len(splits) > 1:
            text = f"{names}: {copy.how}, in {here} and {there}"
            findings.append(Finding("leak", here, text, copy.alike, rows))
        if differing:
            text = f"{names}: {copy.how}, but {', '.join(differing)} differ"
            findings.append(Finding("contradicting_copies", here, text, copy.alike, rows))
        elif len(splits) == 1:
            findings.append(Finding("duplicate", here, f"{names}: {copy.how}", copy.alike, rows))
    return findings


def _differing(one: FaceSample, other: FaceSample, copy: Copy) -> list[str]:
    """What is known of both faces and differs; signs of pose and angles are left to a mirror image, and points are
    compared in pictures of one size that cannot be two frames of one video."""
    differing = [
        task
        for task, label in one.labels.items()
        if task != "pose" and MISSING not in (label, other.labels.get(task, MISSING)) and label != other.labels[task]
    ]
    if one.angles is not None and other.angles is not None:
        apart = np.abs(np.abs(one.angles) - np.abs(other.angles))
        if np.nanmax(apart, initial=0.0) > TURNED_APART:
            differing.append("angles")
    if one.schema == other.schema and copy.how in (SAME, ENCODED) and copy.alike >= ONE_FRAME:
        five = [SCHEMAS[one.schema].to_five(s.points.astype(np.float64)) for s in (one, other)]
        unit = np.hypot(*(five[0] - five[0].mean(axis=0)).T).mean()
        if np.hypot(*(five[0] - five[1]).T).mean() > APART * unit:  # not for NaN
            differing.append("points")
    return differing
