"""Synthetic faces: pictures of a simple 3-D head whose points, pose and attributes are known exactly.

For tests, for a first run without a download, and for checks that a network can overfit one batch. Everything follows
from one seed. The points are projections of points on the head's surface, never read off the picture; they are also
given where hair, glasses, the nose or a patch hide them. Results on these faces say nothing about real ones.

The pose class follows from yaw alone: up to ``FRONTAL_YAW`` degrees to either side is frontal, beyond ``PROFILE_YAW``
is profile. The classes of MTFL, judged by how far the nose lies off the middle of the eyes in its training rows, part
at about 16 and 33 degrees of this head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from facemtl.data._head_model import draw_head, five_points, to_camera
from facemtl.data._head_paint import paint_head
from facemtl.data._head_scene import draw_background, draw_light, expose, put_patch
from facemtl.data.sample import FaceSample
from facemtl.errors import ConfigError
from facemtl.face import ATTRIBUTES
from facemtl.files import write_beside
from facemtl.geometry import box_from_five
from facemtl.head_pose import rotation
from facemtl.image import write_image

FRONTAL_YAW, PROFILE_YAW = 15.0, 35.0  # degrees
MAX_ANGLE = {"yaw": 75.0, "pitch": 45.0, "roll": 90.0}  # degrees; further round, one eye passes behind the other
MAX_OCCLUSION = 0.5
MIN_SIZE = 32  # pixels

_LABELS = {name: ATTRIBUTES[name] for name in ("glasses", "smile", "gender")} | {"lenses": ("clear", "dark")}
_BOX_MM = 121.0  # side of the face box of an average frontal head
_SUPERSAMPLING = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticFace:
    """One rendered face; signs, frame and colour order as in :mod:`facemtl.face`.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        points: (5, 2) float32, schema ``mtfl5``, image index coordinates.
        labels: glasses, smile, gender, pose -> class index in :data:`facemtl.face.ATTRIBUTES`.
        yaw, pitch, roll: degrees.
        box: (4,) float32 ``x1 y1 x2 y2``, :func:`facemtl.geometry.box_from_five` of the points.
    """

    image: np.ndarray
    points: np.ndarray
    labels: Mapping[str, int]
    yaw: float
    pitch: float
    roll: float
    box: np.ndarray


@dataclass(frozen=True, slots=True)
class _Scene:
    """What a caller may fix."""

    yaw: float
    pitch: float
    roll: float
    glasses: str
    lenses: str
    smile: str
    gender: str
    occlusion: float


def render_face(
    seed: int,
    size: int = 200,
    *,
    yaw: float | None = None,
    pitch: float | None = None,
    roll: float | None = None,
    glasses: str | None = None,
    lenses: str | None = None,
    smile: str | None = None,
    gender: str | None = None,
    occlusion: float | None = None,
) -> SyntheticFace:
    """The face of a seed. What is left None follows from the seed; fixing one thing leaves the other draws as they are.

    Args:
        seed: not negative.
        size: side of the square image in pixels, at least ``MIN_SIZE``.
        yaw, pitch, roll: degrees, within ``MAX_ANGLE`` to either side.
        glasses, smile, gender: a label of :data:`facemtl.face.ATTRIBUTES`, such as ``"no_glasses"``. Gender stands
            for a class signal (length of hair, beard, lips) and says nothing about people.
        lenses: ``"clear"`` or ``"dark"``; matters only with glasses.
        occlusion: area of a patch put somewhere over the face, as a share of the face box, 0 to ``MAX_OCCLUSION``.

    Raises:
        ConfigError: a number out of its range, or an unknown label.
    """
    if seed < 0:
        raise ConfigError(f"seed must not be negative, found {seed}")
    if size < MIN_SIZE:
        raise ConfigError(f"size must be at least {MIN_SIZE} pixels, found {size}")
    # A stream for each part, so that the number of draws in one cannot change another.
    streams = [np.random.default_rng([seed, stream]) for stream in range(5)]
    angles = {"yaw": yaw, "pitch": pitch, "roll": roll}
    labels = {"glasses": glasses, "lenses": lenses, "smile": smile, "gender": gender}
    fixed = {k: v for k, v in (angles | labels | {"occlusion": occlusion}).items() if v is not None}
    scene = replace(_draw_scene(streams[0]), **_checked(fixed))

    image, points = _picture_head(scene, size, streams[1], streams[2])
    box = box_from_five(points)
    put_patch(image, box, scene.occlusion, streams[3])
    return SyntheticFace(
        image=expose(image, streams[4]),
        points=points.astype(np.float32),
        labels={
            "glasses": ATTRIBUTES["glasses"].index(scene.glasses),
            "smile": ATTRIBUTES["smile"].index(scene.smile),
            "gender": ATTRIBUTES["gender"].index(scene.gender),
            "pose": pose_class(scene.yaw),
        },
        yaw=scene.yaw,
        pitch=scene.pitch,
        roll=scene.roll,
        box=box.astype(np.float32),
    )


def pose_class(yaw: float) -> int:
    """Class index of ``pose`` for a yaw in degrees; a yaw on a threshold belongs to the class nearer the front."""
    step = (abs(yaw) > FRONTAL_YAW) + (abs(yaw) > PROFILE_YAW)
    return 2 + int(math.copysign(step, yaw))


def write_dataset(folder: str | Path, count: int, seed: int, size: int = 200) -> list[FaceSample]:
    """Render ``count`` faces into ``folder`` as ``00000.png`` and so on; a longer set begins with the shorter one.

    Returns:
        The faces with their exact labels, angles and boxes; ``source`` names the seed for :func:`render_face`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for i, face_seed in enumerate(np.random.default_rng(seed).integers(2**31, size=count).tolist()):
        face = render_face(face_seed, size)
        path = folder / f"{i:05d}.png"
        write_image(path, face.image)
        angles = np.float32([face.yaw, face.pitch, face.roll])
        source = f"seed {face_seed}"
        samples.append(FaceSample(path, face.points, "mtfl5", face.labels, face.box, source, folder.name, angles))
    return samples


def write_mtfl_layout(
    folder: str | Path, train: int, test: int, seed: int, size: int = 200
) -> tuple[list[FaceSample], list[FaceSample]]:
    """Write a data set in the layout of MTFL, for :func:`facemtl.data.mtfl.read_mtfl_file` and everything built on it.

    ``training.txt`` (pictures in ``train/``) and ``testing.txt`` (in ``test/``) hold ``path x1..x5 y1..y5 gender smile
    glasses pose`` with 1-based coordinates and codes that count from 1; ``testing_boxes.txt`` holds ``path x1 y1 x2
    y2`` in index coordinates. Returns the training and the testing faces.
    """
    folder = Path(folder)
    train_seed, test_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
    training = write_dataset(folder / "train", train, train_seed, size)
    testing = write_dataset(folder / "test", test, test_seed, size)
    _write_lines(folder / "training.txt", [_mtfl_line(folder, sample) for sample in training])
    _write_lines(folder / "testing_boxes.txt", [_line(folder, sample, sample.box) for sample in testing])
    _write_lines(folder / "testing.txt", [_mtfl_line(folder, sample) for sample in testing])
    return training, testing


def _mtfl_line(folder: Path, sample: FaceSample) -> str:
    codes = " ".join(str(sample.labels[name] + 1) for name in ("gender", "smile", "glasses", "pose"))
    return f"{_line(folder, sample, (sample.points + 1).T.ravel())} {codes}"


def _line(folder: Path, sample: FaceSample, numbers: np.ndarray) -> str:
    return " ".join([sample.image.relative_to(folder).as_posix(), *(f"{v:.6f}" for v in numbers)])


def _write_lines(path: Path, lines: list[str]) -> None:
    write_beside(path, lambda partial: partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8"))


def _checked(fixed: dict[str, float | str]) -> dict[str, float | str]:
    """The values that a caller fixed, if they are possible."""
    for name, value in fixed.items():
        if name in _LABELS:
            if value not in _LABELS[name]:
                raise ConfigError(f"{name} must be one of {', '.join(_LABELS[name])}, found {value!r}")
            continue
        low, high = (-MAX_ANGLE[name], MAX_ANGLE[name]) if name in MAX_ANGLE else (0.0, MAX_OCCLUSION)
        if not low <= float(value) <= high:
            raise ConfigError(f"{name} must lie between {low:g} and {high:g}, found {value}")
    return {name: value if name in _LABELS else float(value) for name, value in fixed.items()}


def _draw_scene(rng: np.random.Generator) -> _Scene:
    """One face in three looks anywhere, the others roughly into the camera; one in four is partly covered."""
    anywhere = rng.uniform(-1, 1, 3) * (60, 25, 35)
    ahead = np.clip(rng.normal(0, 1, 3), -3, 3) * (8, 6, 7)
    yaw, pitch, roll = (anywhere if rng.random() < 1 / 3 else ahead).tolist()
    chance, share = rng.random(5), rng.uniform(0.03, 0.2)
    return _Scene(
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        glasses="glasses" if chance[0] < 0.3 else "no_glasses",
        lenses="dark" if chance[1] < 0.4 else "clear",
        smile="smiling" if chance[2] < 0.5 else "not_smiling",
        gender="male" if chance[3] < 0.5 else "female",
        occlusion=share if chance[4] < 0.25 else 0.0,
    )


def _picture_head(
    scene: _Scene, size: int, person: np.random.Generator, backdrop: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The head in front of its background, (size, size, 3) float32 0..1, and its points (5, 2) float64."""
    head = draw_head(
        person,
        male=scene.gender == "male",
        smiling=scene.smile == "smiling",
        glasses=scene.glasses == "glasses",
        dark_lenses=scene.lenses == "dark",
    )
    turn = rotation(scene.yaw, scene.pitch, scene.roll)
    body = rotation(0.3 * scene.yaw, 0.15 * scene.pitch, 0.3 * scene.roll)
    surface = five_points(head)
    flat = to_camera(turn, surface)[:, :2]
    pixels = size / _BOX_MM * backdrop.uniform(0.38, 0.58)  # per mm
    shift = (0.5 + backdrop.uniform(-0.07, 0.07, 2)) * size - 0.5 - pixels * flat.mean(axis=0)
    side = round(_SUPERSAMPLING * size)
    fine = (np.arange(side) + 0.5) * size / side - 0.5  # index coordinates of the finer pixels
    x, y = ((fine - offset) / pixels for offset in shift.tolist())
    painted = cv2.resize(
        paint_head(head, surface, turn, body, x, y, draw_light(backdrop)), (size, size), interpolation=cv2.INTER_AREA
    )
    return painted[..., :3] + (1 - painted[..., 3:]) * draw_background(backdrop, size), pixels * flat + shift
