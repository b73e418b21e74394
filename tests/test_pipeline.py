"""Stages that overlap: order, drops, errors and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import numpy as np
import pytest

from facemtl import pipeline
from facemtl.errors import SourceError
from facemtl.pipeline import Channel, run_stages
from facemtl.sources import Frame

PICTURE = np.zeros((2, 2, 3), np.uint8)


def frames(count: int, pause: float = 0.0) -> Generator[Frame, None, None]:
    for i in range(count):
        time.sleep(pause)
        yield Frame("a", i, PICTURE, i / 25)


def indices(results: Iterator[Frame | None], pause: float = 0.0) -> list[int]:
    found = []
    for frame in results:
        time.sleep(pause)
        if frame is not None:
            found.append(frame.index)
    return found


def slow(seconds: float):
    def work(frame: Frame) -> Frame:
        time.sleep(seconds)
        return frame

    return work


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize(("reading", "working", "drawing"), [(0.002, 0, 0), (0, 0.002, 0), (0, 0, 0.002)])
def test_of_a_file_every_frame_comes_in_order_whatever_is_slow(reading: float, working: float, drawing: float) -> None:
    assert indices(run_stages(frames(40, reading), slow(working), live=False), drawing) == list(range(40))


def test_stages_overlap() -> None:
    """Frame i + 2 is read while i + 1 is worked on and i drawn: all three meet, or the barrier breaks."""
    count, meet = 20, threading.Barrier(3, timeout=20)

    def reading() -> Generator[Frame, None, None]:
        for frame in frames(count):
            if frame.index >= 2:
                meet.wait()
            yield frame

    def work(frame: Frame) -> Frame:
        if 1 <= frame.index < count - 1:
            meet.wait()
        return frame

    for frame in run_stages(reading(), work, live=False):
        if frame is not None and frame.index < count - 2:
            meet.wait()
    assert not meet.broken


class Camera:
    """Gives 50 pictures without a pause, each tenth of them a report, and says when it has given all."""

    def __init__(self) -> None:
        self.all_given = threading.Event()

    def frames(self) -> Generator[Frame, None, None]:
        for i in range(50):
            report = i % 10 == 5
            yield Frame("a", i, None if report else PICTURE, error="no picture" if report else None)
        self.all_given.set()


REPORTS = [5, 15, 25, 35, 45]


def test_live_frames_are_dropped_and_not_delayed_while_work_is_slow() -> None:
    camera = Camera()

    def work(frame: Frame) -> Frame:
        assert camera.all_given.wait(20)
        return frame

    seen = indices(run_stages(camera.frames(), work, live=True))
    pictures = [index for index in seen if index not in REPORTS]
    assert pictures[-1] == 49  # the newest, and not one of the 40 that waited before it
    assert len(pictures) <= 4
    assert [index for index in seen if index in REPORTS] == REPORTS  # reports are never dropped


def test_live_frames_are_dropped_and_not_delayed_while_drawing_is_slow() -> None:
    camera, seen = Camera(), []
    for frame in run_stages(camera.frames(), slow(0), live=True):
        if frame is not None:
            assert camera.all_given.wait(20)
            seen.append(frame.index)
    pictures = [index for index in seen if index not in REPORTS]
    assert pictures[-1] == 49
    assert len(pictures) <= 6  # one drawn, one worked on, one done, two or three that waited
    assert seen == sorted(seen)


def test_an_error_while_reading_comes_after_the_frames_before_it() -> None:
    def broken() -> Generator[Frame, None, None]:
        yield from frames(3)
        raise SourceError("unplugged")

    results = run_stages(broken(), slow(0.001), live=False)
    assert [next(results).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SourceError, match="unplugged"):
        next(frame for frame in results if frame)


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt()])
def test_an_error_at_work_comes_after_the_results_before_it(error: BaseException) -> None:
    def work(frame: Frame) -> Frame:
        if frame.index == 2:
            raise error
        return frame

    seen = []
    with pytest.raises(type(error)):
        seen.extend(frame.index for frame in run_stages(frames(1000), work, live=False) if frame)
    with pytest.raises(type(error)):
        for frame in run_stages(frames(1000), work, live=False):
            seen.append(frame.index)
    assert seen[-2:] == [0, 1]


def test_who_stops_early_frees_the_source() -> None:
    closed = []

    def endless() -> Generator[Frame, None, None]:
        try:
            while True:
                yield from frames(10)
        finally:
            closed.append(threading.current_thread().name)

    results = run_stages(endless(), slow(0), live=False)
    assert next(results).index == 0
    results.close()
    assert closed == ["facemtl-read"]


def test_no_frames_no_results() -> None:
    assert indices(run_stages(frames(0), slow(0), live=False)) == []


def test_while_nothing_comes_the_caller_is_not_blocked_and_a_live_source_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "TICK", 0.005)
    monkeypatch.setattr(pipeline, "SILENCE", 0.02)
    for live in (True, False):
        patient, silent = threading.Event(), 0

        def late(patient: threading.Event = patient) -> Generator[Frame, None, None]:
            assert patient.wait(20)
            yield Frame("a", 0, PICTURE)

        for result in run_stages(late(), slow(0), live):
            silent += result is None
            if silent == 10:
                patient.set()
        assert ("no picture for" in caplog.text) == live
        caplog.clear()


def test_a_driver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(pipeline, "PATIENCE", 0.02)
    plugged_in = threading.Event()

    def hanging() -> Generator[Frame, None, None]:
        yield Frame("a", 0, PICTURE)
        plugged_in.wait(20)

    results = run_stages(hanging(), slow(0), live=True)
    assert next(frame for frame in results if frame).index == 0
    results.close()
    assert "facemtl-read does not end" in caplog.text
    plugged_in.set()
    time.sleep(0.1)


def test_a_channel_without_room_makes_its_sender_wait() -> None:
    channel: Channel[int] = Channel(2)
    put = []
    sender = threading.Thread(target=lambda: put.extend(channel.put(i) for i in range(3)))
    sender.start()
    sender.join(0.05)
    assert sender.is_alive()
    assert channel.get() == 0
    sender.join(5)
    assert (put, channel.get(), channel.get(), channel.get(0.001)) == ([True] * 3, 1, 2, None)


def test_a_channel_that_drops_keeps_the_newest_and_counts() -> None:
    channel: Channel[int] = Channel(2, drop=lambda item: item != 1)
    assert all(channel.put(i) for i in range(5))
    channel.end()
    assert [channel.get(), channel.get()] == [1, 4]
    assert channel.dropped == 3
    with pytest.raises(EOFError):
        channel.get()
