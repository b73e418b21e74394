"""What a check of labelled faces can find, and how it is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from facemtl.data.sample import FaceSample

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)  # the worst first

# kind -> (severity, title, what it means and what to do)
KINDS: dict[str, tuple[str, str, str]] = {
    "broken_image": (ERROR, "Broken pictures", "The file cannot be read as a picture."),
    "leak": (
        ERROR,
        "Leaks between splits",
        "One picture stands in two splits, as itself, encoded anew, resized or mirrored: what is measured on one split "
        "was seen in the other. Take it out of one.",
    ),
    "points_exchanged": (
        ERROR,
        "Points in a wrong order",
        "The points fit the face when some of them change places: left and right mixed up, a mirrored picture whose "
        "points were not renamed, or columns read in another order.",
    ),
    "mirrored": (
        ERROR,
        "Mirrored pictures",
        "The points fit the mirror image of the picture: it was flipped and its labels were not.",
    ),
    "pixel_shift": (
        ERROR,
        "Where the first pixel is",
        "The points lie to one side of the place that the pictures and their mirror images agree on. 1 pixel: "
        "coordinates that count from 1 were read as counting from 0. Half a pixel: they count from the corner of a "
        "pixel and were read as counting from its centre.",
    ),
    "inverted_label": (
        ERROR,
        "Labels the other way round",
        "Over the whole part the labels say the opposite of what the model sees: a code or a sign is mixed up.",
    ),
    "contradicting_copies": (
        WARNING,
        "Copies with different labels",
        "One picture is there several times, and its labels differ.",
    ),
    "points_outside": (WARNING, "Points outside", "Points lie further outside the picture than a face may reach."),
    "implausible_face": (
        WARNING,
        "Implausible faces",
        "The points are no face: far from every shape of the part, whatever its place, size and turn.",
    ),
    "points_elsewhere": (
        WARNING,
        "Points that the model puts elsewhere",
        "The picture and its mirror image agree on other places than the labels.",
    ),
    "box_elsewhere": (WARNING, "Boxes elsewhere", "The face box of the set and its points do not overlap much."),
    "same_box": (
        WARNING,
        "One box for many faces",
        "Many pictures have the same box: a detector's failure, filled in.",
    ),
    "unfit_flip_order": (
        ERROR,
        "The schema's flip order",
        "Mirrored, the mean face is not the mean face: the flip order of the schema, or the order of the points, is "
        "wrong.",
    ),
    "duplicate": (NOTE, "Copies within a split", "One picture is there several times, with labels that agree."),
    "label_suspect": (
        NOTE,
        "Labels the model doubts",
        "The model is nearly sure of another class, of the picture and of its mirror image. Look at the likeliest "
        "first; the model errs too.",
    ),
    "nothing_known": (NOTE, "Faces without a label", "Neither points nor any label is known of the face."),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One split of one data set: its faces, as an adapter reads them."""

    name: str
    split: str
    samples: Sequence[FaceSample]

    def __str__(self) -> str:
        return f"{self.name} {self.split}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        kind: key of :data:`KINDS`.
        part: where, ``mtfl train``.
        message: one line.
        score: how strong, to rank the findings of one kind.
        rows: the faces, as indices into :attr:`Report.faces`; empty where the finding is about a whole part.
    """

    kind: str
    part: str
    message: str
    score: float = 0.0
    rows: tuple[int, ...] = ()

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a check says.

    Attributes:
        faces: the faces of all parts, one after the other.
        parts: the name of the part of each.
        facts: part -> what was counted there, plain values.
        findings: worst severity first, strongest first within a kind.
        model: name of the model that was asked, or None.
    """

    faces: list[FaceSample]
    parts: list[str]
    facts: dict[str, dict[str, Any]]
    findings: list[Finding] = field(default_factory=list)
    model: str | None = None

    def alarmed(self, notes: bool = False) -> set[int]:
        """The faces that a warning or an error names, or also a note."""
        return {row for f in self.findings if notes or f.severity != NOTE for row in f.rows}

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "facts": self.facts,
            "counts": dict(Counter(f.kind for f in self.findings)),
            "findings": [
                {
                    "kind": f.kind,
                    "severity": f.severity,
                    "part": f.part,
                    "message": f.message,
                    "score": round(float(f.score), 4),
                    "faces": [
                        {"source": self.faces[row].source, "image": str(self.faces[row].image)} for row in f.rows
                    ],
                }
                for f in self.findings
            ],
        }


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Worst severity first, then by kind, whole parts before faces, strongest first."""
    kinds = list(KINDS)
    return sorted(
        findings, key=lambda f: (SEVERITIES.index(f.severity), kinds.index(f.kind), f.rows != (), -f.score, f.message)
    )
