"""Identity switches of five faces that cross one another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from live.videos import FPS, WIDTH, Head, backdrop, crowd, cut_out, straight

from facemtl.data.sample import FaceSample
from facemtl.geometry import box_from_five
from facemtl.matching import iou, same_place
from facemtl.predictor import Predictor
from facemtl.track import Tracker

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from moving_faces import Person, World, play, switches, times
from moving_faces import straight as straight_path

SECONDS = 2.0
PEOPLE = 5
OVERLAP = 0.1  # share of their union that two faces have in common from which nobody is judged


def rendered(scene: int) -> int:
    """Five rendered faces, ten crossings within a second, two or more hidden at once. What a network sees of faces that
    are covered is simulated (tests/moving_faces.py)."""
    rng = np.random.default_rng(scene)
    depths, people = rng.permutation(PEOPLE), []
    for i in range(PEOPLE):
        y, speed = 120 + rng.uniform(-35, 35), rng.uniform(0.8, 1.2)
        path = straight_path((40 + 60 * i, y), (speed * (120 - 60 * i), 0))
        people.append(Person(path, side=rng.uniform(42, 58), depth=float(depths[i]), seed=i))
    return switches(play(World(*people, seed=scene), times(SECONDS)))


def real(predict: Predictor, heads: Sequence[Head], room: np.ndarray, scene: int) -> int:
    """Five heads cut out of photos cross as the rendered ones do, through the network and the detector."""
    rng = np.random.default_rng(100 + scene)
    order = rng.permutation(PEOPLE)  # from the farthest to the nearest
    chosen = [heads[(scene + int(i)) % len(heads)] for i in order]
    paths = []
    for i in order.tolist():
        y, speed = 240 + rng.uniform(-60, 60), rng.uniform(0.8, 1.2)
        paths.append(straight((80 + (WIDTH - 160) / 4 * i, y), (speed * (240 - 120 * i), 0)))
    frames, truth = crowd(chosen, paths, room, round(SECONDS * FPS), seed=scene)
    tracker = Tracker(predict)
    return apart_switches(
        [[(face.track_id, face.box) for face in tracker(frame, i / FPS)] for i, frame in enumerate(frames)], truth
    )


def apart_switches(seen: Sequence[Sequence[tuple[int, np.ndarray]]], truth: np.ndarray) -> int:
    """How often a person who stands apart from the others has another id than when last seen so.

    Args:
        seen: for each frame, id and box (4,) of each face that was found.
        truth: (frames, people, 5, 2) points. Who overlaps another by a tenth is not judged: it is not to be said whose
            face a box is on.
    """
    ids: dict[int, int] = {}
    count = 0
    for faces, people in zip(seen, truth, strict=True):
        boxes = [box_from_five(points) for points in people]
        for person, box in enumerate(boxes):
            if any(iou(box, other) > OVERLAP for i, other in enumerate(boxes) if i != person):
                continue
            near = [number for number, found in faces if same_place(box, found.astype(np.float64))]
            if len(near) == 1:
                count += ids.get(person, near[0]) != near[0]
                ids[person] = near[0]
    return count


def measure(predict: Predictor, samples: Sequence[FaceSample], scenes: Sequence[int]) -> dict[str, Any]:
    """Switches in each of these scenes, rendered and real."""
    heads, room = [cut_out(sample, 90) for sample in samples[:10]], backdrop(samples[10])
    return {
        "rendered": [rendered(scene) for scene in scenes],
        "real": [real(predict, heads, room, scene) for scene in scenes],
    }
