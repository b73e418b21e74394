"""A few threads that do the work, and a bounded number of requests that may be on their way to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from facemtl.serve.problems import Problem

Result = TypeVar("Result")


class Jobs:
    """Runs functions in threads, first come, first served. Everything but the work itself happens in one event loop.

    Args:
        workers: functions that run at once.
        queue: further requests that may be inside; one more is refused.
    """

    def __init__(self, workers: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="facemtl")
        self._room = workers + queue
        self._inside = 0  # requests that were let in and have not left
        self._running = 0  # functions that a thread has, or will have: they outlive a request that gave up

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """For as long as a request is being answered.

        Raises:
            Problem: 503, every place is taken.
        """
        if max(self._inside, self._running) >= self._room:
            raise Problem(503, f"{self._room} requests are being answered already; try again", retry_after=1)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def run(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns or raises. Cancelled before a thread took it, it never runs; later, it still ends."""
        loop = asyncio.get_running_loop()
        self._running += 1
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        return await asyncio.wrap_future(future)

    def _leave(self) -> None:
        self._running -= 1

    def close(self) -> None:
        """Take no more; what runs is finished, what waits is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
