"""Face patches cut once and kept as one array, so that training does not decode pictures every epoch.

A patch is a square crop, larger than what the network sees: there is room in it for jitter and rotation.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from facemtl.data.sample import MISSING, FaceSample, face_box, read_picture
from facemtl.errors import DataError, ImageError
from facemtl.files import write_beside
from facemtl.geometry import apply_affine, crop_matrix, invert_affine, warp_crop

PATCH_SCALE = 2.0  # side of a patch over the side of the face box
FORMAT = 1  # raise it when patches are cut differently
MARK = b"CRC1"  # behind the patches: this, and the CRC-32 of all before it, 4 bytes, the low one first
END = len(MARK) + 4


@dataclass(frozen=True, slots=True, eq=False)
class CropCache:
    """N patches with their labels; every array has length N.

    Attributes:
        patches: uint8 (N, P, P) grey or (N, P, P, 3) BGR, usually memory-mapped.
        points: float32 (N, K, 2) in patch index coordinates, NaN where missing.
        labels: task -> int64 (N,) class index, -1 where missing.
        schema: of ``points``.
        angles: float32 (N, 3) yaw, pitch, roll in degrees, NaN where missing; None where the set gives none.
        taught: task -> what a teacher says (:mod:`facemtl.training.distillation`), points in patch coordinates.
        sides: float32 (N,) side of the face box in pixels of its picture; None where nobody knows.
    """

    patches: np.ndarray
    points: np.ndarray
    labels: dict[str, np.ndarray]
    schema: str
    angles: np.ndarray | None = None
    taught: Mapping[str, np.ndarray] = field(default_factory=dict)
    sides: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def box(self) -> np.ndarray:
        """(4,) the face box in patch coordinates: the same in every patch."""
        middle, half = (self.patches.shape[1] - 1) / 2, self.patches.shape[1] / PATCH_SCALE / 2
        return np.array([middle - half, middle - half, middle + half, middle + half])

    def subset(self, rows: np.ndarray) -> CropCache:
        """The patches of these rows, in this order."""
        return replace(
            self,
            patches=self.patches[rows],
            points=self.points[rows],
            labels={task: values[rows] for task, values in self.labels.items()},
            angles=None if self.angles is None else self.angles[rows],
            taught={task: values[rows] for task, values in self.taught.items()},
            sides=None if self.sides is None else self.sides[rows],
        )

    def joined(self, other: CropCache) -> CropCache:
        """The patches of both, in memory; ``other`` has the same kinds of labels."""
        both = lambda mine, others: None if mine is None else np.concatenate([mine, others])  # noqa: E731
        return replace(
            self,
            patches=both(self.patches, other.patches),
            points=both(self.points, other.points),
            labels={task: both(values, other.labels[task]) for task, values in self.labels.items()},
            angles=both(self.angles, other.angles),
            taught={task: both(values, other.taught[task]) for task, values in self.taught.items()},
            sides=both(self.sides, other.sides),
        )


def build_cache(
    samples: Sequence[FaceSample], folder: str | Path, patch_size: int, channels: int, progress: bool = True
) -> CropCache:
    """Read the cache of these samples from ``folder``, or cut it first.

    The name of its file tells its inputs: the pictures' paths, sizes and times, and where the faces lie. It is cut
    again where a picture was touched after the cut began, also if its size and time were set back, or where the file
    is damaged. Labels are no part of it. Others see the file whole or not at all, however many cut it at once.

    Args:
        samples: faces of one schema.
        folder: where caches are kept; made if missing.
        patch_size: P, side of a patch in pixels.
        channels: 1 for grey, 3 for BGR.
        progress: show a bar while cutting.

    Raises:
        DataError: no samples, mixed schemas or tasks, or a face without points and box.
        ImageError: a picture that cannot be read.
    """
    if not samples:
        raise DataError("no samples to cache")
    if len({(s.schema, tuple(sorted(s.labels)), s.angles is None) for s in samples}) > 1:
        raise DataError("the samples of one cache must share their landmark schema and their tasks")
    matrices = [crop_matrix(face_box(s), patch_size, scale=PATCH_SCALE) for s in samples]
    fingerprint, changed = _fingerprint(samples, matrices, patch_size, channels)
    path = Path(folder) / f"patches-{fingerprint}.npy"
    shape = (len(samples), patch_size, patch_size) + ((3,) if channels == 3 else ())
    patches = _open(path, shape, changed)
    if patches is None:
        _cut(samples, matrices, path, shape, progress)
        patches = np.load(path, mmap_mode="r")
    points = [apply_affine(invert_affine(m), s.points) for m, s in zip(matrices, samples, strict=True)]
    labels = {task: np.array([s.labels.get(task, MISSING) for s in samples]) for task in samples[0].labels}
    angles = None if samples[0].angles is None else np.float32([s.angles for s in samples])
    sides = np.float32([np.hypot(*m[:, 0]) * patch_size / PATCH_SCALE for m in matrices])
    return CropCache(patches, np.float32(points), labels, samples[0].schema, angles, sides=sides)


def _fingerprint(
    samples: Sequence[FaceSample], matrices: list[np.ndarray], size: int, channels: int
) -> tuple[str, int]:
    """A name for these inputs, and when the last of the picture files was touched, in nanoseconds of the epoch."""
    changed = 0
    digest = hashlib.sha256(json.dumps([FORMAT, PATCH_SCALE, size, channels]).encode())
    for sample, matrix in zip(samples, matrices, strict=True):
        if isinstance(sample.image, Path):
            try:
                stat = sample.image.stat()
            except OSError as error:
                raise ImageError(f"{sample.image} cannot be read: {error.strerror}") from None
            identity = f"{sample.image.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
            changed = max(changed, stat.st_ctime_ns)
        else:
            identity = sample.image.identity()
        digest.update(f"{identity}\0".encode() + matrix.tobytes())
    return digest.hexdigest()[:16], changed


def _open(path: Path, shape: tuple[int, ...], changed: int) -> np.ndarray | None:
    """The patches if they are there, whole, and cut after the pictures were touched for the last time."""
    try:
        data = np.memmap(path, np.uint8, "r")
        end = data[-END:].tobytes()
        marked = end.startswith(MARK)  # files of earlier versions end with their patches
        if marked and end != _end(data[:-END]):
            return None
        patches = np.load(path, mmap_mode="r")
        whole = isinstance(patches, np.memmap) and (patches.shape, patches.dtype) == (shape, np.uint8)
        whole = whole and patches.offset + patches.nbytes == len(data) - END * marked
        return patches if whole and path.stat().st_mtime_ns >= changed else None
    except (OSError, ValueError, EOFError):
        return None


def _end(data: np.ndarray) -> bytes:
    return MARK + zlib.crc32(data).to_bytes(4, "little")


def _cut(
    samples: Sequence[FaceSample], matrices: list[np.ndarray], path: Path, shape: tuple[int, ...], progress: bool
) -> None:
    began = time.time_ns()

    def write(partial: Path) -> None:
        patches = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        bar = tqdm(samples, desc="cutting patches", unit="face", disable=not progress)
        for i, sample in enumerate(bar):
            patch = warp_crop(read_picture(sample.image), matrices[i], shape[1])
            patches[i] = cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY) if len(shape) == 3 else patch
        patches.flush()
        end = _end(np.memmap(partial, np.uint8, "r"))
        with partial.open("ab") as file:
            file.write(end)
        os.utime(partial, ns=(began, began))  # what is touched from here on is newer

    write_beside(path, write)
