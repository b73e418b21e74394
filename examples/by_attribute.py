"""Blur the faces that have an attribute, or cut them out; the others stay as they are.

python examples/by_attribute.py photo.jpg blurred.png blur
python examples/by_attribute.py photo.jpg smiling.png blur smile=smiling
python examples/by_attribute.py photo.jpg folder crop glasses=glasses

A face of which the model is not certain has none of its attributes: to hide everybody, blur without one.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from facemtl import Face, Predictor, read_image
from facemtl.image import write_image

CONTEXT = 1.6  # side of what is blurred or cut out, in sides of the face box: from hair to chin


def has(face: Face, wanted: str | None) -> bool:
    """Whether a face has ``attribute=label``, certainly; every face has None."""
    if wanted is None:
        return True
    task, _, label = wanted.partition("=")
    if task not in face.attributes or label not in face.attributes[task].probabilities:
        known = [f"{name}={label}" for name, a in face.attributes.items() for label in a.probabilities]
        raise SystemExit(f"there is no {wanted}; known: {', '.join(known)}")
    return face.attributes[task].certain and face.attributes[task].label == label


def around(face: Face, image: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the picture that show the whole head."""
    x1, y1, x2, y2 = face.box.tolist()
    half, height, width = (x2 - x1) / 2 * CONTEXT, *image.shape[:2]
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    rows = slice(max(round(y - half), 0), min(round(y + half), height))
    return rows, slice(max(round(x - half), 0), min(round(x + half), width))


def blur(image: np.ndarray, face: Face) -> None:
    """Make a face unrecognisable where it stands: ten blocks across, then smooth."""
    part = image[around(face, image)]
    small = cv2.resize(part, (10, 10), interpolation=cv2.INTER_AREA)
    part[:] = cv2.resize(small, part.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def main(photo: str, out: str, action: str, wanted: str | None = None) -> None:
    image = read_image(photo)
    faces = [face for face in Predictor()(image) if has(face, wanted)]
    if action == "blur":
        for face in faces:
            blur(image, face)
        write_image(out, image)
    else:
        Path(out).mkdir(parents=True, exist_ok=True)
        for number, face in enumerate(faces, start=1):
            write_image(Path(out) / f"{Path(photo).stem}-{number}.png", image[around(face, image)])
    print(f"{len(faces)} of the faces in {photo}")


if __name__ == "__main__":
    main(*sys.argv[1:])
