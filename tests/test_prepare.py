from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from scripts import load_script

from facemtl.data.mtfl import heldout_rows, read_mtfl, read_mtfl_file
from facemtl.data.synthetic import write_mtfl_layout
from facemtl.errors import DataError
from facemtl.geometry import box_from_five
from facemtl.image import read_image, write_image

SCRIPT = Path(__file__).parents[1] / "datasets" / "mtfl" / "prepare.py"


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    return load_script("datasets/mtfl/prepare.py")


def run(*arguments: str | Path, data: Path | None = None) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "FACEMTL_DATA"}
    if data is not None:
        environment["FACEMTL_DATA"] = str(data)
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def zip_folder(folder: Path, archive: Path, prefix: str = "MTFL/", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as bundle:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                bundle.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


def damage(archive: Path, name: str) -> None:
    """Overwrite the first bytes of a file inside the archive: a wrong checksum if stored, no stream if deflated."""
    with zipfile.ZipFile(archive) as bundle:
        item = bundle.getinfo(name)
    content = bytearray(archive.read_bytes())
    start = item.header_offset + 30 + len(name)
    content[start : start + 8] = b"\xff" * 8
    archive.write_bytes(content)


# As a user runs it


@pytest.mark.parametrize("prefix", ["MTFL/", "", "some/where/"])
def test_a_good_archive_is_unpacked_validated_and_described(tiny_mtfl, tmp_path, prefix):
    archive = zip_folder(tiny_mtfl, tmp_path / "MTFL.zip", prefix)
    data = tmp_path / "not" / "yet" / "there"
    result = run(archive, data=data)
    assert (result.returncode, result.stderr) == (0, "")
    assert "training.txt: 40 faces (train 40)" in result.stdout
    assert "testing.txt: 16 faces (test 16)" in result.stdout
    assert "  boxes: 16" in result.stdout
    labels = [s.labels["smile"] for s in read_mtfl_file(tiny_mtfl, "training.txt")]
    assert f"  smile: smiling {labels.count(0)}, not_smiling {labels.count(1)}" in result.stdout

    unpacked = {p.relative_to(data / "MTFL"): p.read_bytes() for p in (data / "MTFL").rglob("*") if p.is_file()}
    assert unpacked == {p.relative_to(tiny_mtfl): p.read_bytes() for p in tiny_mtfl.rglob("*") if p.is_file()}
    assert [p.name for p in data.iterdir()] == ["MTFL"]
    assert (
        data / "MTFL"
    ).stat().st_mode & 0o777 == data.stat().st_mode & 0o777  # others may read it as far as the rest


def test_an_unpacked_set_is_checked_where_it_is(tiny_mtfl):
    result = run("--check", "--root", tiny_mtfl)
    assert (result.returncode, result.stderr) == (0, "")
    assert "training.txt: 40 faces" in result.stdout


def test_a_check_names_the_bad_rows(tiny_mtfl, tmp_path):
    root = shutil.copytree(tiny_mtfl, tmp_path / "MTFL")
    (root / "train" / "00003.png").unlink()
    with (root / "training.txt").open("a") as labels:
        labels.write("nonsense\n")
    result = run("--check", data=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "2 bad rows" in result.stderr
    assert "training.txt:4: the image train/00003.png is missing" in result.stderr
    assert "training.txt:41: expected 15 fields" in result.stderr


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_archive_leaves_nothing(tiny_mtfl, tmp_path, compression):
    archive = zip_folder(tiny_mtfl, tmp_path / "MTFL.zip", compression=compression)
    damage(archive, "MTFL/testing.txt")
    result = run(archive, data=tmp_path / "data")
    assert result.returncode == 2
    assert result.stderr.startswith(f"{archive} is damaged, copy it again: ")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>"])
def test_what_is_no_zip_file_is_refused(tmp_path, content):
    archive = tmp_path / "MTFL.zip"
    if content is not None:
        archive.write_bytes(content)
    result = run(archive, "--root", tmp_path / "MTFL")
    assert result.returncode == 2
    assert result.stderr == f"{archive} is missing, cut short, or not a zip file: expected the published MTFL.zip\n"
    assert not (tmp_path / "MTFL").exists()


def test_a_folder_that_is_there_is_not_touched(tiny_mtfl, tmp_path):
    archive = zip_folder(tiny_mtfl, tmp_path / "MTFL.zip")
    (tmp_path / "MTFL").mkdir()
    (tmp_path / "MTFL" / "mine.txt").write_text("keep")
    result = run(archive, data=tmp_path)
    assert result.returncode == 2
    assert "is already there: remove it first, or run with --check" in result.stderr
    assert [p.name for p in (tmp_path / "MTFL").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--check"], "set FACEMTL_DATA to the folder of the data sets, or pass --root"),
        ([], "one of the arguments archive --check --write-heldout --measure-frames is required"),
        (["MTFL.zip", "--check"], "not allowed with argument"),
    ],
)
def test_a_call_that_asks_for_nothing_clear_says_so(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


# Its parts


def test_an_archive_without_labels_or_with_two_is_not_the_published_one(prepare, tiny_mtfl, tmp_path):
    none, two = tmp_path / "none.zip", tmp_path / "two.zip"
    zip_folder(tiny_mtfl / "train", none)
    zip_folder(tiny_mtfl, two)
    with zipfile.ZipFile(two, "a") as bundle:
        bundle.writestr("other/training.txt", "")
    for archive, count in ((none, 0), (two, 2)):
        with pytest.raises(DataError, match=f"holds {count} files named training.txt, expected one"):
            prepare.unpack(archive, tmp_path / "data" / "MTFL")
        assert list((tmp_path / "data").iterdir()) == []


def test_an_archive_that_unpacks_to_too_much_is_refused(prepare, tiny_mtfl, tmp_path, monkeypatch):
    archive = zip_folder(tiny_mtfl, tmp_path / "MTFL.zip")
    monkeypatch.setattr(prepare, "MAX_UNPACKED", 100_000)
    with pytest.raises(DataError, match="it is not the published file"):
        prepare.unpack(archive, tmp_path / "data" / "MTFL")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("no space left on device")])
def test_an_interrupted_run_leaves_nothing_half_unpacked(prepare, tiny_mtfl, tmp_path, monkeypatch, interruption):
    archive = zip_folder(tiny_mtfl, tmp_path / "MTFL.zip")

    def interrupted(self: zipfile.ZipFile, folder: Path) -> None:
        for name in self.namelist()[:20]:
            self.extract(name, folder)
        assert (folder / "MTFL" / "test" / "00000.png").is_file()  # so there is something to clean up
        raise interruption

    monkeypatch.setattr(zipfile.ZipFile, "extractall", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError)):
        prepare.unpack(archive, tmp_path / "data" / "MTFL")
    assert list((tmp_path / "data").iterdir()) == []
    monkeypatch.undo()
    prepare.unpack(archive, tmp_path / "data" / "MTFL")
    assert len(read_mtfl_file(tmp_path / "data" / "MTFL", "training.txt")) == 40


# The held-out list


COPIES = {20: 0, 50: 0, 33: 3, 36: 3}  # in both folders; all in a/


@pytest.fixture(scope="module")
def with_duplicates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 faces, a third of them in b/ and the rest in a/; some show the photo of another, brightened and compressed."""
    root = tmp_path_factory.mktemp("duplicates")
    write_mtfl_layout(root, train=60, test=1, seed=2, size=100)
    rows = (root / "training.txt").read_text().splitlines()
    for folder in ("a", "b"):
        (root / folder).mkdir()
    for copy, original in COPIES.items():
        rows[copy] = " ".join([rows[copy].split()[0], *rows[original].split()[1:]])
        image = read_image(root / "train" / f"{original:05d}.png")
        cv2.imwrite(str(root / "train" / f"{copy:05d}.jpg"), cv2.convertScaleAbs(image, alpha=0.9, beta=15))
        write_image(root / "train" / f"{copy:05d}.png", read_image(root / "train" / f"{copy:05d}.jpg"))
    for i, row in enumerate(rows):
        folder = "b" if i % 3 == 2 else "a"
        (root / "train" / f"{i:05d}.png").rename(root / folder / f"{i:05d}.png")
        rows[i] = row.replace("train/", f"{folder}/")
    (root / "training.txt").write_text("\n".join(rows))
    return root


def test_pictures_of_one_photo_form_a_group(prepare, with_duplicates):
    samples = read_mtfl_file(with_duplicates, "training.txt")
    group = prepare.duplicate_groups(samples)
    assert group[0] == group[20] == group[50]
    assert group[3] == group[33] == group[36]
    assert len(np.unique(group)) == 60 - len(COPIES)


def test_heldout_rows_are_a_share_of_each_folder_and_whole_groups(prepare, with_duplicates, monkeypatch):
    monkeypatch.setattr(prepare, "HELDOUT", 30)
    samples = read_mtfl_file(with_duplicates, "training.txt")
    taken = set()
    for seed in range(20):
        rows = prepare.choose_heldout(samples, seed)
        assert len(set(rows)) == 30
        assert rows == sorted(rows)
        assert [sum(samples[row - 1].group == name for row in rows) for name in ("a", "b")] == [20, 10]
        assert not {1, 21, 51} & set(rows)  # a group in two folders is never held out
        taken.add(len({4, 34, 37} & set(rows)))
    assert taken == {0, 3}
    assert prepare.choose_heldout(samples, 3) == prepare.choose_heldout(samples, 3)
    assert prepare.choose_heldout(samples, 3) != prepare.choose_heldout(samples, 4)


def test_the_written_list_is_read_back(prepare, with_duplicates, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "HELDOUT", 30)
    assert prepare.write_heldout(with_duplicates, tmp_path / "rows.txt") == 30
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    monkeypatch.setattr("facemtl.data.mtfl.HELDOUT_ROWS", "rows.txt")
    assert sorted(heldout_rows()) == prepare.choose_heldout(read_mtfl_file(with_duplicates, "training.txt"))
    assert [p.name for p in tmp_path.iterdir()] == ["rows.txt"]


def test_where_the_points_lie_beside_a_detectors_is_said_by_kind_of_row(prepare, tmp_path, monkeypatch):
    five = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]])
    rows = []
    for name, moved in (("a/1.jpg", 1.0), ("net_7876/1.jpg", 1.0), ("net_7876/2.jpg", 0.25)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((100, 100, 3), np.uint8))
        rows.append(f"{name} {' '.join(f'{v + moved:g}' for v in five.T.ravel())} 1 1 1 1")
    (tmp_path / "training.txt").write_text("\n".join(rows))
    box = box_from_five(five - [0.5, 0.25])
    detector = SimpleNamespace(detect=lambda image: SimpleNamespace(boxes=np.stack([box + 40, box])))
    monkeypatch.setattr(prepare, "MtcnnDetector", lambda: detector)
    title, *lines = prepare.measure_frames(tmp_path).splitlines()
    assert title.startswith("label minus detection")
    assert lines == [
        "  a: 1 faces, x +0.50 +- 0.00, y +0.25 +- 0.00",
        "  net_7876, pictures as they were: 1 faces, x +0.50 +- 0.00, y +0.25 +- 0.00",
        "  net_7876, scaled pictures: 1 faces, x +0.15 +- 0.00, y -0.10 +- 0.00",
    ]


def test_the_folders_of_the_real_set_are_held_out_in_their_share(mtfl_root):
    groups = [s.group for s in read_mtfl(mtfl_root, "heldout")]
    assert (groups.count("lfw_5590"), groups.count("net_7876")) == (415, 585)


@pytest.mark.slow
def test_no_photo_of_the_real_set_is_both_trained_on_and_held_out(prepare, mtfl_root):
    group = prepare.duplicate_groups(read_mtfl_file(mtfl_root, "training.txt"))
    assert len(group) - len(np.unique(group)) == 11  # 20 pictures of 9 photos
    held_out = np.isin(np.arange(10_000) + 1, list(heldout_rows()))
    assert not set(group[held_out]) & set(group[~held_out])
