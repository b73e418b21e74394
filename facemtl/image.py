"""The one reader of images: files and arrays in, ``uint8`` BGR (H, W, 3) out, or an :class:`ImageError`.

Nothing is fetched: a string is a path, also one that looks like an address. A file is measured before it is
decoded, so a small file cannot claim a huge picture. Pictures with transparency are laid over white, as a
browser or viewer shows them. Of an animation or a file of several pages, the first picture counts.

OpenCV's log level belongs to the whole process and is left alone. Empty, cut and foreign files are refused before
OpenCV sees them; damage in the middle of a file may still make a decoder write a line to stderr.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from facemtl._image_header import HeaderError, read_header
from facemtl.errors import ImageError
from facemtl.files import beside

MAX_BYTES = 64 * 2**20  # of a file
MAX_PIXELS = 100_000_000  # width times height, as the file's header gives them

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # that write_image knows

# EXIF orientation -> code for cv2.flip, after a transposition for 5 and over (EXIF 2.32, tag 0x0112).
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}


def read_image(source: str | os.PathLike | bytes) -> np.ndarray:
    """Read one picture, upright as its EXIF orientation says.

    Grey becomes three equal channels, 16 bits become 8, CMYK becomes BGR, transparency is laid over white.

    Args:
        source: path of a JPEG, PNG, GIF, BMP, WebP or TIFF file, or the bytes of one.

    Returns:
        (H, W, 3) ``uint8``, blue green red.

    Raises:
        ImageError: no such file, not an image, cut short, damaged, over :data:`MAX_BYTES` or :data:`MAX_PIXELS`.
            The message is one sentence that names the file.
    """
    if isinstance(source, bytes):
        name, data = "the image given as bytes", source
    elif isinstance(source, str | os.PathLike):
        name = os.fsdecode(source) or "."
        data = _read_file(name)
    else:
        raise ImageError(
            f"an image is read from a path or from bytes, not from {type(source).__name__}; as_bgr takes arrays"
        )
    if len(data) > MAX_BYTES:
        raise ImageError(_too_many_bytes(name))
    try:
        header = read_header(data)
    except HeaderError as error:
        raise ImageError(f"{name} {error}") from None
    if header.width * header.height > MAX_PIXELS:
        raise ImageError(
            f"{name} has {header.width} x {header.height} pixels, over the limit of "
            f"{MAX_PIXELS / 1e6:g} megapixels; make it smaller"
        )
    # The fourth byte of a BMP is alpha in some files and unused in others, and OpenCV takes one for the other.
    image = _decode(data, cv2.IMREAD_COLOR if header.format == "BMP" else cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ImageError(
            f"{name} is a damaged {header.format}, or of a kind that OpenCV {cv2.__version__} cannot decode; "
            "save it anew as PNG or JPEG"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name} has {image.dtype} pixels; save it with 8 or 16 bits")
    image = _to_bgr8(image, header.premultiplied)
    if header.orientation >= 5:
        image = cv2.transpose(image)
    flip = _FLIPS.get(header.orientation)
    return image if flip is None else cv2.flip(image, flip)


def as_bgr(array: np.ndarray) -> np.ndarray:
    """An image in memory as this package wants it; what already is so is returned itself, not a copy.

    Args:
        array: ``uint8``, or ``uint16`` whose white is 65535; grey (H, W) or (H, W, 1), BGR (H, W, 3), or BGRA
            (H, W, 4), which is laid over white. Colours in the order red green blue cannot be told from these:
            reverse them first, ``array[..., ::-1]``.

    Returns:
        (H, W, 3) ``uint8``, blue green red.

    Raises:
        ImageError: not an array, another dtype or shape, or no pixels.
    """
    if not isinstance(array, np.ndarray):
        raise ImageError(f"an image must be a numpy array, not {type(array).__name__}; read_image takes files")
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"an image must be uint8 or uint16, not {array.dtype}; scale it to 0..255 and use .astype(np.uint8)"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"an image must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}; "
            "give one image at a time, channels last"
        )
    if array.size == 0:
        raise ImageError(f"an image must have pixels; this one has shape {array.shape}")
    return _to_bgr8(array)


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image in the format of the suffix; a file of that name is replaced whole or not at all.

    Args:
        path: ends in one of :data:`SUFFIXES`, in either case.
        image: anything :func:`as_bgr` takes; (H, W, 3) ``uint8`` BGR is what gets written.

    Raises:
        ImageError: an unknown suffix, an image that is none or too large for the format, or a path that cannot
            be written.
    """
    path = Path(os.fsdecode(path))
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(f"cannot write {path}: its suffix must be one of {', '.join(SUFFIXES)}")
    image = as_bgr(image)
    try:
        done, encoded = cv2.imencode(suffix, image)
    except cv2.error:
        done = False
    if not done:
        height, width = image.shape[:2]
        raise ImageError(f"cannot write {path}: OpenCV does not encode {width} x {height} pixels as {suffix}")
    try:
        with beside(path) as partial:
            partial.write_bytes(encoded)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot write {path}: {_reason(error)}") from None


def _read_file(name: str) -> bytes:
    path = Path(name)
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder, not an image")
        if path.exists() and not path.is_file():  # reading a pipe could wait for ever
            raise ImageError(f"{name} is a device or pipe, not an image file")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(_too_many_bytes(name))
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {_reason(error)}") from None


def _too_many_bytes(name: str) -> str:
    return f"{name} has more bytes than the limit of {MAX_BYTES // 2**20} MiB; make it smaller"


def _reason(error: OSError | ValueError) -> str:
    """What went wrong, without the number and the path; a path with a null byte is a ValueError."""
    return getattr(error, "strerror", None) or str(error)


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _to_bgr8(image: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """(H, W) or (H, W, 1 | 3 | 4) uint8 or uint16 -> (H, W, 3) uint8, alpha over white."""
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 3:
        return image
    colour = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    alpha = cv2.cvtColor(cv2.extractChannel(image, 3), cv2.COLOR_GRAY2BGR)
    if not premultiplied:
        colour = cv2.multiply(colour, alpha, scale=1 / 255)
    return cv2.add(colour, cv2.bitwise_not(alpha))  # white shows through where alpha is below 255
