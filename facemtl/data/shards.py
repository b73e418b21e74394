"""Faces in WebDataset shards: tar files whose members go by keys, ``00000012.jpg`` and ``00000012.json``.

A folder of shards, of one split of one data set::

    shards.json             how many pictures each shard has, and its SHA-256; written last
    shard-000000.tar        pictures, byte for byte as they were, each followed by the faces in it

The JSON of a picture is ``{"version": 1, "faces": [...]}``; each face has the fields of
:class:`facemtl.data.sample.FaceSample`, labels by the names of their classes, None for what is missing. The format is
that of https://github.com/webdataset/webdataset, whose reader takes these files.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from facemtl.bundles import members
from facemtl.data.rows import LARGEST
from facemtl.data.sample import MISSING, FaceSample
from facemtl.data.splits import SPLITS, check_split
from facemtl.errors import DataError, SourceError
from facemtl.face import ATTRIBUTES
from facemtl.files import write_beside
from facemtl.image import MAX_BYTES
from facemtl.landmarks import SCHEMAS

INDEX = "shards.json"
VERSION = 1  # of the layout of a shard; raised when a reader of the one before would misread or refuse it
SHARD_SIZE = 1000  # pictures


@dataclass(frozen=True, slots=True)
class ShardPicture:
    """A picture that lies in a shard, in the place of a path.

    Attributes:
        shard: the tar file.
        name: of the member.
        offset, size: where its bytes lie in the file.
        stamp: size and times of the shard when it was listed; pictures of a changed shard are not read.
    """

    shard: Path
    name: str
    offset: int
    size: int
    stamp: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.shard}:{self.name}"

    def identity(self) -> str:
        """Says which picture this is, and changes with its shard."""
        return f"{self.shard.resolve()}\0{self.name}\0{self.offset}\0{self.size}\0{self.stamp}"

    def read(self) -> bytes:
        """The bytes of the picture file.

        Raises:
            DataError: the shard has changed since it was listed, or cannot be read.
        """
        try:
            if _stamp(self.shard) != self.stamp:
                raise DataError(f"{self.shard} has changed since it was listed")
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise DataError(f"{self.shard} cannot be read: {error.strerror}") from None
        if len(data) != self.size:
            raise DataError(f"{self} is cut short")
        return data


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


# Writing


def write_shards(
    samples: Sequence[FaceSample], folder: Path, shard_size: int = SHARD_SIZE, seed: int | None = 0
) -> list[Path]:
    """Write samples as shards; what lies in ``folder`` under the same names is replaced.

    Args:
        samples: the faces; those of one picture share its entry.
        folder: made if missing.
        shard_size: pictures a shard.
        seed: of the order of the pictures, shuffled so that every shard is a mixture; None leaves their order.

    Returns:
        The tar files, in order. The same samples and seed give the same bytes.

    Raises:
        DataError: no samples, or a picture that cannot be read.
    """
    if not samples:
        raise DataError("no samples to write")
    pictures: dict[str, list[FaceSample]] = {}
    for sample in samples:
        pictures.setdefault(str(sample.image), []).append(sample)
    groups = list(pictures.values())
    if seed is not None:
        groups = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    (folder / INDEX).unlink(missing_ok=True)  # what is half-replaced has no index
    shards = []
    for first in range(0, len(groups), shard_size):
        path = folder / f"shard-{first // shard_size:06d}.tar"
        part = groups[first : first + shard_size]
        write_beside(path, lambda partial, part=part, first=first: _write_shard(partial, part, first))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append({"name": path.name, "pictures": len(part), "sha256": digest})
    text = json.dumps({"version": VERSION, "shards": shards}, indent=1) + "\n"
    write_beside(folder / INDEX, lambda partial: partial.write_text(text, encoding="utf-8"))
    return [folder / shard["name"] for shard in shards]


def _write_shard(path: Path, groups: Sequence[Sequence[FaceSample]], first: int) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for key, group in enumerate(groups, start=first):
            image = group[0].image
            try:
                data = image.read() if isinstance(image, ShardPicture) else image.read_bytes()
            except OSError as error:
                raise DataError(f"{image} cannot be read: {error.strerror}") from None
            name = image.name if isinstance(image, ShardPicture) else str(image)
            _add(archive, f"{key:08d}{PurePosixPath(name).suffix.lower() or '.jpg'}", data)
            record = {"version": VERSION, "faces": [_face_record(sample) for sample in group]}
            _add(archive, f"{key:08d}.json", json.dumps(record, allow_nan=False).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # of nobody, from 1970: the same faces make the same bytes
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _face_record(sample: FaceSample) -> dict[str, Any]:
    def plain(values: np.ndarray | None) -> list | None:
        if values is None:
            return None
        # float32 goes through the decimal digits of Python's floats without loss
        return np.where(np.isfinite(values), values, None).tolist()

    return {
        "schema": sample.schema,
        "points": plain(sample.points),
        "box": plain(sample.box),
        "angles": plain(sample.angles),
        "labels": {
            task: None if value == MISSING else ATTRIBUTES[task][value] for task, value in sample.labels.items()
        },
        "source": sample.source,
        "group": sample.group,
        "strata": dict(sample.strata),
    }


# Reading


def read_index(folder: Path) -> list[tuple[Path, int]]:
    """The shards of a folder, and how many pictures each has.

    Raises:
        DataError: there is no index, it is damaged or of another version, or a shard is not there.
    """
    path = folder / INDEX
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        shards = [(folder / PurePosixPath(shard["name"]).name, int(shard["pictures"])) for shard in found["shards"]]
        version = found["version"]
    except FileNotFoundError:
        raise DataError(f"{path} is missing: expected a folder that tools/make_shards.py wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error!r}") from None
    if version != VERSION:
        raise DataError(f"{path}: shards of version {version!r}; this facemtl reads {VERSION}")
    missing = [shard.name for shard, _ in shards if not shard.is_file()]
    if missing or not shards:
        raise DataError(f"{folder}: {len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:5])}")
    return shards


def read_shard(path: Path, pictures: int | None = None) -> list[list[FaceSample]]:
    """The faces of each picture of a shard, in its order; the pictures themselves stay where they are.

    Args:
        path: the tar file.
        pictures: how many it must have; None: any number.

    Raises:
        DataError: a shard that is damaged or has another number of pictures, a picture without its JSON, or the other
            way round, or a face that is none.
    """
    found: list[list[FaceSample]] = []
    waiting: ShardPicture | None = None
    try:
        stamp = _stamp(path)
        for member in members(path):
            key, _, suffix = member.name.partition(".")
            if suffix != "json":
                if waiting is not None:
                    raise ValueError(f"{waiting.name} has no JSON")
                if member.refused or member.offset is None or member.size > MAX_BYTES:
                    raise ValueError(f"{member.name} {member.refused or 'is packed or too large'}")
                waiting = ShardPicture(path, member.name, member.offset, member.size, stamp)
            elif waiting is None or waiting.name.partition(".")[0] != key:
                raise ValueError(f"{member.name} does not follow its picture")
            else:
                record = json.loads(member.read(MAX_BYTES))
                if record["version"] != VERSION or not record["faces"]:
                    raise ValueError(f"{member.name}: expected faces of version {VERSION}")
                found.append([_sample(waiting, face) for face in record["faces"]])
                waiting = None
        if waiting is not None:
            raise ValueError(f"{waiting.name} has no JSON")
        if pictures not in (None, len(found)):
            raise ValueError(f"it has {len(found)} pictures, its index says {pictures}")
    except (SourceError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {error}") from None
    return found


def _sample(image: ShardPicture, face: Mapping[str, Any]) -> FaceSample:
    labels = {}
    for task, name in face["labels"].items():
        if task not in ATTRIBUTES or (name is not None and name not in ATTRIBUTES[task]):
            raise ValueError(f"{image.name}: unknown label {task} = {name!r}")
        labels[task] = MISSING if name is None else ATTRIBUTES[task].index(name)
    if face["schema"] not in SCHEMAS:
        raise ValueError(f"{image.name}: unknown landmark schema {face['schema']!r}")
    points = _numbers(image, face["points"], (len(SCHEMAS[face["schema"]]), 2))
    return FaceSample(
        image=image,
        points=points,
        schema=face["schema"],
        labels=labels,
        box=None if face["box"] is None else _numbers(image, face["box"], (4,)),
        angles=None if face["angles"] is None else _numbers(image, face["angles"], (3,)),
        source=str(face["source"]),
        group=str(face["group"]),
        strata={str(name): str(part) for name, part in face["strata"].items()},
    )


def _numbers(image: ShardPicture, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(values, dtype=np.float64)  # None is NaN
    if array.shape != shape or (np.abs(array) > LARGEST).any():
        raise ValueError(f"{image.name}: expected numbers of shape {shape}")
    return array.astype(np.float32)


def read_shards(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of a split, for recipes: ``root`` has a folder of shards for each, such as ``train`` and ``heldout``.

    Raises:
        DataError: an unknown split, and as :func:`read_index` and :func:`read_shard`.
    """
    check_split(str(root), split, SPLITS)
    return [
        sample
        for path, pictures in read_index(Path(root) / split)
        for samples in read_shard(path, pictures)
        for sample in samples
    ]


# Streaming


class ShardStream:
    """Batches of pictures in a shuffled order that is a function of the seed, shared out without overlap or loss.

    The order of an epoch: the shards shuffled, and the pictures of ``window`` shards at a time shuffled among each
    other. It is cut into batches, which the ranks take in turn, and the workers of a rank among each other: so after
    any number of steps of all ranks what was seen is the beginning of the order. That is all that resuming needs, also
    with another number of ranks or workers. Only the shards of one window are listed at a time.

    Args:
        folder: of shards.
        batch: pictures a batch; the last of an epoch may have fewer.
        seed: of the order.
        window: shards that are shuffled together.
        rank, ranks: which of how many processes that train this is.
    """

    def __init__(
        self, folder: str | Path, batch: int, seed: int = 0, window: int = 4, rank: int = 0, ranks: int = 1
    ) -> None:
        if min(batch, window) < 1 or not 0 <= rank < ranks:
            raise DataError(f"expected a batch and a window over 0 and a rank under {ranks}; got {batch, window, rank}")
        self.shards = read_index(Path(folder))
        self.batch, self.seed, self.window, self.rank, self.ranks = batch, seed, window, rank, ranks
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        """Batches of an epoch, of all ranks together."""
        return -(-sum(pictures for _, pictures in self.shards) // self.batch)

    def resume(self, epoch: int, start: int = 0) -> None:
        """Go on in this epoch after ``start`` batches, counted over all ranks."""
        self.epoch, self.start = epoch, start

    def batches(self, worker: int = 0, workers: int = 1) -> Iterator[list[list[FaceSample]]]:
        """What is left of the epoch for one worker: lists of the faces of each picture.

        Raises:
            DataError: as :func:`read_shard`.
        """
        batch: list[list[FaceSample]] = []
        place = 0  # in the order
        for window in self._windows():
            count = sum(pictures for _, pictures in window)
            if (place + count) // self.batch < self.start:
                place += count  # nobody needs to list these shards
                continue
            listed = [samples for path, pictures in window for samples in read_shard(path, pictures)]
            shuffle = np.random.default_rng((self.seed, self.epoch, place))
            for i in shuffle.permutation(count):
                number = place // self.batch
                if number >= self.start and self._is_mine(number, worker, workers):
                    batch.append(listed[i])
                place += 1
                if place % self.batch == 0 and batch:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _windows(self) -> Iterator[list[tuple[Path, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.shards))
        for first in range(0, len(order), self.window):
            yield [self.shards[i] for i in order[first : first + self.window]]

    def _is_mine(self, number: int, worker: int, workers: int) -> bool:
        turn, rank = divmod(number - self.start, self.ranks)
        return rank == self.rank and turn % workers == worker
