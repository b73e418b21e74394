"""Tracking: who keeps which id, how often the detector runs, and what ends a track."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from moving_faces import FPS, MIDDLE, Person, World, away, play, straight, times

from facemtl.detect import Detections
from facemtl.errors import ConfigError, ImageError, ModelError
from facemtl.face import Attribute, Face
from facemtl.geometry import box_from_five
from facemtl.matching import assign
from facemtl.track import Tracker

# --- assignment -----------------------------------------------------------------------------------------------------


def test_the_cheapest_pairs_come_first_and_each_is_used_once() -> None:
    costs = np.array([[0.3, 0.1, 0.9], [0.2, 0.15, 0.9]])
    assert assign(costs, 1.0) == {0: 1, 1: 0}
    assert assign(costs, 0.2) == {0: 1}
    assert assign(np.zeros((0, 3)), 1.0) == {}
    assert assign(np.zeros((2, 0)), 1.0) == {}
    assert assign(np.array([[math.inf]]), math.inf) == {}


# --- one face -------------------------------------------------------------------------------------------------------


def test_a_still_face_keeps_its_id_and_its_score_and_is_where_its_points_are() -> None:
    world = World(Person(straight(MIDDLE, (0, 0)), side=60))
    tracker = Tracker(world)
    for time in times(2):
        (face,) = tracker(world.frame(time), time)
        assert face.track_id == 1
        assert face.score == pytest.approx(0.99)
        assert face.box == pytest.approx(box_from_five(face.landmarks), abs=1e-3)
        assert face.landmarks == pytest.approx(world.people[0].points(time), abs=1.5)
        assert (face.box.dtype, face.landmarks.dtype) == (np.float32, np.float32)


def test_smoothing_can_be_left_out() -> None:
    """Then the points are those that the predictor found in the box of the last ones."""
    world = World(Person(straight(MIDDLE, (0, 0))), noise=0.0)
    tracker = Tracker(world, smooth=False)
    for time in times(0.2):
        (face,) = tracker(world.frame(time), time)
        assert (face.landmarks == np.float32(world.people[0].points(time))).all()


def test_the_next_crop_is_where_the_face_will_be() -> None:
    world = World(Person(straight((60, 120), (100, 0))), noise=0.0)
    play(world, times(1))
    (given,) = world.given[-1]
    assert given == pytest.approx(world.people[0].box(world.time), abs=0.5)  # it moves 4 pixels a frame


def test_the_next_crop_is_never_more_than_half_a_side_away() -> None:
    world = World(Person(straight((60, 120), (100, 0)), side=50), noise=0.0)
    tracker = Tracker(world)
    play(world, times(1), tracker)
    before, calls = world.people[0].box(world.time), len(world.given)
    tracker(world.frame(world.time), 3.0)  # two seconds without a picture
    (given,) = world.given[calls]
    assert given - before == pytest.approx([25, 0, 25, 0], abs=0.5)  # and not the 200 pixels that it would have moved


def test_frames_may_come_at_any_spacing() -> None:
    rng = np.random.default_rng(3)
    moments = np.cumsum(rng.choice([0.01, 0.033, 0.04, 0.15], 60)).tolist()
    seen = play(World(Person(straight((40, 120), (50, 0)))), [t for t in moments if t < 4.5])
    assert all(frame == {1: 0} for frame in seen)


def test_a_long_pause_between_frames_does_not_lose_a_face_that_stays() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))))
    assert play(world, [0.0, 0.04, 10.0, 10.04, 60.0]) == 5 * [{1: 0}]


def test_the_next_crop_is_turned_as_the_face_was() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))), noise=0.0)
    angle = math.radians(20)
    world.people[0].shape = world.people[0].shape @ np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    rolls = []
    follow = world.follow
    world.follow = lambda image, boxes, given: rolls.extend(given) or follow(image, boxes, given)
    play(world, times(0.2))
    assert np.degrees(rolls) == pytest.approx([20] * 4, abs=2)  # the rendered face is upright within that


# --- how often the detector runs ------------------------------------------------------------------------------------


def test_while_all_is_well_the_detector_runs_every_n_frames() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))))
    for every, count in ((30, 4), (10, 10), (1, 100)):
        tracker = Tracker(world, every=every, search=1)
        play(world, times(100 / FPS), tracker)
        assert tracker.detections == count  # in frame 1, then every so many of 100


def test_without_a_face_the_detector_runs_in_every_frame() -> None:
    world = World()
    tracker = Tracker(world)
    assert play(world, times(1), tracker) == 25 * [{}]
    assert tracker.detections == 25


def test_a_moving_face_alone_is_no_reason_to_detect() -> None:
    world = World(Person(straight((60, 100), (80, 0))))
    tracker = Tracker(world)
    play(world, times(2), tracker)
    assert tracker.detections == 1  # in 50 frames


def test_motion_elsewhere_brings_the_detector_early() -> None:
    newcomer = Person(away(straight((260, 70), (0, 0)), 0.0, 1.2), seed=2)
    world = World(Person(straight((60, 120), (0, 0))), newcomer)
    tracker = Tracker(world, every=1000)
    seen = play(world, times(1.6), tracker)
    assert seen == 30 * [{1: 0}] + 10 * [{1: 0, 2: 1}]
    assert tracker.detections == 2


def test_a_lost_face_is_looked_for_at_once_and_then_every_few_frames() -> None:
    stays, goes = Person(straight((60, 120), (0, 0))), Person(away(straight((250, 120), (0, 0)), 0.4, 99), seed=2)
    world = World(stays, goes)
    tracker = Tracker(world, every=1000, search=5, memory=1.0)
    seen = play(world, times(2), tracker)
    assert seen == 10 * [{1: 0, 2: 1}] + 40 * [{1: 0}]
    # In the first frame, in that of the loss (number 11), and 5 times in the second after it.
    assert tracker.detections == 1 + 1 + 5


# --- leaving and returning ------------------------------------------------------------------------------------------


def test_a_face_that_is_covered_for_a_moment_gets_its_id_back() -> None:
    seen = play(World(Person(away(straight(MIDDLE, (0, 0)), 1, 2))), times(3))
    assert seen == 25 * [{1: 0}] + 25 * [{}] + 25 * [{1: 0}]


def test_a_face_that_walks_on_behind_something_gets_its_id_back() -> None:
    seen = play(World(Person(away(straight((40, 120), (80, 0)), 1, 2))), times(3))
    assert seen == 25 * [{1: 0}] + 25 * [{}] + 25 * [{1: 0}]


def test_a_face_that_has_been_away_for_long_is_a_new_one() -> None:
    seen = play(World(Person(away(straight(MIDDLE, (0, 0)), 1, 3))), times(4))
    assert seen == 25 * [{1: 0}] + 50 * [{}] + 25 * [{2: 0}]


def test_a_face_that_appears_elsewhere_is_a_new_one() -> None:
    first = Person(away(straight((60, 120), (0, 0)), 1, 99))
    second = Person(away(straight((260, 120), (0, 0)), 0, 1.2), seed=2)
    assert play(World(first, second), times(2)) == 25 * [{1: 0}] + 5 * [{}] + 20 * [{2: 1}]


def test_a_face_of_another_size_in_the_same_place_is_a_new_one() -> None:
    first = Person(away(straight(MIDDLE, (0, 0)), 1, 99), side=30)
    second = Person(away(straight(MIDDLE, (0, 0)), 0, 1.2), side=100, seed=2)
    assert play(World(first, second), times(2)) == 25 * [{1: 0}] + 5 * [{}] + 20 * [{2: 1}]


def test_a_face_that_walks_out_of_the_picture_and_comes_back_there_keeps_its_id() -> None:
    out_and_back = Person(lambda t: (250 + 80 * t, 120) if t < 1.3 else (250 + 80 * (2.6 - t), 120))
    seen = play(World(out_and_back), times(2.4))
    assert [len(frame) for frame in seen].count(0) > 10
    assert {number for frame in seen for number in frame} == {1}


def test_nothing_is_remembered_without_a_memory() -> None:
    world = World(Person(away(straight(MIDDLE, (0, 0)), 1, 1.2)))
    assert play(world, times(2), Tracker(world, memory=0.0))[-1] == {2: 0}


# --- what ends a track ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.011, None], ids=["by sigma", "by agreement"])
def test_a_track_ends_in_the_frame_in_which_its_face_is_gone(sigma: float | None) -> None:
    world = World(Person(away(straight(MIDDLE, (0, 0)), 0.4, 99)), sigma=sigma)
    assert play(world, times(0.8), Tracker(world, every=1000)) == 10 * [{1: 0}] + 10 * [{}]


def test_a_face_that_the_detector_overlooks_stays_while_the_network_is_sure() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))))
    tracker = Tracker(world, every=5)
    play(world, times(0.2), tracker)
    world.blind = True
    assert play(world, times(3, start=0.2), tracker)[-1] == {1: 0}


def test_a_face_of_which_the_network_is_never_sure_lives_by_the_detector() -> None:
    """It is asked when the odds have fallen, in frame 2, and from then on every ``search`` frames."""
    world = World(Person(straight(MIDDLE, (0, 0))), sigma=0.03)
    tracker = Tracker(world, every=1000, search=5)
    assert play(world, times(1), tracker) == 25 * [{1: 0}]
    assert tracker.detections == 2 + 4  # in frames 1, 2, 7, 12, 17 and 22
    world.blind = True
    assert play(world, times(0.2, start=1.0), tracker) == [{1: 0}, *4 * [{}]]  # frames 26, and 27 on


def test_a_doubt_is_not_put_off_by_a_detection_just_before() -> None:
    world = World(Person(away(straight(MIDDLE, (0, 0)), 0.4, 99)))
    assert play(world, times(0.6), Tracker(world, every=9, search=9)) == 10 * [{1: 0}] + 5 * [
        {}
    ]  # the detector: frame 10


def test_without_sigma_two_detections_that_overlook_a_face_end_it() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))), sigma=None)
    tracker = Tracker(world, every=10)
    play(world, times(0.2), tracker)
    world.blind = True
    seen = play(world, times(1, start=0.2), tracker)
    assert seen == 15 * [{1: 0}] + 10 * [{}]  # the detector ran in frame 1, missed it in frames 11 and 21


class Gone:
    """A network that gives the same ``points`` everywhere, after the first frame."""

    def __init__(self, points: np.ndarray) -> None:
        self.world = World(Person(straight(MIDDLE, (0, 0))))
        self.detector, self.spec = self.world.detector, self.world.spec
        self.points, self.calls = points, 0

    def follow(self, image: np.ndarray, boxes: np.ndarray, rolls: list[float]) -> list[Face]:
        return self(image, boxes)

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> list[Face]:
        self.calls += 1
        faces = self.world(image, boxes=boxes)
        return faces if self.calls == 1 else [Face(f.box, 1.0, np.float32(self.points), "mtfl5") for f in faces]


@pytest.mark.parametrize("points", [np.full((5, 2), 50), 1e5 + 40 * np.eye(5, 2), 160 + np.eye(5, 2)])
def test_points_that_can_be_on_no_face_end_a_track(points: np.ndarray) -> None:
    predict = Gone(points)
    tracker = Tracker(predict)
    assert len(tracker(predict.world.frame(0.0), 0.0)) == 1
    assert tracker(predict.world.frame(0.04), 0.04) == []


def test_a_model_without_points_cannot_track() -> None:
    predict = Gone(np.zeros((0, 2)))
    predict.calls = 1
    with pytest.raises(ModelError, match="finds points"):
        Tracker(predict)(predict.world.frame(0.0), 0.0)


# --- what a caller can do wrong, and what a source can --------------------------------------------------------------


def test_time_must_go_on() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))))
    tracker = Tracker(world)
    play(world, [1.0, 1.1], tracker)
    for wrong in (1.1, 0.5, math.nan, math.inf):
        with pytest.raises(ConfigError, match="frames must come in order"):
            tracker(world.frame(1.1), wrong)
    assert play(world, [1.2], tracker) == [{1: 0}]


def test_after_a_reset_time_and_faces_begin_again_and_ids_go_on() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))))
    tracker = Tracker(world)
    play(world, [5.0], tracker)
    tracker.reset()
    assert play(world, [0.0, 0.1], tracker) == [{2: 0}, {2: 0}]


def test_another_frame_size_is_another_view() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))))
    tracker = Tracker(world)
    play(world, [0.0, 0.1], tracker)
    larger = cv2.copyMakeBorder(world.frame(0.2), 0, 60, 0, 80, cv2.BORDER_REPLICATE)
    (face,) = tracker(larger, 0.2)
    assert face.track_id == 2
    assert play(world, [0.3], tracker) == [{3: 0}]


def test_a_frame_without_pixels_is_an_error_and_the_next_goes_on() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))))
    tracker = Tracker(world)
    play(world, [0.0, 0.1], tracker)
    with pytest.raises(ImageError, match="must have pixels"):
        tracker(np.zeros((0, 0, 3), np.uint8), 0.2)
    assert play(world, [0.2], tracker) == [{1: 0}]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"search": 0}, "search must be at least 1"),
        ({"every": 2, "search": 3}, "at most every"),
        ({"memory": -1.0}, "memory must be"),
        ({"memory": math.nan}, "memory must be"),
    ],
)
def test_numbers_out_of_range_are_errors(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tracker(World(), **wrong)


def test_labels_are_steady_and_certain_by_the_thresholds_of_the_model() -> None:
    world = World(Person(straight(MIDDLE, (0, 0))))
    shares = iter(np.tile([0.6, 0.45], 50).tolist())

    class Wavering:
        detector = world.detector
        spec = type("Spec", (), {"thresholds": {"smile": 0.9}, "priors": {}})

        def follow(self, image: np.ndarray, boxes: np.ndarray, rolls: list[float]) -> list[Face]:
            return self(image, boxes)

        def __call__(self, image: np.ndarray, boxes: np.ndarray) -> list[Face]:
            share = next(shares)
            label = "smiling" if share > 0.5 else "not_smiling"
            smile = Attribute(label, max(share, 1 - share), {"smiling": share, "not_smiling": 1 - share})
            return [Face(f.box, 1.0, f.landmarks, "mtfl5", {"smile": smile}) for f in world(image, boxes=boxes)]

    tracker = Tracker(Wavering())
    shown = [tracker(world.frame(time), time)[0].attributes["smile"] for time in times(1)]
    assert {(smile.label, smile.certain) for smile in shown} == {("smiling", False)}


# --- a search that takes several frames -----------------------------------------------------------------------------


class InPieces:
    """The detector of a world whose searches take ``pieces`` steps; ``log`` has the time of each step."""

    def __init__(self, world: World, pieces: int) -> None:
        self.world, self.pieces = world, pieces
        self.log: list[float] = []
        self.detect = world.detector.detect

    def search(self, image: np.ndarray) -> Iterator[Detections | None]:
        found = self.detect(image)  # of the frame in which the search began
        for i in range(self.pieces):
            self.log.append(self.world.time)
            yield found if i == self.pieces - 1 else None


def in_pieces(*people: Person, pieces: int = 4) -> tuple[World, InPieces]:
    world = World(*people)
    world.detector = InPieces(world, pieces)
    return world, world.detector


def test_a_search_is_spread_over_frames_while_a_face_is_followed() -> None:
    world, detector = in_pieces(Person(straight(MIDDLE, (0, 0))))
    tracker = Tracker(world, every=10)
    assert play(world, times(1), tracker) == 25 * [{1: 0}]
    # At once in frame 0, where no face was known; then a piece a frame from frames 10 and 20 on.
    assert [round(time * FPS) for time in detector.log] == [0, 0, 0, 0, 10, 11, 12, 13, 20, 21, 22, 23]
    assert tracker.detections == 3


def test_what_a_search_found_counts_from_where_the_faces_were_when_it_began() -> None:
    """A face of 3 sides a second has gone on by 0.6 sides when the search ends: it keeps its id and place."""
    world, _ = in_pieces(Person(straight((40, 120), (120, 0)), side=40), pieces=6)
    tracker = Tracker(world, every=10, smooth=False)
    for time in times(2):
        (face,) = tracker(world.frame(time), time)
        assert face.track_id == 1
        assert face.landmarks == pytest.approx(world.people[0].points(time), abs=1.5)


def test_a_new_face_appears_when_the_search_ends() -> None:
    newcomer = Person(away(straight((260, 70), (0, 0)), 0.0, 0.3), seed=2)
    world, _ = in_pieces(Person(straight((60, 120), (0, 0))), newcomer)
    seen = play(world, times(0.6), Tracker(world, every=10))
    assert seen == 13 * [{1: 0}] + 2 * [{1: 0, 2: 1}]  # the search of frame 10 ended in frame 13


def test_a_face_that_left_during_the_search_does_not_appear() -> None:
    visitor = Person(away(away(straight((260, 70), (0, 0)), 0.0, 0.3), 0.42, 9), seed=2)
    world, _ = in_pieces(Person(straight((60, 120), (0, 0))), visitor)
    assert play(world, times(0.6), Tracker(world, every=10)) == 15 * [{1: 0}]


def test_a_new_doubt_does_not_wait_for_a_search_under_way() -> None:
    goes = Person(away(straight((260, 70), (0, 0)), 0.42, 9), seed=2)
    world, detector = in_pieces(Person(straight((60, 120), (0, 0))), goes, pieces=20)
    seen = play(world, times(0.6), Tracker(world, every=10))
    assert seen == 11 * [{1: 0, 2: 1}] + 4 * [{1: 0}]
    begun = 20 + 1  # all of the first, and of the second what frame 10 did; then the third at once
    assert [round(time * FPS) for time in detector.log[begun : begun + 20]] == 20 * [11]
