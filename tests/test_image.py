"""Reading and writing images: what comes out for every kind of file, and that nothing else comes out."""

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from picture_files import ALL, LOSSLESS, encode, exif, flat, replace, scene
from PIL import Image

from facemtl import image as module
from facemtl.errors import ImageError
from facemtl.image import as_bgr, read_image, write_image

# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("kind", ALL)
def test_every_format_gives_bgr(kind):
    image = read_image(encode(flat("RGB", (200, 100, 50)), kind))
    assert image.shape == (8, 16, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image.reshape(-1, 3), [[50, 100, 200]] * 128, atol=1 if kind == "JPEG" else 0)


def test_a_path_a_string_and_bytes_are_the_same(tmp_path):
    path = tmp_path / "gesicht \u00fc.png"  # OpenCV itself cannot open such names everywhere
    path.write_bytes(encode(scene(), "PNG"))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(read_image(source), np.asarray(scene())[..., ::-1])


# Six blocks, 1 2 3 over 4 5 6, as they are stored -> as they are seen (EXIF 2.32, tag 0x0112).
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind, orientation):
    blocks = np.kron(np.array([[1, 2, 3], [4, 5, 6]]) * 40, np.ones((8, 8))).astype(np.uint8)
    option = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif(orientation)}
    image = read_image(encode(Image.fromarray(blocks).convert("RGB"), kind, **option))
    np.testing.assert_array_equal(np.rint(image[4::8, 4::8, 0] / 40), UPRIGHT[orientation])


@pytest.mark.parametrize(
    "block", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", exif(99).tobytes()]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_spoil_a_picture(kind, block):
    assert read_image(encode(flat("RGB", 0), kind, exif=block)).shape == (8, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind):
    deep = np.array([[0, 128, 129, 257, 40000, 65535]], np.uint16)  # / 257, rounded
    image = read_image(encode(Image.fromarray(deep), kind))
    assert image.tolist() == [[[v, v, v] for v in (0, 0, 1, 1, 156, 255)]]


def test_grey_gets_three_channels():
    for kind in LOSSLESS:
        assert np.unique(read_image(encode(flat("L", 77), kind))).tolist() == [77]
        assert np.unique(read_image(encode(flat("1", 1), kind))).tolist() == [255]
    assert np.unique(read_image(encode(flat("LA", (200, 0)), "PNG"))).tolist() == [255]


# Over white: alpha 0 is white, alpha 255 the colour, and alpha 128 gives 50 * 128 / 255 + 127 = 152.
OVER_WHITE = {0: [255, 255, 255], 128: [152, 177, 227], 255: [50, 100, 200]}


@pytest.mark.parametrize("alpha", OVER_WHITE)
def test_transparency_is_laid_over_white(alpha):
    colour = (200, 100, 50, alpha)
    for kind in ("PNG", "WEBP", "TIFF"):
        data = encode(flat("RGBA", colour), kind, **({"exact": True} if kind == "WEBP" else {}))
        assert read_image(data)[3, 3].tolist() == OVER_WHITE[alpha], kind
    assert as_bgr(np.full((2, 3, 4), (50, 100, 200, alpha), np.uint8))[0, 0].tolist() == OVER_WHITE[alpha]
    deep = np.full((2, 3, 4), np.array((50, 100, 200, alpha)) * 257, np.uint16)
    assert as_bgr(deep)[0, 0].tolist() == OVER_WHITE[alpha]
    for suffix in (".png", ".tiff"):
        assert read_image(cv2.imencode(suffix, deep)[1].tobytes())[0, 0].tolist() == OVER_WHITE[alpha], suffix


def test_colours_of_a_tiff_may_be_multiplied_by_alpha_already():
    deep = np.full((2, 3, 4), np.array((25, 50, 100, 128)) * 257, np.uint16)
    data = cv2.imencode(".tiff", deep)[1].tobytes()
    place = data.index(struct.pack("<HHI", 339, 3, 4))  # sample format: whole numbers, which is the default
    data = data[:place] + struct.pack("<HHII", 338, 3, 1, 1) + data[place + 12 :]  # extra sample: associated alpha
    assert read_image(data)[0, 0].tolist() == [25 + 127, 50 + 127, 100 + 127]


def test_a_transparent_palette_colour_is_white():
    palette = flat("RGB", (200, 100, 50)).quantize(2)
    for kind in ("PNG", "GIF"):
        assert read_image(encode(palette, kind, transparency=palette.getpixel((0, 0))))[0, 0].tolist() == [255] * 3


def test_the_unused_fourth_byte_of_a_bmp_is_not_alpha():
    head = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)
    data = b"BM" + struct.pack("<IHHI", 74, 0, 0, 66) + head + bytes([50, 100, 200, 0]) * 2
    assert read_image(data).tolist() == [[[50, 100, 200]] * 2]


def test_a_bmp_of_the_oldest_kind():
    data = (
        b"BM"
        + struct.pack("<IHHI", 34, 0, 0, 26)
        + struct.pack("<IHHHH", 12, 2, 1, 1, 24)
        + bytes([1, 2, 3, 4, 5, 6, 0, 0])
    )
    assert read_image(data).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    with pytest.raises(ImageError, match="is cut short: a BMP with rows missing"):
        read_image(data[:-1])


@pytest.mark.parametrize(
    ("ink", "bgr"),
    [
        ((255, 0, 0, 0), (255, 255, 0)),
        ((0, 255, 255, 0), (0, 0, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0,) * 4, (255,) * 3),
    ],
)
def test_cmyk_jpeg(ink, bgr):
    data = encode(flat("CMYK", ink), "JPEG")
    np.testing.assert_allclose(read_image(data)[4, 8], bgr, atol=2)  # as Adobe stores it, inverted
    marker = data.index(b"\xff\xee")
    plain = data[:marker] + data[marker + 16 :]  # without Adobe's marker the same numbers are ink
    with Image.open(io.BytesIO(plain)) as picture:
        expected = picture.convert("RGB").getpixel((8, 4))[::-1]
    np.testing.assert_allclose(read_image(plain)[4, 8], expected, atol=2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_picture_of_several_counts(kind):
    red, green = flat("RGB", (255, 0, 0)), flat("RGB", (0, 255, 0))
    image = read_image(encode(red, kind, save_all=True, append_images=[green, red]))
    assert np.unique(image.reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]


def test_tiffs_that_opencv_would_get_wrong():
    tag = struct.pack("<HHI", 262, 3, 1)  # photometric: 1 is black at 0, 0 is white at 0
    deep = encode(Image.fromarray(np.full((8, 8), 9, np.uint16)), "TIFF")
    with pytest.raises(ImageError, match="stores white as 0"):
        read_image(replace(deep, tag + b"\1\0", tag + b"\0\0"))
    with pytest.raises(ImageError, match="float32 pixels"):
        read_image(encode(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"))


# ---------------------------------------------------------------- sources and caps


def test_sources_that_are_no_file(tmp_path):
    for source, message in [
        (tmp_path, "is a folder, not an image"),
        (tmp_path / "no.jpg", "does not exist"),
        ("https://example.org/face.jpg", "does not exist"),
        (f"{tmp_path}/{'a' * 300}.jpg", "cannot be read"),
        ("a\0b.jpg", "cannot be read"),
    ]:
        with pytest.raises(ImageError) as caught:
            read_image(source)
        assert str(caught.value).startswith(f"{source} {message}")
    with pytest.raises(ImageError, match="not from ndarray; as_bgr takes arrays"):
        read_image(np.zeros((2, 2, 3), np.uint8))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="device or pipe"):
        read_image(tmp_path / "pipe.jpg")


def test_the_caps_are_inclusive(tmp_path, monkeypatch):
    data = encode(flat("RGB", 0, (16, 8)), "PNG")
    monkeypatch.setattr(module, "MAX_PIXELS", 128)
    monkeypatch.setattr(module, "MAX_BYTES", len(data))
    assert read_image(data).shape == (8, 16, 3)
    (tmp_path / "a.png").write_bytes(data + b"\0")
    for source in (data + b"\0", tmp_path / "a.png"):
        with pytest.raises(ImageError, match="more bytes than the limit"):
            read_image(source)


def test_a_huge_file_is_not_even_read(tmp_path, monkeypatch):
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(64 * 2**20 + 1)  # sparse: takes no space
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the file was read"))
    with pytest.raises(ImageError, match=r"huge\.jpg has more bytes than the limit of 64 MiB"):
        read_image(tmp_path / "huge.jpg")


# ---------------------------------------------------------------- arrays


def test_as_bgr_hands_back_what_is_right_already():
    image = np.zeros((4, 5, 3), np.uint8)
    assert as_bgr(image) is image
    assert np.shares_memory(as_bgr(image[::2, ::-1]), image)


def test_as_bgr_converts():
    assert as_bgr(np.array([[7, 8]], np.uint8)).tolist() == [[[7] * 3, [8] * 3]]
    assert as_bgr(np.array([[[7], [8]]], np.uint8)).tolist() == [[[7] * 3, [8] * 3]]
    assert as_bgr(np.array([[[0, 25700, 65535]]], np.uint16)).tolist() == [[[0, 100, 255]]]
    assert as_bgr(np.full((6, 4), 514, np.uint16).T).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "not float32; scale it to 0..255"),
        (np.zeros((4, 4), bool), "not bool"),
        (np.zeros((4, 4, 3), np.int64), "not int64"),
        (np.zeros((3, 4, 5), np.uint8), r"not \(3, 4, 5\); give one image at a time, channels last"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"not \(1, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"not \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"must have pixels; this one has shape \(0, 4, 3\)"),
        ([[1, 2]], "must be a numpy array, not list"),
        ("a.jpg", "must be a numpy array, not str; read_image takes files"),
        (None, "must be a numpy array, not NoneType"),
    ],
)
def test_as_bgr_refuses_and_says_why(array, message):
    with pytest.raises(ImageError, match=message):
        as_bgr(array)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", module.SUFFIXES)
def test_what_is_written_is_read_again(tmp_path, suffix):
    y, x = np.mgrid[:24, :32]  # without edges, which JPEG blurs
    image = np.stack([x * 4, y * 4, 255 - x * 2 - y * 2], -1).astype(np.uint8)
    path = tmp_path / f"out{suffix.upper()}"
    path.write_bytes(b"old")
    write_image(path, image)
    np.testing.assert_allclose(read_image(path), image, atol=8 if "jp" in suffix else 0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "old.jpg").write_bytes(b"old")
    (tmp_path / "folder.png").mkdir()
    image = np.zeros((2, 2, 3), np.uint8)
    for path, array, message in [
        ("old.jpg", np.zeros((1, 70_000, 3), np.uint8), "does not encode 70000 x 1 pixels as .jpg"),
        ("old.jpg", np.zeros((2, 2)), "not float64"),
        ("new.gif", image, "its suffix must be one of .bmp, .jpeg, .jpg"),
        ("new", image, "its suffix must be one of"),
        ("folder.png", image, "cannot write"),
        ("no/such/folder.png", image, "No such file or directory"),
        ("old.jpg/new.png", image, "cannot write"),
        ("a\0b.png", image, "null byte"),
    ]:
        with pytest.raises(ImageError, match=message):
            write_image(tmp_path / path, array)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "old.jpg"]
    assert (tmp_path / "old.jpg").read_bytes() == b"old"
