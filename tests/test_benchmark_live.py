"""tools/benchmark_live.py: videos whose points are known, figures worked out by hand, a document of what there is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest

from facemtl.data.mtfl import read_mtfl_file
from facemtl.data.sample import FaceSample
from facemtl.geometry import box_from_five
from facemtl.predictor import Predictor

TOOLS = Path(__file__).parents[1] / "tools"
with patch.object(sys, "path", [str(TOOLS), *sys.path]):  # as Python does for a script in that folder
    import benchmark_live
    from live import identities, soak, speed, steadiness
    from live.videos import FPS, Head, crowd, cut_out, hand_held, paste, sensor, straight, swaying

FIVE = np.array([[20.0, 30.0], [40.0, 30.0], [30.0, 40.0], [22.0, 50.0], [38.0, 50.0]])


@pytest.fixture(scope="module")
def samples(tiny_mtfl: Path) -> list[FaceSample]:
    return read_mtfl_file(tiny_mtfl, "training.txt")


def dotted() -> Head:
    """A black head with a white dot of five pixels on its first point."""
    picture = np.zeros((81, 61, 3), np.uint8)
    cv2.circle(picture, (20, 30), 2, (255, 255, 255), cv2.FILLED)
    return Head(picture, np.ones((81, 61, 1), np.float32), FIVE)


def dot_of(frame: np.ndarray) -> np.ndarray:
    weight = frame.astype(float).mean(axis=2)
    ys, xs = np.mgrid[: len(weight), : weight.shape[1]]
    return np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()


@pytest.mark.parametrize("place", [(100.0, 80.0), (100.25, 79.5), (24.0, 30.7), (145.0, 100.0)])
def test_a_head_is_where_its_points_are_also_between_pixels_and_at_the_border(place: tuple[float, float]) -> None:
    frame = np.zeros((120, 160, 3), np.uint8)
    points = paste(frame, dotted(), place)
    x1, y1, x2, y2 = box_from_five(points)
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx(place)
    if 3 < points[0, 0] < 156 and 3 < points[0, 1] < 116:
        assert dot_of(frame) == pytest.approx(points[0], abs=0.05)


def test_a_head_out_of_the_picture_leaves_it_as_it_was() -> None:
    frame = np.full((120, 160, 3), 90, np.uint8)
    paste(frame, dotted(), (400.0, 80.0))
    assert (frame == 90).all()


def test_noise_has_its_size_and_the_mean_stays() -> None:
    noisy = sensor(np.full((120, 160, 3), 120, np.uint8), np.random.default_rng(0), noise=5.0)
    assert noisy.mean() == pytest.approx(120, abs=1)
    assert 1 < noisy.std() < 6  # JPEG takes some of it


def test_videos_are_the_same_every_time_and_have_their_shapes(samples: list[FaceSample]) -> None:
    one, again = (hand_held(samples[0], 3) for _ in range(2))
    assert (one == again).all()
    assert (one.shape, one.dtype) == ((3, 480, 640, 3), np.uint8)
    assert (one[0] != one[2]).any()
    head = cut_out(samples[0], 60)
    x1, _, x2, _ = box_from_five(head.points)
    assert x2 - x1 == pytest.approx(60, abs=0.01)
    frames, points = crowd([head, head], [straight((50, 60), (30, 0)), swaying((90, 60), 5, 1)], one[0][:120, :160], 4)
    assert (frames.shape, points.shape) == ((4, 120, 160, 3), (4, 2, 5, 2))
    assert (points[1:, 0] - points[:-1, 0]).mean(axis=(0, 1)) == pytest.approx([30 / FPS, 0])


def test_jitter_by_hand() -> None:
    """Points that are 1 pixel to the left and to the right by turns, eyes 20 pixels apart: 5 percent."""
    found = np.repeat(FIVE[None], 60, axis=0)
    found[::2, :, 0] += 1
    found[1::2, :, 0] -= 1
    followed = steadiness.Followed(found, np.repeat(FIVE[None], 60, axis=0), 60.0)
    assert steadiness.jitter(followed, None) == pytest.approx(5.0, rel=1e-3)
    assert steadiness.jitter(followed, (0.1, 0.0)) < 1.0


def test_lag_by_hand() -> None:
    """Exponential smoothing trails behind a constant speed by (1 - share) / share frames."""
    truth = FIVE + np.arange(200)[:, None, None] * np.array([2.0, 0.0])
    followed = steadiness.Followed(truth, truth, 60.0)
    moving = 2.0 * FPS / 60.0  # sides a second
    assert steadiness.lag(followed, None, moving) == 0
    share = 1 / (1 + FPS / (2 * np.pi * 3.0))
    assert steadiness.lag(followed, (3.0, 0.0), moving) == pytest.approx((1 - share) / share, rel=0.02)


def test_switches_are_counted_of_people_who_stand_apart() -> None:
    """Two people meet in the second frame; what their boxes say there does not count."""
    far = FIVE + np.array([200, 0])
    truth = np.stack([[FIVE, far], [FIVE, FIVE + 2], [far, FIVE], [far, FIVE]])
    here, there = box_from_five(FIVE), box_from_five(far)
    kept = [[(1, here), (2, there)], [(2, here)], [(1, there), (2, here)], [(1, there), (2, here)]]
    swapped = [*kept[:2], [(2, there), (1, here)], [(2, there), (1, here)]]
    renewed = [*kept[:2], [(1, there)], [(1, there), (3, here)]]
    assert [identities.apart_switches(seen, truth) for seen in (kept, swapped, renewed)] == [0, 2, 1]


def test_rendered_faces_that_cross_keep_their_ids() -> None:
    assert identities.rendered(0) == 0


def test_percentiles_leave_the_first_frame_out() -> None:
    row = {"walls": [[9.0, *[0.002] * 99, 0.01]] * 3, "cores": [1.0, 1.0, 1.2], "found": 1.0, "searches": 2}
    figures = speed.figures(row)
    assert figures["median_ms"] == pytest.approx(2.0)
    assert figures["p95_ms"] == pytest.approx(2.0)
    assert (figures["worst_ms"], figures["first_ms"]) == pytest.approx((10.0, 9000.0))
    assert figures["cores"] == 1.0


def test_ours_is_timed_frame_by_frame(samples: list[FaceSample]) -> None:
    found = speed.ours("tcdcn", hand_held(samples[0], 4), threads=1, faces=1)
    assert len(found["wall"]) == 4
    assert min(found["wall"]) > 0
    assert found["cpu"] > 0


def test_memory_is_looked_at_and_a_line_laid_through(samples: list[FaceSample]) -> None:
    found = soak.measure(Predictor("tcdcn"), samples, 20)
    assert found["frames"] == 20
    assert [i for i, _ in found["memory"]] == [0, 19]
    assert 20 < found["memory"][0][1] < 20_000


def test_without_the_peers_environment_there_is_a_reason_in_the_row(
    samples: list[FaceSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"one_face": 1, "ten_faces": 10}
    for name in small:
        monkeypatch.setattr(speed, name, lambda samples, frames: np.zeros((frames, 48, 64, 3), np.uint8))
    rows = speed.measure("tcdcn", samples, frames=3, rounds=1, environment=tmp_path / "none")
    assert [(row["method"], row.get("faces"), row.get("threads")) for row in rows] == [
        *[("tcdcn", faces, threads) for faces in (1, 10) for threads in (1, 2)],
        ("facemesh", None, None),
        ("facemesh-refined", None, None),
    ]
    assert "--make-environment" in rows[-1]["problem"]


RESULTS = {
    "speed": {
        "machine": "a machine",
        "model": "m",
        "frames": 3,
        "rounds": 2,
        "rows": [
            {
                "method": "m",
                "faces": 1,
                "threads": 1,
                "median_ms": 1.234,
                "p95_ms": 5.5,
                "worst_ms": 9.0,
                "first_ms": 20.0,
                "cores": 1.0,
                "found": 1.0,
            },
            {"method": "facemesh", "problem": "not there"},
        ],
    },
    "steadiness": {
        "model": "m",
        "still_faces": 8,
        "moving_faces": {"0.1": 4},
        "chosen": [0.5, 60.0],
        "rows": [
            {"setting": None, "jitter": 0.4, "worst_jitter": 0.5, "lag": {"0.1": 0.0}},
            {"setting": [0.5, 60.0], "jitter": 0.123, "worst_jitter": 0.2, "lag": {"0.1": 0.8}},
        ],
    },
    "identities": {"model": "m", "rendered": [0, 0], "real": [0, 2]},
    "soak": {
        "model": "m",
        "frames": 90_000,
        "faces": 100_000,
        "ids": 700,
        "memory": [[0, 100.0], [1000, 101.0]],
        "megabytes_per_10000_frames": 0.012,
        "range_after_warm_up": 0.4,
    },
}


def test_the_document_says_what_was_measured(tmp_path: Path) -> None:
    text = benchmark_live.write(tmp_path, RESULTS)
    assert "| m | 1 | 1 | 1.23 | 5.50 | 9.0 | 20.0 | 1.00 | 100.0% |" in text
    assert "| facemesh | | | not there |" in text
    assert "| **0.5 Hz + 60**, shipped | 0.123 | 0.200 | 0.80 |" in text
    assert "**2** identity switches in 2 scenes" in text
    assert "1.00 hours" in text
    assert (tmp_path / "live.md").read_text(encoding="utf-8") == text
    assert json.loads((tmp_path / "live.json").read_text(encoding="utf-8")) == json.loads(json.dumps(RESULTS))


def test_parts_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    text = benchmark_live.write(tmp_path, {"soak": RESULTS["soak"]})
    assert "## An hour: m" in text
    assert "Speed" not in text


@pytest.mark.parametrize("part", benchmark_live.PLOTS)
def test_plots_are_drawn(part: str, tmp_path: Path) -> None:
    figure = benchmark_live.PLOTS[part](RESULTS[part])
    figure.savefig(tmp_path / "a.png")
    benchmark_live.plt.close(figure)
    assert cv2.imread(str(tmp_path / "a.png")).std() > 5
