"""Where the points of a face are, and its glasses, smile, gender and pose, from one small network.

    from facemtl import Predictor

    for face in Predictor()("photo.jpg"):
        print(face.landmarks, face.attributes["smile"].label)

What a face holds, and every convention of frame, colour, sides and signs, is in :mod:`facemtl.face`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facemtl.face import Attribute, Face, Pose
    from facemtl.image import read_image
    from facemtl.predictor import Predictor

__version__ = "0.1.0"

__all__ = ["Attribute", "Face", "Pose", "Predictor", "__version__", "read_image"]

# Loaded when first asked for, so that `import facemtl` does not wait for OpenCV and ONNX Runtime.
_HOMES = {
    "Attribute": "facemtl.face",
    "Face": "facemtl.face",
    "Pose": "facemtl.face",
    "Predictor": "facemtl.predictor",
    "read_image": "facemtl.image",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
