"""COFW: cell references in HDF5, 29 points with occlusion, pictures extracted to files."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
from face_files import complaint
from scripts import run_prepare

from facemtl.data.cofw import SPLITS, extract_pictures, occluded_points, read_cofw
from facemtl.data.splits import is_heldout
from facemtl.image import read_image

BOX = (11.0, 21.0, 100.0, 120.0)  # x, y, width, height, counted from 1


def phis(first: float = 1.0, occluded: tuple[int, ...] = ()) -> np.ndarray:
    """A row: x, y, occlusion."""
    return np.concatenate([first + np.arange(29), 101 + np.arange(29), [float(i in occluded) for i in range(29)]])


def write_mat(path: Path, suffix: str, rows: list[np.ndarray], pictures: list[np.ndarray], boxes=None) -> None:
    """As MATLAB writes it: everything transposed, cells as references into ``#refs#``. Pictures are (H, W[, 3]) RGB."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = file.create_dataset(f"Is{suffix}", (1, len(pictures)), dtype=h5py.ref_dtype)
        for i, picture in enumerate(pictures):
            cells[0, i] = file.create_dataset(f"#refs#/{chr(97 + i)}", data=picture.T).ref
        file[f"phis{suffix}"] = np.stack(rows).T
        file[f"bboxes{suffix}"] = np.array([BOX] * len(rows) if boxes is None else boxes).T


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve training faces and two test faces: one in colour and one in grey."""
    colour = np.zeros((8, 10, 3), np.uint8)
    colour[2, 7] = (255, 128, 1)  # RGB
    grey = np.full((9, 11), 77, np.uint8)
    write_mat(tmp_path / "COFW_train_color.mat", "Tr", [phis()] * 12, [colour] * 12)
    write_mat(tmp_path / "COFW_test_color.mat", "T", [phis(5, (3, 28)), phis(1.25, tuple(range(9)))], [colour, grey])
    return tmp_path


@pytest.fixture
def extracted(root: Path) -> Path:
    assert extract_pictures(root) == 14
    return root


def test_a_face_as_published(extracted):
    first, second = read_cofw(extracted, "test")
    assert first.image == extracted / "pictures" / "test_0001.png"
    np.testing.assert_array_equal(first.points, [[4 + i, 100 + i] for i in range(29)])  # counted from 0
    assert first.points.dtype == np.float32
    np.testing.assert_array_equal(first.box, [10, 20, 110, 140])
    assert (first.schema, first.labels, first.source) == ("cofw29", {}, "COFW_test_color.mat:1")
    assert (first.strata, second.strata) == ({"occlusion": "some"}, {"occlusion": "heavy"})
    assert second.points[0, 0] == 0.25


def test_pictures_of_cells_become_files_in_colour_or_grey(extracted):
    colour, grey = (read_image(s.image) for s in read_cofw(extracted, "test"))
    assert colour.shape == (8, 10, 3)
    assert colour[2, 7].tolist() == [1, 128, 255]  # blue, green, red
    assert np.count_nonzero(colour) == 3
    assert grey.shape == (9, 11, 3)
    assert (grey == 77).all()


def test_which_points_are_occluded(extracted):
    occluded = occluded_points(extracted, "test")
    assert [np.flatnonzero(row).tolist() for row in occluded] == [[3, 28], list(range(9))]
    assert occluded_points(extracted, "train").shape == (len(read_cofw(extracted, "train")), 29)


def test_training_rows_are_parted_by_the_hash_of_their_pictures(extracted):
    names = {split: [s.image.name for s in read_cofw(extracted, split)] for split in SPLITS}
    assert sorted(names["train"] + names["heldout"]) == [f"train_{i:04d}.png" for i in range(1, 13)]
    assert all(is_heldout(name) == (split == "heldout") for split in ("train", "heldout") for name in names[split])
    assert {s.group for s in read_cofw(extracted, "train")} == {"lfpw"}  # the first 845
    assert {s.group for s in read_cofw(extracted, "test")} == {"cofw"}


def test_without_extracted_pictures_the_error_says_what_to_run(root):
    said = complaint(read_cofw, root, "test")
    assert said.startswith("2 pictures are missing, run python datasets/cofw/prepare.py --extract:\n")


BAD = {
    "expected a matrix phisT of N x 87 numbers, found 1 x 58 float64": ([phis()[:58]], None),
    "expected a matrix bboxesT of N x 4 numbers, found 1 x 3 float64": ([phis()], [BOX[:3]]),
    "expected as many boxes as faces, found 2 and 1": ([phis()], [BOX, BOX]),
    "1 bad rows in ": ([phis(), phis(np.nan)], None),
    "expected finite points, occlusion of 0 or 1 and boxes with an area": ([phis()], [(1, 1, 0, 5)]),
}


@pytest.mark.parametrize(("reason", "content"), BAD.items())
def test_another_layout_shows_what_was_expected_and_found(tmp_path, reason, content):
    rows, boxes = content
    write_mat(tmp_path / "COFW_test_color.mat", "T", rows, [np.zeros((2, 2), np.uint8)], boxes)
    said = complaint(read_cofw, tmp_path, "test")
    assert str(tmp_path / "COFW_test_color.mat") in said
    assert reason in said


def test_the_files_are_not_taken_for_each_other(root):
    (root / "COFW_train_color.mat").rename(root / "COFW_test_color.mat")
    said = complaint(read_cofw, root, "test")
    assert "expected a matrix phisT, found #refs#, IsTr, bboxesTr, phisTr" in said


@pytest.mark.parametrize("picture", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.float64)])
def test_a_cell_that_is_no_picture_is_an_error(root, picture):
    write_mat(root / "COFW_train_color.mat", "Tr", [phis()], [picture])
    assert "expected picture 1 as uint8 H x W or H x W x 3, found" in complaint(extract_pictures, root)


@pytest.mark.parametrize("cut", [0, 100, 700])
def test_a_damaged_file_is_an_error(root, cut):
    path = root / "COFW_test_color.mat"
    path.write_bytes(path.read_bytes()[:cut])
    assert "cannot be read as a MATLAB file of format 7.3" in complaint(read_cofw, root, "test")


def test_what_is_not_there_is_an_error(root):
    (root / "COFW_test_color.mat").unlink()
    assert "is missing: expected the published file, see datasets/cofw/README.md" in complaint(read_cofw, root, "test")
    assert "COFW has no split 'val'; known: train, heldout, test" in complaint(read_cofw, root, "val")


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert complaint(read_cofw, tmp_path, "test") == "reading COFW's files needs h5py: pip install h5py"


def test_pictures_are_extracted_and_the_set_is_counted(root, monkeypatch, capsys):
    assert run_prepare("cofw", monkeypatch, "--extract", "--root", root) == 0
    said = capsys.readouterr().out
    assert said.startswith("extracted 14 pictures\ntrain: ")
    assert "test: 2 faces in 2 pictures\n  occlusion: heavy 1, some 1" in said
    assert run_prepare("cofw", monkeypatch, "--check", "--root", root) == 0
    assert capsys.readouterr().out == said.removeprefix("extracted 14 pictures\n")
