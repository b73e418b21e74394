"""WebDataset shards: what is written is read, in an order that is known, by everybody together exactly once."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fuzzing import whole
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import run_script
from tiny_training import results, tiny_recipe, tiny_set, train_quietly

from facemtl.data.cache import build_cache
from facemtl.data.mtfl import read_mtfl_file
from facemtl.data.sample import FaceSample, read_picture
from facemtl.data.shard_batches import shard_loader
from facemtl.data.shards import ShardStream, read_index, read_shard, read_shards, write_shards
from facemtl.errors import DataError, ImageError
from facemtl.image import read_image
from facemtl.training.training_data import TrainingData


@pytest.fixture(scope="module")
def folder(tmp_path_factory, faces) -> Path:
    """40 pictures in six shards of 7, the last with 5."""
    folder = tmp_path_factory.mktemp("shards") / "train"
    write_shards(faces, folder, shard_size=7)
    return folder


def same(a: FaceSample, b: FaceSample) -> bool:
    arrays = all(
        (x is None and y is None) or np.array_equal(x, y, equal_nan=True)
        for x, y in ((a.points, b.points), (a.box, b.box), (a.angles, b.angles))
    )
    others = ("schema", "labels", "source", "group", "strata")
    return arrays and all(getattr(a, name) == getattr(b, name) for name in others)


# Written and read


def test_a_shard_holds_pictures_and_json(tmp_path, faces):
    (path,) = write_shards(faces[:2], tmp_path, seed=None)
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["00000000.png", "00000000.json", "00000001.png", "00000001.json"]
        assert archive.extractfile("00000001.png").read() == faces[1].image.read_bytes()
        record = json.load(archive.extractfile("00000000.json"))
    assert record["version"] == 1
    (face,) = record["faces"]
    assert np.float32(face["points"]).tolist() == faces[0].points.tolist()
    assert face["labels"]["smile"] == ("smiling", "not_smiling")[faces[0].labels["smile"]]


def test_faces_and_pictures_come_back(folder, faces):
    found = {s.source: s for path, _ in read_index(folder) for samples in read_shard(path) for s in samples}
    assert len(found) == len(faces) == 40
    for face in faces:
        assert same(found[face.source], face)
        np.testing.assert_array_equal(read_picture(found[face.source].image), read_image(face.image))


def test_what_is_missing_stays_missing(tmp_path, faces):
    points = faces[0].points.copy()
    points[2] = np.nan
    bare = FaceSample(faces[0].image, points, "mtfl5", {"smile": -1}, box=np.float32([1, 2.1, 3, 4]))
    (path,) = write_shards([bare], tmp_path)
    ((found,),) = read_shard(path)
    assert same(found, bare)


def test_faces_of_one_picture_share_it(tmp_path, faces):
    two = [faces[0], faces[1], replace(faces[0], source="other")]
    (path,) = write_shards(two, tmp_path, seed=None)
    assert [[s.source for s in samples] for samples in read_shard(path)] == [
        [faces[0].source, "other"],
        [faces[1].source],
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_another_order(tmp_path, folder, faces):
    def written(name: str, seed: int | None) -> list[bytes]:
        return [path.read_bytes() for path in write_shards(faces, tmp_path / name, 7, seed)]

    assert written("again", 0) == [path.read_bytes() for path, _ in read_index(folder)]
    assert written("other", 1) != written("again", 0)
    orders = [[s.source for path in write_shards(faces, tmp_path / "n", 7, None) for (s,) in read_shard(path)]]
    assert orders == [[face.source for face in faces]]


def test_shards_are_made_of_shards(tmp_path, folder, faces):
    again = [s for path, _ in read_index(folder) for samples in read_shard(path) for s in samples]
    write_shards(again, tmp_path, 7, seed=None)
    assert [p.read_bytes() for p, _ in read_index(tmp_path)] == [p.read_bytes() for p, _ in read_index(folder)]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_the_package_webdataset_reads_them(folder):
    webdataset = pytest.importorskip("webdataset")
    found = list(webdataset.WebDataset(str(read_index(folder)[0][0]), shardshuffle=False))
    assert [sorted(set(entry) - {"__key__", "__url__", "__local_path__"}) for entry in found] == [["json", "png"]] * 7
    ours = read_shard(read_index(folder)[0][0])
    assert [entry["png"] for entry in found] == [samples[0].image.read() for samples in ours]


# What is wrong


def test_no_samples_and_no_index(tmp_path):
    with pytest.raises(DataError, match="no samples"):
        write_shards([], tmp_path)
    with pytest.raises(DataError, match=r"shards.json is missing: expected a folder that tools/make_shards.py wrote"):
        read_index(tmp_path)


def test_half_written_shards_have_no_index(tmp_path, faces):
    write_shards(faces[:4], tmp_path, 2)
    broken = [*faces[:2], replace(faces[3], image=tmp_path / "none.png")]
    with pytest.raises(DataError, match=r"none.png cannot be read"):
        write_shards(broken, tmp_path, 2)
    with pytest.raises(DataError, match="is missing"):
        read_index(tmp_path)


def test_a_missing_or_changed_shard(tmp_path, faces):
    first, second = write_shards(faces[:4], tmp_path, 2)
    ((sample,), _) = read_shard(first)
    os.utime(first)
    with pytest.raises(DataError, match="has changed since it was listed"):
        sample.image.read()
    second.unlink()
    with pytest.raises(DataError, match=r"1 of 2 shards are missing: shard-000001.tar"):
        read_index(tmp_path)


def rewritten(path: Path, change) -> None:
    """The members of a shard as ``change`` has them."""
    with tarfile.open(path) as archive:
        found = [(info.name, archive.extractfile(info).read()) for info in archive]
    with tarfile.open(path, "w") as archive:
        for name, data in change(found):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, __import__("io").BytesIO(data))


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda m: m[:3], "00000001.png has no JSON"),
        (lambda m: [m[0], *m[2:]], "00000000.png has no JSON"),
        (lambda m: m[1:], "00000000.json does not follow its picture"),
        (lambda m: m[:2], "it has 1 pictures, its index says 2"),
        (lambda m: [m[0], ("00000000.json", b"[1")], "Expecting"),
        (lambda m: [m[0], ("00000000.json", b"[]")], "list indices"),
        (lambda m: [m[0], (m[1][0], m[1][1].replace(b"mtfl5", b"mtfl6"))], "unknown landmark schema 'mtfl6'"),
        (lambda m: [m[0], (m[1][0], m[1][1].replace(b'"smile": "', b'"smile": "x'))], "unknown label smile = 'x"),
        (lambda m: [m[0], (m[1][0], m[1][1].replace(b'"points": [[', b'"points": [[1e39, 1], ['))], "numbers of shape"),
        (lambda m: [("../a.png", m[0][1]), m[1]], "leads out of its archive"),
    ],
)
def test_a_shard_that_is_none(tmp_path, faces, change, reason):
    (path,) = write_shards(faces[:2], tmp_path, seed=None)
    rewritten(path, change)
    with pytest.raises(DataError, match=reason):
        read_shard(path, 2)


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 10**6), mask=st.integers(1, 255))
def test_a_flipped_byte_is_an_error_or_a_picture_or_a_valid_face(tmp_path_factory, folder, place, mask):
    data = bytearray(read_index(folder)[0][0].read_bytes())
    data[place % len(data)] ^= mask
    path = tmp_path_factory.mktemp("flipped") / "shard-000000.tar"
    path.write_bytes(data)
    try:
        found = list(read_shard(path, 7))
        assert len(found) == 7
        for samples in found:
            assert read_picture(samples[0].image).ndim == 3
            for sample in samples:
                whole(sample)
    except (DataError, ImageError) as error:
        assert "shard-000000" in str(error)


def test_a_damaged_picture_is_named_by_shard_and_member(tmp_path, faces):
    (tmp_path / "a.png").write_bytes(b"no picture")
    (path,) = write_shards([replace(faces[0], image=tmp_path / "a.png")], tmp_path)
    ((sample,),) = read_shard(path)
    with pytest.raises(ImageError, match=r"shard-000000.tar:00000000.png is not an image"):
        read_picture(sample.image)


# Streaming


def sources(batches) -> list[str]:
    return [samples[0].source for batch in batches for samples in batch]


def stream(folder: Path, **options) -> ShardStream:
    return ShardStream(folder, **{"batch": 4, "seed": 5, "window": 2, **options})


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own(folder, faces):
    one = stream(folder)
    orders = []
    for epoch in range(3):
        one.resume(epoch)
        orders.append(sources(one.batches()))
        assert Counter(orders[-1]) == Counter(face.source for face in faces)
    assert len({tuple(order) for order in orders}) == 3
    again = stream(folder)
    assert sources(again.batches()) == orders[0]
    assert sources(stream(folder, seed=6).batches()) != orders[0]
    assert len(one) == 10


def test_only_the_shards_of_a_window_are_mixed(folder):
    shard_of = {s.source: i for i, (path, _) in enumerate(read_index(folder)) for (s,) in read_shard(path)}
    order = [shard_of[source] for source in sources(stream(folder, batch=1).batches())]
    windows, rest = [], order
    while rest:
        size = 7 * len(set(rest[:12])) - 2 * (5 in rest[:12])
        windows.append(set(rest[:size]))
        rest = rest[size:]
    assert sorted(map(len, windows)) == [2, 2, 2]
    assert set.union(*windows) == set(range(6))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_ranks_and_workers_together_see_every_picture_once(folder, faces, ranks, workers, batch):
    seen = Counter()
    for rank in range(ranks):
        one = stream(folder, batch=batch, rank=rank, ranks=ranks)
        for worker in range(workers):
            seen.update(sources(one.batches(worker, workers)))
    assert seen == Counter(face.source for face in faces)


@settings(deadline=None, max_examples=15)
@given(
    batch=st.integers(1, 12),
    window=st.integers(1, 7),
    start=st.integers(0, 45),
    before=st.integers(1, 3),
    after=st.integers(1, 3),
    workers=st.integers(1, 3),
)
def test_resumed_with_any_ranks_nothing_is_lost_or_seen_twice(folder, batch, window, start, before, after, workers):
    whole = list(stream(folder, batch=batch, window=window).batches())
    start = min(start, len(whole)) // before * before  # all ranks have taken as many steps
    seen = sources(whole[:start])
    for rank in range(after):
        one = stream(folder, batch=batch, window=window, rank=rank, ranks=after)
        one.resume(0, start)
        for worker in range(workers):
            seen += sources(one.batches(worker, workers))
    assert Counter(seen) == Counter(sources(whole))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_batches_in_order_whatever_its_workers(folder, workers):
    one = stream(folder)
    one.resume(1, 3)
    found = list(shard_loader(one, workers))
    assert [[faces[0].source for _, faces in batch] for batch in found] == [
        [samples[0].source for samples in batch] for batch in one.batches()
    ]
    uninterrupted = stream(folder)
    uninterrupted.resume(1)
    assert [faces[0].source for batch in found for _, faces in batch] == sources(uninterrupted.batches())[3 * 4 :]
    assert len(found) == 7
    for image, faces in (example for batch in found for example in batch):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, read_picture(faces[0].image))


def test_shares_out_of_range(folder):
    for options in ({"batch": 0}, {"window": 0}, {"rank": 2, "ranks": 2}):
        with pytest.raises(DataError, match="expected a batch"):
            stream(folder, **options)


# Training


def test_the_cache_of_shards_is_that_of_the_pictures(tmp_path, folder, faces):
    from_files = build_cache(faces, tmp_path, 32, 1, progress=False)
    samples = [s for path, _ in read_index(folder) for samples in read_shard(path) for s in samples]
    from_shards = build_cache(samples, tmp_path, 32, 1, progress=False)
    order = [next(i for i, face in enumerate(faces) if face.source == s.source) for s in samples]
    np.testing.assert_array_equal(from_shards.patches, from_files.patches[order])
    assert len(list(tmp_path.iterdir())) == 2
    assert build_cache(samples, tmp_path, 32, 1, progress=False).patches.filename == from_shards.patches.filename


def test_a_recipe_trains_from_shards_as_from_files(tmp_path, monkeypatch, capsys):
    root = tiny_set(tmp_path / "set")
    arguments = ["mtfl_layout", "--data-root", root, "--out", tmp_path / "shards", "--shard-size", "5"]
    assert run_script("tools/make_shards.py", monkeypatch, *arguments) == 0
    assert "train: 16 faces in 4 shards" in capsys.readouterr().out
    assert [len(read_shards(tmp_path / "shards", split)) for split in ("train", "heldout", "test")] == [16, 8, 4]
    recipe = tiny_recipe(data="shards", tasks=("landmarks", "smile"), epochs=1)
    data = TrainingData.read(recipe, 1, tmp_path / "cache", tmp_path / "shards", progress=False)
    assert train_quietly(recipe, data, tmp_path / "from_shards")
    by_source = {s.source: s for s in read_mtfl_file(root, "training.txt")}
    ordered = [by_source[s.source] for s in read_shards(tmp_path / "shards", "train")]
    heldout = {s.source: s for s in read_mtfl_file(root, "heldout.txt")}
    others = [heldout[s.source] for s in read_shards(tmp_path / "shards", "heldout")]
    files = TrainingData.of(recipe, 1, tmp_path / "cache", ordered, others, progress=False)
    assert train_quietly(recipe, files, tmp_path / "from_files")
    assert results(tmp_path / "from_shards") == results(tmp_path / "from_files")
