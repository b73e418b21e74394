from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from random_predictions import random_predictions

from facemtl.data.sample import FaceSample, face_box
from facemtl.errors import BoxError, DataError
from facemtl.face import Attribute, Face
from facemtl.geometry import box_from_five
from facemtl.training.predictions import Predictions, face_of_sample, predict_samples

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


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("schema", ["mtfl5", "ibug68"])
def test_a_saved_file_reads_back_the_same(tmp_path, suffix, schema):
    predictions = random_predictions(schema=schema, tasks=("smile", "pose"), lost=2)
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


def test_halves_are_by_image_and_not_by_row():
    predictions = random_predictions(10)
    predictions.frame["image"] = ["d", "c", "b", "a", "a", "a", "b", "c", "d", "e"]
    by_image = {"a": True, "b": False, "c": True, "d": False, "e": True}
    assert predictions.halves.tolist() == [by_image[name] for name in predictions.frame["image"]]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_missing_columns_are_named(tmp_path, suffix):
    predictions = random_predictions()
    for column in ("true_4_y", "pose_p3", "smile_true"):
        del predictions.frame[column]
    predictions.save(tmp_path / f"p{suffix}")
    with pytest.raises(DataError, match="mtfl5: it lacks true_4_y, smile_true, pose_p3"):
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

    predict.schema = "mtfl5"
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

    predict.schema = "mtfl5"
    predictions = predict_samples(predict, [sample()], np.array([[0, 0, 9, 9]]))
    assert np.isnan(predictions.points).all()
    assert predictions.probabilities("smile").tolist() == [[0.75, 0.25]]


def test_samples_that_do_not_fit_the_predictor_are_refused():
    boxes = np.array([[0, 0, 9, 9]])
    with pytest.raises(DataError, match="schema mtfl5, but there are samples of ibug68"):
        predict_samples(given_box, [sample(schema="ibug68")], boxes)
    with pytest.raises(DataError, match="no samples"):
        predict_samples(given_box, [], boxes)
    with pytest.raises(DataError, match="2 samples need as many boxes, got 1"):
        predict_samples(given_box, [sample(), sample()], boxes)
    with pytest.raises(BoxError, match="no area"):
        predict_samples(given_box, [sample()], boxes * 0)
