"""Labels against what a model sees: points in a wrong order, mirrored pictures, shifts, doubtful labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from facemtl.checking.against_model import Seen, mirror_points
from facemtl.checking.findings import Finding
from facemtl.data.sample import MISSING, FaceSample
from facemtl.face import ANGLES, ATTRIBUTES
from facemtl.landmarks import SCHEMAS, LandmarkSchema
from facemtl.training.metrics import bootstrap_interval

FEWEST = 30  # faces from which on a part as a whole is judged
# Distances of points are in units of the face: the mean distance of its five points from their mean.
CLOSE = 0.25  # how far points of one name may be apart on the whole
PLAUSIBLE = 0.2  # mean distance up to which labels and model speak of the same face
SHIFT = 0.3  # pixels that all faces together may lie aside
DOUBT = 0.01  # probability of the label, by the picture and by its mirror image, under which it is doubted
TURNED = 30.0  # degrees between labelled and seen angle that are doubted
GROUPS = {  # which points change places together, by a word of their names
    "eyes": ("eye", "pupil"),
    "brows": ("brow",),
    "mouth": ("mouth", "lip"),
}
ORDERED = 500  # faces from which the order of all points is read; more say the same


def orders(schema: LandmarkSchema) -> dict[str, list[int]]:
    """Name -> the order in which points stand that were mixed up: left and right of all, or of a part of the face."""
    flip, known = list(schema.flip_order), {}
    known["left and right of all points"] = flip
    for name, words in GROUPS.items():
        order = [flip[i] if any(w in part for w in words) else i for i, part in enumerate(schema.names)]
        if order != list(range(len(schema))) and order != flip:
            known[f"left and right of the {name}"] = order
    return known


def units(seen: Seen) -> np.ndarray:
    """(N,) size of each face as the model sees it, pixels."""
    five = SCHEMAS[seen.schema].to_five(seen.points)
    return np.hypot(*np.moveaxis(five - five.mean(axis=1, keepdims=True), 2, 0)).mean(axis=1)


class Comparison:
    """The points of one part against a model's.

    Args:
        seen: what the model says.
        samples: the faces.
        part: their part's name.
        first: the row of the first face.
        look_again: rows within the part -> what the model sees in the mirrored box, where a picture may be mirrored.
    """

    def __init__(
        self,
        seen: Seen,
        samples: Sequence[FaceSample],
        part: str,
        first: int,
        look_again: Callable[[np.ndarray], Seen] | None = None,
    ) -> None:
        self.seen, self.samples, self.part, self.first = seen, samples, part, first
        self.schema = SCHEMAS[seen.schema]
        self.look_again = look_again
        self.unit = units(seen)
        self.labelled = seen.labelled
        self.findings: list[Finding] = []
        self.facts: dict[str, Any] = {}

    def run(self) -> None:
        """Fill :attr:`findings` and :attr:`facts`."""
        compared = np.isfinite(self.labelled).any(axis=(1, 2)) & np.isfinite(self.unit)
        self.facts["compared with the model"] = int(compared.sum())
        if compared.any():
            if compared.sum() >= FEWEST:
                self._order_of_all(compared)
            costs = self._costs()
            self._faces(costs)
            self._shifts(costs["as labelled"])

    def _apart(self, labelled: np.ndarray) -> np.ndarray:
        """(N, K) how far labels are from what is seen, less what all faces have in common; NaN where missing."""
        with np.errstate(invalid="ignore"):
            residuals = (labelled - self.seen.points) / self.unit[:, None, None]
        return np.hypot(*np.moveaxis(residuals - self._habit, 2, 0))

    @property
    def _habit(self) -> np.ndarray:
        """(K, 2) where the set puts each point, seen from the model's: an annotator's habit, if it is small."""
        residuals = (self.labelled - self.seen.points) / self.unit[:, None, None]
        habit = _nanmedian(residuals)
        return np.where(np.hypot(*habit.T)[:, None] <= CLOSE, np.nan_to_num(habit), 0)

    def _order_of_all(self, compared: np.ndarray) -> None:
        """Which label lies on which seen point, for the part as a whole; from here on the labels stand so."""
        rows = np.flatnonzero(compared)[:: max(1, int(compared.sum()) // ORDERED)]
        residuals = self.labelled[rows, None] - self.seen.points[rows, :, None]  # [face, seen, labelled]
        apart = _nanmedian(np.hypot(residuals[..., 0], residuals[..., 1]) / self.unit[rows, None, None])
        apart = np.nan_to_num(apart, nan=10.0)
        order = np.arange(len(self.schema))
        seen, labelled = linear_sum_assignment(apart)
        for i, j in zip(seen, labelled, strict=True):
            if i != j and apart[i, i] > CLOSE / 2 and apart[i, j] < apart[i, i] / 2:
                order[i] = j
        moved = np.flatnonzero(order != np.arange(len(order)))
        if not len(moved) or len(set(order)) < len(order):
            return
        names = self.schema.names
        known = {tuple(value): name for name, value in orders(self.schema).items()}
        shown = ", ".join(f"{names[order[i]]} lies on {names[i]}" for i in moved)
        text = f"the whole part: {known.get(tuple(order), f'{len(moved)} points')} exchanged ({shown[:200]})"
        self.findings.append(Finding("points_exchanged", self.part, text, float(apart[moved, moved].mean())))
        self.labelled = self.labelled[:, order]

    def _costs(self) -> dict[str, np.ndarray]:
        """What may have happened to a face -> (N,) mean distance of its points from the seen ones, were that undone."""
        mirrored = mirror_points(self.labelled, self.seen.sizes[:, 0], self.seen.schema)
        costs = {"as labelled": _mean(self._apart(self.labelled)), "mirrored": _mean(self._apart(mirrored))}
        for name, order in orders(self.schema).items():
            costs[name] = _mean(self._apart(self.labelled[:, order]))
        if self.look_again is not None:
            lost = np.flatnonzero(np.nan_to_num(costs["as labelled"]) > CLOSE)
            if len(lost):
                again = self.look_again(lost)
                size = units(again)
                with np.errstate(invalid="ignore"):
                    residuals = (mirrored[lost] - again.points) / size[:, None, None]
                costs["mirrored"][lost] = np.fmin(
                    costs["mirrored"][lost], _mean(np.hypot(*np.moveaxis(residuals, 2, 0)))
                )
        return costs

    def _faces(self, costs: dict[str, np.ndarray]) -> None:
        """Findings about single faces; where most are alike, one about the part."""
        plain = costs["as labelled"]
        found: dict[str, list[int]] = {}
        usual = np.nanmedian(plain)
        for i in np.flatnonzero(np.isfinite(plain)):
            others = {name: cost[i] for name, cost in costs.items() if name != "as labelled" and np.isfinite(cost[i])}
            name = min(others, key=others.__getitem__)
            cost = others[name]
            if name == "mirrored":
                fits = cost < 0.85 * plain[i] and plain[i] - cost > 0.02 and cost < CLOSE
            else:
                fits = cost < 0.6 * plain[i] and plain[i] - cost > 0.1
            if fits:
                found.setdefault(name, []).append(int(i))
            elif plain[i] > max(CLOSE, 4 * usual) and plain[i] > 4 * self.seen.unsure[i] / self.unit[i]:
                found.setdefault("elsewhere", []).append(int(i))
        judged = int(np.isfinite(plain).sum())
        self.facts["distance from the model, median"] = round(float(usual), 4)
        for name, rows in found.items():
            kind = {"mirrored": "mirrored", "elsewhere": "points_elsewhere"}.get(name, "points_exchanged")
            says = {
                "mirrored": "the points fit its mirror image",
                "elsewhere": "points {:.2f} units from where the model sees them",
            }.get(name, f"{name} exchanged")
            if len(rows) > judged / 2 and judged >= FEWEST:
                text = f"the whole part: {len(rows)} of {judged} faces, {says.format(usual)}"
                self.findings.append(Finding(kind, self.part, text, len(rows) / judged))
                continue
            for i in rows:
                source = self.samples[i].source or self.samples[i].image
                text = f"{source}: {says.format(plain[i])}"
                self.findings.append(Finding(kind, self.part, text, float(plain[i]), (self.first + i,)))

    def _shifts(self, plain: np.ndarray) -> None:
        """How far the labels of each group lie to the right of what pictures and mirror images agree on, in pixels."""
        flip = list(self.schema.flip_order)
        known = np.isfinite(self.labelled).all(axis=2)
        aside = (self.labelled - self.seen.points)[..., 0]
        shifts = _mean(np.where(known & known[:, flip], aside, np.nan))
        groups = np.array([sample.group for sample in self.samples])
        self.facts["shift in x, pixels"] = {}
        for group in np.unique(groups):
            rows = (groups == group) & np.isfinite(shifts) & (plain < PLAUSIBLE)
            if rows.sum() < FEWEST:
                continue
            low, middle, high = shift_interval(shifts[rows])
            entry = {"shift": round(middle, 3), "low": round(low, 3), "high": round(high, 3), "faces": int(rows.sum())}
            self.facts["shift in x, pixels"][group or "all"] = entry
            if low > SHIFT or high < -SHIFT:
                where = f"{group}: " if group else ""
                side = "right" if middle > 0 else "left"
                text = (
                    f"{where}{rows.sum()} faces lie {abs(middle):.2f} px ({min(abs(low), abs(high)):.2f} to "
                    f"{max(abs(low), abs(high)):.2f}) to the {side}: {_said(middle)}"
                )
                self.findings.append(Finding("pixel_shift", self.part, text, abs(middle)))


def shift_interval(shifts: np.ndarray) -> tuple[float, float, float]:
    """Lower bound, mean and upper bound (95 %, bootstrap over faces) of (N,) shifts; wild ones are cut off."""
    middle = np.median(shifts)
    spread = 1.4826 * np.median(np.abs(shifts - middle))
    cut = np.clip(shifts, middle - 3 * spread, middle + 3 * spread)
    low, high = bootstrap_interval(cut)
    return low, float(cut.mean()), high


def _said(shift: float) -> str:
    if abs(shift) >= 1.5:
        return "more than any convention explains"
    if abs(shift) < 0.75:
        return "about half a pixel, as between the corner and the centre of the first pixel"
    one, other = ("1-based", "0-based") if shift > 0 else ("0-based", "1-based")
    return f"about one pixel, as {one} coordinates read as {other}"


def check_labels(
    seen: Seen, samples: Sequence[FaceSample], part: str, first: int
) -> tuple[dict[str, Any], list[Finding]]:
    """How labels agree with the model, label -> share of faces (correlation, for angles), and what is doubtful."""
    findings: list[Finding] = []
    agreement: dict[str, float] = {}
    for task, shares in seen.probabilities.items():
        labels = np.array([s.labels.get(task, MISSING) for s in samples])
        rows = np.flatnonzero((labels != MISSING) & np.isfinite(shares).all(axis=(1, 2)))
        if not len(rows):
            continue
        guesses = shares[rows].mean(axis=1).argmax(axis=1)
        agreement[task] = round(float((guesses == labels[rows]).mean()), 4)
        if _opposite(task, labels[rows], guesses) and len(rows) >= FEWEST:
            text = f"{task}: {100 * agreement[task]:.0f} % agree with the model, and the opposite agrees more"
            findings.append(Finding("inverted_label", part, text, 1 - agreement[task]))
            continue
        likely = shares[rows, :, labels[rows]].max(axis=1)
        for i, share, guess in zip(rows, likely, guesses, strict=True):
            if share < DOUBT:
                names = ATTRIBUTES[task]
                text = f"{samples[i].source or samples[i].image}: {names[labels[i]]}, but the model sees {names[guess]}"
                findings.append(Finding("label_suspect", part, text, 1 - float(share), (first + int(i),)))
    turned, more = _check_angles(seen, samples, part, first)
    return agreement | turned, findings + more


def _check_angles(
    seen: Seen, samples: Sequence[FaceSample], part: str, first: int
) -> tuple[dict[str, float], list[Finding]]:
    findings, agreement = [], {}
    if all(s.angles is None for s in samples):
        return agreement, findings
    truth = np.array([[np.nan] * len(ANGLES) if s.angles is None else s.angles for s in samples])
    for name, true, found in zip(ANGLES, truth.T, seen.angles.T, strict=True):
        rows = np.flatnonzero(np.isfinite(true) & np.isfinite(found))
        if len(rows) < FEWEST or not np.ptp(true[rows]):
            continue
        agreement[name] = round(float(np.corrcoef(true[rows], found[rows])[0, 1]), 4)
        if agreement[name] < -0.3:
            text = f"{name}: correlation {agreement[name]:.2f} with the model, the sign is the other way round"
            findings.append(Finding("inverted_label", part, text, -agreement[name]))
            continue
        for i in rows[np.abs(true[rows] - found[rows]) > TURNED]:
            source = samples[i].source or samples[i].image
            text = f"{source}: {name} {true[i]:.0f} degrees, but the model sees {found[i]:.0f}"
            findings.append(
                Finding("label_suspect", part, text, abs(float(true[i] - found[i])) / 180, (first + int(i),))
            )
    return agreement, findings


def _opposite(task: str, labels: np.ndarray, guesses: np.ndarray) -> bool:
    """Whether labels read backwards agree better with the guesses: two classes exchanged, or poses mirrored."""
    count = len(ATTRIBUTES[task])
    if count != 2 and task != "pose":
        return False
    backwards = count - 1 - labels
    sided = labels != backwards  # a frontal face is its own mirror image
    return bool(sided.any()) and (guesses[sided] == backwards[sided]).mean() > max(
        0.5, (guesses[sided] == labels[sided]).mean()
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """(N, K) -> (N,) mean of what is known of each row, NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Median over the first axis of what is known, NaN where nothing is, without numpy's warning."""
    known = np.isfinite(values).any(axis=0)
    return np.where(known, np.nanmedian(np.where(known, values, 0), axis=0), np.nan)
