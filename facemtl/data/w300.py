"""300-W: 68 points on LFPW, HELEN, AFW and iBUG, in the folders in which they are published.

Sagonas, Tzimiropoulos, Zafeiriou and Pantic, "300 Faces in-the-Wild Challenge" (ICCV-W 2013),
https://ibug.doc.ic.ac.uk/resources/300-W/. Each picture has a ``.pts`` file beside it (:mod:`facemtl.data.pts`), whose
points count from 1. There is no other label. The splits are those that the field reports (Ren et al., CVPR 2014):
common, challenging, and full, which is both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from facemtl.data.pts import photo_of, read_pts_files
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split, in_training_split
from facemtl.errors import DataError

SPLITS = ("train", "heldout", "test")
PARTS = {"common": ("helen/testset", "lfpw/testset"), "challenging": ("ibug",)}  # of the test set, which is "full"
TRAINING = ("afw", "helen/trainset", "lfpw/trainset")


def read_w300(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split, folder by folder in the order of their names, with schema ``ibug68``.

    Args:
        root: holds the unpacked ``afw/``, ``helen/``, ``ibug/`` and ``lfpw/``.
        split: ``train`` and ``heldout`` (a tenth of the photos, by the hash of their names) part the training folders;
            ``test`` or ``full`` is the full test set, ``common`` and ``challenging`` its parts. Test faces have the
            stratum ``subset``, one of these two.

    Raises:
        DataError: an unknown split, a missing folder, or bad files: each with its reason.
    """
    root = Path(root)
    check_split("300-W", split, (*SPLITS, "full", *PARTS))
    wanted = [folder for name, part in PARTS.items() if split in ("test", "full", name) for folder in part]
    wanted = wanted or list(TRAINING)
    missing = [folder for folder in wanted if not (root / folder).is_dir()]
    if missing:
        raise DataError(
            f"{root} lacks {', '.join(missing)}: expected the unpacked archives of 300-W, see datasets/w300/README.md"
        )
    samples = [sample for folder in wanted for sample in read_pts_files(root, folder, "ibug68")]
    if wanted == list(TRAINING):
        return [s for s in samples if in_training_split(photo_of(s.image.stem), split)]
    return [replace(s, strata={"subset": "challenging" if s.group == "ibug" else "common"}) for s in samples]
