"""Ctrl-C as a flag that a loop asks for between its steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupt_flag() -> Iterator[Any]:
    """Within, Ctrl-C sets a flag instead of breaking a step in the middle; the function given tells whether it did."""
    hits: list[int] = []
    try:
        previous = signal.signal(signal.SIGINT, lambda *_: hits.append(1))
    except ValueError:  # not in the main thread: whoever runs the thread handles Ctrl-C
        yield lambda: False
        return
    try:
        yield lambda: bool(hits)
    finally:
        signal.signal(signal.SIGINT, previous)
