"""Tracking of several faces, which cross and hide one another, and of real ones."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_faces import FPS, HEIGHT, MIDDLE, WIDTH, Person, World, play, straight, switches, times

from facemtl.data.mtfl import read_mtfl
from facemtl.geometry import box_from_five
from facemtl.image import read_image
from facemtl.predictor import Predictor
from facemtl.track import Tracker

# --- several faces --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nearer", [0, 1])
def test_two_faces_that_cross_keep_their_ids(nearer: int) -> None:
    people = [
        Person(straight((60, 120), (80, 0)), depth=1 if nearer == 0 else 3, seed=1),
        Person(straight((260, 120), (-80, 0)), depth=2, seed=2),
    ]
    seen = play(World(*people), times(2.5))
    assert seen[0] == seen[-1] == {1: 0, 2: 1}
    assert any(len(frame) == 1 for frame in seen)  # one was behind the other
    assert switches(seen) == 0


@pytest.mark.parametrize("nearer", [0, 1])
def test_a_face_that_passes_one_that_stands_still_leaves_it_its_id(nearer: int) -> None:
    people = [
        Person(straight((160, 120), (0, 0)), depth=1 if nearer == 0 else 3, seed=1),
        Person(straight((40, 120), (100, 0)), depth=2, seed=2),
    ]
    seen = play(World(*people), times(2.5))
    assert seen[0] == seen[-1] == {1: 0, 2: 1}
    assert switches(seen) == 0


@pytest.mark.parametrize("sigma", [0.011, None])
def test_five_crossing_faces_without_an_identity_switch(sigma: float | None) -> None:
    """Ten crossings within a second, two or more faces behind others at once: no switch in any of three rehearsals."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        depths, people = rng.permutation(5), []
        for i in range(5):
            y, speed = 120 + rng.uniform(-35, 35), rng.uniform(0.8, 1.2)
            path = straight((40 + 60 * i, y), (speed * (120 - 60 * i), 0))
            people.append(Person(path, side=rng.uniform(42, 58), depth=float(depths[i]), seed=i))
        seen = play(World(*people, sigma=sigma, seed=seed), times(2.0))
        assert seen[0] == {number: number - 1 for number in range(1, 6)}
        assert min(len(frame) for frame in seen) <= 3
        assert switches(seen) == 0


def test_five_faces_that_turn_behind_one_another_may_swap() -> None:
    """What is not possible without recognising people: faces that swing to and fro and turn where nobody sees them.

    Three seconds of each of three scenes; the count of switches is what is measured, and may fall.
    """
    count = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        depths = rng.permutation(5)
        swings = [(160 + rng.uniform(-40, 40), rng.uniform(40, 100), rng.uniform(3, 6), 2 * i) for i in range(5)]
        people = [
            Person(
                lambda t, c=c, reach=reach, period=period, phase=phase: (
                    c + reach * math.sin(2 * math.pi * t / period + phase),
                    108 + 3 * phase,
                ),
                depth=float(depths[i]),
                seed=i,
            )
            for i, (c, reach, period, phase) in enumerate(swings)
        ]
        count += switches(play(World(*people, seed=seed), times(3.0)))
    assert count == 9


def test_a_detector_that_finds_a_face_twice_makes_one_track() -> None:
    world = World(Person(straight(MIDDLE, (0, 0)), side=60))
    twin = Person(straight((WIDTH / 2 + 25, HEIGHT / 2), (0, 0)), side=60)
    found = world.detector.detect

    def twice(image: np.ndarray):
        detections = found(image)
        boxes = np.concatenate([detections.boxes, twin.box(0.0)[None].astype(np.float32)])
        return detections._replace(boxes=boxes, scores=np.float32([0.99, 0.8]))

    world.detector.detect = twice
    assert play(world, times(2), Tracker(world, every=5)) == 50 * [{1: 0}]


# --- real faces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["facemtl-s", "tcdcn"])
def test_a_real_face_that_moves_and_leaves(model: str, mtfl_root: Path) -> None:
    """A held-out photo of MTFL moves over a grey picture, in a circle, and is then taken away."""
    sample = next(s for s in read_mtfl(mtfl_root, "heldout") if s.image.parent.name == "lfw_5590")
    photo = read_image(sample.image)
    tracker = Tracker(Predictor(model), smooth=False)
    for i, time in enumerate(times(1.2)):
        frame = np.full((380, 380, 3), 110, np.uint8)
        x, y = round(60 + 50 * math.cos(i / 8)), round(60 + 50 * math.sin(i / 8))
        if i < 24:
            frame[y : y + len(photo), x : x + photo.shape[1]] = photo
        faces = tracker(frame, time)
        assert [face.track_id for face in faces] == ([1] if i < 24 else [])
        for face in faces:
            apart = np.hypot(*(face.landmarks - sample.points - np.float32([x, y])).T).mean()
            assert apart < 0.06 * (face.box[2] - face.box[0])
    assert tracker.detections <= 1 + 2 + 6  # at first, on motion, and while there is no face


def test_two_real_faces_that_cross(mtfl_root: Path) -> None:
    """Two held-out faces of MTFL, cut out as ellipses, pass each other, one wholly behind the other."""
    samples = [s for s in read_mtfl(mtfl_root, "heldout") if s.image.parent.name == "lfw_5590"][1:3]
    heads = []
    for sample in samples:
        x1, y1, x2, y2 = np.round(box_from_five(sample.points)).astype(int)
        side = x2 - x1
        head = cv2.resize(read_image(sample.image)[y1 - side // 4 : y2 + side // 4, x1:x2], (100, 150))
        mask = cv2.ellipse(np.zeros((150, 100), np.uint8), (50, 75), (48, 72), 0, 0, 360, 255, cv2.FILLED)
        heads.append((head, mask > 0))
    tracker = Tracker(Predictor("facemtl-s"))
    places = []
    for i, time in enumerate(times(34 / FPS)):
        frame = np.full((240, 420, 3), 120, np.uint8)
        lefts = 20 + 8 * i, 290 - 8 * i
        for (head, mask), left in zip(heads[::-1], lefts[::-1], strict=True):  # the first one is nearer
            frame[45:195, left : left + 100][mask] = head[mask]
        found = {face.track_id: float((face.box[0] + face.box[2]) / 2) for face in tracker(frame, time)}
        places.append([found.get(number) for number in (1, 2)] + [len(found)])
    assert places[0][2] == places[-1][2] == 2
    assert min(count for _, _, count in places) == 1  # the one behind was hidden
    assert {number for number in (1, 2) if places[-1][number - 1] is None} == set()
    # Who began on one side ended on the other, and the nearer one was never lost.
    assert (places[0][0] < 210) == (places[-1][0] > 210)
    assert (places[0][1] < 210) == (places[-1][1] > 210)
    nearer = 0 if places[0][0] < 210 else 1
    for i, place in enumerate(places):
        assert place[nearer] == pytest.approx(70 + 8 * i, abs=15)
