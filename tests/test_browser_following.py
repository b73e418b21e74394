"""The page's own follower, in a real Chromium with a network that knows where the faces are (page_scripts.FOLLOW): who
is followed, and who gets which number back. 30 frames a second, faces [x, y, side] in a picture of 640 x 480 pixels.

The rule is that of :mod:`facemtl.identity`: back within 1.5 seconds, and within 0.75 sides and one more for each second
of where the face was last seen (0.25 sides dearer) or would have moved to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from page_scripts import COME_BACK, DISTURBED, FOLLOW, RETURN
from service import CHROMIUM, FLAGS, running

from facemtl.face import Face
from facemtl.identity import Track, state_of
from facemtl.predictor import Predictor
from facemtl.serve.app import create_app

if CHROMIUM is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

Scenes = list[list[list[float]]]
UPRIGHT = np.array([[-0.2, -0.2], [0.2, -0.2], [0, 0.02], [-0.17, 0.2], [0.17, 0.2]])
SIZE = (480, 640)


@pytest.fixture(scope="module")
def page() -> Iterator[sync_api.Page]:
    with running(create_app(Predictor())) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        page.goto(address)
        yield page
        browser.close()


@pytest.fixture
def follow(page: sync_api.Page) -> Callable[[Scenes], dict]:
    return lambda scenes: page.evaluate(FOLLOW, [scenes])


def ids(found: dict) -> list[list[int]]:
    """The numbers that are shown in each frame."""
    return [[number for number, _ in faces] for faces in found["seen"]]


# --- while a face is there ------------------------------------------------------------------------------------------


def test_a_face_is_followed_without_looking_for_it(follow):
    found = follow([[[100 + 5 * i, 200, 100]] for i in range(30)])
    assert found["searches"] == 2  # frames 1 and 16
    assert found["looks"] == 30  # one look a frame: the first at what was found, then at its last points
    for i, faces in enumerate(found["seen"]):
        ((number, x),) = faces
        assert number == 1
        assert x == pytest.approx(100 + 5 * i, abs=8)  # smoothed


# --- leaving and returning ------------------------------------------------------------------------------------------


def test_a_face_that_leaves_ends_and_another_one_is_new(follow):
    here, there = [120, 200, 100], [400, 200, 90]
    found = follow([[here]] * 3 + [[]] * 12 + [[there]] * 6)
    assert ids(found)[:15] == [[1]] * 3 + [[]] * 12
    assert ids(found)[-1] == [2]  # 2.8 sides away


def test_a_face_that_comes_back_nearby_gets_its_number_back(follow):
    """0.4 sides from where it stood; after half a second it is looked for within 1.25."""
    found = follow([[[200, 200, 100]]] * 3 + [[]] * 12 + [[[240, 200, 100]]] * 6)
    assert ids(found)[:15] == [[1]] * 3 + [[]] * 12
    assert found["seen"][-1] == [[1, 240]]


def test_a_face_that_comes_back_where_it_would_have_moved_to_gets_its_number_back(follow):
    """At 10 pixels a frame it would be 2.1 sides from where it was last seen; one that had stood still would not."""
    back = [[]] * 20 + [[[400 + 10 * i, 200, 100]] for i in range(6)]
    assert ids(follow([[[100 + 10 * i, 200, 100]] for i in range(10)] + back))[-1] == [1]
    assert ids(follow([[[190, 200, 100]]] * 10 + back))[-1] == [2]


def test_a_face_that_was_away_for_longer_than_the_memory_is_a_new_one(follow):
    for away, number in ((30, 1), (60, 2)):  # one second, two seconds
        found = follow([[[200, 200, 100]]] * 3 + [[]] * away + [[[200, 200, 100]]] * 6)
        assert ids(found)[-1] == [number]


def test_a_face_of_another_size_in_the_same_place_is_a_new_one(follow):
    """ln(100 / 25) = 1.39, which counts like sides; after half a second only what is within 1.25 is the same."""
    assert ids(follow([[[200, 200, 25]]] * 3 + [[]] * 12 + [[[200, 200, 100]]] * 6))[-1] == [2]


def test_two_lost_faces_get_each_its_own_number_back(follow):
    """Both are in reach of both: 0.06 sides from their own place, 1.0 or 1.12 from the other's. The
    detector names them in the other order than before."""
    found = follow([[[200, 200, 80], [285, 200, 80]]] * 3 + [[]] * 22 + [[[290, 200, 80], [205, 200, 80]]] * 6)
    assert found["seen"][2] == [[1, 200], [2, 285]]
    assert found["seen"][-1] == [[1, 205], [2, 290]]


def test_a_face_behind_another_keeps_its_number(follow):
    """One passes before the other, that stands still: where only one can be seen it is the one that moved."""
    scenes = [[[100 + 10 * i, 200, 100], [300, 200, 100]] for i in range(40)]
    for i in range(16, 25):
        scenes[i] = scenes[i][:1]  # less than half a side apart
    found = follow(scenes)
    assert [number for number, _ in found["seen"][20]] == [1]
    assert found["seen"][0] == [[1, 100], [2, 300]]
    assert ids(found)[-1] == [1, 2]
    assert dict(found["seen"][-1]) == pytest.approx({1: 490, 2: 300}, abs=8)


@pytest.mark.parametrize(
    ("sure", "velocity", "alone"),
    [(True, [250, -250], [110, 90, 80, 1.04]), (False, [60, 0], [100, 100, 80, 1.0])],
)
def test_a_face_that_is_found_again_half_hidden_keeps_its_motion(page, sure, velocity, alone):
    """80 pixels, (100, 100) at 60 pixels a second, lost; found 0.04 s later at (110, 90), 88 pixels large. See
    tests/test_identity.py."""
    found = page.evaluate(COME_BACK, [[100, 100, 80, 1.0], [60, 0], [110, 90, 88, 1.04], sure])
    assert found[0] == pytest.approx(velocity)
    assert found[1] == pytest.approx(alone)


# --- the same as Python ---------------------------------------------------------------------------------------------


def found(x, y, side, quality=None):
    points = np.float32([x, y] + side * UPRIGHT)
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    return Face(np.zeros(4, np.float32), 1.0, points, "mtfl5", quality=quality), box


def test_the_cost_of_a_return_is_that_of_the_tracker(page):
    rng = np.random.default_rng(2)
    times = np.cumsum(rng.uniform(0.02, 0.1, 12)).tolist()
    boxes = [[520 + 150 * t, 240 + rng.normal(0, 2), 90 + rng.normal(0, 2), t] for t in times]
    returns = [
        [rng.uniform(450, 640), rng.uniform(150, 330), rng.uniform(60, 120), times[-1] + t]
        for t in rng.uniform(0.1, 1.5, 60).tolist()
    ]
    lost = Track(*found(*boxes[0][:3]), 1.0, times[0], None)
    for x, y, side, time in boxes[1:]:
        lost.follow(*found(x, y, side), time)
        lost.look_around([lost], [])
    expected = [lost.return_cost(state_of(*found(*at[:3]), at[3], np.zeros(2)), SIZE, 1.5) for at in returns]
    assert 10 < np.isfinite(expected).sum() < 50
    costs = page.evaluate(RETURN, [boxes, returns])
    np.testing.assert_allclose([np.inf if cost is None else cost for cost in costs], expected, atol=1e-5)


@pytest.mark.parametrize("quality", [None, 0.89, 0.91])
def test_a_face_is_disturbed_by_the_same_others(page, quality):
    """One other, followed or lost a second ago, at 60 places around it."""
    rng = np.random.default_rng(3)
    places = [[320 + rng.uniform(-180, 180), 240 + rng.uniform(-180, 180), rng.uniform(80, 120)] for _ in range(60)]
    alone = [False] * 60
    for followed in (True, False):
        time = 2.0 if followed else 1.0
        expected = []
        for place in places:
            face = Track(*found(320, 240, 100, quality), 1.0, 2.0, None)
            other = Track(*found(*place), 1.0, time, None)
            face.look_around([face, other] if followed else [face], [] if followed else [other])
            expected.append(face.disturbed)
        assert (expected == alone) is (not followed and quality != 0.89)
        assert (
            page.evaluate(DISTURBED, [[320, 240, 100, 2.0], quality, [[*at, time] for at in places], followed])
            == expected
        )
