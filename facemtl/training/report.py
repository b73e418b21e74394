"""What a person reads of an evaluation: one HTML file that needs nothing else, and a summary in plain text."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from matplotlib.figure import Figure

from facemtl.errors import ImageError
from facemtl.files import write_beside
from facemtl.geometry import apply_affine, crop_matrix, invert_affine, warp_crop
from facemtl.image import read_image
from facemtl.landmarks import SCHEMAS
from facemtl.training import plots
from facemtl.training.metrics import CROSSED_FACES, corrected_points, evaluate, nme
from facemtl.training.pages import data_uri
from facemtl.training.predictions import Predictions

WORST = 24  # faces on the sheet
TILE = 168  # their side in pixels
GREEN, RED = (90, 200, 60), (60, 60, 240)  # BGR


def write_report(predictions: Predictions, path: str | Path, title: str, image_root: str | Path | None = None) -> None:
    """Write the report of saved predictions as one HTML file with its pictures inside.

    Args:
        image_root: folder that relative image paths start from (default: the working folder). Images are needed only
            for the sheet of the worst faces; those that cannot be read are left out. The sheet shows faces of the
            data set, whose terms then apply to the report.
    """
    results = evaluate(predictions)
    worst = _worst(predictions, Path(image_root or "."))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "shared": shared_text}
    environment.filters["words"] = lambda text: text.replace("_", " ")
    html = environment.get_template("report.html.jinja").render(
        title=title,
        results=results,
        point_names=SCHEMAS[predictions.schema].names,
        crossed_faces=CROSSED_FACES,
        pictures=_pictures(predictions, results),
        worst=worst,
    )
    write_beside(Path(path), lambda partial: partial.write_text(html, encoding="utf-8"))


def summary_text(predictions: Predictions) -> str:
    """The figures that matter, as lines of text for a terminal."""
    results = evaluate(predictions)
    blocks = [("all faces", results["all"])]
    if results["own_box"]:
        blocks.append(("without filled-in boxes", results["own_box"]))
    lines = [shared_text(results["shared"], results["schema"]), ""] if results["shared"] else []
    for name, block in blocks:
        lines += [*_block_lines(name, block), ""]
    lines += _slice_lines(results)
    return "\n".join(lines).rstrip()


def shared_text(shared: dict[str, Any], schema: str) -> str:
    """What is compared where set and model have different points, in a sentence."""
    how = (
        "exactly" if shared["exact"] else "approximately: look at the corrected figures, which no constant offset moves"
    )
    text = f"points of {shared['set']} (set) and {shared['model']} (model), judged as {schema}, {how}"
    for side in ("set", "model"):
        offset = shared[f"{side}_offset_percent"]
        if offset is not None:
            largest = max(math.hypot(*point) for point in offset)
            text += f"; known offset of the {side}'s: up to {largest:.1f} % of the distance of the eyes"
    return text


def _slice_lines(results: dict[str, Any]) -> list[str]:
    """A table of the points and one of the attributes, a line for each part, as far as there is something to say."""
    parts = {
        f"{slicing}: {part}": block for slicing, blocks in results["slices"].items() for part, block in blocks.items()
    }
    lines: list[str] = []
    if results["all"]["landmarks"]["raw"]["faces"] and parts:
        lines.append(f"{'NME %':<37}{'faces':>7}{'found %':>9}{'raw':>9}{'corrected':>11}{'failures %':>12}")
        for name, block in parts.items():
            raw, corrected = block["landmarks"]["raw"], block["landmarks"]["corrected"]
            lines.append(
                f"{name:<37}{block['faces']:>7}{_percent(block['found']):>9}"
                f"{_number(raw['nme_percent']):>9}{_number(corrected['nme_percent']):>11}"
                f"{_number(raw['failure_percent'], 1):>12}"
            )
        lines.append("")
    tasks = [task for task, metrics in results["all"]["attributes"].items() if metrics["faces"]]
    if tasks and parts:
        lines.append(f"{'accuracy %':<37}{'faces':>7}" + "".join(f"{task:>10}" for task in tasks))
        for name, block in parts.items():
            figures = [_percent(block["attributes"][task]["accuracy"]) for task in tasks]
            lines.append(f"{name:<37}{block['faces']:>7}" + "".join(f"{figure:>10}" for figure in figures))
    return lines


def _block_lines(name: str, block: dict[str, Any]) -> list[str]:
    lines = [f"{name}: {block['faces']}; found {_percent(block['found'])} %"]
    raw, corrected = block["landmarks"]["raw"], block["landmarks"]["corrected"]
    table: list[tuple[str, str, str]] = []
    if raw["faces"]:
        table = [
            (label, _number(raw[key], digits), _number(corrected[key], digits))
            for label, key, digits in (
                ("NME, % of inter-ocular", "nme_percent", 2),
                ("median NME, %", "median_percent", 2),
                ("failures (NME over 10 %), %", "failure_percent", 2),
                ("AUC to 10 %", "auc", 4),
            )
        ]
    if (sigma := block["sigma"]) and sigma["faces"]:
        table += [
            (label, _number(sigma["raw"][key], digits), _number(sigma["corrected"][key], digits))
            for label, key, digits in (
                ("sigma: rank correlation", "rank_correlation", 3),
                ("residuals within sigma, share", "within_1", 3),
                ("rms of residual over sigma", "rms_z", 2),
            )
        ]
    if table:
        lines.append(f"{'':<32}{'raw':>9}{'corrected':>11}")
        lines += [f"  {label:<30}{plain:>9}{moved:>11}" for label, plain, moved in table]
    if raw["faces"]:
        low, high = raw["nme_interval_percent"]
        lines.append(f"  {'95 % interval of raw NME':<30}{_number(low)} to {_number(high)}")
    if block["angles"]:
        heads = ("error", "constant", "ratio", "bias", "correl.")
        lines.append(f"  {'angle, degrees':<14}{'faces':>7}" + "".join(f"{head:>10}" for head in heads))
        for angle, metrics in block["angles"].items():
            figures = (metrics[key] for key in ("mae", "constant_mae", "ratio", "bias", "correlation"))
            lines.append(
                f"  {angle:<14}{metrics['faces']:>7}" + "".join(f"{_number(figure):>10}" for figure in figures)
            )
    attributes = {task: metrics for task, metrics in block["attributes"].items() if metrics["faces"]}
    if attributes:
        heads = ("accuracy", "balanced", "F1", "AP", "ECE", "commonest")
        lines.append(f"  {'attribute, %':<14}{'faces':>7}" + "".join(f"{head:>10}" for head in heads))
    for task, metrics in attributes.items():
        keys = ("accuracy", "balanced_accuracy", "f1", "average_precision", "ece", "commonest")
        lines.append(f"  {task:<14}{metrics['faces']:>7}" + "".join(f"{_percent(metrics[key]):>10}" for key in keys))
    return lines


def _pictures(predictions: Predictions, results: dict[str, Any]) -> dict[str, str]:
    """Name -> data URI of each plot that there is something to draw for."""
    figures: dict[str, Figure] = {}
    raw, corrected = (results["all"]["landmarks"][kind] for kind in ("raw", "corrected"))
    if raw["nme_percent"] is not None:
        eye_pair = SCHEMAS[predictions.schema].eye_pair
        truth = predictions.truth
        labelled = np.isfinite(truth[:, list(eye_pair)]).all(axis=(1, 2))
        curves = {"raw": predictions.points, "offset-corrected": corrected_points(predictions)}
        figures["error_curve"] = plots.error_curve(
            {name: nme(points, truth, eye_pair)[labelled] for name, points in curves.items()}
        )
        figures["point_errors"] = plots.point_errors(
            predictions.schema, raw["point_nme_percent"], corrected["point_nme_percent"]
        )
        figures["residual_scatter"] = plots.residual_scatter(predictions)
        if predictions.sigma is not None:
            figures["sigma"] = plots.sigma_plots(
                truth, {name: (points, predictions.sigma) for name, points in curves.items()}, eye_pair
            )
    if results["all"]["angles"]:
        figures["angles"] = plots.angle_scatter(predictions.angles, predictions.true_angles)
    attributes = {task: metrics for task, metrics in results["all"]["attributes"].items() if metrics["faces"]}
    if attributes:
        figures["confusion"] = plots.confusion_matrices(attributes, predictions.tasks)
        figures["reliability"] = plots.reliability_plots({"": predictions}, list(attributes))
    return {name: data_uri(figure) for name, figure in figures.items()}


def _worst(predictions: Predictions, root: Path) -> list[dict[str, Any]]:
    """The faces with the greatest error, greatest first: picture (data URI), caption, NME in percent."""
    errors = nme(predictions.points, predictions.truth, SCHEMAS[predictions.schema].eye_pair)
    order = np.argsort(-np.nan_to_num(errors, nan=-1.0), kind="stable")[: np.isfinite(errors).sum()]
    sheet = []
    for row in order[:WORST].tolist():
        name = str(predictions.frame["image"].iloc[row])
        try:
            image = read_image(root / name)
        except ImageError:
            continue
        tile = _tile(image, predictions.truth[row], predictions.points[row])
        jpeg = cv2.imencode(".jpg", tile, (cv2.IMWRITE_JPEG_QUALITY, 90))[1].tobytes()
        uri = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        sheet.append({"picture": uri, "name": name, "nme_percent": 100 * errors[row]})
    return sheet


def _tile(image: np.ndarray, truth: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The part of the image around both sets of points, with truth in green and prediction in red."""
    both = np.concatenate([truth, points])
    low, high = np.nanmin(both, axis=0), np.nanmax(both, axis=0)
    side = (high - low).max()
    middle = (low + high) / 2
    matrix = crop_matrix(np.concatenate([middle - side, middle + side]), TILE)
    tile = warp_crop(image, matrix, TILE)
    inverse = invert_affine(matrix)
    radius = 3 if len(truth) <= 20 else 1
    for true, predicted in zip(apply_affine(inverse, truth), apply_affine(inverse, points), strict=True):
        if np.isfinite(true).all():
            cv2.line(tile, _fixed(true), _fixed(predicted), (255, 255, 255), 1, cv2.LINE_AA, shift=4)
            cv2.circle(tile, _fixed(true), radius << 4, GREEN, -1, cv2.LINE_AA, shift=4)
        cv2.circle(tile, _fixed(predicted), radius << 4, RED, -1, cv2.LINE_AA, shift=4)
    return tile


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """OpenCV's fixed-point coordinates with 4 fractional bits."""
    x, y = np.rint(point * 16).astype(int).tolist()
    return x, y


def _number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "n/a" if value is None else f"{100 * value:.{digits}f}"
