"""Synthetic faces: exact points, the package's sign conventions, labels that agree with the picture, MTFL's layout."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from facemtl.data.mtfl import read_mtfl_file
from facemtl.data.synthetic import SyntheticFace, pose_class, render_face, write_dataset, write_mtfl_layout
from facemtl.detect import MtcnnDetector
from facemtl.errors import ConfigError
from facemtl.geometry import box_from_five, roll_of_five
from facemtl.image import read_image
from facemtl.landmarks import SCHEMAS

FLIP = list(SCHEMAS["mtfl5"].flip_order)
SMALL = 48  # pixels; enough where only the points matter
LEFT_EYE, RIGHT_EYE, NOSE, LEFT_CORNER, RIGHT_CORNER = range(5)
SEED_7_POINTS = [(84.261, 84.603), (121.872, 101.745), (103.189, 110.507), (73.148, 122.889), (107.351, 138.479)]
SEED_7_MEAN = (172.21, 184.99, 197.56)
POSE_CLASSES = {-60: 0, -35.1: 0, -35: 1, -15.1: 1, -15: 2, 0: 2, 15: 2, 15.1: 3, 35: 3, 35.1: 4, 60: 4}


def frontal(seed: int, size: int = SMALL, **fixed) -> SyntheticFace:
    return render_face(seed, size, **({"yaw": 0, "pitch": 0, "roll": 0, "occlusion": 0} | fixed))


def nose_from_eyes(face: SyntheticFace) -> np.ndarray:
    return face.points[NOSE] - face.points[:2].mean(axis=0)


def patch_mean(face: SyntheticFace, centre: np.ndarray, half: int = 6) -> float:
    x, y = np.round(centre).astype(int)
    return float(face.image[y - half : y + half + 1, x - half : x + half + 1].mean())


def changed(first: SyntheticFace, second: SyntheticFace, over: int = 0) -> np.ndarray:
    """(H, W) bool: pixels of which some channel differs by more than ``over``."""
    return (np.abs(first.image.astype(int) - second.image) > over).any(axis=2)


def test_a_seed_gives_the_same_face_again():
    first, second = render_face(3), render_face(3)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.points, second.points)
    assert first.labels == second.labels
    assert changed(first, render_face(4)).mean() > 0.9


def test_a_seed_means_the_same_face_everywhere():
    face = render_face(7)
    np.testing.assert_allclose(face.points, SEED_7_POINTS, atol=0.01)
    np.testing.assert_allclose(face.image.mean(axis=(0, 1)), SEED_7_MEAN, atol=0.5)


def test_types_shapes_and_ranges():
    face = render_face(0, 64)
    assert (face.image.shape, face.image.dtype) == ((64, 64, 3), np.uint8)
    assert (face.points.shape, face.points.dtype) == ((5, 2), np.float32)
    assert (face.box.shape, face.box.dtype) == ((4,), np.float32)
    assert set(face.labels) == {"glasses", "smile", "gender", "pose"}


def test_points_are_proportional_to_the_size_in_index_coordinates():
    # The same place has x at size 200 and (x + 0.5) / 4 - 0.5 at size 50: the centre of the first pixel is 0.
    large, small = render_face(11, 200), render_face(11, 50)
    np.testing.assert_allclose(small.points, (large.points + 0.5) / 4 - 0.5, atol=1e-4)


def test_the_box_is_that_of_the_points_and_lies_inside_the_picture():
    for seed in range(50):
        face = render_face(seed, SMALL)
        np.testing.assert_allclose(face.box, box_from_five(face.points), atol=1e-3)
        assert face.box.min() > 0
        assert face.box.max() < SMALL - 1


def test_every_class_of_every_attribute_is_drawn():
    faces = [render_face(seed, 32) for seed in range(60)]
    for name, count in (("glasses", 2), ("smile", 2), ("gender", 2), ("pose", 5)):
        assert {face.labels[name] for face in faces} == set(range(count))


def test_left_is_the_viewers_left_and_up_is_smaller_y():
    points = frontal(0).points
    assert points[LEFT_EYE, 0] < points[NOSE, 0] < points[RIGHT_EYE, 0]
    assert points[LEFT_CORNER, 0] < points[NOSE, 0] < points[RIGHT_CORNER, 0]
    assert points[:2, 1].max() < points[NOSE, 1] < points[3:, 1].min()


def test_a_frontal_face_is_symmetric():
    points = frontal(5).points
    axis = points[NOSE, 0]
    np.testing.assert_allclose(points[FLIP], points * (-1, 1) + (2 * axis, 0), atol=1e-4)


def test_positive_yaw_moves_the_nose_to_larger_x():
    left, ahead, right = (nose_from_eyes(frontal(1, yaw=yaw))[0] for yaw in (-30, 0, 30))
    assert left < ahead - 1 < right - 2


def test_positive_pitch_moves_the_nose_up():
    down, level, up = (nose_from_eyes(frontal(1, pitch=pitch))[1] for pitch in (-20, 0, 20))
    assert up < level - 1 < down - 2


def test_positive_roll_turns_clockwise_by_that_angle():
    points = frontal(1, roll=30).points
    assert points[RIGHT_EYE, 1] > points[LEFT_EYE, 1]
    assert np.degrees(roll_of_five(points)) == pytest.approx(30, abs=0.01)


def test_yaw_foreshortens_the_eye_line_by_its_cosine():
    eyes = [np.diff(frontal(2, 200, yaw=yaw).points[:2], axis=0)[0] for yaw in (0, 60)]
    np.testing.assert_allclose(eyes[1], eyes[0] * 0.5, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_negated_yaw_and_roll_mirror_the_points(seed):
    turned = render_face(seed, SMALL, yaw=33, pitch=12, roll=21).points
    mirrored = render_face(seed, SMALL, yaw=-33, pitch=12, roll=-21).points[FLIP]
    np.testing.assert_allclose(mirrored[:, 1], turned[:, 1], atol=1e-4)
    axis = (mirrored[:, 0] + turned[:, 0]) / 2  # one vertical line for all points
    np.testing.assert_allclose(axis, axis[0], atol=1e-4)


def test_points_stay_inside_the_picture_at_the_largest_angles():
    for yaw, pitch, roll in itertools.product((-75, 75), (-45, 45), (-90, 90)):
        points = render_face(8, SMALL, yaw=yaw, pitch=pitch, roll=roll).points
        assert points.min() > 0
        assert points.max() < SMALL - 1
        along = np.array([np.cos(np.radians(roll)), np.sin(np.radians(roll))])
        assert (points[RIGHT_EYE] - points[LEFT_EYE]) @ along > 0  # left and right have not changed places


@pytest.mark.parametrize(("yaw", "label"), POSE_CLASSES.items())
def test_pose_class_follows_from_yaw(yaw, label):
    assert pose_class(yaw) == label
    assert frontal(0, 32, yaw=yaw).labels["pose"] == label


def test_angles_and_labels_are_those_that_were_fixed():
    face = render_face(9, 32, yaw=-20, pitch=5, roll=-7, glasses="glasses", smile="not_smiling", gender="female")
    assert (face.yaw, face.pitch, face.roll) == (-20, 5, -7)
    assert face.labels == {"glasses": 0, "smile": 1, "gender": 1, "pose": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must not be negative"),
        ({"size": 16}, "at least 32"),
        ({"yaw": 76}, "yaw must lie between -75 and 75, found 76"),
        ({"pitch": float("nan")}, "pitch must lie between"),
        ({"occlusion": 0.6}, "occlusion must lie between 0 and 0.5"),
        ({"glasses": True}, "glasses must be one of glasses, no_glasses, found True"),
        ({"smile": "yes"}, "smile must be one of smiling, not_smiling"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        render_face(**({"seed": 0} | arguments))


def test_a_face_detector_finds_the_faces_where_the_boxes_are():
    detector = MtcnnDetector()
    for seed in range(6):
        face = render_face(seed, occlusion=0)
        boxes = detector.detect(face.image).boxes
        side = face.box[2] - face.box[0]
        distance = np.abs(boxes - face.box).max(axis=1) / side
        assert distance.min() < 0.25, f"seed {seed}"


def test_a_pupil_is_darker_than_the_white_of_the_eye():
    for seed in range(5):
        face = frontal(seed, 400, glasses="no_glasses")
        for eye in face.points[:2]:
            x, y = np.round(eye).astype(int)
            row = face.image[y - 3 : y + 4, x - 30 : x + 31].mean(axis=(0, 2))
            assert row[20:41].min() < 0.6 * row.max()


@pytest.mark.parametrize("roll", [0, 90, -90])
def test_glasses_are_drawn_symmetrically_about_the_eye_points_to_a_third_of_a_pixel(roll):
    across = 0 if roll == 0 else 1  # the image axis along the eye line
    offsets = []
    for seed in range(12):
        bare, worn = (frontal(seed, 200, roll=roll, glasses=g, lenses="dark") for g in ("no_glasses", "glasses"))
        where = np.argwhere(changed(bare, worn, over=12))[:, 1 - across]
        offsets.append((where.min() + where.max()) / 2 - worn.points[:2, across].mean())
    assert abs(np.mean(offsets)) < 0.33


def test_dark_lenses_darken_the_eyes_and_clear_ones_do_not():
    for seed in range(8):
        bare = frontal(seed, 200, glasses="no_glasses")
        dark, clear = (frontal(seed, 200, glasses="glasses", lenses=lenses) for lenses in ("dark", "clear"))
        for eye in bare.points[:2]:
            assert patch_mean(dark, eye) < 0.8 * patch_mean(bare, eye)
            assert patch_mean(clear, eye) > 0.85 * patch_mean(bare, eye)


def test_putting_on_glasses_changes_nothing_else():
    bare, worn = (frontal(6, 200, glasses=glasses) for glasses in ("no_glasses", "glasses"))
    assert np.array_equal(bare.points, worn.points)
    lines = np.flatnonzero(changed(bare, worn).any(axis=1))
    assert len(lines) > 20
    assert abs(lines.mean() - bare.points[LEFT_EYE, 1]) < 8
    assert lines.max() < bare.points[LEFT_CORNER, 1]


def test_a_smile_moves_the_corners_of_the_mouth_up_and_outward_and_nothing_else():
    for seed in range(10):
        rest, smile = (frontal(seed, 200, smile=label) for label in ("not_smiling", "smiling"))
        rest_points, smile_points = (face.points - face.points[:2].mean(axis=0) for face in (rest, smile))
        np.testing.assert_allclose(rest_points[:3], smile_points[:3], atol=0.01)
        assert (smile_points[3:, 1] < rest_points[3:, 1] - 1).all()
        assert smile_points[LEFT_CORNER, 0] < rest_points[LEFT_CORNER, 0] - 1
        assert smile_points[RIGHT_CORNER, 0] > rest_points[RIGHT_CORNER, 0] + 1


def test_gender_changes_the_picture_and_not_the_points():
    male, female = (frontal(12, 200, gender=gender) for gender in ("male", "female"))
    assert changed(male, female, over=12).mean() > 0.05
    np.testing.assert_allclose(male.points, female.points, atol=0.01)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_patch_covers_its_share_of_the_face_box(share):
    for seed in range(8):
        free, hidden = (render_face(seed, occlusion=occlusion) for occlusion in (0, share))
        assert np.array_equal(free.points, hidden.points)
        covered = changed(free, hidden).sum() / (free.box[2] - free.box[0]) ** 2
        assert share < covered < share + 0.12  # blur spreads the edge


def test_write_dataset_returns_what_it_wrote(tmp_path):
    samples = write_dataset(tmp_path / "set", 3, seed=5, size=64)
    assert [sample.image.name for sample in samples] == ["00000.png", "00001.png", "00002.png"]
    assert sorted((tmp_path / "set").iterdir()) == [sample.image for sample in samples]
    for sample in samples:
        face = render_face(int(sample.source.removeprefix("seed ")), 64)
        assert np.array_equal(read_image(sample.image), face.image)
        assert np.array_equal(sample.points, face.points)
        assert np.array_equal(sample.box, face.box)
        assert (sample.schema, dict(sample.labels)) == ("mtfl5", face.labels)


def test_a_longer_set_begins_with_the_shorter_one(tmp_path):
    short = write_dataset(tmp_path / "short", 2, seed=1, size=32)
    long = write_dataset(tmp_path / "long", 4, seed=1, size=32)
    assert [sample.source for sample in short] == [sample.source for sample in long[:2]]
    assert len({sample.source for sample in long}) == 4


def rows(path: Path) -> list[list[str]]:
    return [line.split(" ") for line in path.read_text().splitlines()]


def test_mtfl_layout_line_by_line(tmp_path):
    training, testing = write_mtfl_layout(tmp_path, train=4, test=2, seed=0, size=64)
    assert not {sample.source for sample in training} & {sample.source for sample in testing}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["test", "testing.txt", "testing_boxes.txt", "train", "training.txt"]
    for name, folder, samples in (("training.txt", "train", training), ("testing.txt", "test", testing)):
        for i, (fields, sample) in enumerate(zip(rows(tmp_path / name), samples, strict=True)):
            assert len(fields) == 15
            assert fields[0] == f"{folder}/{i:05d}.png"
            x, y = sample.points.T
            np.testing.assert_allclose([float(v) for v in fields[1:6]], x + 1, atol=1e-5)
            np.testing.assert_allclose([float(v) for v in fields[6:11]], y + 1, atol=1e-5)
            codes = [sample.labels[label] + 1 for label in ("gender", "smile", "glasses", "pose")]
            assert [int(v) for v in fields[11:]] == codes
    for fields, sample in zip(rows(tmp_path / "testing_boxes.txt"), testing, strict=True):
        assert fields[0] == f"test/{sample.image.name}"
        np.testing.assert_allclose([float(v) for v in fields[1:]], sample.box, atol=1e-5)


def test_the_mtfl_adapter_reads_the_same_faces_back(tmp_path):
    training, testing = write_mtfl_layout(tmp_path, train=3, test=2, seed=7, size=64)
    for name, written in (("training.txt", training), ("testing.txt", testing)):
        for ours, theirs in zip(written, read_mtfl_file(tmp_path, name), strict=True):
            assert theirs.image == ours.image
            assert theirs.group == ours.group
            assert dict(theirs.labels) == dict(ours.labels)
            np.testing.assert_allclose(theirs.points, ours.points, atol=1e-4)
    boxes = [sample.box for sample in read_mtfl_file(tmp_path, "testing.txt")]
    np.testing.assert_allclose(boxes, [sample.box for sample in testing], atol=1e-4)
