"""What the ``prepare.py`` of all data sets share: the command line, the check of pictures, counts, the measured box."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from facemtl.data.rows import listed
from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.sets import DATA_SETS
from facemtl.detect import MtcnnDetector
from facemtl.errors import DataError, FaceMTLError, ImageError
from facemtl.face import ATTRIBUTES
from facemtl.image import read_image

MEASURED = 200  # pictures

Action = Callable[[Path], str]  # the folder of the unpacked set -> what to print


def run_prepare(
    description: str,
    name: str,
    published: str | None,
    unpack: Callable[[Path, Path], None] | None,
    describe: Action,
    more: Mapping[str, tuple[str, Action]] | None = None,
) -> str:
    """The command line of a ``prepare.py``, and what it is to print; ends with status 2 and the reason on bad data.

    Args:
        description: of the script, for its help.
        name: of the set, a key of :data:`facemtl.data.sets.DATA_SETS`.
        published: what its archive is called; None for a set that is laid out by hand, which is only validated.
        unpack: ``(archive, folder to make)``, or None.
        describe: validates the unpacked set; raises DataError.
        more: further options, such as ``--measure-box``: what each is for, and what it does instead of ``describe``.
    """
    folder = DATA_SETS[name][0]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group(required=True)
    if unpack is not None:
        choice.add_argument("archive", nargs="?", type=Path, help=f"the published {published}, to unpack and validate")
    choice.add_argument(
        "--check", dest="action", action="store_const", const=describe, help="validate the unpacked set"
    )
    for option, (purpose, action) in (more or {}).items():
        choice.add_argument(option, dest="action", action="store_const", const=action, help=purpose)
    parser.add_argument("--root", type=Path, help=f"folder of the unpacked set; default $FACEMTL_DATA/{folder}")
    args = parser.parse_args()
    if args.root is None:
        if not os.environ.get("FACEMTL_DATA"):
            parser.error("set FACEMTL_DATA to the folder of the data sets, or pass --root")
        args.root = Path(os.environ["FACEMTL_DATA"]) / folder
    try:
        if unpack is not None and args.archive is not None:
            unpack(args.archive, args.root)
        return (args.action or describe)(args.root)
    except (FaceMTLError, OSError) as error:
        parser.exit(2, f"{error}\n")


def check_pictures(samples: Sequence[FaceSample], side: int | None = None) -> list[tuple[int, int]]:
    """Read every picture.

    Args:
        samples: the faces.
        side: width and height that every picture must have, where the face box is measured for one size.

    Returns:
        (height, width) of each picture, in pixels.

    Raises:
        DataError: pictures that cannot be read or have another size, all at once.
    """
    sizes: list[tuple[int, int]] = []
    bad: list[str] = []
    for sample in samples:
        try:
            height, width = read_image(sample.image).shape[:2]
        except ImageError as error:
            bad.append(str(error))
            continue
        sizes.append((height, width))
        if side is not None and (height, width) != (side, side):
            bad.append(f"{sample.image} has {width} x {height} pixels, expected {side} x {side}")
    if bad:
        raise DataError(f"{len(bad)} bad pictures:\n{listed(bad)}")
    return sizes


def count_labels(samples: Sequence[FaceSample], task: str) -> str:
    """A line to print: how many faces are of each class of an attribute, and how many lack it if any do."""
    counts = Counter(sample.labels[task] for sample in samples)
    parts = [f"{label} {counts[i]}" for i, label in enumerate(ATTRIBUTES[task])]
    return f"  {task}: " + ", ".join(parts + ([f"missing {counts[MISSING]}"] if counts[MISSING] else []))


def describe_splits(read: Callable[[Path, str], list[FaceSample]], splits: Sequence[str]) -> Action:
    """An action that reads every row and picture and counts, split by split, what the faces have.

    Args:
        read: the adapter, ``(root, split)``.
        splits: names of its splits.
    """

    def describe(root: Path) -> str:
        lines = []
        for split in splits:
            samples = read(root, split)
            check_pictures(samples)
            lines.append(f"{split}: {len(samples)} faces in {len({s.image for s in samples})} pictures")
            lacking = sum(bool(np.isnan(s.points).any()) for s in samples)
            lines += [f"  {lacking} faces lack points"] if lacking else []
            lines += [count_labels(samples, task) for task in (samples[0].labels if samples else ())]
            for name in sorted({name for s in samples for name in s.strata}):
                parts = Counter(s.strata.get(name, "missing") for s in samples)
                lines.append(f"  {name}: " + ", ".join(f"{part} {count}" for part, count in sorted(parts.items())))
        return "\n".join(lines)

    return describe


def measure_box(samples: Sequence[FaceSample], zoom: int = 1) -> np.ndarray:
    """(4,) float64 the median of the default detector's surest box over evenly spaced pictures of one size.

    Args:
        samples: faces of an aligned set.
        zoom: how much larger the detector sees the pictures, which it needs where they are small.

    Returns:
        ``x1 y1 x2 y2`` in pixels of the pictures as they are, index coordinates.
    """
    detector = MtcnnDetector()
    found = []
    for i in np.linspace(0, len(samples) - 1, MEASURED).round().astype(int):
        image = read_image(samples[i].image)
        enlarged = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC) if zoom > 1 else image
        found.append((detector.detect(enlarged).boxes[:1] + 0.5) / zoom - 0.5)
    return np.median(np.concatenate(found), axis=0)


def box_line(box: np.ndarray) -> str:
    """The measured box, to print."""
    return "median box: " + " ".join(f"{v:.1f}" for v in box)
