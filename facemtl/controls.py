"""The keys of the demo's window, and what they have switched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from facemtl.draw import Overlay

# key -> the part of the overlay that it switches
PARTS = {"b": "box", "p": "points", "i": "ids", "x": "axes", "a": "attributes"}
MIRROR, HELP = "m", "h"
TRACKING, RECORD, SNAPSHOT = "t", "r", "s"
HELP_TEXT = """b box   p points   i ids   x axes   a attributes
m mirror   t tracking   r record   s snapshot
space next photo   h this help   q quit"""


class Controls:
    """What is shown, and how; the keys of :data:`HELP_TEXT` switch it.

    Attributes:
        overlay: which parts of a face are drawn.
        mirror: whether a camera is shown as a mirror does.
        help: whether the keys are explained.
    """

    def __init__(self, mirror: bool = True) -> None:
        self.overlay = Overlay()
        self.mirror = mirror
        self.help = False

    def press(self, keys: Sequence[str]) -> list[str]:
        """Switch what these keys switch.

        Returns:
            Those of them that ask for something else: :data:`TRACKING`, :data:`RECORD` or :data:`SNAPSHOT`, in order.
        """
        others = []
        for key in keys:
            if key in PARTS:
                part = PARTS[key]
                self.overlay = replace(self.overlay, **{part: not getattr(self.overlay, part)})
            elif key == MIRROR:
                self.mirror = not self.mirror
            elif key == HELP:
                self.help = not self.help
            elif key in (TRACKING, RECORD, SNAPSHOT):
                others.append(key)
        return others
