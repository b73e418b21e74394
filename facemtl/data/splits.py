"""What adapters share about splits: a name that is checked, and held-out rows where the publishers name none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from facemtl.data.sample import FaceSample
from facemtl.errors import SplitError

SPLITS = ("train", "heldout", "test")  # of sets of one's own


def check_split(title: str, split: str, known: tuple[str, ...]) -> None:
    """Raise SplitError unless the set called ``title`` has this split."""
    if split not in known:
        raise SplitError(f"{title} has no split {split!r}; known: {', '.join(known)}")


def is_heldout(key: str, one_in: int = 10) -> bool:
    """Whether the SHA-256 of ``key``, as a number, is divisible by ``one_in``.

    What shares a key, such as the faces of one photo, shares its split; what is added or removed moves nothing else.
    """
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % one_in == 0


def in_training_split(key: str, split: str) -> bool:
    """Whether a published training row belongs to ``split``, which is ``train`` or ``heldout``."""
    return is_heldout(key) == (split == "heldout")


def read_own_split(root: Path, split: str, name: str, read: Callable[[Path], list[FaceSample]]) -> list[FaceSample]:
    """One split of a set of one's own, which has a label file for each.

    Args:
        root: the folder of the files.
        split: ``train``, ``heldout`` or ``test``.
        name: of a file, with ``{}`` for the split. Where there is none for ``heldout``, a tenth of the pictures of the
            training file is held out by the hash of their paths.
        read: the faces of a file.

    Raises:
        DataError: an unknown split, and what ``read`` raises.
    """
    check_split(str(root), split, SPLITS)
    if split == "test" or (root / name.format("heldout")).exists():
        return read(root / name.format(split))
    return [
        s for s in read(root / name.format("train")) if in_training_split(s.image.relative_to(root).as_posix(), split)
    ]
