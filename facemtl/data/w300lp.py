"""300W-LP and AFLW2000-3D: 68 points and head angles, fitted by a 3D model; one MATLAB file beside each picture.

Zhu, Lei, Liu, Shi and Li, "Face Alignment Across Large Poses: A 3D Solution" (CVPR 2016),
http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm. A ``.mat`` file (format 5) holds, among others,

* ``Pose_Para`` (1, 7): pitch, yaw and roll in radians, then a shift of three numbers and a scale;
* ``pt2d`` (2, 68) in 300W-LP: the points;
* ``pt3d_68`` (3, 68) in AFLW2000-3D: the points with a depth, which is not read. (Its ``pt2d`` has AFLW's 21 points.)

Angles: the publishers' head has x to the viewer's right, y up and z towards the viewer, and their rotation is
``Rx(pitch) Ry(yaw) Rz(roll)`` with each factor the transpose of the usual one (``RotationMatrix.m`` of their code).
Here y points down and the order is another (:mod:`facemtl.face`), so the matrix is made, turned into this frame and
taken apart again. For a head turned about one axis alone that comes to yaw = -yaw, pitch = pitch, roll = roll.

Points count from 1: the publishers' code makes them as ``height + 1 - y`` and plots them over ``imshow``, MATLAB's
coordinates. The readers here subtract 1.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from facemtl.data.pts import picture_of
from facemtl.data.rows import LARGEST, parse_files
from facemtl.data.sample import FaceSample
from facemtl.data.splits import check_split, in_training_split
from facemtl.errors import DataError
from facemtl.head_pose import angles_of_rotation

SPLITS = ("train", "heldout")  # of 300W-LP
TEST_SPLITS = ("test",)  # of AFLW2000-3D
FOLDERS = ("AFW", "HELEN", "IBUG", "LFPW")
_UP_TO_DOWN = np.diag([1.0, -1.0, 1.0])


def read_w300lp(root: str | Path, split: str) -> list[FaceSample]:
    """The faces of one split, folder by folder in the order of their names: schema ``ibug68``, and angles.

    Args:
        root: the unpacked folder with ``AFW/``, ``HELEN/``, ``IBUG/`` and ``LFPW/``. The folders ``*_Flip`` hold their
            mirror images and are not read, since training mirrors faces itself.
        split: ``heldout`` is a tenth of the photos, by the hash of their names, ``train`` the rest; the faces and
            rendered poses of a photo stay together. There is no ``test``.

    Raises:
        DataError: an unknown split, a missing folder, scipy missing, or bad files: each with its reason.
    """
    root = Path(root)
    check_split("300W-LP", split, SPLITS)
    samples = []
    for folder in FOLDERS:
        paths = sorted((root / folder).glob("*.mat"))
        if not paths:
            raise DataError(f"{root / folder} holds no .mat files: expected 300W-LP, see datasets/w300lp/README.md")
        wanted = [path for path in paths if in_training_split(photo_of(path.stem), split)]
        samples += parse_files(wanted, lambda path: _sample(root, path, "pt2d", 2))
    return samples


def read_aflw2000(root: str | Path, split: str) -> list[FaceSample]:
    """The 2,000 faces of AFLW2000-3D in the order of their names: schema ``ibug68``, and angles.

    Args:
        root: the unpacked folder of ``image00002.jpg``, ``image00002.mat`` and so on.
        split: ``test``, the only one.

    Raises:
        DataError: an unknown split, no ``.mat`` files, scipy missing, or bad files: each with its reason.
    """
    root = Path(root)
    check_split("AFLW2000-3D", split, TEST_SPLITS)
    paths = sorted(root.glob("*.mat"))
    if not paths:
        raise DataError(f"{root} holds no .mat files: expected AFLW2000-3D, see datasets/aflw2000/README.md")
    return parse_files(paths, lambda path: _sample(root, path, "pt3d_68", 3))


def photo_of(name: str) -> str:
    """What the pictures made of one photo share of their names: ``HELEN_100032540`` of ``HELEN_100032540_1_3``.

    The last number counts the rendered poses, the one before it the faces (LFPW has none; its photos have four digits).
    """
    return re.sub(r"(_\d{1,2}){1,2}$", "", name)


def angles_of_pose(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """(3,) float64 yaw, pitch, roll in degrees, in the signs and order of this package, from published radians."""
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in (pitch, yaw, roll))
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return angles_of_rotation(_UP_TO_DOWN @ about_x @ about_y @ about_z @ _UP_TO_DOWN)


def _sample(root: Path, path: Path, points_name: str, rows: int) -> FaceSample:
    matrices = _read_mat(path, {"Pose_Para": (1, 7), points_name: (rows, 68)})
    return FaceSample(
        image=picture_of(path),
        points=np.float32(matrices[points_name][:2].T - 1),
        schema="ibug68",
        labels={},
        source=path.relative_to(root).as_posix(),
        group=path.parent.relative_to(root).as_posix() if path.parent != root else "",
        angles=np.float32(angles_of_pose(*matrices["Pose_Para"][0, :3])),
    )


def _read_mat(path: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """The named matrices of a file as float64.

    Raises:
        ValueError: a damaged file, or one that lacks a matrix or has it in another shape or not finite.
        DataError: no scipy.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError("reading .mat files needs scipy: pip install facemtl[train]") from None
    try:
        found = loadmat(path, variable_names=list(shapes))
    except OSError:
        raise
    except Exception as error:  # whatever damaged bytes make scipy stumble over
        raise ValueError(f"cannot be read as a MATLAB file of format 5: {error}") from None
    for name, shape in shapes.items():
        value = found.get(name)
        if value is None:
            raise ValueError(f"expected a matrix {name} of {shape[0]} x {shape[1]}, found none")
        if value.shape != shape or value.dtype.kind not in "fiu":
            size = " x ".join(map(str, value.shape))
            raise ValueError(f"expected a matrix {name} of {shape[0]} x {shape[1]} numbers, found {size} {value.dtype}")
        found[name] = value.astype(np.float64)
        if not (np.abs(found[name]) < LARGEST).all():  # NaN is not
            raise ValueError(f"a number of {name} is not finite")
    return found
