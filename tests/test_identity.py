"""One identity among others: whose points say how it moves, and what a face keeps that was lost and is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from moving_faces import AVERAGE

from facemtl.face import Face
from facemtl.identity import Track

STEP = 0.04  # seconds from frame to frame


def seen(x: float, y: float, quality: float | None = 0.99, side: float = 80) -> tuple[Face, np.ndarray]:
    """A face, and its box."""
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    return Face(np.zeros(4), 1.0, np.float32([x, y] + side * AVERAGE), "mtfl5", quality=quality), box


def track(x: float, y: float, velocity: tuple[float, float] = (0, 0), time: float = 1.0) -> Track:
    """One that stood apart at this place and time, and moved at this velocity in pixels a second."""
    found = Track(*seen(x, y), 1.0, time, None)
    found.state = found.alone = replace(found.alone, velocity=np.array(velocity, dtype=float))
    return found


@pytest.mark.parametrize(
    ("quality", "other", "disturbed"),
    [
        (0.99, (220, 100), False),  # 1.5 sides away; the whole face can be seen
        (0.99, (166, 100), False),  # boxes share 14 of 146 pixels
        (0.99, (164, 100), True),  # 16 of 144: more than a tenth
        (0.89, (218, 100), True),  # not clear, and another less than 1.5 sides away
        (0.89, (100, 218), True),
        (0.89, (222, 100), False),  # nobody is near: it is blurred
        (None, (166, 100), False),  # a model that does not say
    ],
)
def test_a_face_is_disturbed_that_overlaps_another_or_is_not_clear_beside_one(
    quality: float | None, other: tuple[float, float], disturbed: bool
) -> None:
    face = track(100, 100)
    before = face.alone
    face.follow(*seen(100, 100, quality), 1.0 + STEP)
    face.look_around([face, track(*other, time=1.0 + STEP)], [])
    assert face.disturbed is disturbed
    assert face.alone is (before if disturbed else face.state)


def test_a_face_alone_is_never_disturbed() -> None:
    face = track(100, 100)
    face.follow(*seen(100, 100, 0.3), 1.0 + STEP)
    face.look_around([face], [])
    assert not face.disturbed


@pytest.mark.parametrize(("seconds", "disturbed"), [(0.4, False), (0.8, True), (1.6, False)])
def test_a_lost_face_that_passes_disturbs_too(seconds: float, disturbed: bool) -> None:
    """It was 3 sides to the left and 1.2 sides lower, and moved to the right at 4 sides a second: within 1.5 sides from
    0.525 to 0.975 seconds later."""
    face = track(340, 100, time=1.0 + seconds)
    face.face = seen(340, 100, 0.8)[0]
    face.look_around([face], [track(100, 196, (320, 0))])
    assert face.disturbed is disturbed


def test_the_points_of_a_disturbed_face_say_nothing_about_its_motion() -> None:
    """At 60 pixels a second; beside another its points run ahead at 200, and are believed again once it is clear."""
    face, other = track(100, 100, (60, 0)), track(200, 100)
    for i, x in enumerate((108, 116), start=1):
        face.follow(*seen(x, 100, 0.6), 1.0 + i * STEP)
        face.look_around([face, other], [])
        assert face.alone.velocity == pytest.approx([60, 0])
    assert face.alone.time == 1.0
    assert face.state.velocity == pytest.approx([60, 0])
    face.follow(*seen(118, 100), 1.0 + 3 * STEP)
    face.look_around([face, other], [])
    assert face.alone is face.state
    assert face.state.velocity == pytest.approx([60, 0])  # the step began at dragged points
    face.follow(*seen(124, 100), 1.0 + 4 * STEP)
    assert face.state.velocity == pytest.approx(
        [82.5, 0]
    )  # 6 pixels in this step: 150, of which a quarter, for it is four steps old


def test_after_two_seconds_the_motion_before_counts_no_more() -> None:
    face, other = track(100, 100), track(150, 100)
    for i in range(1, 52):
        face.follow(*seen(100 + i, 100), 1.0 + i * STEP)
        face.look_around([face, other], [])
        assert face.disturbed
    assert face.alone is face.state


@pytest.mark.parametrize(
    ("sure", "velocity", "alone"), [(True, [250, -250], (110, 90, 1.04)), (False, [60, 0], (100, 100, 1.0))]
)
def test_a_face_that_is_found_again_half_hidden_keeps_its_motion(
    sure: bool, velocity: list[float], alone: tuple[float, float, float]
) -> None:
    """80 pixels, (100, 100) at 60 pixels a second, lost; found 0.04 s later at (110, 90), 88 pixels large."""
    lost, back = track(100, 100, (60, 0)), Track(*seen(110, 90, side=88), 1.0, 1.0 + STEP, None)
    lost.number = 7
    back.come_back(lost, sure)
    assert back.number == 7
    assert back.state.velocity == pytest.approx(velocity)
    assert (*back.state.centre, back.state.side) == pytest.approx((110, 90, 88))
    assert (*back.alone.centre, back.alone.time) == pytest.approx(alone)
    assert back.alone.velocity == pytest.approx(velocity)
    assert back.alone.side == 80  # until it stands apart
    back.look_around([back], [])
    assert back.alone is back.state
