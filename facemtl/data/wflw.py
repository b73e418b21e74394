"""WFLW: 98 points and six attributes of difficulty.

Wu, Qian, Yang, Wang, Cai and Zhou, "Look at Boundary: A Boundary-Aware Face Alignment Algorithm" (CVPR 2018),
https://wywu.github.io/projects/LAB/WFLW.html. The two lists of ``WFLW_annotations/list_98pt_rect_attr_train_test/``
hold one face a line of 207 fields: 98 times x and y, the box ``x_min y_min x_max y_max``, six attributes of 0 or 1
(pose, expression, illumination, make-up, occlusion, blur), and the picture's path under ``WFLW_images/``. One photo has
several faces, and so several lines. Coordinates are read as they are: whether they count from 0 or 1 is not published.
"""

from __future__ import annotations

from pathlib import Path

from facemtl.data.rows import finite_numbers, image_of, parse_rows, read_lines
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split, in_training_split
from facemtl.errors import DataError

SPLITS = ("train", "heldout", "test")
LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"
PICTURES = "WFLW_images"
POINTS = 98
# attribute -> its parts for the codes 0 and 1; the second ones are the published subsets of the test set
ATTRIBUTES = {
    "pose": ("normal", "large"),
    "expression": ("normal", "exaggerated"),
    "illumination": ("normal", "extreme"),
    "make_up": ("no", "yes"),
    "occlusion": ("no", "yes"),
    "blur": ("clear", "blurred"),
}
FIELDS = 2 * POINTS + 4 + len(ATTRIBUTES) + 1


def read_wflw(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split in file order, with schema ``wflw98``, a box, and the six attributes as strata.

    Args:
        root: holds the unpacked ``WFLW_annotations/`` and ``WFLW_images/``.
        split: ``test`` is the published one; ``train`` and ``heldout`` (a tenth of the photos, by the hash of their
            paths) part the published training list.

    Raises:
        DataError: an unknown split, a missing file, or bad rows: each with its file, line and reason.
    """
    root = Path(root)
    check_split("WFLW", split, SPLITS)
    name = f"list_98pt_rect_attr_{'test' if split == 'test' else 'train'}.txt"
    path = root / LISTS / name
    lines = read_lines(path, "the unpacked annotations of WFLW, see datasets/wflw/README.md")
    samples = parse_rows(path, lines, lambda line, number: _parse(root, line, f"{name}:{number}"))
    if not samples:
        raise DataError(f"{path} holds no rows")
    if split == "test":
        return samples
    return [s for s in samples if in_training_split(s.image.relative_to(root / PICTURES).as_posix(), split)]


def _parse(root: Path, line: str, source: str) -> FaceSample:
    fields = line.split()
    if len(fields) != FIELDS:
        raise ValueError(
            f"expected {FIELDS} fields (98 times x and y, box, 6 attributes, path), found {len(fields)}; the lists of "
            "list_98pt_test, which have no box, are not read"
        )
    numbers = finite_numbers(fields[: 2 * POINTS + 4])
    box = numbers[2 * POINTS :]
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(f"expected a box x_min y_min x_max y_max with an area, found {' '.join(fields[196:200])}")
    codes = fields[2 * POINTS + 4 : -1]
    for attribute, code in zip(ATTRIBUTES, codes, strict=True):
        if code not in ("0", "1"):
            raise ValueError(f"the attribute {attribute} must be 0 or 1, found {code!r}")
    return FaceSample(
        image=image_of(root / PICTURES, fields[-1]),
        points=numbers[: 2 * POINTS].reshape(POINTS, 2),
        schema="wflw98",
        labels={},
        box=box,
        source=source,
        strata={name: parts[int(code)] for (name, parts), code in zip(ATTRIBUTES.items(), codes, strict=True)},
    )
