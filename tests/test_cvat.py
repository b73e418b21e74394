"""CVAT for images: skeletons, plain points, boxes in groups, attributes as labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from face_files import complaint, write_picture

from facemtl.data.cvat import read_cvat
from facemtl.landmarks import SCHEMAS

SKELETON = """<skeleton label="face" source="manual" z_order="0"{group}>
  <points label="nose_tip" source="manual" outside="0" occluded="1" points="21.00,30.50"></points>
  <points label="left_eye" source="manual" outside="0" occluded="0" points="10.25,20.00"></points>
  <points label="right_eye" source="manual" outside="1" occluded="0" points="0.00,0.00"></points>
  <attribute name="smile">smiling</attribute>
</skeleton>"""
POINTS = (
    '<points label="face" source="manual" occluded="0" points="1,2;3,4;5,6;7,8;9.5,10" z_order="0"{group}></points>'
)
BOX = (
    '<box label="face" source="manual" occluded="0" xtl="5.00" ytl="6.00" xbr="45.00" ybr="56.00" z_order="0"{group}>'
    '<attribute name="gender">female</attribute><attribute name="quality">good</attribute></box>'
)


def plain(text: str, group: str = "") -> str:
    return text.replace("{group}", f' group_id="{group}"' if group else "")


def image(*shapes: str, name: str = "a/b.jpg") -> str:
    return f'<image id="0" name="{name}" width="640" height="480">{"".join(shapes)}</image>'


def write(root: Path, *images: str, split: str = "test") -> Path:
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    head += (
        "<meta><task><id>1</id><mode>annotation</mode><labels><label><name>face</name></label></labels></task></meta>"
    )
    (root / f"{split}.xml").write_text(f"{head}{''.join(images)}</annotations>")
    write_picture(root / "images" / "a" / "b.jpg")
    return root


def test_a_skeleton_with_its_box(tmp_path):
    (sample,) = read_cvat(write(tmp_path, image(plain(BOX), plain(SKELETON))), "test", "mtfl5")
    assert sample.image == tmp_path / "images" / "a" / "b.jpg"
    np.testing.assert_array_equal(sample.points[[0, 2]], [[10.25, 20], [21, 30.5]])  # a hidden point is a point
    assert np.isnan(sample.points[[1, 3, 4]]).all()  # outside, and not there at all
    np.testing.assert_array_equal(sample.box, [5, 6, 45, 56])
    assert sample.labels == {"smile": 0, "gender": 1}
    assert (sample.schema, sample.source) == ("mtfl5", "test.xml:a/b.jpg:1")


def test_plain_points_are_in_the_order_of_the_schema(tmp_path):
    (sample,) = read_cvat(write(tmp_path, image(plain(POINTS))), "test", "mtfl5")
    np.testing.assert_array_equal(sample.points, np.float32([[1, 2], [3, 4], [5, 6], [7, 8], [9.5, 10]]))
    assert sample.box is None


def test_boxes_alone_are_faces_and_pictures_without_any_are_passed_over(tmp_path):
    root = write(tmp_path, image(name="not_there.jpg"), image(plain(BOX), plain(BOX)))
    samples = read_cvat(root, "test")
    assert [s.source for s in samples] == ["test.xml:a/b.jpg:1", "test.xml:a/b.jpg:2"]
    assert all(np.isnan(s.points).all() and s.points.shape == (68, 2) for s in samples)


def test_of_several_faces_the_groups_say_which_box_is_whose(tmp_path):
    other = plain(BOX, "3").replace('xtl="5.00"', 'xtl="7.00"')
    shapes = (
        plain(BOX, "1"),
        other,
        plain(POINTS, "2"),
        plain(SKELETON, "3"),
        plain(BOX, "2").replace("5.00", "9.00", 1),
    )
    samples = read_cvat(write(tmp_path, image(*shapes)), "test", "mtfl5")
    assert [s.box[0] for s in samples] == [9, 7, 5]
    assert [bool(np.isfinite(s.points).any()) for s in samples] == [True, True, False]


@pytest.mark.parametrize("groups", [("", "", ""), ("1", "", "1"), ("1", "1", "1"), ("0", "0", "0")])
def test_which_box_is_whose_is_never_guessed(tmp_path, groups):
    shapes = [plain(text, group) for text, group in zip((BOX, POINTS, SKELETON), groups, strict=True)]
    said = complaint(read_cvat, write(tmp_path, image(*shapes)), "test", "mtfl5")
    assert (
        "2 faces with points and 1 boxes: expected the points and the box of each face in a group of their own" in said
    )


BAD = {
    "expected 5 points as mtfl5 has, found 4": plain(POINTS).replace("1,2;", ""),
    "expected x and y, found ('a', '2')": plain(POINTS).replace("1,2", "a,2"),
    "expected finite x and y, found ('1',)": plain(POINTS).replace("1,2", "1"),
    "expected finite x and y, found ('nan', '2')": plain(POINTS).replace("1,2", "nan,2"),
    "mtfl5 has no point 'left_ear'; known: left_eye": plain(SKELETON).replace("left_eye", "left_ear"),
    "a second point left_eye": plain(SKELETON).replace("right_eye", "left_eye"),
    "expected one place of the point left_eye, found 2": plain(SKELETON).replace("10.25,20.00", "1,2;3,4"),
    "expected a box with xtl, ytl, xbr and ybr, found label": plain(BOX).replace("xtl=", "left="),
    "expected a box with an area": plain(BOX).replace("45.00", "4.00"),
    "a turned box is not read": plain(BOX).replace("<box ", '<box rotation="12.5" '),
    "gender must be one of male, female, found 'f'": plain(BOX).replace("female", "f"),
}


@pytest.mark.parametrize(("reason", "shape"), BAD.items())
def test_a_bad_picture_is_reported_with_its_name(tmp_path, reason, shape):
    root = write(tmp_path, image(plain(BOX)), image(shape))
    said = complaint(read_cvat, root, "test", "mtfl5")
    assert said.startswith(f"1 bad pictures in {root / 'test.xml'}:\n{root / 'test.xml'}: image 'a/b.jpg': ")
    assert reason in said


def test_another_layout_shows_what_was_expected_and_found(tmp_path):
    root = write(tmp_path, image(plain(BOX), name="none.jpg"))
    assert "image 'none.jpg': the image none.jpg is missing" in complaint(read_cvat, root, "test")
    assert "test.xml holds no faces" in complaint(read_cvat, write(tmp_path, image()), "test")
    assert "found a track" in complaint(read_cvat, write(tmp_path, '<track id="0" label="face"></track>'), "test")
    for content, reason in {
        "<annotation></annotation>": "as CVAT exports them for images; found <annotation>",
        "": "is no XML",
        "<annotations>": "is no XML",
        '<?xml version="1.0" encoding="nonsense"?><annotations/>': "is no XML",
        '<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>': "expected XML without a document type",
    }.items():
        (root / "test.xml").write_text(content)
        assert reason in complaint(read_cvat, root, "test")
    assert "train.xml is missing" in complaint(read_cvat, root, "train")


def test_the_points_of_a_skeleton_of_68_go_by_the_names_of_the_schema(tmp_path):
    points = "".join(
        f'<points label="{n}" outside="0" points="{i},{i}"/>' for i, n in enumerate(SCHEMAS["ibug68"].names)
    )
    (sample,) = read_cvat(write(tmp_path, image(f'<skeleton label="face">{points}</skeleton>')), "test")
    np.testing.assert_array_equal(sample.points[:, 0], np.arange(68))
