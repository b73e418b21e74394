"""Files with bytes changed, and what may become of them: an error of the package, or the same content."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from facemtl.data.sample import MISSING, FaceSample
from facemtl.errors import FaceMTLError

SECONDS = 60  # after which a case hangs, on however busy a machine
NUMBERS = frozenset(b"0123456789.+-eE")


def changed(rng: random.Random, data: bytes) -> tuple[bytes, bool]:
    """The bytes with a few changed, some cut off, or some repeated; and whether a number may have become another."""
    kind = rng.random()
    if kind < 0.1:
        return data[: rng.randrange(len(data))], True
    if kind < 0.15:
        start = rng.randrange(len(data))
        return data[:start] + data[start : start + rng.randrange(1, 40)] + data[start:], True
    result, numbers = bytearray(data), False
    for _ in range(rng.choice((1, 1, 2, 5))):
        place, value = rng.randrange(len(data)), rng.randrange(256)
        # Half of the changes are to what stands in such a file anyway: those are the ones that may go unnoticed.
        value = data[rng.randrange(len(data))] if rng.random() < 0.5 else value
        numbers |= result[place] in NUMBERS or value in NUMBERS
        result[place] = value
    return bytes(result), numbers


@contextmanager
def in_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    path: Path, read: Callable[[], object], cases: int, seed: int, judge: Callable[[object, object, bool], None]
) -> Counter:
    """Change a file ``cases`` times and read it each time; it is as before afterwards.

    Args:
        read: reads it; may raise the package's errors and no other.
        judge: (what the good file holds, what was read, whether a number may have become another) -> asserts.

    Returns:
        how often it was ``refused`` and how often ``read``.
    """
    good, rng, seen = path.read_bytes(), random.Random(seed), Counter()
    expected = read()
    try:
        for case in range(cases):
            data, numbers = changed(rng, good)
            path.write_bytes(data)
            try:
                with in_time():
                    found = read()
            except FaceMTLError as error:
                assert str(error), f"case {case}: an error without a word"
                seen["refused"] += 1
                continue
            except Exception as error:
                error.add_note(f"case {case} of {path.name}, seed {seed}: {data[:2000]!r}")
                raise
            try:
                judge(expected, found, numbers)
            except AssertionError as error:
                error.add_note(f"case {case} of {path.name}, seed {seed}: {data[:2000]!r}")
                raise
            seen["read"] += 1
    finally:
        path.write_bytes(good)
    return seen


def rows_are_right(expected: Sequence[FaceSample], found: Sequence[FaceSample], numbers: bool) -> None:
    """Every row read is one of the good file, or lacks something of it; where a number may have changed, it is at
    least whole: of its schema, finite or missing, with known classes."""
    for sample in found:
        whole(sample)
    if not numbers:
        for sample in found:
            assert any(_within(sample, other) for other in expected), f"no such row: {sample}"


def whole(sample: FaceSample) -> None:
    assert sample.points.dtype == np.float32 and sample.points.ndim == 2
    assert not np.isinf(sample.points).any()
    assert (np.isnan(sample.points).all(axis=1) == np.isnan(sample.points).any(axis=1)).all()
    if sample.box is not None:
        assert np.isfinite(sample.box).all() and (sample.box[2:] > sample.box[:2]).all()
    if sample.angles is not None:
        assert not np.isinf(sample.angles).any()
    assert all(label >= MISSING for label in sample.labels.values())


def _within(sample: FaceSample, other: FaceSample) -> bool:
    """Whether a row says nothing that the other does not say."""
    points = np.isnan(sample.points) | (sample.points == other.points)
    box = sample.box is None or (other.box is not None and np.array_equal(sample.box, other.box))
    angles = sample.angles is None or (
        other.angles is not None and bool((np.isnan(sample.angles) | (sample.angles == other.angles)).all())
    )
    labels = all(label in (MISSING, other.labels.get(task)) for task, label in sample.labels.items())
    return sample.image == other.image and sample.schema == other.schema and points.all() and box and angles and labels
