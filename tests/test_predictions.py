from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from random_predictions import random_predictions

from facemtl.data.sample import FaceSample, face_box
from facemtl.errors import BoxError, DataError
from facemtl.face import Attribute, Face, Pose
from facemtl.geometry import box_from_five
from facemtl.training.predictions import Predictions, face_boxes, face_of_sample, predict_samples

FIVE = np.float32([[40, 40], [60, 40], [50, 50], [42, 62], [58, 62]])


def sample(shift: float = 0.0, **changes) -> FaceSample:
    values = {"image": Path("/set/a/1.jpg"), "points": FIVE + np.float32(shift), "schema": "mtfl5", "group": "a"}
    return FaceSample(**{**values, "labels": {"smile": 1, "gender": -1}, **changes})


def face(box: np.ndarray, landmarks: np.ndarray = FIVE) -> Face:
    smile = Attribute("smiling", 0.75, {"smiling": 0.75, "not_smiling": 0.25})
    return Face(np.float32(box), 1.0, landmarks, "mtfl5", {"smile": smile})


def given_box(image: Path, boxes: np.ndarray) -> list[Face]:
    """A predictor that puts the first point at the corner of the box."""
    return [face(box, FIVE + np.float32(box[:2]) - FIVE[0]) for box in boxes]


given_box.schema = "mtfl5"
given_box.tasks = ("landmarks", "smile")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("schema", ["mtfl5", "ibug68"])
def test_a_saved_file_reads_back_the_same(tmp_path, suffix, schema, more):
    predictions = random_predictions(schema=schema, tasks=("smile", "pose"), lost=2, more=more)
    predictions.frame.loc[0, "group"] = "NA"
    predictions.frame.loc[1, "group"] = ""
    path = tmp_path / "new folder" / f"p{suffix}"
    predictions.save(path)
    read = Predictions.load(path)
    assert read.schema == schema
    assert read.tasks == predictions.tasks
    assert read.frame["group"].tolist() == predictions.frame["group"].tolist()
    pd.testing.assert_frame_equal(read.frame, predictions.frame, check_exact=suffix == ".parquet", rtol=1e-12)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_accessors_give_arrays():
    predictions = random_predictions(7, tasks=("smile",), lost=1)
    assert len(predictions) == 7
    assert predictions.tasks == {"smile": ("smiling", "not_smiling")}
    assert predictions.truth.shape == predictions.points.shape == (7, 5, 2)
    assert predictions.frame["true_3_y"][2] == predictions.truth[2, 3, 1]
    assert predictions.frame["pred_4_x"][2] == predictions.points[2, 4, 0]
    assert predictions.frame["smile_p1"][2] == predictions.probabilities("smile")[2, 1]
    assert np.isnan(predictions.points[0]).all() and np.isnan(predictions.boxes[0]).all()
    assert predictions.labels("gender").min() >= 0  # known, though not predicted
    del predictions.frame["gender_true"]
    assert predictions.labels("gender").tolist() == [-1] * 7


def test_what_only_some_sets_and_models_have():
    predictions = random_predictions(7, lost=1, more=True)
    assert predictions.sigma.shape == (7, 5)
    assert predictions.angles.shape == predictions.true_angles.shape == (7, 3)
    assert predictions.frame["sigma_3"][2] == predictions.sigma[2, 3]
    assert predictions.frame["pred_pitch"][2] == predictions.angles[2, 1]
    assert predictions.frame["true_roll"][2] == predictions.true_angles[2, 2]
    assert np.isnan(predictions.sigma[0]).all() and np.isnan(predictions.angles[0]).all()
    assert {name: parts[2:5].tolist() for name, parts in predictions.strata.items()} == {
        "age": ["adult", "child", "adult"],
        "place": ["", "here", "there"],
    }
    without = random_predictions(7)
    assert (without.sigma, without.angles, without.true_angles, without.strata) == (None, None, None, {})


def test_halves_are_by_image_and_not_by_row():
    predictions = random_predictions(10)
    predictions.frame["image"] = ["d", "c", "b", "a", "a", "a", "b", "c", "d", "e"]
    by_image = {"a": True, "b": False, "c": True, "d": False, "e": True}
    assert predictions.halves.tolist() == [by_image[name] for name in predictions.frame["image"]]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_missing_columns_are_named(tmp_path, suffix):
    predictions = random_predictions(more=True)
    for column in ("true_4_y", "pose_p3", "smile_true", "sigma_2", "pred_roll"):
        del predictions.frame[column]
    predictions.save(tmp_path / f"p{suffix}")
    with pytest.raises(DataError, match="mtfl5: it lacks true_4_y, smile_true, pose_p3, sigma_2, pred_roll"):
        Predictions.load(tmp_path / f"p{suffix}")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("schema", "seven", "one of mtfl5, .*, but it holds seven"),
        ("pred_0_x", "far", "pred_0_x must hold numbers"),
        ("pose_true", 5, r"pose_true must be a class index 0 to 4 or -1; found \[5\]"),
        ("smile_true", 0.5, r"found \[0.5\]"),
    ],
)
def test_wrong_values_are_named(tmp_path, column, value, message):
    random_predictions().frame.assign(**{"schema": "mtfl5", column: value}).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(DataError, match=message):
        Predictions.load(tmp_path / "p.csv")


def test_a_file_that_is_no_table_is_a_data_error(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "p.csv").write_text("")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("p.parquet", "p.csv", "missing.csv", "missing.parquet"):
        with pytest.raises(DataError, match="cannot be read"):
            Predictions.load(tmp_path / name)
    with pytest.raises(DataError, match=r"column schema .* is missing or empty"):
        Predictions.load(tmp_path / "other.csv")
    with pytest.raises(DataError, match=r"kept in .parquet or .csv files, not in 'p.json'"):
        Predictions.load(tmp_path / "p.json")
    with pytest.raises(DataError, match=r"kept in .parquet or .csv"):
        random_predictions().save(tmp_path / "p.xlsx")


def test_predictions_for_given_boxes():
    boxes = np.array([[10.0, 20.0, 50.0, 60.0], [11.0, 22.0, 50.0, 60.0]])
    samples = [sample(), sample(shift=3.0, labels={"smile": 0, "pose": 2})]
    predictions = predict_samples(given_box, samples, boxes, root=Path("/set"))
    assert predictions.frame["image"].tolist() == ["a/1.jpg", "a/1.jpg"]
    assert predictions.frame["group"].tolist() == ["a", "a"]
    np.testing.assert_array_equal(predictions.boxes, boxes)
    np.testing.assert_array_equal(predictions.truth, [FIVE, FIVE + 3])
    np.testing.assert_array_equal(predictions.points[:, 0], boxes[:, :2])
    assert predictions.labels("smile").tolist() == [1, 0]
    assert predictions.labels("pose").tolist() == [-1, 2]
    assert predictions.labels("gender").tolist() == [-1, -1]
    np.testing.assert_array_equal(predictions.probabilities("smile"), [[0.75, 0.25]] * 2)
    assert list(predictions.tasks) == ["smile"]


def test_without_boxes_the_detected_face_over_the_true_one_counts():
    box = box_from_five(FIVE)
    found = {"one.jpg": [face(box + 70), face(box + 2)], "two.jpg": [face(box + 70)], "three.jpg": []}

    def predict(image: Path) -> list[Face]:
        return found[image.name]

    predict.schema, predict.tasks = "mtfl5", ("landmarks", "smile")
    predictions = predict_samples(predict, [sample(image=Path(name)) for name in found])
    np.testing.assert_allclose(predictions.boxes[0], box + 2, rtol=1e-6)
    assert np.isfinite(predictions.points).all(axis=(1, 2)).tolist() == [True, False, False]
    assert np.isnan(predictions.boxes[1:]).all() and np.isnan(predictions.probabilities("smile")[1:]).all()


def test_a_detection_must_cover_the_true_face():
    # An overlap of 15 in 40 pixels gives an IoU of 15 / 65 = 0.23; one of 20 gives 20 / 60 = 0.33.
    square = sample(points=np.full((5, 2), np.nan, dtype=np.float32), box=np.float32([0, 0, 40, 40]))
    assert face_of_sample([face(np.array([25, 0, 65, 40]))], square) is None
    assert face_of_sample([face(np.array([20, 0, 60, 40]))], square) is not None


def test_the_true_box_is_around_the_points_or_as_published():
    hidden = FIVE.copy()
    hidden[3] = np.nan
    published = np.float32([1, 2, 3, 4])
    np.testing.assert_array_equal(face_box(sample(box=published)), box_from_five(FIVE))
    np.testing.assert_array_equal(face_box(sample(points=hidden, box=published)), published)
    with pytest.raises(DataError, match=r"list.txt:7: neither points nor a box"):
        face_box(sample(points=hidden, source="list.txt:7"))


def test_a_model_without_points_leaves_them_nan():
    def predict(image: Path, boxes: np.ndarray) -> list[Face]:
        return [face(boxes[0], np.zeros((0, 2), dtype=np.float32))]

    predict.schema, predict.tasks = "mtfl5", ("smile",)
    predictions = predict_samples(predict, [sample()], np.array([[0, 0, 9, 9]]))
    assert np.isnan(predictions.points).all()
    assert predictions.probabilities("smile").tolist() == [[0.75, 0.25]]


def test_a_label_that_is_not_the_likeliest_class_is_kept_and_read_back(tmp_path):
    def predict(image: Path) -> list[Face]:
        if image.name == "lost.jpg":
            return []
        found = face(box_from_five(FIVE))
        smile = replace(found.attributes["smile"], label="not_smiling", confidence=0.25)
        return [replace(found, attributes={"smile": smile} if image.name == "other.jpg" else found.attributes)]

    predict.schema, predict.tasks = "mtfl5", ("landmarks", "smile")
    samples = [sample(), sample(image=Path("other.jpg")), sample(image=Path("lost.jpg"))]
    predictions = predict_samples(predict, samples)
    assert predictions.chosen("smile").tolist() == [0, 1, -1]
    predictions.save(tmp_path / "p.csv")
    assert Predictions.load(tmp_path / "p.csv").chosen("smile").tolist() == [0, 1, -1]
    plain = predict_samples(predict, samples[::2])
    assert "smile_chosen" not in plain.frame
    assert plain.chosen("smile").tolist() == [0, -1]
    predictions.frame["smile_chosen"] = 2
    predictions.save(tmp_path / "wrong.csv")
    with pytest.raises(DataError, match="smile_chosen must be a class index 0 to 1 or -1"):
        Predictions.load(tmp_path / "wrong.csv")


def test_sigma_angles_and_strata_of_samples_and_faces():
    def predict(image: Path) -> list[Face]:
        if image.name == "lost.jpg":
            return []
        found = face(box_from_five(FIVE))
        return [replace(found, landmark_sigma=np.float32([1, 2, 3, 4, 5]), pose=Pose(yaw=10.0, pitch=-5.0, roll=2.0))]

    predict.schema, predict.tasks = "mtfl5", ("landmarks", "smile", "angles")
    samples = [
        sample(angles=np.float32([12, np.nan, 3]), strata={"age": "adult"}),
        sample(image=Path("lost.jpg"), strata={"place": "here"}),
    ]
    predictions = predict_samples(predict, samples)
    np.testing.assert_array_equal(predictions.sigma, [[1, 2, 3, 4, 5], [np.nan] * 5])
    np.testing.assert_array_equal(predictions.angles, [[10, -5, 2], [np.nan] * 3])
    np.testing.assert_array_equal(predictions.true_angles, [[12, np.nan, 3], [np.nan] * 3])
    strata = {name: parts.tolist() for name, parts in predictions.strata.items()}
    assert strata == {"age": ["adult", ""], "place": ["", "here"]}


def test_a_set_with_points_of_another_schema_is_good_for_what_else_it_labels():
    outline = np.ones((68, 2), dtype=np.float32)
    predictions = predict_samples(given_box, [sample(points=outline, schema="ibug68")], np.array([[0, 0, 9, 9]]))
    assert predictions.schema == "ibug68"
    assert np.isnan(predictions.points).all()
    np.testing.assert_array_equal(predictions.truth, [outline])
    np.testing.assert_array_equal(predictions.probabilities("smile"), [[0.75, 0.25]])


def test_boxes_are_those_of_the_set_or_of_its_points_or_left_to_the_detector():
    published = np.float32([1, 2, 3, 4])
    without = np.full((5, 2), np.nan, dtype=np.float32)
    samples = [sample(box=published), sample(points=without, box=published)]
    np.testing.assert_array_equal(face_boxes(samples, "published"), [published, published])
    np.testing.assert_array_equal(face_boxes(samples, "truth"), [box_from_five(FIVE), published])
    assert face_boxes(samples, "detector") is None
    with pytest.raises(DataError, match=r"1 of 2 faces have no published box, such as list.txt:3: use --boxes truth"):
        face_boxes([*samples[:1], sample(source="list.txt:3")], "published")
    with pytest.raises(DataError, match="unknown boxes 'true'; known: published, truth, detector"):
        face_boxes(samples, "true")


def test_samples_that_do_not_fit_the_predictor_are_refused():
    boxes = np.array([[0, 0, 9, 9]])
    outline = sample(schema="ibug68", labels={"smile": -1, "gender": 1})
    with pytest.raises(DataError, match="schema mtfl5, but there are samples of ibug68, and they label nothing else"):
        predict_samples(given_box, [outline], boxes)
    with pytest.raises(DataError, match="one schema are needed; got ibug68, mtfl5"):
        predict_samples(given_box, [sample(), outline], boxes)
    with pytest.raises(DataError, match="no samples"):
        predict_samples(given_box, [], boxes)
    with pytest.raises(DataError, match="2 samples need as many boxes, got 1"):
        predict_samples(given_box, [sample(), sample()], boxes)
    with pytest.raises(BoxError, match="no area"):
        predict_samples(given_box, [sample()], boxes * 0)
