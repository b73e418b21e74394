"""What the page needs to know to compute what Python computes: every number of it, so that its scripts hold none."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from facemtl import __version__, identity, smoothing, track
from facemtl.detect import MtcnnDetector, mtcnn_files
from facemtl.formats.plain import FACE_VERSION
from facemtl.geometry import BOX_SIDE
from facemtl.landmarks import SCHEMAS
from facemtl.predictor import DOUBTED, OFF, RESIZED, Predictor
from facemtl.presence import SIGMA_LIMIT
from facemtl.quality import FITTED
from facemtl.serve import vendor
from facemtl.serve.limits import Limits

CASCADE = ("pnet", "rnet", "onet")


def browser_files(predict: Predictor, model_file: Path | None) -> tuple[dict[str, Path], str | None]:
    """Name -> file of every network that runs in the browser; or none, and the reason for people."""
    if model_file is None:
        return {}, "the model is no .onnx file"
    absent = vendor.missing()
    if absent:
        return {}, (
            f"this installation has no {', '.join(absent)}: they come from npm when facemtl's wheel is built, "
            "and npm was not there"
        )
    if not isinstance(predict.detector, MtcnnDetector):
        return {}, "the page knows the bundled detector alone"
    return {"face": model_file, **dict(zip(CASCADE, mtcnn_files(), strict=True))}, None


def describe(predict: Predictor, limits: Limits, files: dict[str, Path], reason: str | None) -> dict[str, Any]:
    """The document ``/model.json``: the model, its schemas, the geometry, the detector, and how to run them.

    Args:
        predict: answers ``/predict``.
        limits: of the service.
        files: of :func:`browser_files`.
        reason: why there are none, or None.
    """
    spec = predict.spec
    points = spec.point_tasks()
    browser = None
    if files:
        browser = {
            "networks": {name: f"/models/{name}.onnx" for name in files},
            **{
                key: f"/static/{vendor.PACKAGE}/{name}"
                for key, name in zip(("script", "wasm"), vendor.FILES, strict=True)
            },
            "detector": predict.detector.settings(),
        }
    return {
        "version": __version__,
        "face_version": FACE_VERSION,
        "spec": asdict(spec),
        "tasks": list(predict.tasks),
        "schema": predict.schema,
        "points_task": points.get(predict.schema),
        "schemas": {
            name: {key: getattr(SCHEMAS[name], key) for key in ("names", "flip_order", "five", "edges")}
            for name in {spec.schema, predict.schema}
        },
        "box_side": BOX_SIDE,
        "sigma_limit": SIGMA_LIMIT,
        "quality": FITTED.get(spec.name),
        "crop_off": OFF,
        "crop_resized": RESIZED,
        "doubted": DOUBTED,
        "smoothing": {
            "speed_cutoff": smoothing.SPEED_CUTOFF,
            "points": smoothing.POINTS,
            "angles": smoothing.ANGLES,
            "shares": smoothing.SHARES,
            "label_margin": smoothing.LABEL_MARGIN,
            "label_hold": smoothing.LABEL_HOLD,
        },
        "tracking": {
            "memory": track.MEMORY,
            "crowded": identity.CROWDED,
            "near": identity.NEAR,
            "clear": identity.CLEAR,
            "velocity_memory": identity.VELOCITY_MEMORY,
            "alone_memory": identity.ALONE_MEMORY,
            "reach": identity.REACH,
            "reach_speed": identity.REACH_SPEED,
            "stopped": identity.STOPPED,
            "shape_weight": identity.SHAPE_WEIGHT,
            "smallest": track.SMALLEST,
        },
        "limits": asdict(limits),
        "browser": browser,
        "why_no_browser": reason,
    }
