"""What is compared: models of this project and peers, behind one protocol."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from peers.client import FACE_SECONDS, REQUIREMENTS, WORKER, PeerProcess

import facemtl
from facemtl.data.sample import FaceSample, face_box
from facemtl.errors import BoxError, DataError
from facemtl.face import Face
from facemtl.geometry import box_from_five
from facemtl.image import read_image
from facemtl.landmarks import SCHEMAS
from facemtl.predictor import Predictor
from facemtl.training.predictions import Predictions, face_of_sample, predict_samples

WORK = Path("runs/peers")
# MediaPipe's points (github.com/google-ai-edge/mediapipe, python/solutions/face_mesh_connections.py): outlines of the
# eyes, the viewer's left first; nose tip; corners of the mouth. The refined mesh has the centres of the irises.
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
# peer -> for each of MTFL's five points, the points whose mean stands for it
FIVE: dict[str, tuple[tuple[int, ...], ...]] = {
    "dlib": SCHEMAS["ibug68"].five,
    "facemesh-refined": ((468,), (473,), (1,), (61,), (291,)),
    "facemesh": (LEFT_EYE, RIGHT_EYE, (1,), (61,), (291,)),
    "mtcnn": SCHEMAS["mtfl5"].five,
}


class Method(Protocol):
    """Something that finds points. Modes: ``boxes`` in given ones, ``detect`` with its own detector, ``again`` in
    faces it has just found (timed only)."""

    name: str
    version: str
    modes: tuple[str, ...]

    def predictions(self, mode: str, samples: Sequence[FaceSample]) -> Predictions:
        """What it finds on labelled faces."""
        ...

    def load(self, samples: Sequence[FaceSample]) -> None:
        """Have these pictures ready in memory."""
        ...

    def round(self, mode: str) -> tuple[float, float]:
        """Seconds of the clock and of all threads, for all loaded pictures, one after the other."""
        ...


class OwnModel:
    """A model of this project, through its predictor, on one thread."""

    modes = ("boxes", "detect")

    def __init__(self, model: str) -> None:
        self._predict = Predictor(model)
        spec = self._predict.spec
        self.name = f"ours: {model}"  # as it was asked for: two files may hold models of one name
        self.version = f"facemtl {facemtl.__version__}, {spec.passes} pass(es){', flip' if spec.flip else ''}"
        self._loaded: list[tuple[np.ndarray, np.ndarray]] = []

    def predictions(self, mode: str, samples: Sequence[FaceSample]) -> Predictions:
        return predict_samples(self._predict, samples, published_boxes(samples) if mode == "boxes" else None)

    def load(self, samples: Sequence[FaceSample]) -> None:
        self._loaded = [(read_image(sample.image), sample.box[None]) for sample in samples]

    def round(self, mode: str) -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        for image, boxes in self._loaded:
            self._predict(image, boxes if mode == "boxes" else None)
        return time.perf_counter() - wall, time.process_time() - cpu


class Peer:
    """A peer in its process. Raises PeerError wherever that fails."""

    def __init__(self, name: str, command: Sequence[str], fresh: bool = False) -> None:
        self.name = name
        self._process = PeerProcess(command, WORK / f"{name}.log")
        self.version = self._process.version
        self.modes = self._process.modes
        self._fresh = fresh
        self._loaded = 0

    def found(self, mode: str, samples: Sequence[FaceSample]) -> dict[str, np.ndarray]:
        """Its own ``points``, ``boxes`` and ``owner`` of each face: see tools/peers/worker.py."""
        path = WORK / f"{self.name}-{mode}-{len(samples)}-{self._fingerprint(samples)}.npz"
        if self._fresh or not path.is_file():
            self._ask("points", samples, mode=mode, out=str(path.resolve()))
        with np.load(path) as file:
            return dict(file)

    def predictions(self, mode: str, samples: Sequence[FaceSample]) -> Predictions:
        found = self.found(mode, samples)
        five = five_points(self.name, found["points"])
        faces: list[list[Face]] = [[] for _ in samples]
        for i, points in zip(found["owner"], five, strict=True):
            try:
                faces[i].append(Face(np.float32(box_from_five(points)), 1.0, points, "mtfl5"))
            except BoxError:  # all in one place, or not finite: no face
                continue
        # A face in a given box is that box's; among faces that were looked for, the same rule as for our own models.
        chosen = [
            (own[0] if own else None) if mode == "boxes" else face_of_sample(own, sample)
            for own, sample in zip(faces, samples, strict=True)
        ]
        return Predictions.from_arrays(
            schema="mtfl5",
            images=[sample.image.as_posix() for sample in samples],
            groups=[sample.group for sample in samples],
            boxes=np.stack([np.full(4, np.nan) if face is None else face.box for face in chosen]),
            truth=np.stack([sample.points for sample in samples]),
            points=np.stack([np.full((5, 2), np.nan) if face is None else face.landmarks for face in chosen]),
            labels={},
            probabilities={},
        )

    def load(self, samples: Sequence[FaceSample]) -> None:
        self._ask("load", samples)
        self._loaded = len(samples)

    def round(self, mode: str) -> tuple[float, float]:
        answer = self._process.ask({"do": "round", "mode": mode}, 60 + FACE_SECONDS * self._loaded)
        return answer["wall"], answer["cpu"]

    def close(self) -> None:
        self._process.close()

    def _ask(self, do: str, samples: Sequence[FaceSample], **more: str) -> None:
        images = [str(sample.image.resolve()) for sample in samples]
        boxes = np.stack([face_box(s) if s.box is None else s.box for s in samples]).tolist()
        self._process.ask({"do": do, "images": images, "boxes": boxes, **more}, 60 + FACE_SECONDS * len(samples))

    def _fingerprint(self, samples: Sequence[FaceSample]) -> str:
        parts = [WORKER.read_bytes(), REQUIREMENTS.read_bytes(), self.version.encode()]
        for sample in samples:
            stat = sample.image.stat()
            box = b"" if sample.box is None else sample.box.tobytes()
            parts += [f"{sample.image.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode(), box]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def five_points(peer: str, points: np.ndarray) -> np.ndarray:
    """(F, K, 2) points of a peer -> (F, 5, 2) in MTFL's order."""
    return np.stack([points[:, list(indices)].mean(axis=1) for indices in FIVE[peer]], axis=1)


def published_boxes(samples: Sequence[FaceSample]) -> np.ndarray:
    """(N, 4) boxes that come with the set."""
    if without := [sample.source for sample in samples if sample.box is None]:
        raise DataError(
            f"{len(without)} faces have no published box, such as {without[0]}: is testing_boxes.txt there?"
        )
    return np.stack([sample.box for sample in samples])
