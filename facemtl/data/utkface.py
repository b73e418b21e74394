"""UTKFace: aligned faces whose labels stand in their file names.

Zhang, Song and Qi, "Age Progression/Regression by Conditional Adversarial Autoencoder" (CVPR 2017),
https://susanqq.github.io/UTKFace/. A picture is named ``age_gender_race_date.jpg``, and what follows the first dot may
vary (``.jpg.jpg`` here, ``.jpg.chip.jpg`` elsewhere): age in years, gender 0 male and 1 female. There are no points.

The race in the name is read for one purpose: to tell errors apart, so that a report shows for whom a model is worse.
It is a stratum (:attr:`facemtl.data.sample.FaceSample.strata`), never a label, and nothing is trained on it.
"""

from __future__ import annotations

import bisect
import hashlib
from pathlib import Path

import numpy as np

from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.splits import check_split
from facemtl.errors import DataError
from facemtl.face import ATTRIBUTES

SPLITS = ("train", "heldout", "test")
SIDE = 128  # of every picture, in pixels
# Where the face is: the pictures are aligned, so it is the same place in all of them. Median of the default
# detector's boxes over 200 training pictures; `python datasets/utkface/prepare.py --measure-box` prints it.
FACE_BOX = (12.5, 13.0, 112.8, 113.6)
ADULT, SENIOR = 18, 60  # the first year of life of these age groups
ETHNICITIES = ("white", "black", "asian", "indian", "others")  # published codes 0 to 4


def read_utkface(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split in the order of their names, with schema ``mtfl5``, no point known and a box.

    Labels are ``gender`` and the group ``age``; strata are ``age`` and ``ethnicity``. Some names lack a field: which
    one it is cannot be told (only age is sure to come first), so gender and ethnicity of such a face are missing.

    Args:
        root: the unpacked folder of pictures.
        split: a tenth of the faces each is ``test`` and ``heldout``, the rest ``train``; see :func:`split_of`.

    Raises:
        DataError: an unknown split, or no pictures.
    """
    root = Path(root)
    check_split("UTKFace", split, SPLITS)
    paths = sorted(root.glob("*.jpg"))
    if not paths:
        raise DataError(
            f"{root} holds no .jpg pictures: expected the unpacked UTKFace archive, see datasets/utkface/README.md"
        )
    return [_sample(path) for path in paths if split_of(path.name) == split]


def split_of(name: str) -> str:
    """The split of a picture follows from its name alone: the SHA-256 of the name, as a number, modulo ten.

    0 is ``test``, 1 is ``heldout``. Pictures that are added or removed move no other.
    """
    tenth = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return {0: "test", 1: "heldout"}.get(tenth, "train")


def labels_of(name: str) -> dict[str, int]:
    """The class indices of a picture's name, -1 where missing."""
    age, *others = name.split(".")[0].split("_")
    gender = others[0] if len(others) == 3 else ""
    return {
        "gender": int(gender) if gender in ("0", "1") else MISSING,
        "age": bisect.bisect((ADULT, SENIOR), int(age)) if age.isdecimal() else MISSING,
    }


def strata_of(name: str) -> dict[str, str]:
    """The parts of the set that a picture's name puts it in, by which errors are told apart; what it lacks is left out.

    ``age`` is a class of :data:`facemtl.face.ATTRIBUTES`, ``ethnicity`` one of :data:`ETHNICITIES`.
    """
    _, *others = name.split(".")[0].split("_")
    code = others[1] if len(others) == 3 else ""
    strata = {"ethnicity": ETHNICITIES[int(code)]} if code in ("0", "1", "2", "3", "4") else {}
    age = labels_of(name)["age"]
    return strata if age == MISSING else strata | {"age": ATTRIBUTES["age"][age]}


def _sample(path: Path) -> FaceSample:
    return FaceSample(
        image=path,
        points=np.full((5, 2), np.nan, dtype=np.float32),
        schema="mtfl5",
        labels=labels_of(path.name),
        box=np.float32(FACE_BOX),
        source=path.name,
        strata=strata_of(path.name),
    )
