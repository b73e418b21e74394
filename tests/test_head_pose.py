"""Head angles from five points: rotations by hand, heads projected here, and the labels of real faces."""

import math

import numpy as np
import pytest

from facemtl.data.genki4k import read_genki4k
from facemtl.data.mtfl import read_mtfl
from facemtl.face import ATTRIBUTES
from facemtl.head_pose import MEAN_FACE, angles_from_five, rotation
from facemtl.landmarks import SCHEMAS
from facemtl.predictor import Predictor

FLIP = list(SCHEMAS["mtfl5"].flip_order)
SCALE, SHIFT = 1.7, np.array([90, 60])  # pixels
NOSE = np.array([0.0, 0.0, 1.0])  # out of the face, towards the viewer
ANGLES = [(0, 0, 0), (30, 0, 0), (-70, 0, 0), (0, 20, 0), (0, -35, 0), (0, 0, 50), (0, 0, -170), (40, -15, 25)]


def seen(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(5, 2) image points of the mean face, turned and looked at from far away; each turn written out."""
    x, y, z = MEAN_FACE.T
    yaw, pitch, roll = math.radians(yaw), math.radians(pitch), math.radians(roll)
    x, z = x * math.cos(yaw) + z * math.sin(yaw), z * math.cos(yaw) - x * math.sin(yaw)
    y = y * math.cos(pitch) - z * math.sin(pitch)
    x, y = x * math.cos(roll) - y * math.sin(roll), y * math.cos(roll) + x * math.sin(roll)
    return SCALE * np.stack([x, y], axis=1) + SHIFT


# --- signs, by hand ---


def test_where_the_nose_goes():
    half, root = 0.5, math.sqrt(0.75)
    np.testing.assert_allclose(rotation(0, 0, 0), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation(30, 0, 0) @ NOSE, [half, 0, root], atol=1e-12)  # to larger x
    np.testing.assert_allclose(rotation(0, 30, 0) @ NOSE, [0, -half, root], atol=1e-12)  # up: y points down
    np.testing.assert_allclose(rotation(0, 0, 30) @ [1, 0, 0], [root, half, 0], atol=1e-12)  # clockwise as seen
    # Yaw comes first: a nose that points to the right stays there in a nod, and goes down as the head leans right.
    np.testing.assert_allclose(rotation(90, 40, 0) @ NOSE, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rotation(90, 0, 90) @ NOSE, [0, 1, 0], atol=1e-12)


def test_a_rotation_keeps_lengths_and_handedness():
    turn = rotation(33, -21, 140)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


@pytest.mark.parametrize(
    ("moved", "angle", "sign"),
    [((12, 0), 0, 1), ((-12, 0), 0, -1), ((0, -8), 1, 1), ((0, 8), 1, -1)],
    ids=["to the right", "to the left", "up", "down"],
)
def test_a_nose_that_moves_is_a_head_that_turns(moved, angle, sign):
    points = seen(0, 0, 0)
    points[2] += moved
    angles = angles_from_five(points)
    assert sign * angles[angle] > 5


# --- heads projected here ---


@pytest.mark.parametrize("angles", ANGLES)
def test_the_angles_of_the_mean_face_come_back(angles):
    np.testing.assert_allclose(angles_from_five(seen(*angles)), angles, atol=1e-9)
    np.testing.assert_allclose(seen(*angles), SCALE * (MEAN_FACE @ rotation(*angles).T)[:, :2] + SHIFT, atol=1e-9)


def some_faces() -> np.ndarray:
    """(8, 5, 2) turned faces that are not the mean one."""
    rng = np.random.default_rng(0)
    return np.stack([seen(*angles) for angles in ANGLES]) + rng.normal(0, 4, (len(ANGLES), 5, 2))


def test_the_mirror_image_has_yaw_and_roll_negated():
    faces = some_faces()
    mirrored = faces[:, FLIP] * [-1, 1] + [200, 0]
    np.testing.assert_allclose(angles_from_five(mirrored), angles_from_five(faces) * [-1, 1, -1], atol=1e-9)


def test_size_and_place_do_not_matter():
    faces = some_faces()
    np.testing.assert_allclose(angles_from_five(0.03 * faces - [700, 20]), angles_from_five(faces), atol=1e-9)


@pytest.mark.parametrize("degrees", [10, -45, 170])
def test_turning_the_picture_adds_to_roll_alone(degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    faces = some_faces()
    turned = angles_from_five(faces @ np.array([[cos, sin], [-sin, cos]]))  # (1, 0) -> (cos, sin): clockwise as seen
    difference = turned - angles_from_five(faces) - [0, 0, degrees]
    difference[:, 2] = np.remainder(difference[:, 2] + 180, 360) - 180
    np.testing.assert_allclose(difference, 0, atol=1e-9)


def test_many_faces_are_one_at_a_time():
    faces = some_faces()
    together = angles_from_five(faces.reshape(2, 4, 5, 2).astype(np.float32))
    assert together.shape == (2, 4, 3)
    assert together.dtype == np.float64
    for angles, face in zip(together.reshape(8, 3), faces, strict=True):
        np.testing.assert_allclose(angles, angles_from_five(face), atol=1e-3)
    assert angles_from_five(np.zeros((0, 5, 2))).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_face_with_a_missing_point_has_no_angles_and_its_neighbours_do(bad):
    faces = some_faces()[:3]
    faces[1, 2, 0] = bad
    assert np.isnan(angles_from_five(faces)).tolist() == [[False] * 3, [True] * 3, [False] * 3]


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), 7.3), np.outer(np.arange(5), [2, -1])])
def test_points_in_one_place_or_on_one_line_have_no_angles(points):
    assert np.isnan(angles_from_five(points)).all()


# --- real faces ---


def test_yaw_runs_with_the_pose_classes_of_mtfl(mtfl_root):
    samples = read_mtfl(mtfl_root, "heldout")
    yaw = angles_from_five(np.stack([s.points for s in samples]))[:, 0]
    classes = np.array([s.labels["pose"] for s in samples])
    left_profile, left, frontal, right, right_profile = (yaw[classes == c].mean() for c in range(5))
    assert ATTRIBUTES["pose"] == ("left_profile", "left", "frontal", "right", "right_profile")
    assert left_profile < -35 < left < -20
    assert abs(frontal) < 5
    assert 20 < right < 35 < right_profile


def test_angles_agree_with_the_labels_of_genki(genki_root):
    """The figures of the docstring of angles_from_five."""
    samples = [s for s in read_genki4k(genki_root, "heldout") if np.isfinite(s.angles).all()]
    predict = Predictor("tcdcn", tasks=["landmarks"])
    faces = predict.batch([s.image for s in samples], [[s.box] for s in samples])
    found = angles_from_five(np.stack([face.landmarks for (face,) in faces]))
    labels = np.stack([s.angles for s in samples])
    error = np.abs(found - labels).mean(axis=0)
    correlation = [np.corrcoef(found[:, i], labels[:, i])[0, 1] for i in range(3)]
    print(f"{len(samples)} faces, mean absolute error {error.round(2)}, correlation {np.round(correlation, 3)}")
    np.testing.assert_allclose(error, [4.2, 7.0, 2.5], atol=0.1)
    np.testing.assert_allclose(correlation, [0.86, 0.56, 0.82], atol=0.01)
