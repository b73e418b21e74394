"""What other programs' files say of one face, worked out by hand from their documentation."""

from __future__ import annotations

import copy
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from format_faces import BARE, FIVE, FLAT, IMAGE, NAMES, a_face

from facemtl import formats
from facemtl.errors import ConfigError, DataError, DependencyError
from facemtl.face import ATTRIBUTES, Attribute
from facemtl.formats import ImageFaces
from facemtl.formats.rekognition import LANDMARKS
from facemtl.formats.supervision import edges
from facemtl.head_pose import angles_from_five
from facemtl.landmarks import SCHEMAS

# --- COCO -----------------------------------------------------------------------------------------------------------


def test_coco_by_hand():
    document = formats.to_coco([ImageFaces("empty.jpg", 10, 20), IMAGE])
    assert document["images"] == [
        {"id": 1, "file_name": "empty.jpg", "width": 10, "height": 20},
        {"id": 2, "file_name": "photos/a.jpg", "width": 200, "height": 100},
    ]
    assert document["categories"] == [
        {"id": 1, "name": "face_mtfl5", "supercategory": "face", "keypoints": list(NAMES), "skeleton": []}
    ]
    (annotation,) = document["annotations"]
    assert annotation == {
        "id": 1,
        "image_id": 2,
        "category_id": 1,
        "bbox": [20.0, 30.0, 60.0, 40.0],  # from the picture's corner
        "area": 2400.0,
        "iscrowd": 0,
        "segmentation": [],
        # 0-indexed: the centre of the first pixel is 0
        "keypoints": [39.5, 39.5, 2, 59.5, 39.5, 2, 49.5, 49.5, 2, 41.5, 59.5, 2, 57.5, 59.5, 2],
        "num_keypoints": 5,
        "score": 0.75,
        "attributes": FLAT,
        "landmark_sigma": [1.0, 1.0, 2.0, 0.5, 0.25],
    }


def test_coco_visibility_tells_outside_from_unmarked():
    points = np.float32([[-0.5, 99.5], [-0.75, 10], [np.nan, np.nan], [199.5, 0], [200, 0]])
    (annotation,) = formats.to_coco([ImageFaces("a", 200, 100, [a_face(landmarks=points)])])["annotations"]
    assert annotation["keypoints"][2::3] == [2, 1, 0, 2, 1]
    assert annotation["keypoints"][6:9] == [0.0, 0.0, 0]
    assert annotation["num_keypoints"] == 4


def test_coco_edges_count_from_one():
    face = a_face(landmarks=np.zeros((68, 2), np.float32), schema="ibug68", landmark_sigma=None)
    (category,) = formats.to_coco([ImageFaces("a", 200, 100, [face])])["categories"]
    assert category["skeleton"][:2] == [[1, 2], [2, 3]]
    assert max(max(edge) for edge in category["skeleton"]) == 68
    assert edges("ibug68") == [tuple(edge) for edge in category["skeleton"]]


def test_coco_reads_the_labels_of_people():
    document = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 3, "name": "head", "keypoints": list(NAMES)}, {"id": 4, "name": "body"}],
        "annotations": [
            {"image_id": 7, "category_id": 4, "bbox": [0, 0, 10, 20], "attributes": {"occluded": False}},
            {"image_id": 7, "category_id": 4, "bbox": [0, 0, 10, 20], "iscrowd": 1},
            {
                "image_id": 7,
                "category_id": 3,
                "bbox": [1, 2, 30, 40],
                "keypoints": [5, 6, 2, 0, 0, 0, 7, 8, 1, 0, 0, 0, 0, 0, 0],
                "attributes": {"smile": "smiling"},
            },
        ],
    }
    (image,) = formats.from_coco(document)
    body, head = image.faces
    assert body.box.tolist() == [-0.5, -0.5, 9.5, 19.5]
    assert (len(body.landmarks), dict(body.attributes), body.score) == (0, {}, 1.0)
    np.testing.assert_array_equal(head.landmarks, [[5, 6], [np.nan] * 2, [7, 8], [np.nan] * 2, [np.nan] * 2])
    assert head.attributes["smile"] == Attribute("smiling", 1.0, {"smiling": 1.0, "not_smiling": 0.0})


def test_coco_opens_in_cocos_own_program(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    path = tmp_path / "faces.json"
    path.write_text(formats.format_text([IMAGE], "coco"))
    loaded = coco.COCO(str(path))
    assert loaded.getAnnIds(imgIds=[1], catIds=loaded.getCatIds(catNms=["face_mtfl5"])) == [1]
    assert loaded.loadRes(loaded.dataset["annotations"]).anns[1]["num_keypoints"] == 5


# --- CVAT -----------------------------------------------------------------------------------------------------------


def test_cvat_by_hand():
    root = ET.fromstring(formats.to_cvat([IMAGE]).encode())
    assert (root.tag, root.findtext("version"), root.findtext("meta/task/size")) == ("annotations", "1.1", "1")
    image = root.find("image")
    assert image.attrib == {"id": "0", "name": "photos/a.jpg", "width": "200", "height": "100"}
    box, skeleton = image
    shape = {"source": "auto", "occluded": "0", "z_order": "0", "group_id": "1"}
    corners = {"xtl": "20.000", "ytl": "30.000", "xbr": "80.000", "ybr": "70.000"}
    assert (box.tag, box.attrib) == ("box", {"label": "face", **shape, **corners})
    texts = {e.attrib["name"]: e.text for e in box}
    assert texts == {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in FLAT.items()}
    assert (skeleton.tag, skeleton.attrib) == ("skeleton", {"label": "face_mtfl5", **shape})
    assert [point.attrib["label"] for point in skeleton] == list(NAMES)
    place = {"outside": "0", "points": "40.000,40.000"}
    assert skeleton[0].attrib == {"label": "left_eye", "source": "auto", "occluded": "0", **place}
    assert [point.findtext("attribute[@name='sigma']") for point in skeleton][2:4] == ["2.0000", "0.5000"]


def test_cvat_labels_are_what_a_task_needs():
    box, skeleton = formats.cvat_labels([IMAGE])
    assert (box["name"], box["type"]) == ("face", "rectangle")
    kinds = {spec["name"]: (spec["input_type"], spec["values"]) for spec in box["attributes"]}
    assert list(kinds) == list(FLAT)
    assert kinds["smile"] == ("select", ["smiling", "not_smiling"])
    assert kinds["smile.certain"] == ("checkbox", ["false"])
    assert kinds["yaw"] == ("text", [""])
    assert (skeleton["name"], skeleton["type"]) == ("face_mtfl5", "skeleton")
    assert [sub["name"] for sub in skeleton["sublabels"]] == list(NAMES)
    circles = ET.fromstring(f"<svg>{skeleton['svg']}</svg>").findall("circle")
    assert [circle.attrib["data-label-name"] for circle in circles] == list(NAMES)
    assert [circle.attrib["data-node-id"] for circle in circles] == ["1", "2", "3", "4", "5"]
    # 20 pixels between the eyes and 20 down to the mouth fill the template's square from 10 to 90.
    assert [(circle.attrib["cx"], circle.attrib["cy"]) for circle in circles][:3] == [
        ("10.00", "10.00"),
        ("90.00", "10.00"),
        ("50.00", "50.00"),
    ]


def test_the_labels_stand_in_the_cvat_file_too():
    labels = ET.fromstring(formats.to_cvat([IMAGE]).encode()).findall("meta/task/labels/label")
    assert [label.findtext("name") for label in labels] == ["face", "face_mtfl5", *NAMES]
    assert [label.findtext("parent") for label in labels] == [None, None, *["face_mtfl5"] * 5]
    smile = labels[0].findall("attributes/attribute")[1]
    assert (smile.findtext("name"), smile.findtext("values")) == ("smile", "smiling\nnot_smiling")


def test_cvat_lines_of_a_template_join_its_points():
    points = np.random.default_rng(0).uniform(0, 90, (68, 2)).astype(np.float32)
    face = a_face(landmarks=points, schema="ibug68", landmark_sigma=None)
    svg = ET.fromstring(f"<svg>{formats.cvat_labels([ImageFaces('a', 99, 99, [face])])[1]['svg']}</svg>")
    places = {c.attrib["data-node-id"]: (c.attrib["cx"], c.attrib["cy"]) for c in svg.findall("circle")}
    lines = svg.findall("line")
    assert len(lines) == len(SCHEMAS["ibug68"].edges)
    for line in lines:
        assert (line.attrib["x1"], line.attrib["y1"]) == places[line.attrib["data-node-from"]]
        assert (line.attrib["x2"], line.attrib["y2"]) == places[line.attrib["data-node-to"]]


def test_cvat_reads_what_people_drew():
    (image,) = formats.from_cvat(
        """<annotations><version>1.1</version><image id="0" name="a.jpg" width="50" height="40">
        <box label="car" xtl="1" ytl="1" xbr="2" ybr="2"/>
        <box label="face" occluded="0" xtl="0.50" ytl="0.50" xbr="20.50" ybr="30.50" z_order="0">
          <attribute name="smile"></attribute><attribute name="gender">female</attribute>
        </box>
        <skeleton label="face_mtfl5" z_order="0">
          <points label="right_eye" outside="0" occluded="0" points="9.50,8.50"/>
          <points label="left_eye" outside="0" occluded="1" points="3.50,4.50"/>
          <points label="nose_tip" outside="1" occluded="0" points="1.00,1.00"/>
        </skeleton></image></annotations>"""
    )
    boxed, pointed = image.faces
    assert boxed.box.tolist() == [0.0, 0.0, 20.0, 30.0]
    assert {name: a.label for name, a in boxed.attributes.items()} == {"gender": "female"}
    np.testing.assert_array_equal(pointed.landmarks, [[3, 4], [9, 8], *[[np.nan] * 2] * 3])
    assert pointed.box.tolist() == [3.0, 4.0, 9.0, 8.0]


# --- Label Studio ---------------------------------------------------------------------------------------------------


def test_label_studio_by_hand():
    (task,) = formats.to_label_studio([IMAGE], model_version="v1", url_prefix="/data/")
    assert task["data"] == {"image": "/data/photos/a.jpg", "name": "photos/a.jpg", "width": 200, "height": 100}
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("v1", 0.75)
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    common = {"to_name": "image", **size}
    place = {"x": 10.0, "y": 30.0, "width": 30.0, "height": 40.0, "rotation": 0}  # percents from the corner
    assert prediction["result"][:5] == [
        {
            "id": "face1",
            "type": "rectanglelabels",
            "from_name": "box",
            "value": {**place, "rectanglelabels": ["face"]},
            "score": 0.75,
            "meta": FLAT,
            **common,
        },
        *(
            {
                "id": "face1",
                "type": "choices",
                "from_name": name,
                "value": {**place, "choices": [label]},
                "score": score,
                **common,
            }
            for name, label, score in (
                ("smile", "smiling", 0.9),
                ("glasses", "no_glasses", 0.6),
                ("gender", "male", 0.8),
            )
        ),
        {
            "id": "face1-left_eye",
            "type": "keypointlabels",
            "from_name": "mtfl5",
            "parentID": "face1",
            "value": {"x": 20.0, "y": 40.0, "width": 0.5, "keypointlabels": ["left_eye"]},
            "meta": {"sigma": 1.0},
            **common,
        },
    ]
    assert len(prediction["result"]) == 4 + 5


def test_label_studio_names_are_those_of_its_configuration():
    view = ET.fromstring(formats.label_studio_config([IMAGE]))
    tags = {tag.attrib["name"]: tag for tag in view}
    assert {name: tag.tag for name, tag in tags.items()} == {
        "image": "Image",
        "box": "RectangleLabels",
        "mtfl5": "KeyPointLabels",
        "smile": "Choices",
        "glasses": "Choices",
        "gender": "Choices",
    }
    (task,) = formats.to_label_studio([IMAGE])
    for region in task["predictions"][0]["result"]:
        tag = tags[region["from_name"]]
        assert tag.tag.lower() == region["type"]
        assert tag.attrib["toName"] == region["to_name"]
        assert {entry.attrib["value"] for entry in tag} >= set(region["value"][region["type"]])
    assert tags["image"].attrib["value"] == "$image"


def test_label_studio_gives_what_people_corrected():
    (task,) = formats.to_label_studio([IMAGE])
    result = copy.deepcopy(task["predictions"][0]["result"])
    result[1]["value"]["choices"] = ["not_smiling"]
    result[4]["value"] |= {"x": 25.0}
    result[0]["meta"]["text"] = ["a note"]
    moved = result.pop()  # the last point is drawn anew: no parent, no sigma
    result.append({key: value for key, value in moved.items() if key not in ("parentID", "meta")} | {"id": "x"})
    (image,) = formats.from_label_studio([task | {"annotations": [{"result": result}]}])
    (face,) = image.faces
    assert face.attributes["smile"] == Attribute("not_smiling", 0.1, {"smiling": 0.9, "not_smiling": 0.1})
    np.testing.assert_allclose(face.landmarks, [[49.5, 39.5], *FIVE[1:]], atol=1e-4)
    np.testing.assert_array_equal(face.landmark_sigma, [1, 1, 2, 0.5, np.nan])


def test_a_point_without_a_parent_belongs_to_the_smallest_face_around_it():
    def box(identity: str, x: float, width: float) -> dict:
        value = {"x": x, "y": 0, "width": width, "height": 50, "rectanglelabels": ["face"]}
        return {"id": identity, "type": "rectanglelabels", "from_name": "box", "value": value}

    point = {"x": 20, "y": 20, "width": 1, "keypointlabels": ["nose_tip"]}
    result = [
        *(box("large", 0, 90), box("small", 10, 20), box("elsewhere", 60, 5)),
        {"id": "p", "type": "keypointlabels", "from_name": "mtfl5", "value": point},
    ]
    data = {"image": "a.jpg", "width": 200, "height": 100}
    (image,) = formats.from_label_studio([{"data": data, "annotations": [{"result": result}]}])
    assert (image.name, image.width, image.height) == ("a.jpg", 200, 100)
    assert [len(face.landmarks) for face in image.faces] == [0, 5, 0]
    assert image.faces[1].landmarks[2].tolist() == [39.5, 19.5]


def test_label_studio_gets_what_lies_in_the_picture():
    # from corner to corner: the box -50..150 x -50..110, the points at the edges and a little beyond
    points = np.float32([[-0.5, -0.5], [-0.51, 0], [199.5, 99.5], [0, 99.51], [np.nan, np.nan]])
    inside = a_face(box=np.float32([-50.5, -50.5, 149.5, 109.5]), landmarks=points)
    outside = a_face(box=np.float32([-50, 0, -1, 20]))
    (task,) = formats.to_label_studio([ImageFaces("a", 200, 100, [outside, inside])])
    box, *others = task["predictions"][0]["result"]
    assert [box["value"][key] for key in ("x", "y", "width", "height")] == [0.0, 0.0, 75.0, 100.0]
    found = {r["value"]["keypointlabels"][0]: r["value"] for r in others if r["type"] == "keypointlabels"}
    assert {name: (v["x"], v["y"]) for name, v in found.items()} == {"left_eye": (0, 0), "nose_tip": (100, 100)}


# --- FiftyOne, Rekognition ------------------------------------------------------------------------------------------


def test_fiftyone_detections_by_hand():
    document = formats.to_fiftyone_detections([IMAGE, ImageFaces("b.png", 5, 5)])
    fields = {name.replace(".", "_"): value for name, value in FLAT.items() if name != "score"}
    face = {"label": 0, "bounding_box": [0.1, 0.3, 0.3, 0.4], "confidence": 0.75, "attributes": fields}
    assert document == {"classes": ["face"], "labels": {"photos/a": [face], "b": []}}
    with pytest.raises(DataError, match=r"names without suffix: a$"):
        formats.to_fiftyone_detections([ImageFaces("a.jpg", 5, 5), ImageFaces("a.png", 5, 5)])


def test_fiftyone_samples_by_hand():
    (sample,) = formats.to_fiftyone_samples([ImageFaces("a.jpg", 200, 100, [BARE, a_face()])])["samples"]
    assert sample["filepath"] == "a.jpg"
    assert sample["metadata"] == {"_cls": "ImageMetadata", "width": 200, "height": 100}
    _, detection = sample["faces"]["detections"]
    assert (detection["label"], detection["bounding_box"], detection["index"]) == ("face", [0.1, 0.3, 0.3, 0.4], 1)
    assert (detection["smile"], detection["smile_smiling"], detection["yaw"]) == ("smiling", 0.9, 10.0)
    assert not [name for name in detection if "." in name]
    (keypoint,) = sample["landmarks"]["keypoints"]  # the other face has no points
    assert (keypoint["label"], keypoint["index"], len(keypoint["sigma"])) == ("mtfl5", 1, 5)
    assert keypoint["points"][:2] == [[0.2, 0.4], [0.3, 0.4]]


def test_rekognition_by_hand():
    (detail,) = formats.to_rekognition(IMAGE)["FaceDetails"]
    assert detail == {
        "BoundingBox": {"Width": 0.3, "Height": 0.4, "Left": 0.1, "Top": 0.3},
        "Confidence": 75.0,
        "Landmarks": [
            {"Type": "eyeLeft", "X": 0.2, "Y": 0.4},
            {"Type": "eyeRight", "X": 0.3, "Y": 0.4},
            {"Type": "nose", "X": 0.25, "Y": 0.5},
            {"Type": "mouthLeft", "X": 0.21, "Y": 0.6},
            {"Type": "mouthRight", "X": 0.29, "Y": 0.6},
        ],
        "Pose": {"Roll": 0.25, "Yaw": 10.0, "Pitch": -5.5},
        "Smile": {"Value": True, "Confidence": 90.0},
        "Eyeglasses": {"Value": False, "Confidence": 60.0},
        "Gender": {"Value": "Male", "Confidence": 80.0},
    }
    (bare,) = formats.to_rekognition(ImageFaces("a", 200, 100, [BARE]))["FaceDetails"]
    assert set(bare) == {"BoundingBox", "Confidence"}


def test_rekognition_knows_every_class_of_its_attributes():
    for ours, values in formats.rekognition.ATTRIBUTES.values():
        assert set(values) == set(ATTRIBUTES[ours])


def test_roll_and_yaw_have_the_signs_of_amazons_sample_answer():
    # GetCelebrityRecognition in the Amazon Rekognition Developer Guide: a video of 1920 x 1080, Roll -8.8, Yaw 20.3.
    ratios = {
        "eyeLeft": (0.06857934594154358, 0.30842265486717224),
        "eyeRight": (0.10396526008844376, 0.300625205039978),
        "nose": (0.0966852456331253, 0.34081998467445374),
        "mouthLeft": (0.075217105448246, 0.3811396062374115),
        "mouthRight": (0.10744428634643555, 0.37407416105270386),
    }
    points = np.array([ratios[name] for name in LANDMARKS]) * (1920, 1080)
    yaw, _, roll = angles_from_five(points)
    assert yaw == pytest.approx(20.3, abs=10)
    assert roll == pytest.approx(-8.8, abs=4)


# --- supervision ----------------------------------------------------------------------------------------------------


def test_supervision_types():
    sv = pytest.importorskip("supervision")
    faces = [a_face(), a_face(box=np.float32([0, 1, 2, 3]), score=0.5, quality=None, track_id=4)]
    detections = formats.to_detections(faces)
    assert isinstance(detections, sv.Detections)
    np.testing.assert_array_equal(detections.xyxy, [[19.5, 29.5, 79.5, 69.5], [0, 1, 2, 3]])
    assert detections.confidence.tolist() == [0.75, 0.5]
    assert detections.class_id.tolist() == [0, 0]
    assert detections.tracker_id.tolist() == [3, 4]
    assert detections["class_name"].tolist() == ["face", "face"]
    assert detections["smile"].tolist() == ["smiling", "smiling"]
    assert "quality" not in detections.data  # one has none
    assert len(detections[detections.confidence > 0.6]) == 1
    points = formats.to_key_points(faces)
    assert isinstance(points, sv.KeyPoints)
    np.testing.assert_array_equal(points.xy, np.float32([FIVE, FIVE]))
    assert points["sigma"].tolist() == [[1, 1, 2, 0.5, 0.25]] * 2
    assert len(points[0]) == 1


def test_supervision_without_faces_and_with_too_many_schemas():
    pytest.importorskip("supervision")
    assert len(formats.to_detections([])) == len(formats.to_key_points([])) == 0
    other = a_face(landmarks=np.zeros((68, 2), np.float32), schema="ibug68")
    with pytest.raises(ConfigError, match="one schema; these faces are of ibug68, mtfl5"):
        formats.to_key_points([a_face(), other])


@pytest.mark.parametrize("convert", [formats.to_detections, formats.to_key_points])
def test_supervision_is_asked_for_when_it_is_missing(convert, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(DependencyError, match="pip install supervision"):
        convert([a_face()])
    assert issubclass(DependencyError, ImportError)
