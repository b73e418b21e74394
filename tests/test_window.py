"""The window: what reaches the screen, and the sentence where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facemtl.image import write_image
from facemtl.window import fit, to_ppm


def test_pictures_reach_the_window_as_binary_ppm_in_rgb() -> None:
    image = np.uint8([[[1, 2, 3], [4, 5, 6]]])
    assert to_ppm(image) == b"P6 2 1 255\n" + bytes([3, 2, 1, 6, 5, 4])
    assert to_ppm(image[:, ::-1]) == b"P6 2 1 255\n" + bytes([6, 5, 4, 3, 2, 1])


def test_only_pictures_larger_than_the_screen_are_shrunk() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    assert fit(image, (400, 300)) is image
    assert fit(image, (200, 300)).shape == (150, 200, 3)
    assert fit(image, (4000, 30)).shape == (30, 40, 3)
    assert fit(np.zeros((1, 5000, 3), np.uint8), (500, 500)).shape == (1, 500, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only X11 takes its display from DISPLAY")
def test_without_a_display_the_window_is_one_sentence(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((30, 30, 3), np.uint8))
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", "facemtl", "demo", str(tmp_path / "a.png")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "use --headless" in done.stderr
