"""Shards for torch's DataLoader, whose workers share one :class:`facemtl.data.shards.ShardStream`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from facemtl.data.sample import FaceSample, read_picture
from facemtl.data.shards import ShardStream

Example = tuple[np.ndarray, list[FaceSample]]


def shard_loader(stream: ShardStream, workers: int) -> DataLoader:
    """Lists of (uint8 BGR (H, W, 3), its faces), in the order of the stream whatever the number of workers is.

    ``stream.resume`` before each iteration says which epoch it is, and where in it to begin.

    Args:
        stream: the order, and this process's part of it.
        workers: processes that read pictures; 0 is this one.
    """
    return DataLoader(ShardBatches(stream), batch_size=None, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(batch: list[Example]) -> list[Example]:
    return batch


class ShardBatches(IterableDataset):
    """What a loader of :func:`shard_loader` iterates over; see there."""

    def __init__(self, stream: ShardStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[list[Example]]:
        """Lists of (uint8 BGR (H, W, 3), its faces).

        Raises:
            DataError, ImageError: a shard or a picture that cannot be read.
        """
        info = get_worker_info()
        share = (0, 1) if info is None else (info.id, info.num_workers)
        for batch in self.stream.batches(*share):
            yield [(read_picture(faces[0].image), faces) for faces in batch]
