"""The data sets that recipes and tools know by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from facemtl.data.aflw import read_aflw
from facemtl.data.biwi import read_biwi
from facemtl.data.celeba import read_celeba, read_celeba_aligned, read_mafl
from facemtl.data.cofw import read_cofw
from facemtl.data.genki4k import read_genki4k
from facemtl.data.lfw import read_lfw
from facemtl.data.mtfl import read_mtfl, read_mtfl_file
from facemtl.data.pts import read_pts_folder
from facemtl.data.sample import FaceSample
from facemtl.data.shards import read_shards
from facemtl.data.table import read_table
from facemtl.data.udacity68 import read_udacity68
from facemtl.data.utkface import read_utkface
from facemtl.data.w300 import read_w300
from facemtl.data.w300lp import read_aflw2000, read_w300lp
from facemtl.data.wflw import read_wflw
from facemtl.errors import DataError, SplitError

# The label files of a set of one's own in MTFL's layout; what is held out is a file, not a committed list.
LAYOUT_FILES = {"train": "training.txt", "heldout": "heldout.txt", "test": "testing.txt"}

# name -> (folder under FACEMTL_DATA, reader of (root, split) with some of the splits train, heldout and test)
DATA_SETS: dict[str, tuple[str, Callable[[Path, str], list[FaceSample]]]] = {
    "mtfl": ("MTFL", read_mtfl),
    "udacity68": ("udacity68", read_udacity68),
    "genki4k": ("genki4k", read_genki4k),
    "utkface": ("utkface", read_utkface),
    "w300": ("300W", read_w300),
    "w300lp": ("300W_LP", read_w300lp),
    "aflw2000": ("AFLW2000", read_aflw2000),
    "wflw": ("WFLW", read_wflw),
    "celeba": ("CelebA", read_celeba),
    "celeba_aligned": ("CelebA", read_celeba_aligned),
    "mafl": ("CelebA", read_mafl),
    "cofw": ("COFW", read_cofw),
    "aflw": ("AFLW", read_aflw),
    "lfw": ("LFW", read_lfw),
    "biwi": ("BIWI", read_biwi),
    "table": ("table", read_table),
    "shards": ("shards", read_shards),
    "pts_folder": ("pts_folder", read_pts_folder),
    "mtfl_layout": ("mtfl_layout", lambda root, split: read_mtfl_file(root, LAYOUT_FILES[split])),
}


def data_root(name: str, root: str | Path | None = None) -> Path:
    """The folder of a data set: ``root`` itself, or its place under the environment variable FACEMTL_DATA.

    Raises:
        DataError: an unknown set, or nothing says where it is.
    """
    if name not in DATA_SETS:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(DATA_SETS)}")
    if root is not None:
        return Path(root)
    if not os.environ.get("FACEMTL_DATA"):
        raise DataError(f"set FACEMTL_DATA to the folder that holds {DATA_SETS[name][0]}/, or pass --data-root")
    return Path(os.environ["FACEMTL_DATA"]) / DATA_SETS[name][0]


def read_split(name: str, split: str, root: str | Path | None = None) -> list[FaceSample]:
    """The samples of one split (``train``, ``heldout``, ``test``) of a data set.

    Raises:
        DataError: as :func:`data_root`, and what the adapter says.
    """
    folder = data_root(name, root)
    if split not in LAYOUT_FILES:
        raise SplitError(f"{name} has no split {split!r}; known: {', '.join(LAYOUT_FILES)}")
    return DATA_SETS[name][1](folder, split)
