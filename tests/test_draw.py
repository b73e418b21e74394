"""Drawing: where strokes and captions land, and what the mirror swaps."""

from types import MappingProxyType

import numpy as np
import pytest

from facemtl.draw import (
    AXIS_COLOURS,
    BAR_COLOUR,
    BOX_COLOUR,
    EDGE_COLOUR,
    POINT_COLOUR,
    Overlay,
    caption,
    draw_faces,
    draw_status,
    mirror_face,
)
from facemtl.face import Attribute, Face, Pose
from facemtl.landmarks import SCHEMAS

FIVE = np.float32([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]])


def make_face(x: float, y: float, side: float, captioned: bool = True, **fields) -> Face:
    attributes = {
        "glasses": Attribute("no_glasses", 0.983, MappingProxyType({"glasses": 0.017, "no_glasses": 0.983})),
        "pose": Attribute("left", 0.6, MappingProxyType({"left": 0.6, "frontal": 0.3, "right": 0.1})),
    }
    values = {
        "box": np.float32([x, y, x + side, y + side]),
        "score": 0.99,
        "landmarks": FIVE * np.float32(side) + np.float32([x, y]),
        "schema": "mtfl5",
        "attributes": attributes if captioned else {},
    }
    return Face(**(values | fields))


def grey(height: int = 240, width: int = 320, value: int = 120) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def is_colour(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 20) -> bool:
    """Nearly: a smoothed line of one pixel keeps a little of what is under it."""
    return np.abs(pixel.astype(int) - colour).max() <= tolerance


def changed(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of the pixels that differ, inclusive."""
    ys, xs = np.nonzero((before != after).any(axis=2))
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def test_points_and_box_have_their_colours_where_they_are() -> None:
    drawn = draw_faces(grey(), [make_face(50, 60, 100, captioned=False)])
    for x, y in ((80, 100), (120, 100), (100, 120), (85, 135), (115, 135)):
        assert is_colour(drawn[y, x], POINT_COLOUR)
    for x, y in ((50, 110), (150, 110), (100, 60), (100, 160)):
        assert is_colour(drawn[y, x], BOX_COLOUR)


def test_the_picture_given_is_left_as_it_was() -> None:
    image = grey()
    drawn = draw_faces(image, [make_face(50, 60, 100)])
    assert (image == 120).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_no_faces_draw_nothing() -> None:
    assert (draw_faces(grey(), []) == grey()).all()


def test_a_point_between_two_pixels_colours_both_alike() -> None:
    face = make_face(20, 20, 150, captioned=False, landmarks=np.float32([[100.5, 80]] * 5))
    drawn = draw_faces(grey(), [face]).astype(int)
    left, right = drawn[80, 90:101], drawn[80, 101:112]
    assert np.abs(left - right[::-1]).max() <= 12
    assert is_colour(drawn[80, 100], POINT_COLOUR)
    assert is_colour(drawn[80, 101], POINT_COLOUR)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_strokes_stand_out_on_any_background(value: int) -> None:
    image = grey(value=value)
    drawn = draw_faces(image, [make_face(50, 60, 100, captioned=False)]).astype(int)
    around = drawn[110, 45:56].sum(axis=1)  # across the left side of the box
    assert around.max() - around.min() > 200


def test_edges_of_the_schema_join_their_points() -> None:
    points = np.float32([[10 + 4 * i, 200] for i in range(68)])
    points[0], points[1] = (20, 50), (20, 100)  # the first edge of the jaw
    face = make_face(10, 10, 150, captioned=False, schema="ibug68", landmarks=points)
    drawn = draw_faces(grey(width=400), [face])
    assert (0, 1) in SCHEMAS["ibug68"].edges
    assert is_colour(drawn[75, 20], EDGE_COLOUR)


@pytest.mark.parametrize(
    ("pose", "ends"),
    [
        # From the tip of the nose at (100, 120), 30 pixels long: to the right, down, out of the face.
        (Pose(0, 0, 0), [(130, 120), (100, 150), None]),
        (Pose(90, 0, 0), [None, (100, 150), (130, 120)]),  # looks to the viewer's right
        (Pose(0, 90, 0), [(130, 120), None, (100, 90)]),  # looks up
        (Pose(0, 0, 90), [(100, 150), (70, 120), None]),  # leans clockwise by a quarter
    ],
)
def test_the_axes_of_the_head_are_where_its_angles_say(pose: Pose, ends: list[tuple[int, int] | None]) -> None:
    drawn = draw_faces(grey(), [make_face(50, 60, 100, captioned=False, pose=pose)])
    for end, colour in zip(ends, AXIS_COLOURS, strict=True):
        if end is not None:
            x, y = 100 + 0.8 * (end[0] - 100), 120 + 0.8 * (end[1] - 120)
            assert is_colour(drawn[round(y), round(x)], colour)
            beyond = drawn[round(120 + 1.2 * (end[1] - 120)), round(100 + 1.2 * (end[0] - 100))]
            assert not is_colour(beyond, colour)


def test_axes_of_a_face_without_points_start_in_the_middle_of_its_box() -> None:
    face = make_face(50, 60, 100, captioned=False, landmarks=np.zeros((0, 2), np.float32), pose=Pose(0, 0, 0))
    assert is_colour(draw_faces(grey(), [face])[110, 125], AXIS_COLOURS[0])


def test_a_circle_around_a_point_is_one_deviation() -> None:
    sigma = np.float32([20, 1, 1, 1, 1])
    drawn = draw_faces(grey(), [make_face(50, 60, 100, captioned=False, landmark_sigma=sigma)])
    for x, y in ((60, 100), (100, 100), (80, 80), (80, 120)):  # 20 pixels around the left eye
        assert is_colour(drawn[y, x], POINT_COLOUR, 50)
    assert (drawn[100, 70] == 120).all()
    assert (drawn[80, 120] == 120).all()  # 20 pixels above the right eye
    endless = make_face(50, 60, 100, landmark_sigma=np.float32([1e9] * 5))
    assert draw_faces(grey(), [endless]).shape == (240, 320, 3)


def test_a_face_without_points_is_drawn_and_mirrored() -> None:
    face = make_face(50, 60, 100, captioned=False, schema="ibug68", landmarks=np.zeros((0, 2), np.float32))
    assert is_colour(draw_faces(grey(), [face])[110, 50], BOX_COLOUR)
    assert mirror_face(face, 320).landmarks.shape == (0, 2)


def test_caption_marks_what_is_not_certain() -> None:
    doubtful = Attribute("smiling", 0.55, {"smiling": 0.55, "not_smiling": 0.45}, certain=False)
    assert caption(make_face(0, 0, 100, attributes={"smile": doubtful})) == ["smiling 55%?"]


def test_caption_says_track_attributes_and_angles() -> None:
    face = make_face(0, 0, 100, track_id=3, pose=Pose(12.4, -3.0, 0.2))
    assert caption(face) == ["#3", "no glasses 98%", "looks left 60%", "yaw +12 pitch -3 roll +0"]
    assert caption(make_face(0, 0, 100, captioned=False)) == []


@pytest.mark.parametrize("x", [-60, 0, 110, 220, 280])
@pytest.mark.parametrize("y", [-60, 0, 70, 140, 200])
def test_the_whole_caption_is_inside_the_picture(x: int, y: int) -> None:
    """Wherever the face is, its caption covers as many pixels as that of a face with room on all sides."""

    def caption_pixels(x: int, y: int, size: int) -> int:
        face, bare = make_face(x, y, 100), make_face(x, y, 100, captioned=False)
        drawn, shapes = draw_faces(grey(size, size), [face]), draw_faces(grey(size, size), [bare])
        return int((drawn != shapes).any(axis=2).sum())

    assert caption_pixels(x, y, 320) == pytest.approx(caption_pixels(450, 450, 1000), rel=0.05)


def test_caption_grows_with_the_face() -> None:
    heights = []
    for side in (100, 400):
        face, bare = make_face(100, 100, side), make_face(100, 100, side, captioned=False)
        image = grey(1200, 1200)
        _, top, _, foot = changed(draw_faces(image, [bare]), draw_faces(image, [face]))
        heights.append(foot - top)
    assert heights[1] > 2 * heights[0]


def test_captions_keep_off_other_faces_and_each_other() -> None:
    first, second = make_face(40, 40, 90), make_face(40, 150, 90)  # one right above the other
    image = grey(300, 400)
    bare = draw_faces(image, [make_face(40, 40, 90, captioned=False), make_face(40, 150, 90, captioned=False)])
    both = draw_faces(image, [first, second])
    assert (both[40:131, 40:131] == bare[40:131, 40:131]).all()
    assert (both[150:241, 40:131] == bare[150:241, 40:131]).all()


def test_tiny_faces_get_no_caption() -> None:
    assert changed(grey(), draw_faces(grey(), [make_face(100, 100, 20)])) == pytest.approx((98, 98, 122, 122), abs=1)


def test_faces_past_the_border_and_pictures_too_small_for_a_caption_are_drawn() -> None:
    assert draw_faces(grey(), [make_face(-1e6, -1e6, 2e6), make_face(300, 220, 4000)]).shape == (240, 320, 3)
    assert draw_faces(grey(8, 8), [make_face(-20, -20, 60)]).shape == (8, 8, 3)


def test_a_mirrored_view_can_be_drawn_on() -> None:
    flipped = grey()[:, ::-1]
    assert (draw_faces(flipped, [make_face(50, 60, 100)]) != flipped).any()


def test_status_stands_in_the_upper_left_corner() -> None:
    drawn = draw_status(grey(), "12 ms   2 faces")
    x1, y1, x2, y2 = changed(grey(), drawn)
    assert (x1, y1) == (0, 0)
    assert x2 < 160
    assert y2 < 30
    assert (draw_status(grey(10, 10), "12 ms   2 faces") == grey(10, 10)).all()


def test_mirror_swaps_left_and_right_everywhere() -> None:
    face = make_face(10, 20, 100, pose=Pose(15, 5, -3), landmark_sigma=np.float32([1, 2, 3, 4, 5]))
    mirrored = mirror_face(face, 200)
    assert mirrored.box.tolist() == [89, 20, 189, 120]
    assert mirrored.landmarks[0].tolist() == pytest.approx([199 - 80, 60])  # the left eye: the right one before
    assert mirrored.landmarks[2].tolist() == pytest.approx([199 - 60, 80])
    assert mirrored.landmark_sigma.tolist() == [2, 1, 3, 5, 4]
    assert mirrored.attributes["pose"].label == "right"
    assert mirrored.attributes["pose"].probabilities == {"left": 0.1, "frontal": 0.3, "right": 0.6}
    assert mirrored.attributes["glasses"] == face.attributes["glasses"]
    assert mirrored.pose == Pose(-15, 5, 3)


def test_what_is_not_certain_is_not_certain_in_the_mirror() -> None:
    pose = Attribute("left", 0.6, {"left": 0.6, "frontal": 0.3, "right": 0.1}, certain=False)
    assert not mirror_face(make_face(10, 20, 100, attributes={"pose": pose}), 200).attributes["pose"].certain


def test_mirror_twice_is_the_face_itself() -> None:
    face = make_face(10, 20, 100, pose=Pose(15, 5, -3))
    again = mirror_face(mirror_face(face, 321), 321)
    np.testing.assert_allclose(again.box, face.box)
    np.testing.assert_allclose(again.landmarks, face.landmarks, atol=1e-4)
    assert again.attributes == face.attributes
    assert again.pose == face.pose


# --- parts of the overlay -------------------------------------------------------------------------------------------


def test_each_part_of_the_overlay_can_be_left_out() -> None:
    face = make_face(80, 60, 120, track_id=3, pose=Pose(20, 10, 5))
    blank = grey(300, 300)
    whole = draw_faces(blank, [face])
    parts = dict.fromkeys(("box", "points", "ids", "axes", "attributes"), False)
    for name in parts:
        less = draw_faces(blank, [face], Overlay(**{name: False}))
        assert (less != whole).any(), name
    assert (draw_faces(blank, [face], Overlay(**parts)) == blank).all()


def test_captions_say_what_the_overlay_asks_for() -> None:
    face = make_face(80, 60, 120, track_id=3, pose=Pose(20, 10, 5))
    assert caption(face, Overlay(attributes=False)) == ["#3"]
    assert caption(face, Overlay(ids=False)) == caption(face)[1:]
    assert caption(face, Overlay(ids=False, attributes=False)) == []


@pytest.mark.parametrize("confidence", [0.25, 1.0])
def test_a_bar_behind_an_attribute_is_as_long_as_its_confidence(confidence: float) -> None:
    smile = Attribute("smiling", confidence, {"smiling": confidence, "not_smiling": 1 - confidence})
    face = Face(np.float32([80, 80, 220, 220]), 1.0, np.zeros((0, 2), np.float32), "mtfl5", {"smile": smile})
    drawn = draw_faces(grey(300, 300), [face], Overlay(box=False))
    bar = np.nonzero((drawn == BAR_COLOUR).all(axis=2))[1]
    panel = np.nonzero((drawn != grey(300, 300)).any(axis=2))[1]
    assert bar.max() - bar.min() + 1 == pytest.approx(confidence * (panel.max() - panel.min() + 1), abs=1)
    assert bar.min() == panel.min()


def test_a_status_may_have_several_lines() -> None:
    blank = grey(300, 300)
    one, two = (np.nonzero((draw_status(blank, text) != blank).any(axis=2))[0].max() for text in ("a", "a\nb"))
    assert two > 1.5 * one
