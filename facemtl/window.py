"""A live window made with tkinter, which comes with Python: the OpenCV that this package uses has no windows."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np

from facemtl.draw import draw_status
from facemtl.errors import DeviceError

QUIT_KEYS = frozenset({"q", "Q", "Escape"})
NEXT_KEYS = frozenset({"space", "Return", "Right"})
SCREEN_SHARE = 0.85  # larger pictures are shrunk to this part of the screen


class Window:
    """One window that shows one picture after the other. ``q``, Esc or closing it ends the show.

    Use it from one thread. After the end :meth:`show` and :meth:`wait` return False at once.

    Raises:
        DeviceError: this Python has no tkinter, or there is no display.
    """

    def __init__(self, title: str = "facemtl") -> None:
        try:
            import tkinter
        except ImportError:
            raise DeviceError(
                "the window needs tkinter, which this Python lacks: install it (Debian: python3-tk) or use --headless"
            ) from None
        try:
            self._root = tkinter.Tk(className="facemtl")
        except tkinter.TclError as error:
            raise DeviceError(f"there is no display for the window ({error}): use --headless") from None
        self._open = True
        self._next = False
        self._pressed: list[str] = []
        self._picture = tkinter.PhotoImage(master=self._root)
        self._root.title(title)
        self._root.resizable(False, False)
        tkinter.Label(self._root, image=self._picture, borderwidth=0).pack()
        self._root.protocol("WM_DELETE_WINDOW", self._end)
        self._root.bind("<Key>", self._on_key)
        self._limit = (self._root.winfo_screenwidth() * SCREEN_SHARE, self._root.winfo_screenheight() * SCREEN_SHARE)

    def show(self, image: np.ndarray, status: str = "") -> bool:
        """Show ``image`` (H, W, 3) uint8 BGR, shrunk to fit the screen, with ``status`` in its corner.

        Returns:
            False once the user has ended the show.
        """
        if self._open:
            picture = fit(image, self._limit)
            self._picture.configure(data=to_ppm(draw_status(picture, status) if status else picture), format="PPM")
            self._root.update()
        return self._open

    def refresh(self) -> bool:
        """Keep the picture and take keys, while there is no new one.

        Returns:
            False once the user has ended the show.
        """
        if self._open:
            self._root.update()
        return self._open

    def wait(self) -> bool:
        """Keep the picture until a key asks for the next one (space, Enter, right arrow), another key is pressed (see
        :meth:`pressed`), or the user ends the show.

        Returns:
            False once the user has ended the show.
        """
        self._next = False
        while self._open and not self._next and not self._pressed:
            self._root.update()
            time.sleep(0.02)  # asleep in Python, where Ctrl-C works; Tk's own waiting would not hear it
        return self._open

    def pressed(self) -> list[str]:
        """Names of the other keys that were pressed since the last call, in order, such as ``t`` or ``F1``."""
        keys, self._pressed = self._pressed, []
        return keys

    def close(self) -> None:
        """Take the window off the screen."""
        self._open = False
        self._root.destroy()

    def _on_key(self, event: Any) -> None:
        if event.keysym in QUIT_KEYS:
            self._end()
        elif event.keysym in NEXT_KEYS:
            self._next = True
        else:
            self._pressed.append(event.keysym)

    def _end(self) -> None:
        self._open = False


def fit(image: np.ndarray, limit: tuple[float, float]) -> np.ndarray:
    """Shrink ``image`` (H, W, 3) to fit ``limit``, width and height in pixels; a smaller one is returned as it is."""
    height, width = image.shape[:2]
    scale = min(limit[0] / width, limit[1] / height)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def to_ppm(image: np.ndarray) -> bytes:
    """The (H, W, 3) uint8 BGR ``image`` as a binary PPM file: the one format that costs Tk no decoding."""
    height, width = image.shape[:2]
    return b"P6 %d %d 255\n" % (width, height) + cv2.cvtColor(image, cv2.COLOR_BGR2RGB).tobytes()
