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
from facemtl.predictor import Predictor
from facemtl.track import Tracker

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from moving_faces import Person, World, play, switches, times
from moving_faces import straight as straight_path

SCENES = 12
SECONDS = 2.0
PEOPLE = 5


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
    tracker, ids, count = Tracker(predict), {}, 0
    for i, frame in enumerate(frames):
        for face in tracker(frame, i / FPS):
            person = whose(face.box, truth[i])
            if person is not None:
                count += ids.get(person, face.track_id) != face.track_id
                ids[person] = face.track_id
    return count


def whose(box: np.ndarray, truth: np.ndarray) -> int | None:
    """The person whose face a box is on: the one whose middle is nearest, within half a side, the nearer to the camera
    of two that are as good as equally near."""
    middle, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
    distances = []
    for person, points in enumerate(truth):
        x1, y1, x2, y2 = box_from_five(points)
        distances.append((float(np.hypot((x1 + x2) / 2 - middle[0], (y1 + y2) / 2 - middle[1])) / side, -person))
    best = min((round(distance, 1), person) for distance, person in distances)
    return -best[1] if best[0] < 0.5 else None


def measure(predict: Predictor, samples: Sequence[FaceSample]) -> dict[str, Any]:
    """Switches in each rendered and each real scene."""
    heads, room = [cut_out(sample, 90) for sample in samples[:10]], backdrop(samples[10])
    return {
        "rendered": [rendered(scene) for scene in range(SCENES)],
        "real": [real(predict, heads, room, scene) for scene in range(SCENES)],
    }
