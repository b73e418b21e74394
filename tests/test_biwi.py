"""BIWI: rotation matrices of a depth camera, and boxes of a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture
from scripts import run_prepare

from facemtl.data.biwi import angles_of_pose, detect_boxes, read_biwi, read_rotation
from facemtl.data.sample import face_box
from facemtl.data.synthetic import render_face
from facemtl.head_pose import rotation
from facemtl.image import write_image

# As published, with a blank at the end of each line.
POSE = (
    "0.976296 0.0196 -0.215552 \n0.00256 0.994791 0.102058 \n0.216429 -0.100191 0.971143 \n"
    "\n72.8617 -16.4735 911.443 \n"
)
TURNED = np.array([[0.976296, 0.0196, -0.215552], [0.00256, 0.994791, 0.102058], [0.216429, -0.100191, 0.971143]])


def write_frame(root: Path, name: str, pose: str = POSE) -> Path:
    picture = write_picture(root / "hpdb" / f"{name}_rgb.png")
    (root / "hpdb" / f"{name}_pose.txt").write_text(pose)
    return picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("01/frame_00003", "01/frame_00004", "13/frame_00060"):
        write_frame(tmp_path, name)
    (tmp_path / "hpdb" / "01" / "depth.cal").write_text("517.679 0 320 \n")
    (tmp_path / "boxes.txt").write_text("13/frame_00060_rgb.png 2 3 8 9\n01/frame_00003_rgb.png 1.5 2 7.5 8.25\n")
    return tmp_path


def turn(axis: str, degrees: float) -> np.ndarray:
    """A head turned in the camera's frame: x right, y down, z away."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("degrees", [25.0, -60.0])
def test_the_face_of_the_turned_head_looks_where_the_angles_say(axis, degrees):
    matrix = turn(axis, degrees)
    nose = matrix @ [0, 0, -1]  # a face that looks at the camera looks along -z
    yaw, pitch, roll = angles_of_pose(matrix)
    if axis == "y":
        assert np.sign(yaw) == np.sign(nose[0])  # to the viewer's right, x grows
        assert (abs(yaw), pitch, roll) == pytest.approx((abs(degrees), 0, 0), abs=1e-9)
    elif axis == "x":
        assert np.sign(pitch) == -np.sign(nose[1])  # up, y falls
        assert (yaw, abs(pitch), roll) == pytest.approx((0, abs(degrees), 0), abs=1e-9)
    else:
        right = matrix @ [1, 0, 0]
        assert np.sign(roll) == np.sign(right[1])  # clockwise, the right side goes down
        assert (yaw, pitch, abs(roll)) == pytest.approx((0, 0, abs(degrees)), abs=1e-9)


def test_angles_give_back_the_matrix():
    flip = np.diag([1, 1, -1])
    np.testing.assert_allclose(flip @ rotation(*angles_of_pose(TURNED)) @ flip, TURNED, atol=2e-3)
    assert angles_of_pose(TURNED) == pytest.approx([12.5, 5.8, -1.1], abs=0.1)


def test_a_frame(root):
    first, second = read_biwi(root, "test")
    assert first.image == root / "hpdb" / "01" / "frame_00003_rgb.png"
    np.testing.assert_allclose(first.angles, angles_of_pose(TURNED), rtol=1e-5)
    assert first.angles.dtype == np.float32
    np.testing.assert_array_equal(first.box, [1.5, 2, 7.5, 8.25])
    np.testing.assert_array_equal(face_box(first), first.box)
    assert np.isnan(first.points).all()
    assert (first.schema, first.labels, first.group) == ("mtfl5", {}, "01")
    assert first.source == "hpdb/01/frame_00003_rgb.png"
    assert second.group == "13"  # frame 4 has no box, and is left out


BAD_POSES = {
    "": "3 numbers each; found ",
    POSE.replace("\n\n72.8617", "\n"): "3 numbers each; found 3, 3, 3, 2",
    "\n".join(POSE.splitlines()[:3]): "3 numbers each; found 3, 3, 3",
    POSE.replace("0.0196", "a"): "could not convert string to float: 'a'",
    POSE.replace("0.0196", "nan"): "a number is not finite",
    POSE.replace("0.976296", "0.5"): "expected a rotation matrix, found [[0.5, 0.02, -0.216]",
    POSE.replace("0.976296 0.0196 -0.215552", "-0.976296 -0.0196 0.215552"): "expected a rotation matrix",
}


@pytest.mark.parametrize(("pose", "reason"), BAD_POSES.items())
def test_another_layout_shows_what_was_expected_and_found(root, pose, reason):
    write_frame(root, "01/frame_00003", pose)
    said = complaint(read_biwi, root, "test")
    assert said.startswith("1 bad files:\n")
    assert "01/frame_00003" in said
    assert reason in said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("01/frame_00003_rgb.png 1 2 3", "expected a frame *_rgb.png and x1 y1 x2 y2"),
        ("01/frame_00003_pose.txt 1 2 3 4", "expected a frame *_rgb.png"),
        ("01/frame_00009_rgb.png 1 2 3 4", "the image 01/frame_00009_rgb.png is missing"),
        ("01/frame_00003_rgb.png 3 2 1 4", "expected a box with an area"),
        ("01/frame_00003_rgb.png 1 2 nan 4", "a number is not finite"),
    ],
)
def test_bad_boxes_are_reported(root, line, reason):
    (root / "boxes.txt").write_text(f"13/frame_00060_rgb.png 2 3 8 9\n{line}\n")
    assert f"boxes.txt:2: {reason}" in complaint(read_biwi, root, "test")


def test_what_is_not_there_is_an_error(root, tmp_path):
    assert "see datasets/biwi/README.md" in complaint(read_biwi, tmp_path / "nowhere", "test")
    assert "BIWI has no split 'train'; known: test" in complaint(read_biwi, root, "train")
    (root / "boxes.txt").unlink()
    assert "expected the boxes that python datasets/biwi/prepare.py --detect writes" in complaint(
        read_biwi, root, "test"
    )
    (root / "boxes.txt").write_text("\n")
    assert "holds no rows" in complaint(read_biwi, root, "test")


def test_boxes_are_those_that_a_detector_is_surest_of(root):
    found = iter([[[1, 2, 3, 4], [0, 0, 9, 9]], [], [[5, 6, 7.125, 8]]])
    assert detect_boxes(root, lambda image: np.array(next(found))) == (3, 2)
    assert (root / "boxes.txt").read_text() == (
        "01/frame_00003_rgb.png 1.00 2.00 3.00 4.00\n13/frame_00060_rgb.png 5.00 6.00 7.12 8.00\n"
    )
    assert len(read_biwi(root, "test")) == 2


def test_the_matrix_of_a_pose_file_is_read_as_it_is(root):
    np.testing.assert_allclose(read_rotation(root / "hpdb" / "01" / "frame_00003_pose.txt"), TURNED, rtol=1e-6)


def test_boxes_are_detected_and_the_set_is_counted(root, monkeypatch, capsys):
    write_image(root / "hpdb" / "01" / "frame_00003_rgb.png", render_face(3, 160).image)
    assert run_prepare("biwi", monkeypatch, "--detect", "--root", root) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 frames, 1 with a face\ntest: 1 faces in 1 pictures")
    assert run_prepare("biwi", monkeypatch, "--check", "--root", root) == 0
    assert capsys.readouterr().out == said.partition("\n")[2]
