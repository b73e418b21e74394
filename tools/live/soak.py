"""An hour of video through a tracker, as fast as it goes: does memory grow?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from live.videos import FPS, backdrop, crowd, cut_out
from tqdm import tqdm

from facemtl.data.sample import FaceSample
from facemtl.predictor import Predictor
from facemtl.track import Tracker

SIZE = 180, 240  # height and width: an hour of 640 x 480 would show no more, and take longer
CYCLE = 300  # frames that are rendered, and repeated
EVERY = 1000  # frames between two looks at the memory
WARM = 10_000  # frames after which allocators have what they keep


def resident() -> float:
    """Megabytes of memory that this process has in use (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def visitors(samples: Sequence[FaceSample]) -> np.ndarray:
    """A loop of ten seconds: one face stays, another passes before it, leaves and comes back; for a second nobody is
    there, so that ids end and begin."""
    heads = [cut_out(sample, 60) for sample in samples[:2]]
    height, width = SIZE

    def stays(time: float) -> tuple[float, float]:
        return (-200.0, 90.0) if 8.5 < time < 9.5 else (width / 2, height / 2)

    def passes(time: float) -> tuple[float, float]:
        return width * (1.4 - 0.35 * time if time < 5 else -0.3 + 0.3 * (time - 5)), height / 2 - 10

    return crowd(heads, [stays, passes], backdrop(samples[2], height, width), CYCLE)[0]


def measure(predict: Predictor, samples: Sequence[FaceSample], frames: int) -> dict[str, Any]:
    """Megabytes each ``EVERY`` frames, and how they grow: a line fitted through those after the first ten thousand."""
    loop = visitors(samples)
    tracker, memory, faces, last = Tracker(predict), [], 0, 0
    for i in tqdm(range(frames), unit="frame", disable=None):
        found = tracker(loop[i % CYCLE], i / FPS)
        faces += len(found)
        last = max([last, *(face.track_id for face in found)])
        if i % EVERY == 0 or i == frames - 1:
            memory.append((i, resident()))
    later = np.array([row for row in memory if row[0] >= min(WARM, frames // 2)])
    growth = float(np.polyfit(later[:, 0], later[:, 1], 1)[0]) * 10_000 if len(later) > 1 else 0.0
    return {
        "frames": frames,
        "faces": faces,
        "ids": last,
        "memory": memory,
        "megabytes_per_10000_frames": growth,
        "range_after_warm_up": float(np.ptp(later[:, 1])),
    }
