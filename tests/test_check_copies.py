"""Pictures looked at once, and which of them are one picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from facemtl.checking.copies import Copy, find_copies, judge_copies
from facemtl.checking.pictures import MIRROR_BITS, describe, look_at
from facemtl.data.sample import FaceSample
from facemtl.data.synthetic import write_mtfl_layout
from facemtl.image import read_image, write_image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Twelve different rendered faces."""
    root = tmp_path_factory.mktemp("faces")
    write_mtfl_layout(root, train=12, test=1, seed=5)
    paths = sorted(root.rglob("*.png")) or sorted(root.rglob("*.jpg"))
    return paths[:12]


def reencoded(path: Path, to: Path, scale: float = 1.0, quality: int = 60, mirror: bool = False) -> Path:
    image = read_image(path)[:, ::-1] if mirror else read_image(path)
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    to.write_bytes(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes())
    return to


def face(image: Path, source: str = "", **fields) -> FaceSample:
    values = {"points": np.full((5, 2), np.nan, np.float32), "schema": "mtfl5", "labels": {}}
    return FaceSample(image=image, source=source or image.name, **(values | fields))


def test_a_picture_in_numbers(tmp_path):
    # Left half dark, right half bright: the first odd horizontal frequency is negative, vertical ones are 0.
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:] = 200
    (tmp_path / "b.jpg").write_text("no picture")
    write_image(tmp_path / "a.png", image)
    seen = look_at([tmp_path / "a.png", tmp_path / "b.jpg"])
    assert seen.sizes.tolist() == [[96, 64], [0, 0]] and seen.grey.tolist() == [True, False]
    assert list(seen.errors) == [1] and "b.jpg" in seen.errors[1]
    assert seen.thumbs[0].reshape(32, 32)[0, [0, -1]] == pytest.approx([-1 / 32, 1 / 32])  # 1024 values of length 1
    assert not seen.thumbs[1].any()
    bits = f"{int(seen.hashes[0]):064b}"[::-1]
    assert bits[0] == "1" and bits[1] == "0"


def test_the_mirror_images_hash_follows_from_the_pictures(pictures):
    for path in pictures:
        image = read_image(path)
        hash_, thumb = describe(image)
        turned, other = describe(np.ascontiguousarray(image[:, ::-1]))
        assert np.bitwise_count(hash_ ^ turned ^ MIRROR_BITS) <= 2  # a frequency near 0 may fall on either side
        assert thumb.reshape(32, 32)[:, ::-1].ravel() @ other == pytest.approx(1, abs=1e-3)


def test_a_picture_of_one_colour_is_like_no_other(tmp_path):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", np.full((40, 40, 3), 90, np.uint8))
    assert find_copies(look_at([tmp_path / "a.png", tmp_path / "b.png"])) == []


def test_copies_are_found_in_whatever_form(pictures, tmp_path):
    first, second, third, fourth = pictures[:4]
    same = tmp_path / "same.png"
    same.write_bytes(first.read_bytes())
    paths = [
        *pictures,
        same,
        reencoded(second, tmp_path / "again.jpg"),
        reencoded(third, tmp_path / "small.jpg", scale=0.5, quality=40),
        reencoded(fourth, tmp_path / "mirror.jpg", scale=0.7, mirror=True),
    ]
    found = {(c.first, c.second): c.how for c in find_copies(look_at(paths))}
    assert found == {(0, 12): "the same file", (1, 13): "encoded anew", (2, 14): "resized", (3, 15): "mirrored"}


def judged(copy: Copy, one: FaceSample, other: FaceSample, parts=("a train", "a train")) -> list[str]:
    return [f.kind for f in judge_copies([copy], [[0], [1]], [one, other], parts)]


def test_copies_in_two_splits_are_a_leak_also_across_sets(pictures):
    copy = Copy(0, 1, "encoded anew", 1.0)
    one, other = face(pictures[0]), face(pictures[1])
    assert judged(copy, one, other) == ["duplicate"]
    assert judged(copy, one, other, ("a train", "a test")) == ["leak"]
    assert judged(copy, one, other, ("a train", "b test")) == ["leak"]
    assert judged(copy, one, other, ("a train", "b train")) == ["duplicate"]


def test_copies_whose_labels_differ_contradict_each_other(pictures):
    encoded, mirrored = Copy(0, 1, "encoded anew", 1.0), Copy(0, 1, "mirrored", 1.0)
    smiling, not_smiling, unknown = (face(pictures[0], labels={"smile": label, "pose": 1}) for label in (0, 1, -1))
    assert judged(encoded, smiling, not_smiling) == ["contradicting_copies"]
    assert judged(encoded, smiling, unknown) == ["duplicate"]
    left, right = (face(pictures[0], angles=np.float32([yaw, 0, 0])) for yaw in (20, -20))
    assert judged(mirrored, left, right) == ["duplicate"]
    assert judged(encoded, left, face(pictures[0], angles=np.float32([30, 0, 0]))) == ["contradicting_copies"]
    five = np.float32([[40, 40], [60, 40], [50, 50], [40, 60], [60, 60]])
    there = face(pictures[0], points=five)
    # The unit is 11.3 pixels: 0.7 is less than a tenth of it, 7 is more.
    assert judged(encoded, there, face(pictures[0], points=five + 0.5)) == ["duplicate"]
    assert judged(encoded, there, face(pictures[0], points=five + 5)) == ["contradicting_copies"]
    assert judged(mirrored, there, face(pictures[0], points=five + 5)) == ["duplicate"]
