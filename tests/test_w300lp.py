"""300W-LP and AFLW2000-3D: MATLAB files, points counted from 1, angles turned into the package's signs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture
from scipy.io import savemat
from scripts import run_prepare

from facemtl.data.w300lp import SPLITS, angles_of_pose, photo_of, read_aflw2000, read_w300lp
from facemtl.head_pose import MEAN_FACE, angles_from_five, angles_of_rotation, rotation

POSE = np.float32([[0.1, 0.4, -0.2, 220.5, 230.0, -66.2, 0.0014]])
POINTS = np.arange(136, dtype=np.float32).reshape(2, 68) + 1


def write_face(path: Path, **matrices: np.ndarray) -> None:
    """As published: the matrices that are read among others; ``path`` has no suffix."""
    write_picture(path.with_suffix(".jpg"))
    others = {"Shape_Para": np.zeros((199, 1)), "Exp_Para": np.zeros((29, 1)), "roi": np.uint16([[1, 1, 450, 450]])}
    savemat(path.with_suffix(".mat"), others | matrices)


def write_lp(root: Path, names: list[str]) -> Path:
    for name in names:
        write_face(root / name, Pose_Para=POSE, pt2d=POINTS)
    return root


ONE_EACH = ["AFW/AFW_134212_1_0", "HELEN/HELEN_1_1_0", "IBUG/IBUG_image_003_1_0", "LFPW/LFPW_image_train_0001_0"]


# The angles


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((0, 30, 0), (-30, 0, 0)),  # pitch, yaw, roll -> yaw, pitch, roll
        ((20, 0, 0), (0, 20, 0)),
        ((0, 0, 15), (0, 0, 15)),
        ((0, -80, 0), (80, 0, 0)),
    ],
)
def test_an_angle_about_one_axis_changes_its_sign_or_not(published, ours):
    np.testing.assert_allclose(angles_of_pose(*np.radians(published)), ours, atol=1e-9)


def test_points_projected_the_publishers_way_show_the_angles_to_the_packages_geometry():
    """A head is turned by their matrices, in their frame of y up; its picture is judged in ours."""
    head = (MEAN_FACE - MEAN_FACE.mean(axis=0)) * (1, -1, 1)  # y up
    rng = np.random.default_rng(0)
    for _ in range(50):
        pitch, yaw, roll = rng.uniform(-1, 1, 3) * (0.6, 1.0, 0.7)
        (cx, sx), (cy, sy), (cz, sz) = ((math.cos(a), math.sin(a)) for a in (pitch, yaw, roll))
        about_x, about_y, about_z = (
            np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]]),
            np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]),
            np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]]),
        )
        projected = (about_x @ about_y @ about_z @ head.T).T[:, :2]
        in_picture = np.array([0, 450 + 1]) + projected * (1, -1)
        np.testing.assert_allclose(angles_from_five(in_picture), angles_of_pose(pitch, yaw, roll), atol=1e-6)


def test_angles_of_a_rotation_are_those_it_was_made_of():
    for angles in np.random.default_rng(1).uniform(-1, 1, (50, 3)) * (170, 85, 170):
        np.testing.assert_allclose(angles_of_rotation(rotation(*angles)), angles, atol=1e-9)
    several = np.stack([rotation(10, 20, 30), rotation(-1, -2, -3)])
    np.testing.assert_allclose(angles_of_rotation(several), [[10, 20, 30], [-1, -2, -3]], atol=1e-9)


# AFLW2000-3D


def test_a_face_of_aflw2000(tmp_path):
    with_depth = np.concatenate([POINTS, np.full((1, 68), 7, np.float32)])
    write_face(tmp_path / "image00002", Pose_Para=POSE, pt3d_68=with_depth, pt2d=np.full((2, 21), -1.0))
    (sample,) = read_aflw2000(tmp_path, "test")
    assert sample.image == tmp_path / "image00002.jpg"
    np.testing.assert_array_equal(sample.points, [[i, 68 + i] for i in range(68)])  # counted from 0, without depth
    assert sample.points.dtype == sample.angles.dtype == np.float32
    np.testing.assert_allclose(sample.angles, angles_of_pose(*POSE[0, :3]), rtol=1e-5)
    assert (sample.schema, sample.labels, sample.box) == ("ibug68", {}, None)
    assert (sample.source, sample.group) == ("image00002.mat", "")


BAD = {
    "found none": {"Pose_Para": POSE},
    "a matrix pt3d_68 of 3 x 68 numbers, found 2 x 68 float32": {"Pose_Para": POSE, "pt3d_68": POINTS},
    "a matrix pt3d_68 of 3 x 68 numbers, found 3 x 68 <U1": {"Pose_Para": POSE, "pt3d_68": np.full((3, 68), "a")},
    "a matrix Pose_Para of 1 x 7 numbers, found 7 x 1": {"Pose_Para": POSE.T, "pt3d_68": np.ones((3, 68))},
    "a number of pt3d_68 is not finite": {"Pose_Para": POSE, "pt3d_68": np.full((3, 68), np.nan)},
}


@pytest.mark.parametrize(("reason", "matrices"), BAD.items())
def test_another_layout_shows_what_was_expected_and_found(tmp_path, reason, matrices):
    write_face(tmp_path / "image00002", Pose_Para=POSE, pt3d_68=np.ones((3, 68)))
    write_face(tmp_path / "image00004", **matrices)
    said = complaint(read_aflw2000, tmp_path, "test")
    assert said.startswith(f"1 bad files:\n{tmp_path / 'image00004.mat'}: ")
    assert reason in said


def test_a_number_too_large_for_float32_is_not_finite(tmp_path):
    write_face(tmp_path / "image00002", Pose_Para=POSE, pt3d_68=np.full((3, 68), 1e200))
    assert "a number of pt3d_68 is not finite" in complaint(read_aflw2000, tmp_path, "test")


def test_a_damaged_file_is_reported_and_never_read_silently_as_something_else(tmp_path):
    write_face(tmp_path / "image00002", Pose_Para=POSE, pt3d_68=np.ones((3, 68)))
    path = tmp_path / "image00002.mat"
    good = path.read_bytes()
    as_7_3 = good[:124] + b"\x00\x02IM" + good[128:]
    for content in (b"", b"MATLAB", good[:200], good[:-100], as_7_3):
        path.write_bytes(content)
        assert str(path) in complaint(read_aflw2000, tmp_path, "test")


def test_what_is_not_there_is_an_error(tmp_path):
    assert "see datasets/aflw2000/README.md" in complaint(read_aflw2000, tmp_path, "test")
    assert "AFLW2000-3D has no split 'train'; known: test" in complaint(read_aflw2000, tmp_path, "train")
    assert "300W-LP has no split 'test'; known: train, heldout" in complaint(read_w300lp, tmp_path, "test")
    assert "AFW holds no .mat files: expected 300W-LP" in complaint(read_w300lp, tmp_path, "train")
    write_face(tmp_path / "image00002", Pose_Para=POSE, pt3d_68=np.ones((3, 68)))
    (tmp_path / "image00002.jpg").unlink()
    assert "expected one picture image00002" in complaint(read_aflw2000, tmp_path, "test")


# 300W-LP


def test_a_face_of_300w_lp(tmp_path):
    samples = [s for split in SPLITS for s in read_w300lp(write_lp(tmp_path, ONE_EACH), split)]
    assert sorted(s.source for s in samples) == [f"{name}.mat" for name in ONE_EACH]
    (sample,) = [s for s in samples if s.group == "LFPW"]
    np.testing.assert_array_equal(sample.points[:2], [[0, 68], [1, 69]])
    np.testing.assert_allclose(sample.angles, angles_of_pose(*POSE[0, :3]), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("AFW_134212_1_0", "AFW_134212"),
        ("HELEN_100032540_1_13", "HELEN_100032540"),
        ("IBUG_image_003_1_0", "IBUG_image_003"),
        ("LFPW_image_train_0001_0", "LFPW_image_train_0001"),
        ("LFPW_image_train_0001_12", "LFPW_image_train_0001"),
    ],
)
def test_the_pictures_of_a_photo_are_known_by_their_names(name, photo):
    assert photo_of(name) == photo


def test_mirror_images_are_not_read_and_a_photo_is_in_one_split(tmp_path):
    root = write_lp(
        tmp_path, ONE_EACH + [f"HELEN/HELEN_{i}_{f}_{p}" for i in range(15) for f in (1, 2) for p in (0, 1)]
    )
    write_lp(root, ["HELEN_Flip/HELEN_1_1_0"])
    parts = [{photo_of(s.image.stem) for s in read_w300lp(root, split)} for split in SPLITS]
    assert not parts[0] & parts[1]
    assert all(s.group in ("AFW", "HELEN", "IBUG", "LFPW") for split in SPLITS for s in read_w300lp(root, split))


# prepare.py, as a user runs it


def test_the_sets_are_checked_and_counted(tmp_path, monkeypatch, capsys):
    write_face(tmp_path / "a" / "image00002", Pose_Para=POSE, pt3d_68=np.ones((3, 68)))
    assert run_prepare("aflw2000", monkeypatch, "--check", "--root", tmp_path / "a") == 0
    assert "test: 1 faces in 1 pictures" in capsys.readouterr().out
    write_lp(tmp_path / "lp", ONE_EACH)
    assert run_prepare("w300lp", monkeypatch, "--check", "--root", tmp_path / "lp") == 0
    assert "train: " in capsys.readouterr().out
