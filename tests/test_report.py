from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from random_predictions import random_predictions
from scripts import load_script

from facemtl.data.sample import FaceSample
from facemtl.face import Attribute, Face
from facemtl.training.metrics import evaluate
from facemtl.training.predictions import Predictions
from facemtl.training.report import summary_text, write_report

ROOT = Path(__file__).parents[1]
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects what the tests look at, and fails on tags that do not close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.headings: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def write_images(predictions: Predictions, root: Path) -> None:
    for name in predictions.frame["image"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.full((150, 150, 3), 120, dtype=np.uint8))


def test_the_report_is_one_file_that_needs_no_other_and_states_the_figures(tmp_path):
    predictions = random_predictions(lost=2)
    write_images(predictions, tmp_path)
    write_report(predictions, tmp_path / "out" / "report.html", "A <title> & more", tmp_path)
    page = Page(tmp_path / "out" / "report.html")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert all(source.startswith("data:image/") for source in page.sources)
    assert len(page.sources) == 5 + 24  # the plots and the worst faces
    assert not re.search(r"https?:|url\(|@import|<script|<link", re.sub(r"base64,[^\"]*", "", text))
    assert page.headings[0] == "A <title> & more"
    assert page.headings[1:] == ["Landmarks", "Points", "Attributes", "Parts of the set", "The 24 worst faces"]

    block = evaluate(predictions)["all"]
    assert f"<b>{block['landmarks']['raw']['nme_percent']:.2f} %</b><span>mean NME, raw" in text
    assert f"<b>{block['landmarks']['corrected']['nme_percent']:.2f} %</b><span>mean NME, offset-corrected" in text
    assert f"<b>{100 * block['found']:.1f} %</b><span>of the faces found" in text
    assert f"<td>{100 * block['attributes']['smile']['f1']:.1f}</td>" in text


def test_worst_faces_come_first_and_show_truth_in_green_and_prediction_in_red(tmp_path, monkeypatch):
    predictions = random_predictions(30)
    predictions.frame.loc[17, "pred_2_x"] += 60
    write_images(predictions, tmp_path)
    tiles: list[np.ndarray] = []
    encode = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda suffix, tile, *more: tiles.append(tile) or encode(suffix, tile, *more))
    write_report(predictions, tmp_path / "report.html", "r", tmp_path)
    names = re.findall(r" % · ([^<]*)</figcaption>", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert (names[0], len(names)) == ("b/017.png", 24)
    blue, green, red = (tiles[0][..., channel].astype(int) for channel in range(3))
    assert (green - red > 100).sum() > 30
    assert (red - green > 100).sum() > 30
    assert (abs(blue - 120) < 3).mean() > 0.3  # the picture itself


def test_faces_whose_image_cannot_be_read_are_left_out(tmp_path):
    predictions = random_predictions(5, tasks=())
    write_images(predictions, tmp_path)
    (tmp_path / "a" / "000.png").write_bytes(b"damaged")
    (tmp_path / "b" / "001.png").unlink()
    write_report(predictions, tmp_path / "report.html", "r", tmp_path)
    assert Page(tmp_path / "report.html").headings[-1] == "The 3 worst faces"
    write_report(predictions, tmp_path / "report.html", "r", tmp_path / "elsewhere")
    assert Page(tmp_path / "report.html").headings[-1] == "Parts of the set"


def test_sigma_angles_and_strata_have_their_place_in_the_report(tmp_path):
    predictions = random_predictions(200, tasks=("gender",), more=True)
    write_report(predictions, tmp_path / "report.html", "r", tmp_path)
    page = Page(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    expected = ["Landmarks", "Predicted standard deviations", "Points", "Head angles", "Attributes", "Parts of the set"]
    assert page.headings[1:] == expected
    assert len(page.sources) == 7
    results = evaluate(predictions)
    sigma, yaw = results["all"]["sigma"], results["all"]["angles"]["yaw"]
    row = "residuals within one sigma, share</th>"
    assert f"{row}<td>{sigma['raw']['within_1']:.3f}</td><td>{sigma['corrected']['within_1']:.3f}</td>" in text
    assert f"<tr><th>yaw</th><td>200</td><td>{yaw['mae']:.2f}</td><td>{yaw['constant_mae']:.2f}</td>" in text
    part = results["slices"]["age, place"]["child, there"]
    assert f"<tr><th>child, there</th><td>{part['faces']}</td>" in text
    assert f"<td>{100 * part['attributes']['gender']['accuracy']:.1f}</td></tr>" in text
    lines = [" ".join(line.split()) for line in summary_text(predictions).splitlines()]
    assert (
        f"sigma: rank correlation {sigma['raw']['rank_correlation']:.3f} {sigma['corrected']['rank_correlation']:.3f}"
        in lines
    )
    assert (
        f"yaw 200 {' '.join(f'{yaw[k]:.2f}' for k in ('mae', 'constant_mae', 'ratio', 'bias', 'correlation'))}" in lines
    )
    assert f"age, place: child, there {part['faces']} {100 * part['attributes']['gender']['accuracy']:.1f}" in lines


def test_a_set_without_points_is_reported_by_the_rest(tmp_path):
    predictions = random_predictions(60, tasks=("smile",), more=True)
    predictions.frame.loc[:, predictions.frame.columns.str.match(r"(true|pred)_\d")] = np.nan
    write_report(predictions, tmp_path / "report.html", "r", tmp_path)
    page = Page(tmp_path / "report.html")
    assert page.headings[1:] == ["Head angles", "Attributes", "Parts of the set"]
    assert len(page.sources) == 3
    assert "NME" not in summary_text(predictions)
    assert "n/a" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("case", ["68 points", "no attributes", "no labels", "no points", "nothing found", "one face"])
def test_whatever_is_missing_a_report_and_a_summary_come_out(tmp_path, case, more):
    predictions = random_predictions(
        1 if case == "one face" else 8,
        schema="ibug68" if case == "68 points" else "mtfl5",
        tasks=() if case == "no attributes" else ("smile", "pose"),
        lost=8 if case == "nothing found" else 0,
        more=more,
    )
    frame = predictions.frame
    if case == "68 points":
        frame[["true_3_x", "true_3_y"]] = np.nan
    if case == "no labels":
        frame.loc[:, frame.columns.str.endswith("_true")] = -1
    if case == "no points":
        frame.loc[:, frame.columns.str.match(r"true_\d")] = np.nan
    write_report(predictions, tmp_path / "report.html", case, tmp_path)
    page = Page(tmp_path / "report.html")
    plots = {"68 points": 5, "no attributes": 3, "no labels": 3, "no points": 2, "nothing found": 0, "one face": 5}
    further = {"no points": 1, "nothing found": 1}.get(case, 2) if more else 0
    assert len(page.sources) == plots[case] + further
    assert f"all faces: {len(predictions)}" in summary_text(predictions)
    unknown = more and case in ("nothing found", "one face")  # errors of angles, the rank of a single sigma
    assert ("n/a" in summary_text(predictions)) == unknown


def test_summary_by_hand():
    eyes = np.array([[0.0, 0.0], [50.0, 0.0], [25.0, 30.0], [5.0, 50.0], [45.0, 50.0]])
    truth = np.tile(eyes, (4, 1, 1))
    points = truth + np.array([1.0, 0.0])  # 2 %
    points[3] = np.nan
    first = np.array([0.9, 0.8, 0.3, np.nan])
    predictions = Predictions.from_arrays(
        schema="mtfl5",
        images=["1", "2", "3", "4"],
        groups=["g"] * 4,
        boxes=np.where(np.isnan(points[:, 0, :1]), np.nan, np.array([20.0, 26.0, 111.0, 117.0])),
        truth=truth,
        points=points,
        labels={"smile": np.array([0, 0, 0, 1])},
        probabilities={"smile": np.stack([first, 1 - first], axis=1)},
    )
    lines = [" ".join(line.split()) for line in summary_text(predictions).splitlines()]
    assert lines[:9] == [
        "all faces: 4; found 75.0 %",
        "raw corrected",
        "NME, % of inter-ocular 2.00 0.00",
        "median NME, % 2.00 0.00",
        "failures (NME over 10 %), % 25.00 25.00",
        "AUC to 10 % 0.6000 0.7500",
        "95 % interval of raw NME 2.00 to 2.00",
        "attribute, % faces accuracy balanced F1 AP ECE commonest",
        "smile 3 66.7 66.7 80.0 100.0 33.3 100.0",
    ]
    assert "without filled-in boxes: 1; found 0.0 %" in lines
    assert "group: g 4 75.0 2.00 0.00 25.0" in lines


def test_eval_of_saved_predictions_needs_no_model(tmp_path):
    predictions = random_predictions()
    predictions.save(tmp_path / "saved.csv")
    write_images(predictions, tmp_path / "images")
    command = [sys.executable, "-W", "error", str(ROOT / "tools" / "eval.py")]
    command += ["--predictions", str(tmp_path / "saved.csv"), "--data-root", str(tmp_path / "images")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{summary_text(predictions)}\n\nwritten to {tmp_path}\n"
    assert json.loads((tmp_path / "metrics.json").read_text()) == evaluate(predictions)
    assert Page(tmp_path / "report.html").headings[-1] == "The 24 worst faces"


@pytest.fixture
def eval_tool(monkeypatch) -> ModuleType:
    """tools/eval.py as a module, with a predictor that puts the mean face in each box."""
    module = load_script("tools/eval.py")

    class MeanFace:
        tasks = ("landmarks", "smile")
        spec = SimpleNamespace(
            name="mean-face", point_tasks=lambda: {"mtfl5": "landmarks", "ibug68": "landmarks_ibug68"}
        )

        def __init__(self, model: str, schema: str | None = None, **options) -> None:
            module.options = {"model": model, "schema": schema, **options}
            self.schema = schema or "mtfl5"

        def __call__(self, image: Path, boxes: np.ndarray | None = None) -> list[Face]:
            shape = np.array([[-0.2, -0.15], [0.2, -0.15], [0.0, 0.05], [-0.15, 0.25], [0.15, 0.25]])
            outline = np.random.default_rng(0).uniform(-0.4, 0.4, size=(68, 2))
            smile = Attribute("smiling", 0.75, {"smiling": 0.75, "not_smiling": 0.25})
            boxes = np.array([[20.0, 20.0, 120.0, 120.0]]) if boxes is None else boxes
            return [
                Face(
                    np.float32(b),
                    1.0,
                    np.float32((b[:2] + b[2:]) / 2 + (shape if self.schema == "mtfl5" else outline) * (b[2] - b[0])),
                    self.schema,
                    {"smile": smile},
                )
                for b in boxes
            ]

    monkeypatch.setattr(module, "Predictor", MeanFace)
    return module


def write_mtfl(root: Path, boxes: bool) -> None:
    """Four test faces in MTFL's layout; the second has the filled-in box."""
    (root / "AFLW").mkdir(parents=True)
    rows = []
    for i in range(4):
        cv2.imwrite(str(root / "AFLW" / f"{i}.png"), np.full((150, 150, 3), 60 * i, dtype=np.uint8))
        rows.append(f"AFLW/{i}.png 51 91 71 56 86 56 56 76 96 {96 + i} 1 {1 + i % 2} 2 3")
    (root / "testing.txt").write_text("\n".join(rows))
    if boxes:
        given = ["20 26 111 117" if i == 1 else "25 25 117 117" for i in range(4)]
        (root / "testing_boxes.txt").write_text("\n".join(f"AFLW/{i}.png {box}" for i, box in enumerate(given)))


@pytest.mark.parametrize("boxes", ["published", "truth", "detector"])
def test_eval_of_a_model_writes_predictions_figures_and_report(tmp_path, eval_tool, capsys, monkeypatch, boxes):
    write_mtfl(tmp_path / "data" / "MTFL", boxes=boxes == "published")
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    eval_tool.main(["model.onnx", "--boxes", boxes, "--passes", "2", "--no-flip"])
    assert eval_tool.options["model"] == "model.onnx"
    assert (eval_tool.options["passes"], eval_tool.options["flip"]) == (2, False)
    assert eval_tool.options["schema"] is None
    out = Path("runs/eval") / f"mean-face-mtfl-test-{boxes}"
    assert sorted(item.name for item in out.iterdir()) == ["metrics.json", "predictions.parquet", "report.html"]
    predictions = Predictions.load(out / "predictions.parquet")
    assert predictions.frame["image"].tolist() == [f"AFLW/{i}.png" for i in range(4)]
    corner = {"published": 25, "truth": 33.2, "detector": 20}[boxes]
    assert predictions.boxes[0, 0] == pytest.approx(corner, abs=0.1)
    own_box = json.loads((out / "metrics.json").read_text())["own_box"]
    assert (own_box["faces"] if own_box else None) == {"published": 3}.get(boxes)
    assert capsys.readouterr().out.startswith("all faces: 4; found 100.0 %")


def test_eval_of_turned_pictures_turns_around_boxes_and_says_so(tmp_path, eval_tool, monkeypatch, capsys):
    write_mtfl(tmp_path / "data" / "MTFL", boxes=True)
    monkeypatch.setenv("FACEMTL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    eval_tool.main(["model.onnx"])
    eval_tool.main(["model.onnx", "--roll", "180"])
    plain, turned = (
        Predictions.load(f"runs/eval/mean-face-mtfl-test-published{name}/predictions.parquet")
        for name in ("", "-roll180")
    )
    middles = (turned.boxes[:, None, :2] + turned.boxes[:, None, 2:]) / 2
    np.testing.assert_allclose(turned.points, 2 * middles - plain.points, atol=0.6)  # their pictures are whole pixels
    assert "turned by 180 degrees" in Path("runs/eval/mean-face-mtfl-test-published-roll180/report.html").read_text()
    capsys.readouterr()
    assert eval_tool.main(["model.onnx", "--roll", "180", "--boxes", "detector"]) == 2
    assert "turned around their boxes: use --boxes published or --boxes truth" in capsys.readouterr().err


def test_eval_judges_the_points_of_the_set_where_the_model_has_them(tmp_path, eval_tool, monkeypatch):
    outline = np.random.default_rng(1).uniform(30, 120, size=(68, 2)).astype(np.float32)
    image = tmp_path / "1.png"
    cv2.imwrite(str(image), np.full((150, 150, 3), 60, dtype=np.uint8))
    sample = FaceSample(image, outline, "ibug68", {"smile": 0}, np.float32([20, 20, 120, 120]))
    monkeypatch.setitem(eval_tool.DATA_SETS, "outlines", ("outlines", lambda root, split: [sample]))
    command = ["model.onnx", "--data", "outlines", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    eval_tool.main(command)
    assert eval_tool.options["schema"] == "ibug68"
    predictions = Predictions.load(tmp_path / "out" / "predictions.parquet")
    assert np.isfinite(predictions.points).all()
    eval_tool.main([*command, "--schema", "mtfl5"])
    assert eval_tool.options["schema"] == "mtfl5"
    predictions = Predictions.load(tmp_path / "out" / "predictions.parquet")
    assert predictions.schema == "mtfl5"  # both sides as what they share
    assert predictions.origins == ("ibug68", "mtfl5")
    assert np.isfinite(predictions.points).all()
    assert predictions.probabilities("smile").tolist() == [[0.75, 0.25]]


def test_eval_says_what_is_wrong_and_what_to_do(tmp_path, eval_tool, monkeypatch, capsys):
    def said(*arguments: object) -> str:
        assert eval_tool.main([*map(str, arguments)]) == 2
        output, errors = capsys.readouterr()
        assert (output, errors.count("\n")) == ("", 1)
        return errors

    assert "none.parquet cannot be read as a table of predictions" in said("--predictions", tmp_path / "none.parquet")
    with pytest.raises(SystemExit, match="2"):
        eval_tool.main(["--predictions", "p.csv", "model.onnx"])
    assert "not allowed with" in capsys.readouterr().err
    monkeypatch.delenv("FACEMTL_DATA", raising=False)
    assert "set FACEMTL_DATA" in said("model.onnx")
    write_mtfl(tmp_path, boxes=False)
    told = said("model.onnx", "--data-root", tmp_path)
    assert "4 of 4 faces have no published box, such as testing.txt:1: use --boxes truth" in told
    blocked = tmp_path / "testing.txt" / "out"
    told = said("model.onnx", "--data-root", tmp_path, "--out", blocked)  # before the boxes are missed
    assert told == f"error: the folder {blocked} cannot be made: Not a directory\n"
