"""What adapters share about splits: a name that is checked, and held-out rows where the publishers name none."""

from __future__ import annotations

import hashlib

from facemtl.errors import DataError


def check_split(title: str, split: str, known: tuple[str, ...]) -> None:
    """Raise DataError unless the set called ``title`` has this split."""
    if split not in known:
        raise DataError(f"{title} has no split {split!r}; known: {', '.join(known)}")


def is_heldout(key: str, one_in: int = 10) -> bool:
    """Whether the SHA-256 of ``key``, as a number, is divisible by ``one_in``.

    What shares a key, such as the faces of one photo, shares its split; what is added or removed moves nothing else.
    """
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % one_in == 0


def in_training_split(key: str, split: str) -> bool:
    """Whether a published training row belongs to ``split``, which is ``train`` or ``heldout``."""
    return is_heldout(key) == (split == "heldout")
