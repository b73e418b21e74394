"""Sets and models with different points, judged by what they have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facemtl.data.sample import FaceSample
from facemtl.errors import ConfigError, DataError
from facemtl.face import Face
from facemtl.landmarks import SCHEMAS
from facemtl.shared_points import shared_points
from facemtl.training.metrics import evaluate
from facemtl.training.predictions import Predictions, predict_samples
from facemtl.training.report import summary_text, write_report


@pytest.mark.parametrize(
    ("of_set", "of_model", "schema", "used", "exact"),
    [
        ("mtfl5", ["mtfl5"], "mtfl5", "mtfl5", True),
        ("ibug68", ["mtfl5", "ibug68"], "ibug68", "ibug68", True),  # the richer one
        ("mtfl5", ["mtfl5", "ibug68"], "mtfl5", "mtfl5", True),  # the one that moves nothing
        ("mtfl5", ["ibug68"], "mtfl5", "ibug68", False),
        ("ibug68", ["mtfl5"], "mtfl5", "mtfl5", False),
        ("wflw98", ["mtfl5", "ibug68"], "ibug68", "ibug68", False),
        ("ibug68", ["wflw98"], "ibug68", "wflw98", False),
        ("lapa106", ["wflw98"], "ibug68", "wflw98", False),  # neither has these points itself
        ("aflw19", ["aflw21"], "aflw19", "aflw21", True),
        ("cofw29", ["ibug68"], "mtfl5", "ibug68", False),
    ],
)
def test_what_two_sides_have_in_common(of_set, of_model, schema, used, exact):
    shared = shared_points(of_set, of_model)
    assert (shared.schema, shared.model_schema, shared.exact) == (schema, used, exact)


def test_every_two_schemas_share_at_least_the_five():
    for one in SCHEMAS:
        for other in SCHEMAS:
            shared = shared_points(one, [other])
            assert len(SCHEMAS[shared.schema]) >= 5
            assert shared_points(other, [one]).schema == shared.schema
            assert len(shared.of_set.groups) == len(shared.of_model.groups) == len(SCHEMAS[shared.schema])


def test_an_unknown_schema_shares_nothing():
    with pytest.raises(ConfigError, match="points of 'seven' cannot be compared with those of 'mtfl5'"):
        shared_points("seven", ["mtfl5"])


def points68() -> np.ndarray:
    """Point i at (i, 2 i), the eyes around (30, 40) and (60, 40)."""
    points = np.stack([np.arange(68.0), 2 * np.arange(68.0)], axis=1)
    ring = np.array([[-3, 0], [-1, -1], [1, -1], [3, 0], [1, 1], [-1, 1]])
    points[36:42], points[42:48] = ring + np.array([30, 40]), ring + np.array([60, 40])
    return points


def test_a_face_of_68_points_as_five():
    face = Face(np.float32([0, 0, 9, 9]), 1.0, np.float32(points68()), "ibug68", landmark_sigma=np.ones(68, np.float32))
    five = shared_points("mtfl5", ["ibug68"]).face(face)
    assert five.schema == "mtfl5" and five.landmarks.tolist() == [[30, 40], [60, 40], [30, 60], [48, 96], [54, 108]]
    assert five.landmark_sigma is None  # an eye centre is a mean of six
    single = shared_points("aflw19", ["aflw21"]).face(
        Face(np.float32([0, 0, 9, 9]), 1.0, np.zeros((21, 2)), "aflw21", landmark_sigma=np.arange(21.0))
    )
    assert single.landmark_sigma.tolist() == [*range(12), 13, 14, 15, 17, 18, 19, 20]


class Model68:
    """Says of every box that the face is where :func:`points68` is, moved by 3 pixels to the right."""

    schema, tasks = "ibug68", ("landmarks",)

    def __call__(self, image, boxes):
        return [Face(np.float32(box), 1.0, np.float32(points68() + np.array([3, 0])), "ibug68") for box in boxes]


def samples(count: int = 40) -> list[FaceSample]:
    five = np.float32([[30, 40], [60, 40], [30, 60], [48, 96], [54, 108]])
    return [FaceSample(Path(f"{i}.jpg"), five, "mtfl5", labels={}) for i in range(count)]


def judged() -> Predictions:
    boxes = np.tile([10.0, 10, 90, 90], (40, 1))
    return predict_samples(Model68(), samples(), boxes, shared=shared_points("mtfl5", ["ibug68"]))


def test_a_model_of_68_points_on_a_set_of_five():
    predictions = judged()
    assert predictions.schema == "mtfl5" and predictions.origins == ("mtfl5", "ibug68")
    results = evaluate(predictions)
    raw, corrected = (results["all"]["landmarks"][kind] for kind in ("raw", "corrected"))
    assert raw["nme_percent"] == pytest.approx(10)  # 3 of 30 pixels, which is nothing but a constant offset
    assert corrected["nme_percent"] == pytest.approx(0, abs=1e-9)
    assert results["shared"]["exact"] is False and results["shared"]["set_offset_percent"] is None
    assert results["shared"]["model_offset_percent"][0] == pytest.approx([1.0, -0.2])


def test_without_what_they_share_nothing_is_left_to_judge():
    with pytest.raises(DataError, match="the predictor gives points of the schema ibug68"):
        predict_samples(Model68(), samples(), np.tile([10.0, 10, 90, 90], (40, 1)))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_saved_predictions_and_reports_say_where_the_points_come_from(tmp_path, suffix):
    judged().save(tmp_path / f"p{suffix}")
    read = Predictions.load(tmp_path / f"p{suffix}")
    assert read.origins == ("mtfl5", "ibug68")
    said = "points of mtfl5 (set) and ibug68 (model), judged as mtfl5, approximately"
    assert summary_text(read).startswith(said)
    assert "known offset of the model's: up to 3.5 %" in summary_text(read)
    write_report(read, tmp_path / "report.html", "a")
    assert said in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_unknown_origin_in_a_file_is_an_error(tmp_path):
    predictions = judged()
    predictions.frame["model_schema"] = "seven"
    predictions.save(tmp_path / "p.parquet")
    with pytest.raises(DataError, match="model_schema must be one of mtfl5"):
        Predictions.load(tmp_path / "p.parquet")
