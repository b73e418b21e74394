#!/usr/bin/env python3
"""Fits ``Face.quality`` of a model, and says how well it tells faces from what is none.

    python tools/calibrate_quality.py                # the default model: the line for FITTED in facemtl/quality.py
    python tools/calibrate_quality.py facemtl-s --faces 300

Fitted on MTFL's training rows, judged on its held-out rows; no test row is looked at. A face is a crop displaced by 8 %
of its side and as much in size (standard deviations), a non-face a box of the background of the same pictures, 0.4 to
1.2 times as large, that meets no face which is labelled or which the detector finds. Both are then followed for some
frames, the next crop being laid through the points of the last: background must not turn into a face that way.
Prints the area under the curve, the shares on the wrong side of 0.5, and how quality falls with disturbances.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from facemtl.data.sample import FaceSample, face_box
from facemtl.data.sets import data_root, read_split
from facemtl.detect import MtcnnDetector
from facemtl.errors import BoxError, FaceMTLError, ModelError
from facemtl.geometry import box_from_five, roll_of_five
from facemtl.image import read_image
from facemtl.landmarks import SCHEMAS
from facemtl.matching import iou
from facemtl.predictor import Predictor
from facemtl.quality import FITTED, quality
from facemtl.weights import DEFAULT_MODEL

FRAMES = 4  # for which a crop is followed
APART = 0.03  # share of their union that a box of the background may have in common with a face
TRIES = 20  # boxes of the background that are drawn for a picture


def relative_sigma(predict: Predictor, image: np.ndarray, box: np.ndarray, frames: int = 1) -> list[float]:
    """Mean sigma over the side of the face box: in the first frame as a detector's box, then as a track."""
    (face,) = predict(image, boxes=[box])
    found = []
    for left in range(frames - 1, -1, -1):
        five = SCHEMAS[face.schema].to_five(face.landmarks)
        try:
            box = box_from_five(five)
        except BoxError:
            break
        found.append(float(face.landmark_sigma.mean()) / float(box[2] - box[0]))
        if left:
            (face,) = predict.follow(image, box[None], [roll_of_five(five)])
    return found


def near(box: np.ndarray, rng: np.random.Generator, spread: float = 0.08) -> np.ndarray:
    """The box, displaced and resized."""
    side = box[2] - box[0]
    centre = (box[:2] + box[2:]) / 2 + rng.normal(0, spread, 2) * side
    half = side / 2 * math.exp(rng.normal(0, spread))
    return np.concatenate([centre - half, centre + half])


def background(
    image: np.ndarray, box: np.ndarray, detector: MtcnnDetector, rng: np.random.Generator
) -> np.ndarray | None:
    """A box that meets no face, or None where the picture has no room for one."""
    faces = [box, *detector.detect(image).boxes.astype(np.float64)]
    for _ in range(TRIES):
        half = (box[2] - box[0]) * rng.uniform(0.4, 1.2) / 2
        centre = rng.uniform([0, 0], image.shape[1::-1])
        drawn = np.concatenate([centre - half, centre + half])
        if all(iou(drawn, face) < APART for face in faces):
            return drawn
    return None


def collect(predict: Predictor, samples: Sequence[FaceSample], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative sigmas of faces, and of what is none."""
    rng, detector = np.random.default_rng(seed), MtcnnDetector()
    faces: list[float] = []
    others: list[float] = []
    for sample in tqdm(samples, disable=None):
        image, box = read_image(sample.image), face_box(sample).astype(np.float64)
        faces += relative_sigma(predict, image, near(box, rng), FRAMES)
        drawn = background(image, box, detector, rng)
        if drawn is not None:
            others += relative_sigma(predict, image, drawn, FRAMES)
    return np.array(faces), np.array(others)


def fit(faces: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Slope and limit of the logistic function, both kinds weighing the same."""
    values = np.log(np.concatenate([faces, others]))[:, None]
    labels = np.repeat([1, 0], [len(faces), len(others)])
    fitted = LogisticRegression(class_weight="balanced", C=10.0).fit(values, labels)
    slope = -float(fitted.coef_[0, 0])
    return slope, math.exp(float(fitted.intercept_[0]) / slope)


def blurred(image: np.ndarray, box: np.ndarray, share: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), share * (box[2] - box[0])) if share else image


def covered(image: np.ndarray, box: np.ndarray, share: float) -> np.ndarray:
    """A grey board over the lower part of the face."""
    x1, y1, x2, y2 = np.round(box).astype(int).tolist()
    image = image.copy()
    image[max(0, round(y2 - share * (y2 - y1))) : max(0, y2), max(0, x1) : max(0, x2)] = 128
    return image


def displaced(box: np.ndarray, share: float) -> np.ndarray:
    return box + np.array([1, 0, 1, 0]) * share * (box[2] - box[0])


DISTURBANCES: dict[str, tuple[Sequence[float], Callable[..., tuple[np.ndarray, np.ndarray]]]] = {
    "blur, standard deviation over side": (
        (0.0, 0.02, 0.04, 0.08, 0.16),
        lambda image, box, share: (blurred(image, box, share), box),
    ),
    "covered from below, share of the face": (
        (0.0, 0.25, 0.5, 0.75, 1.0),
        lambda image, box, share: (covered(image, box, share), box),
    ),
    "crop displaced, in sides": (
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        lambda image, box, share: (image, displaced(box, share)),
    ),
}


def report(predict: Predictor, name: str, samples: Sequence[FaceSample]) -> None:
    """Mean quality, and the share over 0.5, of held-out faces under each disturbance."""
    for title, (levels, disturb) in DISTURBANCES.items():
        print(f"{title}: mean quality (share over 0.5)")
        for level in levels:
            values = []
            for sample in samples:
                image, box = disturb(read_image(sample.image), face_box(sample).astype(np.float64), level)
                values += [quality(name, sigma) for sigma in relative_sigma(predict, image, box)]
            print(f"  {level:4.2f}  {np.mean(values):.3f} ({np.mean(np.array(values) > 0.5):.3f})")


def run(args: argparse.Namespace) -> None:
    root = data_root("mtfl", args.data_root)
    predict = Predictor(args.model)
    name = predict.spec.name
    if not predict.spec.uncertainty:
        raise ModelError(f"{name} gives no landmark_sigma, and quality is made of that")
    train, heldout = (
        samples[:: max(1, len(samples) // args.faces)][: args.faces]
        for samples in (read_split("mtfl", split, root) for split in ("train", "heldout"))
    )
    FITTED[name] = fit(*collect(predict, train, seed=0))
    faces, others = collect(predict, heldout, seed=1)
    labels = np.repeat([1, 0], [len(faces), len(others)])
    values = np.array([quality(name, sigma) for sigma in np.concatenate([faces, others])])
    print(f'    "{name}": ({FITTED[name][0]:.2f}, {FITTED[name][1]:.4f}),')
    print(
        f"held-out rows: {len(faces)} looks at faces, {len(others)} at background: area under the curve "
        f"{roc_auc_score(labels, values):.5f}; faces under 0.5: {np.mean(values[labels == 1] < 0.5):.2%}, "
        f"background over 0.5: {np.mean(values[labels == 0] > 0.5):.2%}"
    )
    report(predict, name, heldout[:: max(1, len(heldout) // 100)])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help=f"shipped or a file (default: {DEFAULT_MODEL})")
    parser.add_argument("--faces", type=int, default=500, help="at most, of each split (default: 500)")
    parser.add_argument("--data-root", type=Path, help="MTFL's folder (default: the one in $FACEMTL_DATA)")
    try:
        run(parser.parse_args(arguments))
    except FaceMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
