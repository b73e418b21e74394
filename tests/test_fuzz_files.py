"""Bytes changed in label files, pictures, model files, caches and shards: an error of the package or the same content.

``pytest -m slow tests/test_fuzz_files.py`` runs 5,000 cases and more; the quick run a few of each kind.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import test_aflw
import test_biwi
import test_celeba
import test_coco
import test_cofw
import test_cvat
import test_genki4k
import test_label_studio
import test_lfw
import test_mtfl
import test_table
import test_udacity68
import test_w300
import test_w300lp
import test_wflw
from face_files import write_picture
from format_faces import a_face
from fuzzing import fuzz, rows_are_right

from facemtl.data.aflw import read_aflw
from facemtl.data.biwi import read_biwi
from facemtl.data.celeba import read_celeba
from facemtl.data.coco import read_coco
from facemtl.data.cofw import read_cofw
from facemtl.data.cvat import read_cvat
from facemtl.data.genki4k import read_genki4k
from facemtl.data.label_studio import read_label_studio
from facemtl.data.lfw import read_lfw
from facemtl.data.mtfl import read_mtfl_file
from facemtl.data.pts import read_pts_folder
from facemtl.data.shards import read_shards, write_shards
from facemtl.data.table import read_table
from facemtl.data.udacity68 import read_udacity68
from facemtl.data.w300lp import read_aflw2000
from facemtl.data.wflw import LISTS, read_wflw
from facemtl.errors import DataError
from facemtl.formats import (
    ImageFaces,
    from_coco,
    from_cvat,
    from_label_studio,
    from_plain,
    to_coco,
    to_cvat,
    to_label_studio,
    to_plain,
)
from facemtl.image import read_image
from facemtl.landmarks import SCHEMAS
from facemtl.models.files import load_model
from facemtl.session import OnnxSession
from facemtl.weights import ModelSpec, weights_folder

QUICK, SLOW = 25, 200  # cases of each kind; 200 of 28 kinds are over 5,000

Case = tuple[Path, Callable[[], object]]


def every(read: Callable, root: Path, splits: tuple[str, ...]) -> Callable[[], list]:
    return lambda: [sample for split in splits for sample in read(root, split)]


def mtfl(root: Path) -> Case:
    test_mtfl.write_set(root, f"{test_mtfl.GOOD}\n{test_mtfl.GOOD.replace('1.jpg', '2.jpg')}\n")
    return root / "training.txt", lambda: read_mtfl_file(root, "training.txt")


def mtfl_boxes(root: Path) -> Case:
    test_mtfl.write_set(root, f"{test_mtfl.GOOD}\n")
    (root / "training_boxes.txt").write_text("a/1.jpg 10.5 11 90 91\n")
    return root / "training_boxes.txt", lambda: read_mtfl_file(root, "training.txt")


def udacity68(root: Path) -> Case:
    rows = [test_udacity68.row(f"Some_Body_{i}.jpg") for i in (10, 11)]
    test_udacity68.write_udacity(root / "u", [test_udacity68.HEAD, *rows])
    return root / "u" / "training_frames_keypoints.csv", every(read_udacity68, root / "u", ("train", "heldout"))


def genki4k(root: Path) -> Case:
    good = test_genki4k.GOOD
    test_genki4k.write_genki(root / "g", f"file0001.jpg {good}\nfile0004.jpg {good.replace('1 ', '0 ', 1)}\n")
    return root / "g" / "labels.txt", every(read_genki4k, root / "g", ("train", "heldout"))


def table(root: Path) -> Case:
    test_table.write(root, test_table.FULL, test_table.SPARSE)
    return root / "test.csv", lambda: read_table(root, "test")


def table_map(root: Path) -> Case:
    test_table.write(root, test_table.FULL, test_table.SPARSE)
    return root / "columns.toml", lambda: read_table(root, "test")


def table_parquet(root: Path) -> Case:
    import pandas as pd

    test_table.write(root, test_table.FULL, test_table.SPARSE)
    pd.read_csv(root / "test.csv").to_parquet(root / "test.parquet")
    return root / "test.parquet", lambda: read_table(root, "test")


def coco(root: Path) -> Case:
    test_coco.write_coco(root, [test_coco.face(attributes={"smile": "smiling"})])
    return root / "test.json", lambda: read_coco(root, "test", "mtfl5")


def cvat(root: Path) -> Case:
    test_cvat.write(root, test_cvat.image(test_cvat.plain(test_cvat.BOX), test_cvat.plain(test_cvat.SKELETON)))
    return root / "test.xml", lambda: read_cvat(root, "test", "mtfl5")


def label_studio(root: Path) -> Case:
    results = (
        test_label_studio.point("left_eye", 1, 2),
        test_label_studio.rectangle(),
        test_label_studio.choice("smile", "smiling"),
    )
    test_label_studio.write(root, test_label_studio.task(*results))
    return root / "test.json", lambda: read_label_studio(root, "test", "mtfl5")


def wflw(root: Path) -> Case:
    test_wflw.write_wflw(root, [test_wflw.line()], [test_wflw.line()])
    return root / LISTS / "list_98pt_rect_attr_test.txt", lambda: read_wflw(root, "test")


def pts(root: Path) -> Case:
    (root / "test").mkdir()
    test_w300.write_face(root / "test" / "a")
    return root / "test" / "a.pts", lambda: read_pts_folder(root, "test")


def aflw2000(root: Path) -> Case:
    test_w300lp.write_face(root / "image00002", Pose_Para=test_w300lp.POSE, pt3d_68=np.ones((3, 68)))
    return root / "image00002.mat", lambda: read_aflw2000(root, "test")


def cofw(root: Path) -> Case:
    path = root / "COFW_test_color.mat"
    test_cofw.write_mat(path, "T", [test_cofw.phis()], [np.zeros((4, 4), np.uint8)])
    (root / "pictures").mkdir()
    write_picture(root / "pictures" / "test_0001.png")
    return path, lambda: read_cofw(root, "test")


def fixture_of(module, root: Path) -> None:
    """Fill ``root`` by the fixture of the same name in the tests of an adapter."""
    module.root.__wrapped__(root)  # the function under pytest's fixture


def celeba_attributes(root: Path) -> Case:
    fixture_of(test_celeba, root)
    return root / "Anno" / "list_attr_celeba.txt", every(read_celeba, root, ("train", "heldout", "test"))


def celeba_landmarks(root: Path) -> Case:
    fixture_of(test_celeba, root)
    return root / "Anno" / "list_landmarks_celeba.txt", every(read_celeba, root, ("train", "heldout", "test"))


def aflw(root: Path) -> Case:
    fixture_of(test_aflw, root)
    return root / "data" / "aflw.sqlite", every(read_aflw, root, ("train", "heldout"))


def biwi_pose(root: Path) -> Case:
    fixture_of(test_biwi, root)
    return root / "hpdb" / "13" / "frame_00060_pose.txt", lambda: read_biwi(root, "test")


def biwi_boxes(root: Path) -> Case:
    fixture_of(test_biwi, root)
    return root / "boxes.txt", lambda: read_biwi(root, "test")


def lfw(root: Path) -> Case:
    test_lfw.write_lfw(root, test_lfw.row(), test_lfw.row("Some Body", 2, Male=1.5))
    return root / "lfw_attributes.txt", every(read_lfw, root, ("train", "heldout"))


# Where a file has no redundancy a changed byte may give other numbers: binary files, a map of columns, names.
BINARY = {"table_parquet", "aflw2000", "cofw", "aflw", "table_map"}
LABEL_FILES = [
    *(mtfl, mtfl_boxes, udacity68, genki4k, table, table_map, table_parquet, coco, cvat, label_studio, wflw, pts),
    *(aflw2000, cofw, celeba_attributes, celeba_landmarks, aflw, biwi_pose, biwi_boxes, lfw),
]


def fuzz_labels(make: Callable[[Path], Case], root: Path, cases: int) -> None:
    path, read = make(root)
    seen = fuzz(
        path,
        read,
        cases,
        seed=len(make.__name__),
        judge=lambda expected, found, numbers: rows_are_right(expected, found, numbers or make.__name__ in BINARY),
    )
    assert seen["refused"] > 0


@pytest.mark.parametrize("make", LABEL_FILES, ids=lambda make: make.__name__)
def test_a_label_file_with_changed_bytes(make, tmp_path):
    fuzz_labels(make, tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("make", LABEL_FILES, ids=lambda make: make.__name__)
def test_a_label_file_with_changed_bytes_many_times(make, tmp_path):
    fuzz_labels(make, tmp_path, SLOW)


# --- pictures -------------------------------------------------------------------------------------------------------

SUFFIXES = [".jpg", ".png", ".bmp", ".webp", ".tiff", ".gif"]


def fuzz_picture(suffix: str, root: Path, cases: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    path = root / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, image)[1].tobytes())

    def judge(_: np.ndarray, found: np.ndarray, numbers: bool) -> None:
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.size

    fuzz(path, lambda: read_image(path), cases, seed=len(suffix), judge=judge)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_with_changed_bytes(suffix, tmp_path):
    fuzz_picture(suffix, tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_with_changed_bytes_many_times(suffix, tmp_path):
    fuzz_picture(suffix, tmp_path, SLOW)


# --- files of faces in other programs' formats ----------------------------------------------------------------------


READ_BACK = {
    "coco": (to_coco, from_coco),
    "cvat": (to_cvat, from_cvat),
    "label_studio": (to_label_studio, from_label_studio),
    "plain": (to_plain, from_plain),
}


def fuzz_format(name: str, root: Path, cases: int) -> None:
    write, read_back = READ_BACK[name]
    document = write([ImageFaces("photos/a.jpg", 200, 100, [a_face()])])
    path = root / "faces"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")

    def read() -> list[ImageFaces]:
        try:
            text = path.read_text(encoding="utf-8")
            content = text if isinstance(document, str) else json.loads(text)
        except (ValueError, RecursionError) as error:  # the caller's part: what is handed over is text or parsed JSON
            raise DataError(f"no JSON: {error}") from None
        return read_back(content)

    def judge(_: list[ImageFaces], found: list[ImageFaces], numbers: bool) -> None:
        for image in found:
            for face in image.faces:
                assert np.isfinite(face.box).all() and not np.isinf(face.landmarks).any()
                assert face.landmarks.shape in ((0, 2), (len(SCHEMAS[face.schema]), 2))

    fuzz(path, read, cases, seed=len(name), judge=judge)


@pytest.mark.parametrize("name", READ_BACK)
def test_a_file_of_another_program_with_changed_bytes(name, tmp_path):
    fuzz_format(name, tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", READ_BACK)
def test_a_file_of_another_program_with_changed_bytes_many_times(name, tmp_path):
    fuzz_format(name, tmp_path, SLOW)


# --- shards ---------------------------------------------------------------------------------------------------------


def fuzz_shard(root: Path, cases: int, name: str) -> None:
    """A shard is told by its SHA-256, so that no change goes unnoticed but one of the index's own numbers."""
    test_mtfl.write_set(root, f"{test_mtfl.GOOD}\n{test_mtfl.GOOD.replace('1.jpg', '2.jpg')}\n")
    for picture in root.rglob("*.jpg"):
        write_picture(picture)
    folder = root / "shards" / "test"
    write_shards(read_mtfl_file(root, "training.txt"), folder)

    def judge(expected: list, found: list, numbers: bool) -> None:
        rows_are_right(expected, [replace(s, image=e.image) for s, e in zip(found, expected, strict=True)], numbers)

    fuzz(folder / name, lambda: read_shards(root / "shards", "test"), cases, seed=len(name), judge=judge)


@pytest.mark.parametrize("name", ["shard-000000.tar", "shards.json"])
def test_a_shard_with_changed_bytes(name, tmp_path):
    fuzz_shard(tmp_path, QUICK, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shard-000000.tar", "shards.json"])
def test_a_shard_with_changed_bytes_many_times(name, tmp_path):
    fuzz_shard(tmp_path, SLOW, name)


# --- model files ----------------------------------------------------------------------------------------------------


def fuzz_model(suffix: str, root: Path, cases: int) -> None:
    """A file given by its path has no card to be checked by: it opens or is refused, and parameters may be others."""
    path = Path(shutil.copy(weights_folder() / "tcdcn" / f"model{suffix}", root))
    read = {".onnx": lambda: OnnxSession(path).spec, ".safetensors": lambda: load_model(path)[1]}[suffix]

    def judge(expected: ModelSpec, found: ModelSpec, numbers: bool) -> None:
        assert found.outputs().keys() == expected.outputs().keys() or numbers

    fuzz(path, read, cases, seed=len(suffix), judge=judge)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_model_file_with_changed_bytes(suffix, tmp_path):
    fuzz_model(suffix, tmp_path, 5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_model_file_with_changed_bytes_many_times(suffix, tmp_path):
    fuzz_model(suffix, tmp_path, SLOW)


@pytest.mark.parametrize("name", ["tcdcn", "facemtl-s"])
def test_a_description_of_a_model_with_changed_bytes(name, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(OnnxSession(weights_folder() / name / "model.onnx").spec.to_json())

    def read() -> ModelSpec:
        return ModelSpec.from_json(path.read_bytes().decode(errors="replace"), path)

    def judge(_: ModelSpec, found: ModelSpec, numbers: bool) -> None:
        assert found.outputs() and found.channels in (1, 3)

    fuzz(path, read, 4 * QUICK, seed=1, judge=judge)
