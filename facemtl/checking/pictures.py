"""Every picture of a set read once: whether it can be, how large it is, and what it looks like in a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from facemtl.data.sample import StoredPicture, read_picture
from facemtl.errors import DataError, ImageError

THUMB = 32  # side of the thumbnail by which copies are compared
SIDE = 8  # of the lowest frequencies that make the hash
_WEIGHTS = (np.uint64(1) << np.arange(SIDE * SIDE, dtype=np.uint64)).reshape(SIDE, SIDE)
# A mirror image has the same cosines with the sign of every odd horizontal frequency turned: these bits change.
MIRROR_BITS = np.bitwise_or.reduce(_WEIGHTS[:, 1::2].ravel())


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """M pictures.

    Attributes:
        paths: M paths, or pictures in shards.
        errors: index -> why it cannot be read; the rows of such pictures are empty in what follows.
        sizes: int32 (M, 2) width and height, 0 where unread.
        grey: bool (M,), without colour.
        hashes: uint64 (M,) signs of the 64 lowest frequencies (the mean of the picture counts as positive).
        thumbs: float32 (M, 1024) grey 32 x 32, mean 0 and length 1; 0 where unread or of one colour.
    """

    paths: list[Path | StoredPicture]
    errors: dict[int, str]
    sizes: np.ndarray
    grey: np.ndarray
    hashes: np.ndarray
    thumbs: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


def look_at(paths: Sequence[Path | StoredPicture], progress: Callable[[Iterable], Iterable] = iter) -> Pictures:
    """Read each of the pictures; never raises for one that cannot be read.

    Args:
        paths: the pictures.
        progress: wraps what is gone through, such as a bar.
    """
    count = len(paths)
    errors: dict[int, str] = {}
    sizes, grey = np.zeros((count, 2), dtype=np.int32), np.zeros(count, dtype=bool)
    hashes = np.zeros(count, dtype=np.uint64)
    thumbs = np.zeros((count, THUMB * THUMB), dtype=np.float32)
    for i, path in enumerate(progress(paths)):
        try:
            image = read_picture(path)
        except (ImageError, DataError) as error:
            errors[i] = str(error)
            continue
        sizes[i] = image.shape[1], image.shape[0]
        grey[i] = bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())
        hashes[i], thumbs[i] = describe(image)
    return Pictures(list(paths), errors, sizes, grey, hashes, thumbs)


def bytes_of(image: Path | StoredPicture) -> bytes:
    """The file of a picture."""
    return image.read_bytes() if isinstance(image, Path) else image.read()


def describe(image: np.ndarray) -> tuple[np.uint64, np.ndarray]:
    """(H, W, 3) uint8 -> the perceptual hash, and the thumbnail (1024,) float32 of mean 0 and length 1.

    The hash is the sign of each of the lowest 8 x 8 cosine frequencies of the thumbnail (Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", 2010, compares them with their median; with the sign alone, the
    mirror image's hash follows from the picture's).
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    thumb = np.float32(small) - np.float32(small).mean()
    low = cv2.dct(thumb)[:SIDE, :SIDE]
    low[0, 0] = 1.0
    length = np.linalg.norm(thumb)
    flat = thumb.ravel() / length if length > 1e-3 else np.zeros(THUMB * THUMB, dtype=np.float32)
    return np.bitwise_or.reduce(_WEIGHTS[low > 0]), flat
