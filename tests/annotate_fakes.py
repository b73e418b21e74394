"""A predictor for tests of annotating: quick, in any process, and what it says depends on the picture."""

from __future__ import annotations

import os
import signal
import tarfile
import time
from io import BytesIO
from pathlib import Path

import cv2
import jsonschema
import numpy as np
from fake_network import full_session

from facemtl.annotate import Summary, annotate, read_rows, row_schema
from facemtl.detect import Detections
from facemtl.image import write_image
from facemtl.predictor import Predictor

IDENTITY = {"model": "fake"}
DARK, GREY, BRIGHT, REFUSED, DEADLY = 20, 120, 180, 200, 100  # what BrightDetector makes something of
NO_PICTURE = "is not an image of a supported format; convert it to JPEG, PNG, GIF, BMP, WebP or TIFF"
PAUSE = 0.002  # seconds a picture, so that there is a middle to be killed in


class BrightDetector:
    """No face in a dark picture, one in a grey one, two in a bright one; their boxes depend on its pixels."""

    def __init__(self, pause: float = 0.0, killer: Path | None = None) -> None:
        self.pause, self.killer = pause, killer

    def detect(self, image: np.ndarray) -> Detections:
        time.sleep(self.pause)
        value = int(image[-1, -1, 0])
        if value == REFUSED:
            raise ValueError("no picture of value 200, please")
        if self.killer is not None and value == DEADLY:
            if self.killer.is_file():  # it kills once
                self.killer.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.killer.is_dir():  # it kills always
                os.kill(os.getpid(), signal.SIGKILL)
        count = 0 if value < 50 else 1 if value < 150 else 2
        boxes = np.float32([[2, 3, 22, 23], [4, 4, 24, 24]])[:count] + np.float32(value / 100)
        return Detections(boxes, np.float32([0.9, 0.8])[:count])


def open_fake() -> Predictor:
    return Predictor(full_session(), detector=BrightDetector())


class Slow:
    """Opens a predictor that takes its time."""

    def __call__(self) -> Predictor:
        return Predictor(full_session(), detector=BrightDetector(PAUSE))


class Noted(Slow):
    """The same, and notes the process that did."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __call__(self) -> Predictor:
        (self.notes / str(os.getpid())).touch()
        return super().__call__()


class Deadly:
    """Opens a predictor that kills its process at a picture of value 100: once if there is a file, or always."""

    def __init__(self, killer: Path) -> None:
        self.killer = killer

    def __call__(self) -> Predictor:
        return Predictor(full_session(), detector=BrightDetector(killer=self.killer))


def grey(value: int, width: int = 32, height: int = 30) -> np.ndarray:
    """A picture of one value with a darker corner, by which crops differ."""
    image = np.full((height, width, 3), value, np.uint8)
    image[:4, :4] = value // 2
    return image


def write_pictures(folder: Path, values: list[int]) -> Path:
    """``000.png`` and so on, each of one value."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, value in enumerate(values):
        write_image(folder / f"{i:03d}.png", grey(value))
    return folder


def png(value: int) -> bytes:
    return cv2.imencode(".png", grey(value))[1].tobytes()


def content(folder: Path) -> dict[str, bytes]:
    """Every file of an annotation."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def annotate_slowly(inputs: list[str], out: Path, format: str) -> None:
    """What is killed in tests."""
    annotate(inputs, out, Slow(), IDENTITY, format=format, part_size=7, batch=4)


def run(inputs: list[object], out: Path, **options) -> Summary:
    return annotate([str(name) for name in inputs], out, open_fake, IDENTITY, **{"format": "jsonl", **options})


def rows(out: Path) -> list[dict]:
    found = list(read_rows(out))
    assert [row["index"] for row in found] == list(range(len(found)))
    validator = jsonschema.Draft202012Validator(row_schema())
    for row in found:
        validator.validate(row)
    return found


def short(out: Path) -> list[tuple]:
    return [(r["source"], r["member"], r["frame"], r["status"], len(r["faces"])) for r in rows(out)]


def shard(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
