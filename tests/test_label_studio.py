"""Label Studio: percent of the picture, tasks that were skipped, choices as labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture

from facemtl.data.label_studio import read_label_studio

SIZE = {"original_width": 200, "original_height": 100, "image_rotation": 0}


def point(name: str, x: float, y: float, **changes) -> dict:
    value = {"x": x, "y": y, "width": 0.67, "keypointlabels": [name]}
    return (
        {"id": "a1", "from_name": "kp", "to_name": "image", "type": "keypointlabels", "value": value} | SIZE | changes
    )


def rectangle(**changes) -> dict:
    value = {"x": 10, "y": 20, "width": 50, "height": 60, "rotation": 0, "rectanglelabels": ["face"]} | changes
    return {"id": "a2", "from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": value} | SIZE


def choice(task: str, *names: str) -> dict:
    return {"from_name": task, "to_name": "image", "type": "choices", "value": {"choices": list(names)}}


def task(*results: dict, number: int = 5, image: str = "/data/upload/1/3f2a-b%20c.jpg", annotations=None) -> dict:
    done = [{"id": 1, "was_cancelled": False, "result": list(results)}] if annotations is None else annotations
    return {"id": number, "data": {"image": image}, "annotations": done, "predictions": [], "project": 1}


def write(root: Path, *tasks: dict, split: str = "test") -> Path:
    (root / f"{split}.json").write_text(json.dumps(tasks))
    write_picture(root / "images" / "3f2a-b c.jpg", 200, 100)
    return root


def test_a_task(tmp_path):
    results = [point("left_eye", 25, 50), point("nose_tip", 0.25, 0.5), rectangle(), choice("smile", "smiling")]
    (sample,) = read_label_studio(write(tmp_path, task(*results)), "test", "mtfl5")
    assert sample.image == tmp_path / "images" / "3f2a-b c.jpg"  # the address is quoted
    # a quarter of 200 pixels from the corner is 49.5 from the centre of the first pixel
    np.testing.assert_allclose(sample.points[[0, 2]], [[49.5, 49.5], [0, 0]], atol=1e-6)
    assert np.isnan(sample.points[[1, 3, 4]]).all()
    np.testing.assert_allclose(sample.box, [19.5, 19.5, 119.5, 79.5])
    assert sample.labels == {"smile": 0}
    assert (sample.schema, sample.source) == ("mtfl5", "test.json:task 5")


def test_skipped_and_unfinished_tasks_are_passed_over(tmp_path):
    skipped = task(annotations=[{"was_cancelled": True, "result": []}])
    tasks = (skipped, task(annotations=[]), task(point("left_eye", 1, 1), number=6))
    assert [s.source for s in read_label_studio(write(tmp_path, *tasks), "test", "mtfl5")] == ["test.json:task 6"]
    said = complaint(read_label_studio, write(tmp_path, skipped), "test", "mtfl5")
    assert "holds no annotated tasks" in said


def test_a_face_without_a_box_or_points_is_a_face(tmp_path):
    boxless, pointless = read_label_studio(
        write(tmp_path, task(point("left_eye", 1, 1)), task(rectangle())), "test", "mtfl5"
    )
    assert boxless.box is None
    assert np.isnan(pointless.points).all()


BAD_TASKS = {
    "mtfl5 has no point 'chin'; known: left_eye, right_eye": task(point("chin", 1, 1)),
    "a second point left_eye": task(point("left_eye", 1, 1), point("left_eye", 2, 2)),
    "expected a number of percent in value.x, found '1'": task(point("left_eye", "1", 1)),
    "expected a number of percent in value.y, found nan": task(point("left_eye", 1, float("nan"))),
    "expected original_width and original_height, found None and 100": task(
        point("left_eye", 1, 1, original_width=None)
    ),
    "results of a turned picture are not read": task(point("left_eye", 1, 1, image_rotation=90)),
    "a turned box is not read": task(rectangle(rotation=5)),
    "expected a box with an area": task(rectangle(width=0)),
    "expected one box, found 2": task(rectangle(), rectangle()),
    "expected one name in value.choices, found ['smiling', 'x']": task(choice("smile", "smiling", "x")),
    "smile must be one of smiling, not_smiling, found 'yes'": task(choice("smile", "yes")),
    "expected a list of objects in annotations, found 7": task(annotations=7),
    "expected a list of objects in result, found [1]": task(annotations=[{"result": [1]}]),
    "expected one annotation, found 2": task(annotations=[{"result": []}, {"result": []}]),
    "the image none.jpg is missing": task(rectangle(), image="/data/none.jpg"),
    "expected the picture under data.image, found text": {
        "id": 5,
        "data": {"text": "a"},
        "annotations": [{"result": []}],
    },
}


@pytest.mark.parametrize(("reason", "bad"), BAD_TASKS.items())
def test_a_bad_task_is_reported_with_its_number(tmp_path, reason, bad):
    root = write(tmp_path, task(rectangle(), number=4), bad)
    said = complaint(read_label_studio, root, "test", "mtfl5")
    assert said.startswith(f"1 bad tasks in {root / 'test.json'}:\ntest.json:task 5: ")
    assert reason in said


def test_another_layout_shows_what_was_expected(tmp_path):
    root = write(tmp_path, task(rectangle()))
    for content in ("{}", "[1]", '[{"image": "a.jpg", "kp": []}]'):
        (root / "test.json").write_text(content)
        said = complaint(read_label_studio, root, "test", "mtfl5")
        assert "expected a list of tasks with data, as Label Studio exports JSON (not JSON-MIN)" in said
    assert "train.json is missing" in complaint(read_label_studio, root, "train", "mtfl5")
