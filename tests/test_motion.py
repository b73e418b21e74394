"""Motion away from the known people."""

import numpy as np
import pytest

from facemtl.motion import Motion

FACE = np.array([280.0, 100.0, 360.0, 180.0])


def picture(value: int = 100, noise: float = 0.0) -> np.ndarray:
    grey = np.random.default_rng(int(noise)).normal(value, noise, (480, 640, 1))
    return np.repeat(np.clip(grey, 0, 255), 3, axis=2).astype(np.uint8)


def with_patch(x: int, y: int, side: int = 60, value: int = 200) -> np.ndarray:
    image = picture()
    image[y : y + side, x : x + side] = value
    return image


def moved(*frames: np.ndarray, faces: tuple[np.ndarray, ...] = (FACE,)) -> bool:
    """Whether the last frame counts as motion, after a look for faces in the first."""
    motion = Motion()
    motion.see(frames[0], faces)
    motion.remember()
    for frame in frames[1:]:
        motion.see(frame, faces)
    return motion.elsewhere()


def test_a_still_picture_does_not_move() -> None:
    assert not moved(picture(), picture())


def test_before_the_first_look_for_faces_there_is_nothing_to_compare() -> None:
    motion = Motion()
    motion.see(picture(), [])
    assert not motion.elsewhere()


def test_something_new_beside_the_face_is_motion() -> None:
    assert moved(picture(), with_patch(40, 40))


def test_what_is_smaller_than_the_smallest_face_is_none() -> None:
    assert not moved(picture(), with_patch(40, 40, side=12))
    assert moved(picture(), with_patch(40, 40, side=40))


def test_heads_and_bodies_of_known_people_are_left_out() -> None:
    assert not moved(picture(), with_patch(280, 100, side=80))  # the face itself
    assert not moved(picture(), with_patch(240, 300, side=100))  # under the chin
    assert moved(picture(), with_patch(280, 100, side=80), faces=())


def test_where_a_face_came_from_is_left_out_too() -> None:
    motion = Motion()
    motion.see(with_patch(280, 100, side=80), [FACE])
    motion.remember()
    for shift in range(0, 200, 20):
        motion.see(with_patch(280 + shift, 100, side=80), [FACE + np.array([shift, 0, shift, 0])])
        assert not motion.elsewhere()


def test_slow_changes_add_up() -> None:
    assert moved(*[with_patch(40, 40, value=100 + step) for step in range(0, 40, 2)])


def test_noise_and_exposure_are_no_motion() -> None:
    assert not moved(picture(noise=8), picture(noise=9))
    assert not moved(picture(100), picture(160))


def test_the_size_of_the_picture_does_not_matter() -> None:
    assert moved(picture()[:480:8, :640:8], with_patch(40, 40, 120)[::8, ::8], faces=())
    assert not moved(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3), np.uint8), faces=())


@pytest.mark.parametrize("height, width", [(481, 641), (480, 641), (129, 1001), (128, 128), (127, 300), (1000, 131)])
def test_odd_sides_are_as_good(height: int, width: int) -> None:
    still, other = (np.full((height, width, 3), 100, np.uint8) for _ in range(2))
    other[: height // 3, : width // 3] = 200
    assert not moved(still, still)
    assert moved(still, other, faces=())
