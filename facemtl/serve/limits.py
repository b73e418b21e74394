"""What one request may cost, and how many may wait."""

from __future__ import annotations

from dataclasses import dataclass, fields

from facemtl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """The caps of a service; every one is checked before the work that it bounds.

    Attributes:
        max_bytes: of the body of a request.
        max_pixels: of a picture, width times height, read off its header before it is decoded.
        max_boxes: that a request may give.
        workers: pictures in work at once, each in a thread.
        queue: requests that may wait for a worker, or are still sending their picture; one more is told so (503).
        seconds: from the first byte of a request's body to its answer; what takes longer is told so.
    """

    max_bytes: int = 16 * 2**20
    max_pixels: int = 25_000_000
    max_boxes: int = 100
    workers: int = 2
    queue: int = 16
    seconds: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "queue" else 1e-3 if field.name == "seconds" else 1
            if not least <= getattr(self, field.name) < float("inf"):
                raise ConfigError(f"{field.name} must be at least {least:g}; got {getattr(self, field.name)}")
