"""Faces for the tests of formats: one with round numbers, one with nothing but a box, and random ones."""

from __future__ import annotations

import numpy as np

from facemtl.face import ATTRIBUTES, Attribute, Face, Pose
from facemtl.formats import ImageFaces
from facemtl.landmarks import SCHEMAS

FIVE = [[39.5, 39.5], [59.5, 39.5], [49.5, 49.5], [41.5, 59.5], [57.5, 59.5]]
NAMES = SCHEMAS["mtfl5"].names


def attribute(name: str, *shares: float, certain: bool = True) -> Attribute:
    labels = ATTRIBUTES[name]
    best = int(np.argmax(shares))
    return Attribute(labels[best], shares[best], dict(zip(labels, shares, strict=True)), certain)


def a_face(**fields) -> Face:
    values = {
        "box": np.float32([19.5, 29.5, 79.5, 69.5]),
        "score": 0.75,
        "landmarks": np.float32(FIVE),
        "schema": "mtfl5",
        "attributes": {
            "smile": attribute("smile", 0.9, 0.1),
            "glasses": attribute("glasses", 0.4, 0.6, certain=False),
            "gender": attribute("gender", 0.8, 0.2),
        },
        "landmark_sigma": np.float32([1, 1, 2, 0.5, 0.25]),
        "pose": Pose(yaw=10.0, pitch=-5.5, roll=0.25),
        "quality": 0.5,
        "track_id": 3,
    }
    return Face(**(values | fields))


# From corner to corner the picture spans 200 x 100 pixels, the box 20..80 x 30..70, the left eye 40, 40.
IMAGE = ImageFaces("photos/a.jpg", 200, 100, [a_face()])
FLAT = {
    "score": 0.75,
    "smile": "smiling",
    "smile.smiling": 0.9,
    "smile.not_smiling": 0.1,
    "smile.certain": True,
    "glasses": "no_glasses",
    "glasses.glasses": 0.4,
    "glasses.no_glasses": 0.6,
    "glasses.certain": False,
    "gender": "male",
    "gender.male": 0.8,
    "gender.female": 0.2,
    "gender.certain": True,
    "yaw": 10.0,
    "pitch": -5.5,
    "roll": 0.25,
    "quality": 0.5,
    "track_id": 3,
}
BARE = a_face(
    landmarks=np.zeros((0, 2), np.float32), attributes={}, landmark_sigma=None, pose=None, quality=None, track_id=None
)


LARGEST = 4000


def random_faces(seed: int, schema: str, unmarked: bool) -> list[ImageFaces]:
    """Pictures with none to three faces, points also outside of them; some points are not marked."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(4):
        width, height = (int(v) for v in rng.integers(50, LARGEST, 2))
        faces = []
        for _ in range(number):
            corner = rng.uniform(-20, 40, 2)
            points = rng.uniform(-0.2, 1.2, (len(SCHEMAS[schema]), 2)) * (width, height)
            if unmarked:
                points[rng.random(len(points)) < 0.3] = np.nan
            points[0] = 1.0  # one is marked and inside: a face of which none is has no points
            angles = rng.uniform(-90, 90, 3)
            faces.append(
                Face(
                    box=np.float32([*corner, *(corner + rng.uniform(30, width, 2))]),
                    score=float(rng.random()),
                    landmarks=np.float32(points),
                    schema=schema,
                    attributes={
                        name: attribute(name, *rng.dirichlet(np.ones(len(labels))), certain=bool(rng.random() < 0.5))
                        for name, labels in ATTRIBUTES.items()
                    },
                    landmark_sigma=rng.uniform(0, 9, len(points)).astype(np.float32) if rng.random() < 0.7 else None,
                    pose=Pose(*angles) if rng.random() < 0.7 else None,
                    quality=float(rng.random()) if rng.random() < 0.7 else None,
                    track_id=int(rng.integers(1000)) if rng.random() < 0.7 else None,
                )
            )
        images.append(ImageFaces(f"folder <&> ä/{number}.jpg", width, height, faces))
    return images
