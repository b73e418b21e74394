"""Image files for tests, written by Pillow: nothing of the package under test makes them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

LOSSLESS = {"PNG": {}, "GIF": {}, "BMP": {}, "WEBP": {"lossless": True}, "TIFF": {}}
ALL = {**LOSSLESS, "JPEG": {"quality": 100, "subsampling": 0}}


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **{**ALL[kind], **options})
    return file.getvalue()


def flat(mode: str, colour, size=(16, 8)) -> Image.Image:
    return Image.new(mode, size, colour)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def replace(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def scene() -> Image.Image:
    """A small picture with edges and slopes, so that encoders have something to encode."""
    y, x = np.mgrid[:24, :32]
    return Image.fromarray(np.stack([x * 8, y * 10, (x // 5 + y // 5) % 2 * 255], -1).astype(np.uint8))


def samples() -> dict[str, bytes]:
    """Every format in its common variants, each a few hundred bytes to a few thousand."""
    picture, thumbnail = scene(), exif(6)
    thumbnail[0xC000] = encode(flat("RGB", 9), "JPEG")  # a whole JPEG inside the metadata
    clear = picture.copy()
    clear.putalpha(100)
    several = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    return {
        "jpeg": encode(picture, "JPEG", exif=thumbnail),
        "progressive": encode(picture, "JPEG", progressive=True),
        "restarts": encode(picture, "JPEG", restart_marker_blocks=2),
        "cmyk": encode(picture.convert("CMYK"), "JPEG"),
        "png": encode(clear, "PNG", exif=exif(3)),
        "palette": encode(picture.quantize(7), "PNG"),
        "apng": encode(picture, "PNG", **several),
        "gif": encode(picture, "GIF"),
        "gifs": encode(picture, "GIF", **several),
        "bmp": encode(picture, "BMP"),
        "webp": encode(picture, "WEBP", lossless=False, exif=exif(5)),
        "lossless": encode(clear, "WEBP"),
        "webps": encode(picture, "WEBP", **several),
        "tiff": encode(picture, "TIFF"),
        "strips": encode(picture, "TIFF", strip_size=300),
        "lzw": encode(picture, "TIFF", compression="tiff_lzw"),
    }
