from __future__ import annotations

import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fuzzing import fuzz

from facemtl.data import cache as cache_module
from facemtl.data.cache import PATCH_SCALE, CropCache, build_cache
from facemtl.data.mtfl import read_mtfl_file
from facemtl.data.sample import FaceSample, face_box
from facemtl.errors import DataError, ImageError
from facemtl.geometry import box_from_five, crop_matrix, warp_crop
from facemtl.image import read_image, write_image

P = 48
FIVE = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)
NOWHERE = np.full((5, 2), np.nan, np.float32)


@pytest.fixture
def samples(tiny_mtfl, tmp_path) -> list[FaceSample]:
    """Eight faces in a folder of their own, free to be changed."""
    folder = tmp_path / "faces"
    folder.mkdir()
    chosen = read_mtfl_file(tiny_mtfl, "training.txt")[:8]
    return [replace(s, image=Path(shutil.copy2(s.image, folder))) for s in chosen]


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "caches" / "new"


def build(samples: list[FaceSample], folder: Path, size: int = P, channels: int = 1) -> CropCache:
    return build_cache(samples, folder, size, channels, progress=False)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# What a patch shows


def test_a_grey_cache(samples, folder):
    cache = build(samples, folder, channels=1)
    assert len(cache) == 8
    assert (cache.patches.shape, cache.patches.dtype) == ((8, P, P), np.uint8)
    assert (cache.points.shape, cache.points.dtype) == ((8, 5, 2), np.float32)
    assert cache.schema == "mtfl5"
    assert set(cache.labels) == {"glasses", "smile", "gender", "pose"}
    for task, labels in cache.labels.items():
        assert labels.dtype == np.int64
        assert labels.tolist() == [s.labels[task] for s in samples]


def test_a_patch_is_the_crop_of_twice_the_face_box(samples, folder):
    assert PATCH_SCALE == 2
    colour = build(samples, folder, channels=3)
    grey = build(samples, folder, channels=1)
    assert colour.patches.shape == (8, P, P, 3)
    for i, sample in enumerate(samples):
        crop = warp_crop(read_image(sample.image), crop_matrix(face_box(sample), P, scale=2), P)
        np.testing.assert_array_equal(colour.patches[i], crop)
        np.testing.assert_array_equal(grey.patches[i], cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY))


def test_the_face_box_is_the_middle_half_of_every_patch(samples, folder):
    cache = build(samples, folder, size=96)
    np.testing.assert_array_equal(cache.box, [23.5, 23.5, 71.5, 71.5])
    for points in cache.points:
        np.testing.assert_allclose(box_from_five(points), cache.box, atol=1e-3)


def test_the_points_lie_on_the_picture_of_the_face(tmp_path, folder):
    image = np.zeros((120, 110, 3), np.uint8)
    for x, y in FIVE.astype(int):
        cv2.circle(image, (x, y), 3, (255, 255, 255), -1)
    write_image(tmp_path / "dots.png", image)
    cache = build([FaceSample(tmp_path / "dots.png", FIVE, "mtfl5", {})], folder, size=96)
    dark = cache.patches[0].copy()
    for x, y in np.round(cache.points[0]).astype(int):
        assert dark[y, x] > 250
        cv2.circle(dark, (int(x), int(y)), 4, 0, -1)
    assert dark.max() < 20  # and there is nothing elsewhere


def test_colours_stay_blue_green_red(tmp_path, folder):
    image = np.full((120, 110, 3), (200, 100, 50), np.uint8)
    write_image(tmp_path / "colour.png", image)
    cache = build([FaceSample(tmp_path / "colour.png", FIVE, "mtfl5", {})], folder, channels=3)
    assert cache.patches[0, P // 2, P // 2].tolist() == [200, 100, 50]


# Where the face is


def test_missing_points_stay_missing_and_the_box_of_the_set_is_cut(samples, folder):
    box = np.array([50, 60, 130, 140], np.float32)
    some = replace(samples[0], points=np.where([[False], [True], [False], [False], [False]], NOWHERE, FIVE), box=box)
    none = replace(samples[1], points=NOWHERE, box=box)
    cache = build([some, none], folder)
    assert np.isnan(cache.points[0, 1]).all()
    assert np.isfinite(cache.points[0, [0, 2, 3, 4]]).all()
    assert np.isnan(cache.points[1]).all()
    # the box becomes the middle half of the patch: (30, 40) lies 20 pixels before it, and a patch pixel is 160 / 48
    np.testing.assert_allclose(cache.points[0, 0], cache.box[:2] - np.multiply(20, 48 / 160), rtol=1e-6)


@pytest.mark.parametrize(
    "points, reason", [(NOWHERE, "neither points nor a box say where the face is"), (FIVE * 0, "all in one place")]
)
def test_a_face_that_is_nowhere_is_named(samples, folder, points, reason):
    bad = replace(samples[1], points=points, box=None, source="training.txt:7")
    with pytest.raises(DataError, match=f"^training.txt:7: .*{reason}"):
        build([samples[0], bad], folder)


def test_a_face_without_a_row_is_named_by_its_image(samples):
    with pytest.raises(DataError, match=f"^{re.escape(str(samples[0].image))}: neither"):
        face_box(replace(samples[0], points=NOWHERE, box=None, source=""))


# Kept on disk


def test_a_cache_is_memory_mapped_and_cannot_be_written_to(samples, folder):
    cache = build(samples, folder)
    assert isinstance(cache.patches, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cache.patches[0] = 0


def test_the_same_faces_are_cut_once(samples, folder, monkeypatch):
    first = build(samples, folder)
    monkeypatch.setattr(cache_module, "read_picture", lambda path: pytest.fail("a picture was read again"))
    again = build(samples, folder)
    np.testing.assert_array_equal(again.patches, first.patches)
    np.testing.assert_array_equal(again.points, first.points)


def test_a_changed_picture_is_cut_again(samples, folder):
    before = build(samples, folder).patches.copy()
    write_image(samples[2].image, 255 - read_image(samples[2].image))
    after = build(samples, folder).patches
    assert [i for i in range(8) if (before[i] != after[i]).any()] == [2]


def test_a_picture_changed_in_place_without_changing_its_size_is_cut_again(tmp_path, folder):
    path, points = tmp_path / "face.bmp", FIVE
    write_image(path, np.full((120, 110, 3), 10, np.uint8))
    sample = FaceSample(path, points, "mtfl5", {})
    assert build([sample], folder).patches.max() == 10
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    write_image(path, np.full((120, 110, 3), 20, np.uint8))
    assert path.stat().st_size == size
    os.utime(path, ns=(time + 1000, time + 1000))
    assert build([sample], folder).patches.max() == 20


def test_a_picture_whose_time_was_set_back_is_cut_again(tmp_path, folder):
    path = tmp_path / "face.bmp"
    write_image(path, np.full((120, 110, 3), 10, np.uint8))
    sample = FaceSample(path, FIVE, "mtfl5", {})
    assert build([sample], folder).patches.max() == 10
    before = path.stat()
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    path.write_bytes(path.read_bytes().replace(b"\x0a\x0a\x0a", b"\x14\x14\x14"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert build([sample], folder).patches.max() == 20
    assert len(files(folder)) == 1


def test_a_picture_that_changes_during_the_cut_is_cut_again(samples, folder, monkeypatch):
    read = cache_module.read_picture

    def read_and_change(image: Path) -> np.ndarray:
        pixels = read(image)
        if image == samples[2].image and not os.environ.get("CHANGED"):
            monkeypatch.setenv("CHANGED", "1")
            time.sleep(0.02)
            os.utime(image, ns=(image.stat().st_atime_ns, image.stat().st_mtime_ns))  # touched, no more
        return pixels

    monkeypatch.setattr(cache_module, "read_picture", read_and_change)
    build(samples, folder)
    count = []
    monkeypatch.setattr(cache_module, "read_picture", lambda image: count.append(image) or read(image))
    build(samples, folder)
    assert len(count) == 8
    build(samples, folder)
    assert len(count) == 8


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" + data])
def test_a_damaged_file_is_cut_again(samples, folder, damage):
    whole = build(samples, folder).patches.copy()
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(build(samples, folder).patches, whole)


@pytest.mark.parametrize("cases", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_bytes_changed_anywhere_never_give_another_patch(samples, folder, cases):
    cache = build(samples[:2], folder, size=16)
    (path,) = folder.iterdir()
    assert path.stat().st_size == 128 + 2 * 16 * 16 + 8  # of which most changes hit the pixels, of no known value
    assert cache.patches.nbytes == 2 * 16 * 16
    del cache  # a mapped file must not be cut short

    def equal(expected: np.ndarray, found: np.ndarray, numbers: bool) -> None:
        np.testing.assert_array_equal(found, expected)

    seen = fuzz(path, lambda: build(samples[:2], folder, size=16).patches.copy(), cases, seed=0, judge=equal)
    assert seen == {"read": cases}


def test_one_bit_of_one_pixel_is_noticed_and_a_file_of_earlier_versions_still_read(samples, folder, monkeypatch):
    build(samples, folder)
    (path,) = folder.iterdir()
    good = path.read_bytes()
    cut = []
    monkeypatch.setattr(cache_module, "read_picture", lambda image: cut.append(image) or read_image(image))
    path.write_bytes(good[:-8])  # they had no checksum
    build(samples, folder)
    assert not cut
    path.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    build(samples, folder)
    assert len(cut) == 8
    assert path.read_bytes() == good
    path.write_bytes(good[:-3])  # within the checksum
    build(samples, folder)
    assert len(cut) == 16


def test_several_that_cut_at_once_leave_one_whole_file(samples, folder):
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: build(samples, folder).patches, range(4)))
    for patches in caches[1:]:
        np.testing.assert_array_equal(patches, caches[0])
    assert len(files(folder)) == 1


def test_pictures_alike_in_size_time_and_points_are_told_apart(tmp_path, folder):
    caches = []
    for value in (10, 20):
        path = tmp_path / f"{value}.bmp"
        write_image(path, np.full((120, 110, 3), value, np.uint8))
        os.utime(path, ns=(10**18, 10**18))
        caches.append(build([FaceSample(path, FIVE, "mtfl5", {})], folder))
    assert [cache.patches.max() for cache in caches] == [10, 20]


def test_a_moved_point_moves_the_patch(samples, folder):
    before = build(samples, folder)
    moved = samples[3].points.copy()
    moved[2, 0] += 5
    after = build([*samples[:3], replace(samples[3], points=moved), *samples[4:]], folder)
    assert [i for i in range(8) if (before.patches[i] != after.patches[i]).any()] == [3]
    np.testing.assert_allclose(box_from_five(after.points[3]), after.box, atol=1e-3)


def test_changed_labels_count_without_cutting_again(samples, folder):
    build(samples, folder)
    other = [replace(s, labels={**s.labels, "smile": 1 - s.labels["smile"]}) for s in samples]
    assert build(other, folder).labels["smile"].tolist() == [1 - s.labels["smile"] for s in samples]
    assert len(files(folder)) == 1


def test_caches_of_other_sizes_colours_and_orders_lie_side_by_side(samples, folder):
    build(samples, folder)
    assert build(samples, folder, size=32).patches.shape == (8, 32, 32)
    assert build(samples, folder, channels=3).patches.shape == (8, P, P, 3)
    assert build(samples[:4], folder).patches.shape == (4, P, P)
    turned = build(samples[::-1], folder)
    np.testing.assert_array_equal(turned.patches, build(samples, folder).patches[::-1])
    assert len(files(folder)) == 5
    assert all(re.fullmatch(r"patches-[0-9a-f]{16}\.npy", name) for name in files(folder))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError("full")])
def test_an_interrupted_cut_leaves_nothing(samples, folder, monkeypatch, interruption):
    seen = []

    def read(path: Path) -> np.ndarray:
        seen.append(path)
        if len(seen) == 5:
            assert len(files(folder)) == 1  # so there is something to clean up
            raise interruption
        return read_image(path)

    monkeypatch.setattr(cache_module, "read_picture", read)
    with pytest.raises((KeyboardInterrupt, MemoryError)):
        build(samples, folder)
    assert files(folder) == set()
    monkeypatch.undo()
    assert build(samples, folder).patches[4:].any()


def test_a_damaged_picture_is_named_and_leaves_nothing(samples, folder):
    samples[5].image.write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=re.escape(str(samples[5].image))):
        build(samples, folder)
    assert files(folder) == set()


def test_a_missing_picture_is_named(samples, folder):
    samples[5].image.unlink()
    with pytest.raises(ImageError, match=rf"{re.escape(str(samples[5].image))} cannot be read: No such file"):
        build(samples, folder)


# What fits together


def test_no_samples_are_no_cache(folder):
    with pytest.raises(DataError, match="no samples"):
        build([], folder)


def test_schemas_and_tasks_are_not_mixed(samples, folder):
    other = FaceSample(samples[0].image, np.zeros((68, 2), np.float32), "ibug68", samples[0].labels)
    fewer = replace(samples[1], labels={"smile": 0})
    for mixed in ([samples[0], other], [samples[0], fewer]):
        with pytest.raises(DataError, match="share their landmark schema and their tasks"):
            build(mixed, folder)


def test_a_missing_label_is_kept_as_missing(samples, folder):
    unknown = replace(samples[0], labels={**samples[0].labels, "gender": -1})
    assert build([unknown, samples[1]], folder).labels["gender"].tolist() == [-1, samples[1].labels["gender"]]


def test_a_subset_has_these_rows_in_this_order(samples, folder):
    cache = build(samples, folder, channels=3)
    part = cache.subset(np.array([6, 1, 6]))
    assert len(part) == 3
    assert part.schema == cache.schema
    np.testing.assert_array_equal(part.patches, cache.patches[[6, 1, 6]])
    np.testing.assert_array_equal(part.points, cache.points[[6, 1, 6]])
    for task in cache.labels:
        assert part.labels[task].tolist() == [samples[i].labels[task] for i in (6, 1, 6)]
    np.testing.assert_array_equal(part.box, cache.box)


def test_a_cut_shows_its_progress_only_where_it_is_wanted(samples, folder, capsys):
    build_cache(samples, folder, P, 1, progress=False)
    assert capsys.readouterr().err == ""
    build_cache(samples, folder, 32, 1)
    assert "cutting patches" in capsys.readouterr().err
