"""What a file says about itself before anything is decoded: format, size, orientation, and whether its end is there.

Only :mod:`facemtl.image` and the service use this. Decoders differ, also between versions of OpenCV, in what they do
with half a file: an error, a warning on stderr, or a picture whose rest is grey. So the ends are looked for here.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SUPPORTED = "JPEG, PNG, GIF, BMP, WebP or TIFF"

# Segments of a JPEG or chunks of a PNG or WebP. Real files have fewer; more would only keep a Python loop busy.
_MOST_PARTS = 200_000
# The next marker of a JPEG, found as decoders find it. Not markers: stuffed zeros, fill bytes, restarts, TEM.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_TYPES = {1: "u1", 3: "u2", 4: "u4"}
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _EXTRA_SAMPLES = 256, 257, 258, 262, 274, 338
_STRIPS, _TILES = (273, 279), (324, 325)  # offsets, byte counts
_TIFF_TAGS = {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _EXTRA_SAMPLES, *_STRIPS, *_TILES}


class HeaderError(Exception):
    """A file that must not be decoded; the message is the rest of a sentence that starts with the file's name."""


class FormatError(HeaderError):
    """No file of a format that is read here."""


@dataclass(frozen=True, slots=True)
class Header:
    """The facts that decide whether and how to decode.

    Attributes:
        format: one of :data:`SUPPORTED`.
        width: pixels as stored, before ``orientation``.
        height: pixels as stored, before ``orientation``.
        orientation: EXIF orientation 1..8 that is left to apply after decoding; 1 is upright.
        premultiplied: the decoded colours are already multiplied by alpha, where there is alpha.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    premultiplied: bool = False


def read_header(data: bytes) -> Header:
    """The header of a whole image file.

    Raises:
        FormatError: ``data`` is of another format.
        HeaderError: ``data`` is empty, cut short, or visibly damaged.
    """
    if not data:
        raise HeaderError("is empty")
    for signature, reader in _READERS:
        if re.match(signature, data, re.DOTALL):
            try:
                header = reader(data)
            except (struct.error, IndexError, ValueError):  # every read past the end ends in one of these
                raise HeaderError("is cut short") from None
            if header.width <= 0 or header.height <= 0:
                raise HeaderError(f"is damaged: its size is {header.width} x {header.height} pixels")
            return header
    raise FormatError(f"is not an image of a supported format; convert it to {SUPPORTED}")


def _jpeg(data: bytes) -> Header:
    size, orientation, position = None, 1, 2
    for _ in range(_MOST_PARTS):
        marker = _JPEG_MARKER.search(data, position)
        if marker is None:
            raise HeaderError("is cut short: a JPEG without its end marker")
        kind, start = marker[1][0], marker.end()
        if kind == 0xD9:  # what follows the first end, such as a second picture or a video, is not looked at
            if size is None:
                raise HeaderError("is damaged: a JPEG without a picture")
            return Header("JPEG", *size, orientation)
        (length,) = struct.unpack_from(">H", data, start)
        if kind in _JPEG_FRAMES and size is None:
            height, width = struct.unpack_from(">HH", data, start + 3)
            size = width, height
        elif kind == 0xE1 and data.startswith(b"Exif\0\0", start + 2) and orientation == 1:
            orientation = _exif_orientation(data[start + 8 : start + length])
        # The length covers a segment whole, so markers of a thumbnail inside it are never seen.
        position = start + length
    raise HeaderError(f"is damaged: a JPEG of over {_MOST_PARTS} segments")


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise HeaderError("is damaged: a PNG that does not start with its size")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, position, view = 1, 8, memoryview(data)
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        # A capital first letter marks a chunk that the picture needs.
        if kind[:1].isupper() and zlib.crc32(view[position + 4 : end]) != checksum:
            raise HeaderError("is damaged: a PNG chunk with a wrong checksum")
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : end])
        elif kind == b"IEND":
            return Header("PNG", width, height, orientation)
        position = end + 4
    raise HeaderError(f"is damaged: a PNG of over {_MOST_PARTS} chunks")


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _gif_palette(flags)
    while (kind := data[position]) != 0x3B:
        if kind == 0x2C:  # a frame
            position += 11 + _gif_palette(data[position + 9])
        elif kind == 0x21:  # an extension
            position += 2
        else:
            raise HeaderError("is damaged: a GIF with a block of unknown kind")
        while length := data[position]:
            position += length + 1
        position += 1
    return Header("GIF", width, height)


def _gif_palette(flags: int) -> int:
    """Bytes of the palette that a GIF's flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(data: bytes) -> Header:
    offset, kind = struct.unpack_from("<II", data, 10)
    if kind == 12:  # OS/2
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: rows run from top to bottom
    if compression in (0, 3) and offset + (width * bits + 31) // 32 * 4 * height > len(data):
        raise HeaderError("is cut short: a BMP with rows missing")
    return Header("BMP", width, height)


def _webp(data: bytes) -> Header:
    length, kind = struct.unpack_from("<I4x4s", data, 4)
    if 8 + length > len(data):
        raise HeaderError(f"is cut short: a WebP of {8 + length} bytes of which {len(data)} are there")
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WebP", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        raise HeaderError("is damaged: a WebP that does not start with its size")
    flags, low, high = struct.unpack_from("<IIH", data, 20)
    width, height = (low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1
    return Header("WebP", width, height, _webp_orientation(data) if flags & 8 else 1)


def _webp_orientation(data: bytes) -> int:
    position = 12
    for _ in range(_MOST_PARTS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            # Some writers put JPEG's prefix before the TIFF header.
            return _exif_orientation(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    return 1


def _tiff(data: bytes) -> Header:
    tags = _tiff_tags(data)
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise HeaderError("is damaged: a TIFF without a size")
    for offsets, counts in (_STRIPS, _TILES):
        # A count that does not match its offsets is left to the decoder to refuse.
        if offsets in tags and counts in tags and len(tags[offsets]) == len(tags[counts]):
            ends = tags[offsets].astype(np.int64) + tags[counts]
            if ends.max() > len(data):
                raise HeaderError("is cut short: a TIFF with rows missing")
    bits = int(tags[_BITS][0]) if _BITS in tags else 1
    if bits > 8 and _PHOTOMETRIC in tags and tags[_PHOTOMETRIC][0] == 0:
        raise HeaderError(
            "is a TIFF of over 8 bits that stores white as 0, which OpenCV shows as a negative; save it as PNG"
        )
    # libtiff hands out 8-bit colours multiplied by alpha, whatever the file holds; deeper ones come as they are.
    associated = _EXTRA_SAMPLES in tags and tags[_EXTRA_SAMPLES][0] == 1
    # OpenCV applies the orientation of a TIFF itself, with every flag.
    return Header("TIFF", int(tags[_WIDTH][0]), int(tags[_HEIGHT][0]), premultiplied=bits <= 8 or associated)


def _tiff_tags(data: bytes) -> dict[int, np.ndarray]:
    """The whole-number tags of the first picture that this module needs; each array has at least one value."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    tags: dict[int, np.ndarray] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, entry)
        if tag in _TIFF_TAGS and tag not in tags:  # of duplicates the first counts, as for libtiff
            if kind not in _TIFF_TYPES or length == 0:
                raise HeaderError(f"is damaged: a TIFF whose tag {tag} is not a whole number")
            dtype = np.dtype(order + _TIFF_TYPES[kind])
            fits = length * dtype.itemsize <= 4
            position = entry + 8 if fits else struct.unpack_from(f"{order}I", data, entry + 8)[0]
            tags[tag] = np.frombuffer(data, dtype, length, position)
    return tags


def _exif_orientation(exif: bytes) -> int:
    """Orientation 1..8 of an EXIF block, which is a small TIFF; 1 if it has none or is damaged."""
    if not exif.startswith((b"II*\0", b"MM\0*")):
        return 1
    try:
        value = int(_tiff_tags(exif).get(_ORIENTATION, (1,))[0])
    except (HeaderError, struct.error, ValueError):  # damaged metadata is no reason to refuse a picture
        return 1
    return value if 1 <= value <= 8 else 1


_READERS: tuple[tuple[bytes, Callable[[bytes], Header]], ...] = (
    (rb"\xff\xd8\xff", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"GIF8[79]a", _gif),
    (rb"BM", _bmp),
    (rb"RIFF....WEBP", _webp),
    (rb"II\*\x00|MM\x00\*", _tiff),
)
