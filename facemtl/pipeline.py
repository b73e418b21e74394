"""Reading, inference and drawing at the same time, each in a thread: the slowest of them sets the rate.

The caller's own thread is the last stage, for windows belong to the main thread. OpenCV, ONNX Runtime and FFmpeg let
other threads run while they work.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

from facemtl.sources import Frame

Result = TypeVar("Result")
Item = TypeVar("Item")

ROOM = 2  # items that wait between two stages: enough to even out, few enough to be fresh
TICK = 0.1  # seconds without a result after which the caller gets None, so that a window stays alive
SILENCE = 5.0  # seconds without a picture after which a live source is reported
PATIENCE = 2.0  # seconds that a stage may take to end

_log = logging.getLogger(__name__)


class Channel(Generic[Item]):
    """Items from one thread to another, in order. The end, or an error, comes after the items before it.

    Args:
        room: how many items may wait, at least 1.
        drop: which of them may be thrown away, the oldest first, when there is no room; None: the sender waits.
    """

    def __init__(self, room: int, drop: Callable[[Item], bool] | None = None) -> None:
        self._room, self._drop = room, drop
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._refused = False
        self._error: BaseException | None = None
        self.dropped = 0

    def put(self, item: Item) -> bool:
        """Hand an item over; False when nobody wants any more."""
        with self._changed:
            if self._drop is None:
                self._changed.wait_for(lambda: self._refused or len(self._items) < self._room)
            elif len(self._items) >= self._room:
                oldest = next((i for i, waiting in enumerate(self._items) if self._drop(waiting)), None)
                if oldest is not None:
                    del self._items[oldest]
                    self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()
            return not self._refused

    def end(self, error: BaseException | None = None) -> None:
        """There will be no more items, because of an error or not."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def refuse(self) -> None:
        """No more items are wanted; who waits in :meth:`put` goes on."""
        with self._changed:
            self._refused = True
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> Item | None:
        """The next item, or None after ``timeout`` seconds without one.

        Raises:
            EOFError: there are no more.
            BaseException: what :meth:`end` was given.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._refused, timeout)
            if self._refused:
                raise EOFError
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            if not self._ended:
                return None
            raise self._error or EOFError


def run_stages(
    frames: Iterator[Frame], work: Callable[[Frame], Result], live: bool
) -> Generator[Result | None, None, None]:
    """What ``work`` makes of the frames, in their order, while further frames are read and worked on.

    Args:
        frames: is read, and closed where it can be, in a thread of its own.
        work: runs in another thread, a frame at a time.
        live: frames that are older than the next ones are dropped when ``work`` or the caller is slow, and a source
            that is silent is reported; else every frame is worked on.

    Yields:
        A result, or None when there was none for a tenth of a second.

    Raises:
        Whatever ``frames`` or ``work`` raised, once the results before it have been taken.

    When the caller stops early the threads are told to, and waited for; one that hangs in a driver is left behind.
    """
    read: Channel[Frame] = Channel(ROOM, drop=(lambda frame: frame.error is None) if live else None)
    results: Channel[Result] = Channel(1)
    reader = threading.Thread(target=_read, args=(frames, read), name="facemtl-read", daemon=True)
    worker = threading.Thread(target=_work, args=(read, work, results), name="facemtl-work", daemon=True)
    reader.start()
    worker.start()
    silent = 0
    try:
        while True:
            try:
                result = results.get(TICK)
            except EOFError:
                return
            silent = 0 if result is not None else silent + 1
            if live and silent and silent % round(SILENCE / TICK) == 0:
                _log.warning("no picture for %.0f s; waiting", silent * TICK)
            yield result
    finally:
        read.refuse()
        results.refuse()
        for thread in (worker, reader):
            thread.join(PATIENCE)
            if thread.is_alive():
                _log.warning("%s does not end: it is left behind", thread.name)


def _read(frames: Iterator[Frame], read: Channel[Frame]) -> None:
    try:
        try:
            for frame in frames:
                if not read.put(frame):
                    break
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()
    except BaseException as error:  # whatever it is belongs to the caller's thread
        read.end(error)
    else:
        read.end()


def _work(read: Channel[Frame], work: Callable[[Frame], Result], results: Channel[Result]) -> None:
    try:
        while results.put(work(read.get())):
            pass
    except EOFError:
        results.end()
    except BaseException as error:
        read.refuse()  # the reader need not go on
        results.end(error)
    else:
        read.refuse()
