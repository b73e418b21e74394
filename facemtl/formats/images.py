"""What every format needs: faces with their picture's name and size, frames of coordinates, flat attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from facemtl.errors import DataError, FaceMTLError
from facemtl.face import ANGLES, ATTRIBUTES, Attribute, Face, Pose
from facemtl.landmarks import SCHEMAS

BOX_LABEL = "face"
HALF = 0.5  # from index coordinates, in which the first pixel's centre is 0, to coordinates from the picture's corner


@dataclass(frozen=True, slots=True, eq=False)
class ImageFaces:
    """The faces of one picture, and what a file says of the picture itself.

    Attributes:
        name: file name or path, as the other program knows it.
        width, height: pixels, after the picture was turned upright.
        faces: in image pixels, as :mod:`facemtl.face` defines them. Read from annotations, points that nobody marked
            are NaN, and a face of which no point is marked has none.
    """

    name: str
    width: int
    height: int
    faces: Sequence[Face] = ()

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0):
            raise DataError(f"{self.name}: a picture of {self.width} x {self.height} pixels")

    def ratios(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) image pixels -> float64 shares of width and height, counted from the picture's top left corner."""
        return (np.asarray(points, np.float64) + HALF) / (self.width, self.height)

    def pixels(self, ratios: np.ndarray | Sequence) -> np.ndarray:
        """The inverse of :meth:`ratios`, float64."""
        return np.asarray(ratios, np.float64) * (self.width, self.height) - HALF

    def box_ratios(self, box: np.ndarray) -> tuple[float, float, float, float]:
        """(4,) ``x1 y1 x2 y2`` -> left, top, width and height as shares of the picture's."""
        (left, top), (right, bottom) = self.ratios(np.asarray(box).reshape(2, 2)).tolist()
        return left, top, right - left, bottom - top

    def box_pixels(self, left: float, top: float, width: float, height: float) -> np.ndarray:
        """The inverse of :meth:`box_ratios`: (4,) float64."""
        return self.pixels([[left, top], [left + width, top + height]]).ravel()


def rounded(values: Any, digits: int) -> Any:
    """Numbers, or nested sequences of them, as plain floats of so many digits after the point."""
    return np.round(np.asarray(values, np.float64), digits).tolist()


def used_schemas(images: Sequence[ImageFaces]) -> list[str]:
    """The landmark schemas of all faces that have points, in the order of :data:`facemtl.landmarks.SCHEMAS`."""
    used = {face.schema for image in images for face in image.faces if len(face.landmarks)}
    return [name for name in SCHEMAS if name in used]


def used_attributes(images: Sequence[ImageFaces]) -> dict[str, list[str]]:
    """Every attribute of any face, with its classes."""
    return {
        name: list(attribute.probabilities)
        for image in images
        for face in image.faces
        for name, attribute in face.attributes.items()
    }


def flat_attributes(face: Face) -> dict[str, str | float | bool | int]:
    """All but box and points as one level of names, for formats that know no deeper attributes.

    ``score``; for each attribute ``smile`` (its label), ``smile.smiling`` (a probability, for every class) and
    ``smile.certain``; ``yaw``, ``pitch`` and ``roll`` in degrees; ``quality``; ``track_id``. What the face does not
    have is left out. Probabilities have six digits after the point, angles three.
    """
    plain = face.to_dict()
    flat: dict[str, Any] = {"score": plain["score"]}
    for name, attribute in plain["attributes"].items():
        flat[name] = attribute["label"]
        flat |= {f"{name}.{label}": share for label, share in attribute["probabilities"].items()}
        flat[f"{name}.certain"] = attribute["certain"]
    flat |= plain["pose"] or {}
    return flat | {key: plain[key] for key in ("quality", "track_id") if plain[key] is not None}


def make_face(
    box: np.ndarray | None,
    schema: str,
    points: np.ndarray | None = None,
    flat: Mapping[str, Any] | None = None,
    sigma: np.ndarray | None = None,
) -> Face:
    """A face as a reader found it.

    Args:
        box: (4,) image pixels, or None: the rectangle around the points.
        schema: of the points.
        points: (K, 2) image pixels, NaN where a point is not marked; None or all NaN for a face without points.
        flat: as :func:`flat_attributes` gives; values may be text. Names that it does not know are passed over, and a
            label without probabilities, such as a person gives, has probability 1.
        sigma: (K,) pixels, NaN where there is none, or None; all NaN is None.

    Raises:
        DataError: no box and no point, an impossible box, or a label that the attribute does not have.
    """
    if points is None or not np.isfinite(points).any():
        points, sigma = np.zeros((0, 2)), None
    if sigma is not None:
        sigma = np.asarray(sigma, np.float32)
        sigma = sigma if np.isfinite(sigma).any() else None
    if box is None:
        if not len(points):
            raise DataError("a face has neither a box nor points")
        box = np.concatenate([np.nanmin(points, axis=0), np.nanmax(points, axis=0)])
    if not (np.isfinite(box).all() and box[2] > box[0] and box[3] > box[1]):
        raise DataError(f"a face has the impossible box {np.asarray(box).tolist()}")
    flat = flat or {}
    return Face(
        box=np.float32(box),
        score=float(flat.get("score", 1.0)),
        landmarks=np.float32(points),
        schema=schema,
        attributes=_attributes(flat),
        landmark_sigma=sigma,
        pose=Pose(*(float(flat[name]) for name in ANGLES)) if all(name in flat for name in ANGLES) else None,
        quality=float(flat["quality"]) if "quality" in flat else None,
        track_id=int(flat["track_id"]) if "track_id" in flat else None,
    )


def _attributes(flat: Mapping[str, Any]) -> dict[str, Attribute]:
    attributes = {}
    for name, label in flat.items():
        more = {key.removeprefix(f"{name}."): value for key, value in flat.items() if key.startswith(f"{name}.")}
        if not (more or name in ATTRIBUTES) or label == "":  # no attribute, or one that a person left open
            continue
        certain = str(more.pop("certain", True)).lower() == "true"
        shares = {key: float(value) for key, value in more.items()}
        shares = shares or {known: float(known == label) for known in ATTRIBUTES[name]}
        if label not in shares:
            raise DataError(f"{name} is {label!r}; known: {', '.join(shares)}")
        attributes[name] = Attribute(label, shares[label], shares, certain)
    return attributes


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Within, whatever a malformed document provokes becomes a DataError that names the format."""
    try:
        yield
    except FaceMTLError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"this is not {what}: {type(error).__name__}: {error}") from error
