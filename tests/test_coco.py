"""COCO keypoints: points by their names, visibility, other categories, labels among attributes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture

from facemtl.data.coco import read_coco
from facemtl.data.splits import is_heldout
from facemtl.landmarks import SCHEMAS

FIVE = list(SCHEMAS["mtfl5"].names)
FACE = {"id": 1, "name": "face", "keypoints": FIVE, "skeleton": []}
CAR = {"id": 2, "name": "car"}


def face(number: int = 7, image: int = 3, **changes) -> dict:
    numbers = [10.5, 20, 2, 30, 21, 2, 21, 30, 1, 14, 40, 2, 0, 0, 0]
    made = {"id": number, "image_id": image, "category_id": 1, "keypoints": numbers, "num_keypoints": 4}
    return made | {"bbox": [5, 6, 40, 50], "area": 2000, "iscrowd": 0} | changes


def write_coco(root: Path, annotations: list[dict], split: str = "test", categories=(FACE, CAR), images=None) -> Path:
    names = images or {3: "a/b.jpg"}
    content = {
        "info": {"year": 2024},
        "licenses": [],
        "images": [{"id": i, "file_name": name, "width": 12, "height": 10} for i, name in names.items()],
        "categories": list(categories),
        "annotations": annotations,
    }
    root.mkdir(exist_ok=True)
    (root / f"{split}.json").write_text(json.dumps(content))
    for name in names.values():
        write_picture(root / "images" / name)
    return root


def test_an_annotation(tmp_path):
    attributes = {"smile": "not_smiling", "occluded": False, "pose": ""}
    (sample,) = read_coco(write_coco(tmp_path, [face(attributes=attributes)]), "test", "mtfl5")
    assert sample.image == tmp_path / "images" / "a" / "b.jpg"
    np.testing.assert_array_equal(sample.points[:4], [[10.5, 20], [30, 21], [21, 30], [14, 40]])
    assert np.isnan(sample.points[4]).all()  # not labelled, whatever its 0 and 0
    np.testing.assert_array_equal(sample.box, [5, 6, 45, 56])
    assert (sample.schema, sample.source) == ("mtfl5", "test.json:annotation 7")
    assert sample.labels == {"smile": 1}


def test_points_go_by_their_names(tmp_path):
    category = FACE | {"keypoints": FIVE[::-1]}
    (sample,) = read_coco(write_coco(tmp_path, [face()], categories=[category]), "test", "mtfl5")
    np.testing.assert_array_equal(sample.points[[4, 3]], [[10.5, 20], [30, 21]])


def test_other_categories_and_faces_without_boxes(tmp_path):
    car = {"id": 8, "image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 4]}
    samples = read_coco(write_coco(tmp_path, [car, face(bbox=None), face(9)]), "test", "mtfl5")
    assert [s.source for s in samples] == ["test.json:annotation 7", "test.json:annotation 9"]
    assert samples[0].box is None


def test_all_faces_of_a_file_have_the_tasks_that_any_of_them_labels(tmp_path):
    faces = [face(), face(8, attributes={"smile": "smiling"}), face(9, attributes={"gender": "female"})]
    samples = read_coco(write_coco(tmp_path, faces), "test", "mtfl5")
    assert [s.labels for s in samples] == [
        {"smile": -1, "gender": -1},
        {"smile": 0, "gender": -1},
        {"smile": -1, "gender": 1},
    ]


def test_a_tenth_of_the_pictures_is_held_out_where_there_is_no_file_for_it(tmp_path):
    images = {i: f"{i}.jpg" for i in range(40)}
    root = write_coco(tmp_path, [face(i, i % 40) for i in range(80)], "train", images=images)
    parts = {split: read_coco(root, split, "mtfl5") for split in ("train", "heldout")}
    assert len(parts["train"]) + len(parts["heldout"]) == 80
    assert (
        {s.image.name for s in parts["heldout"]} == {n for n in images.values() if is_heldout(f"images/{n}")} != set()
    )
    write_coco(root, [face()], "heldout")
    assert [s.image.name for s in read_coco(root, "heldout", "mtfl5")] == ["b.jpg"]
    assert len(read_coco(root, "train", "mtfl5")) == 80


BAD_FACES = {
    "expected 15 numbers in keypoints, x y v of each point, found 14": {"keypoints": [1] * 14},
    "expected 15 numbers in keypoints, x y v of each point, found None": {"keypoints": None},
    "expected 0, 1 or 2 as the visibility of left_eye, found 3": {"keypoints": [1, 1, 3] * 5},
    "expected x and y, found ('a', 1)": {"keypoints": ["a", 1, 2] * 5},
    "expected finite x and y, found (nan, 1)": {"keypoints": [float("nan"), 1, 2] * 5},
    "expected x width height in bbox".replace("x ", "x y ", 1): {"bbox": [1, 2, 3]},
    "expected a box with an area, found x1 y1 x2 y2 of [1.0, 2.0, 1.0, 6.0]": {"bbox": [1, 2, 0, 4]},
    "its image 4 is not among images": {"image_id": 4},
    "smile must be one of smiling, not_smiling, found 'yes'": {"attributes": {"smile": "yes"}},
}


@pytest.mark.parametrize(("reason", "changes"), BAD_FACES.items())
def test_a_bad_annotation_is_reported_with_its_number(tmp_path, reason, changes):
    root = write_coco(tmp_path, [face(), face(8, **changes)])
    said = complaint(read_coco, root, "test", "mtfl5")
    assert said.startswith(f"1 bad annotations in {root / 'test.json'}:\ntest.json:annotation 8: ")
    assert reason in said


def test_another_layout_shows_what_was_expected_and_found(tmp_path):
    root = write_coco(tmp_path, [face()])
    said = complaint(read_coco, root, "test", "ibug68")
    assert "category 1: expected the 68 points of ibug68, found 5, without jaw_0, jaw_1, jaw_2, with left_eye" in said
    assert "expected a category with keypoints, found 1 categories without" in complaint(
        read_coco, write_coco(tmp_path, [face()], categories=[CAR]), "test"
    )
    assert "holds no annotations with keypoints" in complaint(read_coco, write_coco(tmp_path, []), "test", "mtfl5")
    for content in ("[]", "{}", '{"images": 1, "categories": [], "annotations": []}', '{"images": [1]}'):
        (root / "test.json").write_text(content)
        assert "expected an object with the lists images, categories and annotations" in complaint(
            read_coco, root, "test"
        )
    for content in ("", "{", "[" * 100_000):
        (root / "test.json").write_text(content)
        assert "cannot be read as JSON" in complaint(read_coco, root, "test")
    assert "train.json is missing" in complaint(read_coco, root, "train")
    assert "no split 'val'; known: train, heldout, test" in complaint(read_coco, root, "val")
