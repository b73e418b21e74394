"""Rendered faces under the names of UTKFace."""

from __future__ import annotations

from pathlib import Path

from facemtl.data.synthetic import render_face
from facemtl.data.utkface import FACE_BOX, SIDE
from facemtl.geometry import crop_matrix, warp_crop
from facemtl.image import write_image


def write_utkface(folder: Path, count: int) -> list[str]:
    """Write ``count`` aligned faces aged 0, 7, 14 and so on, begun anew at 90; returns their names, in order."""
    folder.mkdir(parents=True)
    names = []
    for i in range(count):
        face = render_face(i, SIDE)
        matrix = crop_matrix(face.box, SIDE, scale=SIDE / (FACE_BOX[2] - FACE_BOX[0]))
        names.append(f"{7 * i % 90}_{face.labels['gender']}_0_2017{i:013d}.jpg.jpg")
        write_image(folder / names[-1], warp_crop(face.image, matrix, SIDE))
    return sorted(names)
