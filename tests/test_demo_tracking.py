"""The demo with a tracker: ids in lines and pictures, the key, and clocks that go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_faces import HEIGHT, WIDTH, Person, World, straight

from facemtl import cli
from facemtl.demo import run_demo
from facemtl.face import Face
from facemtl.sources import Frame, Source
from facemtl.track import Tracker
from facemtl.window import Window

WORLD_MIDDLE = (WIDTH / 2, HEIGHT / 2)


class Still(World):
    """One face that stays in the middle of every frame. It also predicts as a Predictor does without boxes."""

    def __init__(self) -> None:
        super().__init__(Person(straight(WORLD_MIDDLE, (0, 0)), side=80))
        self.picture = self.frame(0.0)

    def __call__(self, image: np.ndarray, boxes: Sequence[np.ndarray] | None = None) -> list[Face]:
        return super().__call__(image, boxes=self.detector.detect(image).boxes if boxes is None else boxes)


def source(world: Still, timestamps: Iterable[float | None], kind: str = "video") -> Source:
    frames = (Frame("clip.mp4", i, world.picture, time) for i, time in enumerate(timestamps))
    return Source(kind, "clip.mp4", frames, fps=25.0)


def ids(lines: Path) -> list[int | None]:
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    return [face["track_id"] for record in records for face in record["faces"]]


class KeyWindow:
    """A window in which ``keys`` are pressed, at each frame those of the dictionary."""

    def __init__(self, keys: dict[int, list[str]]) -> None:
        self.keys = keys
        self.statuses: list[str] = []
        self.shown: list[np.ndarray] = []

    def show(self, image: np.ndarray, status: str = "") -> bool:
        self.shown.append(image)
        self.statuses.append(status)
        return True

    def refresh(self) -> bool:
        return True

    def pressed(self) -> list[str]:
        return self.keys.get(len(self.shown), [])


def test_faces_of_a_video_have_ids_in_the_lines(tmp_path: Path) -> None:
    world, lines = Still(), tmp_path / "faces.jsonl"
    tracker = Tracker(world)
    run_demo(world, source(world, [i / 25 for i in range(10)]), jsonl=lines, tracker=tracker)
    assert ids(lines) == 10 * [1]
    assert tracker.detections == 1


def test_without_a_tracker_there_are_none(tmp_path: Path) -> None:
    world, lines = Still(), tmp_path / "faces.jsonl"
    run_demo(world, source(world, [0.0, 0.04]), jsonl=lines)
    assert ids(lines) == [None, None]


def test_photos_are_not_tracked(tmp_path: Path) -> None:
    world, lines = Still(), tmp_path / "faces.jsonl"
    run_demo(world, source(world, [None, None], kind="folder"), jsonl=lines, tracker=Tracker(world))
    assert ids(lines) == [None, None]


@pytest.mark.parametrize("timestamps", [[0.0] * 5, [0.0, 0.04, 0.04, 0.02, 0.2]], ids=["all 0", "mixed up"])
def test_timestamps_that_do_not_go_on_are_mended(timestamps: list[float], tmp_path: Path) -> None:
    world, lines = Still(), tmp_path / "faces.jsonl"
    run_demo(world, source(world, timestamps), jsonl=lines, tracker=Tracker(world))
    assert ids(lines) == 5 * [1]


def test_the_key_t_turns_tracking_off_and_on(tmp_path: Path) -> None:
    world, lines = Still(), tmp_path / "faces.jsonl"
    window = KeyWindow({10: ["t"], 20: ["?", "t"]})
    stream = source(world, [i / 1000 for i in range(40)])
    run_demo(world, stream, window=window, jsonl=lines, tracker=Tracker(world))
    # After a pause it is not known that it is the same face. A few frames are under way when the key is pressed.
    found = ids(lines)
    tracked, alone, again = ([i for i, number in enumerate(found) if number == which] for which in (1, None, 2))
    assert tracked + alone + again == list(range(40))
    assert 10 <= len(tracked) <= 15
    assert 20 <= len(tracked + alone) <= 25
    assert [status.split("   ")[-1] for status in window.statuses] == [
        *10 * ["tracking on"],
        *10 * ["tracking off"],
        *20 * ["tracking on"],
    ]


def test_the_key_does_nothing_where_there_is_no_tracker(tmp_path: Path) -> None:
    world, lines = Still(), tmp_path / "faces.jsonl"
    window = KeyWindow({1: ["t"]})
    run_demo(world, source(world, [0.0, 0.001]), window=window, jsonl=lines)
    assert ids(lines) == [None, None]
    assert window.statuses[1].endswith(" ms   1 face")


def test_ids_are_drawn(tmp_path: Path) -> None:
    """The caption of a face begins with its id: the only difference from the same frame without a tracker."""
    world = Still()
    plain, tracked = KeyWindow({}), KeyWindow({})
    run_demo(world, source(world, [0.0]), window=plain)
    run_demo(world, source(world, [0.0]), window=tracked, tracker=Tracker(world))
    changed = np.argwhere((plain.shown[0] != tracked.shown[0]).any(axis=2))
    (x1, _, _, y2), below = world.people[0].box(0.0), changed[:, 0] > HEIGHT / 2 + 45
    assert below.sum() > 20
    assert abs(changed[below][:, 1].min() - x1) < 10
    assert changed[below][:, 0].min() > y2


def test_a_window_collects_the_keys_that_it_does_not_know_itself() -> None:
    window = Window.__new__(Window)  # without a display
    window._open, window._next, window._pressed = True, False, []
    for key in ("t", "F1", "space", "q"):
        window._on_key(type("Event", (), {"keysym": key}))
    assert window.pressed() == ["t", "F1"]
    assert window.pressed() == []
    assert (window._open, window._next) == (False, True)


@pytest.mark.parametrize(("options", "expected"), [([], 1), (["--no-tracking"], None)])
def test_the_command_line_tracks_videos_unless_told_otherwise(
    options: list[str], expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, clip, lines = Still(), tmp_path / "clip.avi", tmp_path / "faces.jsonl"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for _ in range(5):
        writer.write(world.picture)
    writer.release()
    monkeypatch.setattr(cli, "load_predictor", lambda args: world)
    assert cli.main(["demo", str(clip), "--headless", "--jsonl", str(lines), *options]) == 0
    assert ids(lines) == 5 * [expected]
