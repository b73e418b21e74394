"""Files that are cut, damaged, forged or no picture are refused, before anything is decoded where that can be seen."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from picture_files import ALL, chunk, encode, exif, flat, replace, samples

from facemtl import image as module
from facemtl.errors import ImageError
from facemtl.image import read_image, write_image

# ---------------------------------------------------------------- what is not a picture


@pytest.mark.parametrize("name", samples())
def test_a_file_cut_anywhere_is_an_error_and_says_nothing(name, capfd):
    data = samples()[name]
    assert read_image(data).size
    for length in {*range(1, len(data), 1 + len(data) // 150), len(data) - 2, len(data) - 1}:
        with pytest.raises(ImageError):
            read_image(data[:length])
    assert capfd.readouterr().err == ""


def test_the_end_of_a_thumbnail_is_not_the_end_of_a_jpeg():
    data, end = samples()["jpeg"], b"\xff\xd9"
    assert data.count(end) == 2
    for cut in (data[: data.index(end) + 2], data[:-2], data[:-1]):
        with pytest.raises(ImageError, match="is cut short: a JPEG without its end marker"):
            read_image(cut)


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "bmp", "webp", "tiff"])
def test_bytes_after_the_end_are_ignored(name):
    data = samples()[name]
    np.testing.assert_array_equal(read_image(data + b"\xff\xd8\xff after the end"), read_image(data))


@pytest.mark.parametrize("name", samples())
def test_damage_gives_an_error_or_a_picture_and_nothing_else(name):
    data = samples()[name]
    random = np.random.default_rng(zlib.crc32(name.encode()))
    for round_ in range(60):
        damaged = bytearray(data)
        for _ in range(random.integers(1, 5)):  # every other round only in the headers
            place = random.integers(len(data) if round_ % 2 else min(len(data), 120))
            damaged[place] = random.choice([0, 255, random.integers(256)])
        try:
            image = read_image(bytes(damaged))
        except ImageError as error:
            assert str(error).startswith("the image given as bytes "), error
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
            assert 0 < image.size <= 3 * module.MAX_PIXELS


def test_a_wrong_checksum_in_a_png():
    data = replace(encode(flat("RGB", (1, 2, 3)), "PNG"), b"IEND\xae", b"IEND\xaf")
    with pytest.raises(ImageError, match="is damaged: a PNG chunk with a wrong checksum"):
        read_image(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is not an image of a supported format; convert it to JPEG, PNG, GIF, BMP, WebP or TIFF"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "is not an image of a supported format"),
        (b"\xff\xd8\xff\xd9", "is damaged: a JPEG without a picture"),
        (b"\xff\xd8" + b"\xff\xe1\0\2" * 200_001, "is damaged: a JPEG of over 200000 segments"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""), "is damaged: a PNG that does not start with its size"),
        (b"II*\0\x08\0\0\0" + bytes(6), "is damaged: a TIFF without a size"),
        # Two widths: decoders take the first, whatever its type, so the second must not be what is checked.
        (
            b"II*\0\x08\0\0\0\2\0" + struct.pack("<HHII", 256, 9, 1, 50_000) + struct.pack("<HHII", 256, 4, 1, 5),
            "is damaged: a TIFF whose tag 256 is not a whole number",
        ),
        (b"GIF89a" + bytes(7) + b";", "is damaged: its size is 0 x 0 pixels"),
    ],
)
def test_what_is_no_picture_is_named_and_explained(tmp_path, data, message):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for source, name in ((path, str(path)), (data, "the image given as bytes")):
        with pytest.raises(ImageError) as caught:
            read_image(source)
        assert str(caught.value).startswith(f"{name} {message}")
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- caps


def forged(kind: str) -> bytes:
    """A file of a few hundred bytes that claims 50,000 x 50,000 pixels, or as much as its format can say."""
    size, data = 50_000, encode(flat("RGB", 0, (16, 8)), kind)
    match kind:
        case "PNG":
            return data[:8] + chunk(b"IHDR", struct.pack(">II", size, size) + data[24:29]) + data[33:]
        case "JPEG":
            return replace(data, b"\x08" + struct.pack(">HH", 8, 16), b"\x08" + struct.pack(">HH", size, size))
        case "GIF":
            return data[:6] + struct.pack("<HH", size, size) + data[10:]
        case "BMP":  # said to be compressed, so that no rows are missed
            return data[:18] + struct.pack("<iiHHI", size, -size, 1, 8, 1) + data[34:]
        case "WEBP":
            return data[:21] + b"\xff\xff\xff\x0f" + data[25:]  # 16,384 x 16,384
        case "TIFF":
            for tag, old in ((256, 16), (257, 8)):
                place = data.index(struct.pack("<H", tag), 8)
                assert struct.unpack_from("<I", data, place + 8) == (old,)
                data = data[:place] + struct.pack("<HHII", tag, 4, 1, size) + data[place + 12 :]
            return data
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ALL)
def test_a_forged_size_is_refused_before_anything_is_decoded(kind, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the decoder was called"))
    size = 16_384 if kind == "WEBP" else 50_000
    with pytest.raises(ImageError, match=f"has {size} x {size} pixels, over the limit of 100 megapixels"):
        read_image(forged(kind))


@pytest.mark.parametrize("size", [(16, 8), (3, 700), (700, 3)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {}) for kind in ALL),
        ("WEBP", {"lossless": False}),
        ("WEBP", {"exif": exif(6)}),
        ("TIFF", {"big_endian": True}),
    ],
)
def test_the_size_is_read_without_decoding(kind, options, size, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the decoder was called"))
    monkeypatch.setattr(module, "MAX_PIXELS", 127)
    with pytest.raises(ImageError, match=f"has {size[0]} x {size[1]} pixels, over the limit"):
        read_image(encode(flat("RGB", 0, size), kind, **options))


def test_tables_before_the_size_of_a_jpeg_are_not_the_size(monkeypatch):
    data = encode(flat("RGB", 0, (16, 8)), "JPEG")
    tables = b"\xff\xc4\0\x13\0" + bytes(16)
    monkeypatch.setattr(module, "MAX_PIXELS", 127)
    with pytest.raises(ImageError, match="has 16 x 8 pixels, over the limit"):
        read_image(data[:2] + tables + data[2:])


def test_the_chunks_of_a_webp():
    data = encode(flat("RGB", 0, (16, 8)), "WEBP", exif=exif(6), icc_profile=b"odd")  # an odd chunk is padded
    place = data.index(b"EXIF")
    body = b"Exif\0\0" + data[place + 8 :]
    prefixed = (
        data[:4] + struct.pack("<I", len(data) - 2) + data[8:place] + b"EXIF" + struct.pack("<I", len(body)) + body
    )
    assert read_image(data).shape == (16, 8, 3)
    assert read_image(prefixed).shape == (16, 8, 3)
    assert read_image(data.replace(b"EXIF", b"none")).shape == (8, 16, 3)


def test_an_error_inside_opencv_is_an_image_error(tmp_path, monkeypatch):
    def fail(*_):
        raise cv2.error("Insufficient memory")

    data = encode(flat("RGB", 0), "PNG")
    monkeypatch.setattr(cv2, "imdecode", fail)
    monkeypatch.setattr(cv2, "imencode", fail)
    with pytest.raises(ImageError, match="is a damaged PNG, or of a kind that OpenCV"):
        read_image(data)
    with pytest.raises(ImageError, match="does not encode 2 x 2 pixels"):
        write_image(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
