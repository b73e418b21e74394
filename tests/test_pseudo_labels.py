"""Faces on which two annotations agree become a table that recipes read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from annotate_fakes import write_pictures
from scripts import run_script

from facemtl.annotate import annotate
from facemtl.annotate.inputs import Item
from facemtl.annotate.rows import row_of
from facemtl.data.pseudo_labels import Limits, agreed_faces, write_pseudo_labels
from facemtl.data.table import read_table
from facemtl.errors import DataError
from facemtl.face import Attribute, Face, Pose

FIVE = np.float32([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]])  # the eyes are 40 apart


def face(points=FIVE, box=(10, 10, 90, 90), smile=0.95, label="smiling", certain=True, **changes) -> Face:
    other = "not_smiling" if label == "smiling" else "smiling"
    attribute = Attribute(label, smile, {label: smile, other: 1 - smile}, certain)
    values = {"score": 0.99, "quality": 0.9, "landmark_sigma": np.full(5, 0.5, np.float32), "pose": Pose(1, 2, 3)}
    return Face(
        np.float32(box), landmarks=points, schema="mtfl5", attributes={"smile": attribute}, **{**values, **changes}
    )


def agreed(one: list[Face], other: list[Face], **limits) -> tuple[list, Counter]:
    counts: Counter[str] = Counter()
    rows = [[row_of(0, Item("a.jpg"), (100, 100), faces=faces)] for faces in (one, other)]
    return list(agreed_faces(*rows, Limits(**limits), counts)), counts


def test_two_that_say_the_same_are_kept():
    ((source, kept, labels),), counts = agreed([face()], [face(FIVE + 0.5)])
    assert source == "a.jpg"
    np.testing.assert_array_equal(kept.landmarks, FIVE)  # the first one's
    assert labels == {"smile": "smiling"}
    assert counts == {"kept": 1, "label smile": 1}


@pytest.mark.parametrize(
    "one, other, reason",
    [
        (face(), None, "found by one annotation only"),
        (face(), face(box=(70, 10, 150, 90)), "found by one annotation only"),
        (face(score=0.8), face(), "a low score"),
        (face(), face(quality=0.4), "a low quality"),
        (face(), face(landmark_sigma=np.full(5, 2.5, np.float32)), "uncertain points"),  # 2.5 / 40 is over 0.06
        (face(), face(FIVE + 1), "points that disagree"),  # by the root of 2, over 0.03 of 40
        (face(FIVE * 0), face(), "eyes in one place"),
    ],
)
def test_what_is_left_out_and_why(one, other, reason):
    kept, counts = agreed([one], [other] if other else [])
    assert (kept, counts) == ([], {reason: 1})


def test_faces_without_quality_and_sigma_pass():
    bare = face(quality=None, landmark_sigma=None, pose=None)
    assert agreed([bare], [bare])[1]["kept"] == 1


@pytest.mark.parametrize("other", [{"label": "not_smiling"}, {"smile": 0.85}, {"certain": False}])
def test_a_label_that_is_not_sure_in_both_is_missing(other):
    for pair in ([face()], [face(**other)]), ([face(**other)], [face()]):
        ((_, _, labels),), counts = agreed(*pair)
        assert labels == {}
        assert counts == {"kept": 1}


def test_a_face_has_one_partner():
    two = [face(), face(box=(12, 12, 92, 92))]
    assert agreed(two, [face()])[1] == {"kept": 1, "label smile": 1, "found by one annotation only": 1}


def test_frames_and_members_cannot_stand_in_a_table():
    row = row_of(0, Item("a.tar", "b.jpg", 0), (100, 100), faces=[face()])
    counts: Counter[str] = Counter()
    assert list(agreed_faces([row], [row], Limits(), counts)) == []
    assert counts == {"in an archive or a video, which a table cannot name": 1}


def test_other_inputs_are_an_error():
    rows = [row_of(0, Item(name), (100, 100)) for name in ("a.jpg", "b.jpg")]
    with pytest.raises(DataError, match=r"input 0 is a.jpg in one annotation and b.jpg in the other"):
        list(agreed_faces(rows[:1], rows[1:], Limits(), Counter()))


class Says:
    """A predictor that finds the same face in every picture."""

    detector = None

    def __init__(self, found: Face) -> None:
        self.found = found

    def __call__(self) -> Says:
        return self

    def batch(self, images) -> list[list[Face]]:
        return [[self.found] for _ in images]


def test_the_tool_writes_a_table_that_recipes_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", [100] * 30)
    for name, found in (("first", face()), ("second", face(FIVE + 0.2))):
        annotate(["in"], name, Says(found), {"model": name}, format="jsonl")
    options = ("--out", "table", "--disagreement", "0.02")
    assert run_script("tools/pseudo_labels.py", monkeypatch, "first", "second", *options) == 0
    assert capsys.readouterr().out.split() == ["30", "kept", "30", "label", "smile"]
    samples = read_table(tmp_path / "table", "train") + read_table(tmp_path / "table", "heldout")
    assert len(samples) == 30
    assert samples[0].image.read_bytes() == (tmp_path / "in" / samples[0].image.name).read_bytes()
    np.testing.assert_array_equal(samples[0].points, FIVE)
    np.testing.assert_array_equal(samples[0].box, [10, 10, 90, 90])
    assert samples[0].labels == {"smile": 0}
    assert samples[0].angles.tolist() == [1, 2, 3]


def test_annotations_of_other_inputs_and_of_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", [100, 100])
    annotate(["in"], "two", Says(face()), {}, format="jsonl")
    annotate(["in/000.png"], "one", Says(face()), {}, format="jsonl")
    with pytest.raises(DataError, match="do not annotate the same inputs"):
        write_pseudo_labels(Path("one"), Path("two"), Path("table"), Limits())
    with pytest.raises(DataError, match=r"no face was kept: {'a low score': 2}"):
        write_pseudo_labels(Path("two"), Path("two"), Path("table"), Limits(score=1))
