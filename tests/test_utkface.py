"""UTKFace: labels from file names, splits from their hash, a face box but no points; and training on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scripts import run_prepare
from tiny_training import tiny_recipe
from utkface_layout import write_utkface

from facemtl.data.sample import face_box
from facemtl.data.targets import mirrored_class
from facemtl.data.utkface import ETHNICITIES, FACE_BOX, SPLITS, labels_of, read_utkface, split_of, strata_of
from facemtl.errors import ConfigError, DataError
from facemtl.image import read_image, write_image
from facemtl.predictor import Predictor
from facemtl.training.comparison import Comparison
from facemtl.training.engine import train
from facemtl.training.metrics import evaluate
from facemtl.training.predictions import predict_samples
from facemtl.training.training_data import TrainingData
from facemtl.training.verdicts import as_markdown, judge

MALE, FEMALE = 0, 1
CHILD, ADULT, SENIOR = 0, 1, 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 rendered faces under UTKFace's names."""
    folder = tmp_path_factory.mktemp("data") / "utkface"
    write_utkface(folder, 40)
    return folder


def everything(root: Path) -> list:
    return [sample for split in SPLITS for sample in read_utkface(root, split)]


@pytest.mark.parametrize(
    ("name", "gender", "age"),
    [
        ("1_0_2_20161219140623097.jpg.jpg", MALE, CHILD),
        ("17_1_0_20170109214447621.jpg.jpg", FEMALE, CHILD),
        ("18_1_0_20170109214447621.jpg", FEMALE, ADULT),
        ("59_0_3_20170109214447621.jpg.chip.jpg", MALE, ADULT),
        ("60_0_3_20170109214447621.jpg.jpg", MALE, SENIOR),
        ("116_1_0_20170112213303693.jpg.jpg", FEMALE, SENIOR),
        ("24_0_1_20170116220224657 .jpg.jpg", MALE, ADULT),
        # One field is lacking: the 1, and the 3, may be gender or race.
        ("61_1_20170109142408075.jpg.jpg", -1, SENIOR),
        ("61_3_20170109150557335.jpg.jpg", -1, SENIOR),
        ("53__0_20170116184028385.jpg.jpg", -1, ADULT),
        ("53_2_0_20170116184028385.jpg.jpg", -1, ADULT),
        ("_1_0_20170116184028385.jpg.jpg", FEMALE, -1),
        ("portrait.jpg", -1, -1),
    ],
)
def test_labels_stand_in_the_name(name, gender, age):
    assert labels_of(name) == {"gender": gender, "age": age}


@pytest.mark.parametrize(
    ("name", "strata"),
    [
        ("17_1_0_20170109214447621.jpg.jpg", {"age": "child", "ethnicity": "white"}),
        ("18_1_1_20170109214447621.jpg.jpg", {"age": "adult", "ethnicity": "black"}),
        ("60_0_2_20170109214447621.jpg.jpg", {"age": "senior", "ethnicity": "asian"}),
        ("24_0_3_20170116220224657 .jpg.jpg", {"age": "adult", "ethnicity": "indian"}),
        ("24_0_4_20170116220224657.jpg.jpg", {"age": "adult", "ethnicity": "others"}),
        ("24_0_5_20170116220224657.jpg.jpg", {"age": "adult"}),
        (
            "53__0_20170116184028385.jpg.jpg",
            {"age": "adult", "ethnicity": "white"},
        ),  # gender is empty, race is in its place
        ("61_1_20170109142408075.jpg.jpg", {"age": "senior"}),  # the 1 may be gender or race
        ("_1_0_20170116184028385.jpg.jpg", {"ethnicity": "white"}),
        ("portrait.jpg", {}),
    ],
)
def test_strata_stand_in_the_name_and_what_it_lacks_is_left_out(name, strata):
    assert strata_of(name) == strata


def test_ethnicity_is_a_stratum_and_no_label(root):
    for sample in everything(root):
        assert set(sample.labels) == {"gender", "age"}
        assert sample.strata == {"age": ("child", "adult", "senior")[sample.labels["age"]], "ethnicity": "white"}


def test_the_split_is_the_last_decimal_digit_of_the_sha256_of_the_name():
    assert split_of("5_0_0_20170101000000000.jpg.jpg") == "test"  # ... 0
    assert split_of("11_0_0_20170101000000000.jpg.jpg") == "heldout"  # ... 1
    assert split_of("30_1_2_20170101000000000.jpg.jpg") == "train"  # ... 2
    splits = [split_of(f"{i}.jpg") for i in range(5000)]
    assert splits.count("test") == pytest.approx(500, abs=70)  # 21 is one standard deviation
    assert splits.count("heldout") == pytest.approx(500, abs=70)


def test_every_picture_is_in_one_split_in_the_order_of_the_names(root):
    parts = {split: [sample.image.name for sample in read_utkface(root, split)] for split in SPLITS}
    assert all(names == sorted(names) for names in parts.values())
    assert sorted(name for names in parts.values() for name in names) == sorted(path.name for path in root.iterdir())


def test_another_picture_moves_none(root, tmp_path):
    more = Path(shutil.copytree(root, tmp_path / "more"))
    shutil.copy(next(root.iterdir()), more / "5_0_0_20170101000000000.jpg.jpg")
    for split, added in (("train", 0), ("heldout", 0), ("test", 1)):
        before, after = ({s.source for s in read_utkface(folder, split)} for folder in (root, more))
        assert before <= after
        assert len(after) == len(before) + added


def test_a_face_has_a_box_and_no_points(root):
    for sample in everything(root):
        assert sample.points.shape == (5, 2)
        assert np.isnan(sample.points).all()
        assert (sample.schema, sample.source) == ("mtfl5", sample.image.name)
        np.testing.assert_array_equal(face_box(sample), np.float32(FACE_BOX))


def test_what_is_not_there_is_an_error(root, tmp_path):
    with pytest.raises(DataError, match="UTKFace has no split 'all'; known: train, heldout, test"):
        read_utkface(root, "all")
    with pytest.raises(DataError, match=r"holds no .jpg pictures: .* see datasets/utkface/README.md"):
        read_utkface(tmp_path, "train")


# Everything after the adapter works without points, and with attributes that the set does not label.


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory) -> Path:
    """The model of a training of 2 tasks for 2 steps; a face lacks its gender."""
    folder = tmp_path_factory.mktemp("run")
    samples = everything(root)
    samples[0].labels["gender"] = -1
    recipe = tiny_recipe(data="utkface", tasks=("gender", "age"), passes=1, batch_size=16, early_stopping=False)
    data = TrainingData.of(recipe, 1, folder / "cache", samples[:32], samples[32:], progress=False)
    assert np.isnan(data.train["utkface"].points).all()
    return train(recipe, data, folder / "run", "cpu", progress=False)


def test_a_training_of_gender_and_age_gives_both(trained, root):
    predict = Predictor(trained)
    sample = everything(root)[0]
    (face,) = predict(sample.image, boxes=[sample.box])
    assert face.landmarks.shape == (0, 2)
    assert list(face.attributes) == ["gender", "age"]
    assert list(face.attributes["age"].probabilities) == ["child", "adult", "senior"]


def test_a_mirror_does_not_change_anybodys_age(trained, root):
    assert mirrored_class("age", np.int64(SENIOR)) == SENIOR
    predict = Predictor(trained)
    assert predict.spec.flip
    image = read_image(everything(root)[0].image)
    middle = [[13.5, 13.5, 113.5, 113.5]]
    (face,), (mirrored,) = (predict(picture, middle) for picture in (image, np.ascontiguousarray(image[:, ::-1])))
    ages, mirrored_ages = (list(f.attributes["age"].probabilities.values()) for f in (face, mirrored))
    assert abs(ages[0] - ages[2]) > 1e-2  # classes in the opposite order would show
    assert mirrored_ages == pytest.approx(ages, abs=1e-3)  # the two pictures are interpolated differently


def test_predictions_are_judged_by_the_labels_that_there_are(trained, root, tmp_path):
    samples = everything(root)[:10]
    for sample in samples[:3]:
        sample.labels["gender"] = -1
    predictions = predict_samples(Predictor(trained), samples, np.tile(FACE_BOX, (10, 1)), root)
    predictions.save(tmp_path / "p.parquet")
    result = evaluate(type(predictions).load(tmp_path / "p.parquet"))
    assert list(result["all"]["attributes"]) == ["gender", "age"]
    assert result["all"]["attributes"]["gender"]["faces"] == 7
    assert result["all"]["attributes"]["age"]["faces"] == 10
    assert result["all"]["landmarks"]["raw"]["faces"] == 0
    assert set(result["slices"]) == {"age", "ethnicity"}  # the strata of the set; nothing for which it has no labels


def test_a_comparison_is_judged_without_pose(root):
    samples = everything(root)
    recipes = {"both": ("gender", "age"), "gender": ("gender",), "age": ("age",)}
    comparison = Comparison("c", {n: tiny_recipe(tasks=t, passes=1, name=n) for n, t in recipes.items()}, (0, 1))
    rng = np.random.default_rng(0)
    errors = {n: {task: np.float32(rng.random((2, len(samples))) < 0.5) for task in t} for n, t in recipes.items()}
    verdicts = judge(comparison, errors, samples, "heldout")
    assert [(row.task, row.part) for row in verdicts.rows] == [("gender", "all"), ("age", "all")]
    assert "pose class |" not in as_markdown(verdicts)


def test_points_cannot_be_learnt_from_faces_without_any(root, tmp_path):
    samples = everything(root)
    with pytest.raises(ConfigError, match=r"the training data has no labels for \['landmarks'\]"):
        TrainingData.of(tiny_recipe(tasks=("landmarks", "age")), 1, tmp_path, samples[:32], samples[32:])


# datasets/utkface/prepare.py, as a user runs it


def test_an_archive_is_unpacked_checked_and_counted(root, tmp_path, monkeypatch, capsys):
    shutil.copy(next(root.iterdir()), root / "61_1_20170109142408075.jpg.jpg")
    archive = shutil.make_archive(str(tmp_path / "utkface"), "zip", root.parent, "utkface")
    (root / "61_1_20170109142408075.jpg.jpg").unlink()
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path / "data"))
    assert run_prepare("utkface", monkeypatch, archive) == 0
    said = capsys.readouterr().out
    assert "train: " in said
    assert "  gender missing: 61_1_20170109142408075.jpg.jpg\n" in said
    assert len(everything(tmp_path / "data" / "utkface")) == 41
    assert run_prepare("utkface", monkeypatch, archive) == 2
    assert "is already there: remove it first, or run with --check" in capsys.readouterr().err
    assert run_prepare("utkface", monkeypatch, "--check") == 0
    assert capsys.readouterr().out == said


def test_what_is_no_set_of_aligned_faces_is_an_error(root, tmp_path, monkeypatch, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a/1_0_0_1.jpg", "b/2_0_0_2.jpg"):
        write_image(tmp_path / name, np.zeros((200, 180, 3), np.uint8))
    archive = shutil.make_archive(str(tmp_path / "two"), "zip", tmp_path)
    assert run_prepare("utkface", monkeypatch, archive, "--root", tmp_path / "utkface") == 2
    assert "holds 2 folders of .jpg pictures, expected one" in capsys.readouterr().err
    assert not (tmp_path / "utkface").exists()
    (tmp_path / "a" / "3_0_0_3.jpg").write_bytes(b"no picture")
    assert run_prepare("utkface", monkeypatch, "--check", "--root", tmp_path / "a") == 2
    said = capsys.readouterr().err
    assert said.startswith("2 bad pictures:\n")
    assert "1_0_0_1.jpg has 180 x 200 pixels, expected 128 x 128" in said
    assert "3_0_0_3.jpg" in said


# The real set


def test_the_counts_are_those_of_the_readme(utkface_root):
    parts = {split: read_utkface(utkface_root, split) for split in SPLITS}
    assert {split: len(samples) for split, samples in parts.items()} == {"train": 7317, "heldout": 903, "test": 944}
    labels = [(s.labels["gender"], s.labels["age"]) for samples in parts.values() for s in samples]
    assert [sum(g == i for g, _ in labels) for i in (-1, MALE, FEMALE)] == [2, 4747, 4415]
    assert [sum(a == i for _, a in labels) for i in (-1, CHILD, ADULT, SENIOR)] == [0, 1625, 6512, 1027]
    ethnicities = [s.strata.get("ethnicity") for samples in parts.values() for s in samples]
    assert [ethnicities.count(part) for part in (*ETHNICITIES, None)] == [3820, 1747, 1353, 1545, 697, 2]


def test_the_face_box_is_the_one_that_the_detector_finds(utkface_root, monkeypatch, capsys):
    assert run_prepare("utkface", monkeypatch, "--measure-box", "--root", utkface_root) == 0
    measured = [float(text) for text in capsys.readouterr().out.removeprefix("median box:").split()]
    assert measured == pytest.approx(FACE_BOX, abs=0.15)
