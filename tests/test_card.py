"""What a card keeps, and the tools that calibrate and ship a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from fake_network import spec
from random_predictions import random_predictions
from scripts import load_script
from tiny_training import tiny_set

from facemtl.data.sample import FaceSample
from facemtl.models.files import load_model, save_model
from facemtl.session import OnnxSession
from facemtl.training import card
from facemtl.training.calibration import Calibration, check, recalibrated
from facemtl.training.card import MEASUREMENTS, applicable, card_calibration, card_metrics
from facemtl.training.metrics import evaluate
from facemtl.training.recipe import Recipe
from facemtl.weights import load_card

ROOT = Path(__file__).parents[1]


def test_a_card_keeps_the_figures_of_all_faces():
    predictions = random_predictions(60, tasks=("gender",), lost=6, more=True)
    kept = card_metrics(predictions, "heldout_detector")["all"]
    block = evaluate(predictions)["all"]
    raw, corrected = block["landmarks"]["raw"], block["landmarks"]["corrected"]
    assert (kept["faces"], kept["found"]) == (60, 90.0)
    assert kept["nme"] == round(raw["nme_percent"], 2)
    assert kept["failures_corrected"] == round(corrected["failure_percent"], 1)
    assert kept["sigma"]["rank_correlation"] == round(block["sigma"]["raw"]["rank_correlation"], 3)
    assert kept["sigma"]["within_1_corrected"] == round(100 * block["sigma"]["corrected"]["within_1"], 1)
    assert kept["yaw"]["error"] == round(block["angles"]["yaw"]["mae"], 2)
    assert kept["roll"]["ratio"] == round(block["angles"]["roll"]["ratio"], 3)
    gender = block["attributes"]["gender"]
    assert kept["gender"] == {
        "accuracy": round(100 * gender["accuracy"], 1),
        "balanced_accuracy": round(100 * gender["balanced_accuracy"], 1),
        "ece": round(gender["ece"], 3),
    }


def test_a_card_keeps_parts_where_the_measurement_has_them():
    predictions = random_predictions(200, tasks=("gender",), more=True)
    predictions.frame["group"] = "only one"
    assert list(card_metrics(predictions, "heldout_detector")) == ["all"]
    kept = card_metrics(predictions, "test")
    assert list(kept) == ["all", "pose", "glasses_gender", "size", "age", "place", "age_place"]
    block = evaluate(predictions)["slices"]["age, place"]["child, there"]
    assert kept["age_place"]["child, there"] == {
        "faces": block["faces"],
        "nme": round(block["landmarks"]["raw"]["nme_percent"], 2),
        "failures": round(block["landmarks"]["raw"]["failure_percent"], 1),
        "nme_corrected": round(block["landmarks"]["corrected"]["nme_percent"], 2),
        "accuracy": {"gender": round(100 * block["attributes"]["gender"]["accuracy"], 1)},
    }


def test_a_card_says_what_calibration_does_to_faces_it_was_not_fitted_on():
    plain = random_predictions(400, tasks=("smile",), more=True)
    calibration = Calibration({"smile": 3.0}, {"smile": 0.61234}, 1.5)
    described = calibration.put_into(spec(("landmarks", "smile")))
    kept = card_calibration(recalibrated(plain, calibration), described)
    figures = check(plain)
    assert kept["target"] == 95
    assert kept["smile"]["temperature"] == 3
    assert kept["smile"]["threshold"] == 0.612
    smile = figures["attributes"]["smile"]
    assert kept["smile"]["ece_before"] == pytest.approx(smile["ece_before"], abs=6e-4)
    assert kept["smile"]["coverage"] == pytest.approx(100 * smile["coverage"], abs=0.06)
    assert kept["sigma"]["scale"] == 1.5
    assert kept["sigma"]["within_1_before"] == pytest.approx(
        [100 * v for v in figures["sigma"]["within_1_before"]], abs=0.06
    )


@pytest.mark.parametrize(
    ("tasks", "further"),
    [
        (("landmarks",), []),
        (("landmarks", "smile"), ["genki4k_heldout"]),
        (("landmarks", "landmarks_ibug68"), ["udacity68_heldout", "udacity68_heldout_detector"]),
        (("landmarks", "angles"), ["genki4k_heldout"]),
        (("gender",), ["utkface_heldout", "utkface_test"]),
    ],
)
def test_a_model_is_measured_where_a_set_labels_what_it_gives(monkeypatch, tmp_path, tasks, further):
    def sample(
        schema: str, labels: dict[str, int], point: float = np.nan, angles: np.ndarray | None = None
    ) -> FaceSample:
        return FaceSample(tmp_path, np.full((68 if schema == "ibug68" else 5, 2), point), schema, labels, angles=angles)

    samples = {
        "genki4k": sample("mtfl5", {"smile": 1}, angles=np.zeros(3)),
        "utkface": sample("mtfl5", {"gender": 0, "smile": -1}),
        "udacity68": sample("ibug68", {}, point=1.0),
    }
    monkeypatch.setattr(card, "read_split", lambda name, split: [samples[name]])
    monkeypatch.setattr(card, "data_root", lambda name: tmp_path / name)
    model = replace(spec(), tasks=tasks)
    assert applicable(model, "mtfl") == ["test", "heldout", "heldout_detector"]  # no other set is there
    for name in samples:
        (tmp_path / name).mkdir()
    assert applicable(model, "mtfl") == ["test", "heldout", "heldout_detector", *further]
    others = [name for name in further if MEASUREMENTS[name].data != "genki4k"]
    assert applicable(model, "genki4k") == ["test", "heldout", "heldout_detector", *others]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """The folder of a run over rendered faces, of a network that is not trained."""
    tiny_set(tmp_path / "mtfl_layout")
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "tiny"
    recipe = Recipe("tiny", "mtfl_layout", tasks=("landmarks", "smile", "pose"), uncertainty=True, passes=1, flip=False)
    torch.manual_seed(0)
    save_model(folder / "model.safetensors", recipe.create_model(), recipe.spec(40, 1))
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    return folder


def test_a_model_is_calibrated_shipped_and_calibrated_where_it_stands(run, monkeypatch, capsys):
    calibrate, ship = load_script("tools/calibrate.py"), load_script("tools/card.py")

    def call(tool: ModuleType, *arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["tool", *arguments])
        assert tool.main() == 0

    model = run / "model.safetensors"
    network, plain = load_model(model)
    rows = ["--data", "mtfl_layout", "--boxes", "truth"]
    call(calibrate, str(run), *rows, "--dry-run")
    assert load_model(model)[1] == plain
    call(calibrate, str(run), *rows)
    said = capsys.readouterr().out
    calibrated, fitted = load_model(model)
    assert set(fitted.temperatures) == set(fitted.thresholds) == {"smile", "pose"}
    assert fitted.sigma_scale != 1
    assert Calibration().put_into(fitted) == plain
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), calibrated.parameters(), strict=True))
    assert Path("runs/calibration/tiny.png").read_bytes().startswith(b"\x89PNG")
    assert f"{fitted.temperatures['smile']:.3f}" in said
    assert "by chance" in said
    call(calibrate, str(run), *rows)  # nothing is calibrated twice
    again = load_model(model)[1]
    assert again.temperatures == pytest.approx(fitted.temperatures, rel=1e-3)
    assert again.sigma_scale == pytest.approx(fitted.sigma_scale, rel=1e-3)

    monkeypatch.setattr(ship, "training_of", lambda recipe, commit: {"data": recipe["data"], "commit": commit})
    call(ship, str(run))
    folder = Path("weights/tiny")
    assert OnnxSession(folder / "model.onnx").spec == load_model(folder / "model.safetensors")[1] == again
    written = load_card(folder)
    assert list(written["metrics"]) == ["test", "heldout", "heldout_detector"]
    assert written["calibration"]["smile"]["temperature"] == round(again.temperatures["smile"], 3)

    call(calibrate, str(folder), *rows, "--balanced", "smile")
    balanced = load_model(folder / "model.safetensors")[1]
    call(ship, "--refresh", str(folder))
    assert load_card(folder)["calibration"]["smile"]["offsets"] == [round(v, 3) for v in balanced.offsets["smile"]]
    assert load_card(folder)["calibration"]["smile"]["prior"] == [round(v, 3) for v in balanced.priors["smile"]]
    assert OnnxSession(folder / "model.onnx").spec.priors == balanced.priors

    network, described = load_model(folder / "model.safetensors")
    save_model(folder / "model.safetensors", network, replace(described, temperatures={"smile": 2.0}))
    call(ship, "--refresh", str(folder))
    assert OnnxSession(folder / "model.onnx").spec.temperatures == {"smile": 2.0}
    assert load_card(folder)["training"] == written["training"]
    assert not load_card(folder)["model"]["eight_bit"]

    call(ship, str(run), "--eight-bit")
    assert load_card(folder)["model"]["eight_bit"]
    call(calibrate, str(folder), *rows, "--balanced", "smile")
    call(ship, "--refresh", str(folder))
    assert OnnxSession(folder / "model.onnx").spec.priors
    assert load_card(folder)["model"]["eight_bit"]  # exported as it was


def test_a_card_names_the_sets_and_the_teachers_of_the_training(monkeypatch):
    ship = load_script("tools/card.py")
    monkeypatch.setattr(ship.subprocess, "run", lambda command, **_: SimpleNamespace(stdout=f"id of {command[-1]}\n"))
    plain = {"recipe": "tools/recipes/tiny.toml", "commit": "id of HEAD", "data": "mtfl"}
    assert ship.training_of(Recipe("tiny").to_dict(), "HEAD") == plain
    mix = {"mtfl": 2.0, "utkface": 1.0}
    assert ship.training_of(Recipe("tiny", mix=mix).to_dict(), "HEAD") == plain | {"mix": mix}
    taught = Recipe("tiny", teachers=("a.safetensors",), peer_points="runs/mesh").to_dict()
    lessons = {"teachers": ["a.safetensors"], "peer_points": "runs/mesh"}
    assert ship.training_of(taught, "HEAD") == plain | lessons
