"""Model files: what a network needs to be told, travelling inside the file, and where the shipped ones are.

An ONNX file carries a :class:`ModelSpec` in its metadata; a safetensors file the same. A folder of ``weights/`` holds
``model.onnx``, ``model.safetensors`` and ``card.toml``, whose hashes are checked before a file is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from facemtl.errors import ModelError
from facemtl.face import ANGLES, ANGLES_TASK
from facemtl.landmarks import POINTS, SCHEMAS, schema_of

METADATA_KEY = "facemtl"
DEFAULT_MODEL = "facemtl-s"
SIGMA = "landmark_sigma"  # the output that says how sure the main points are; no task of its own


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything besides the parameters that turns a picture into this model's predictions.

    Attributes:
        name: of the model.
        backbone: the name it was created with, and ``backbone_options`` what else was said.
        schema: landmark schema of the points.
        tasks: what is predicted: ``landmarks``, points of more schemas (``landmarks_ibug68``), attributes, ``angles``.
        attributes: attribute -> class names, in the order of its logits.
        input_size: side S of the crop in pixels.
        channels: 1 (grey) or 3 (BGR).
        crop_scale: side of the crop over the side of the face box.
        passes: how often the crop is laid; each pass after the first through the points of the one before.
        flip: whether the last pass averages the crop and its mirror image.
        points_head: how points are read off the features, a key of :data:`facemtl.models.heads.POINT_HEADS`.
        uncertainty: whether the network also gives ``landmark_sigma``, the standard deviation of each main point.
        refine: whether the network looks again at the pixels around each main point.
        locator: of the small network that lays the second crop through what it finds in the first, which has the
            locator's ``crop_scale``; None: the network does that itself.
        sharing, sharing_options: what tasks share of the backbone, a key of
            :data:`facemtl.models.sharing.registry.SHARINGS`.
        cascade: task -> tasks whose outputs its head reads too.
        offsets: attribute -> what is added to each of its logits; nothing where not named.
        temperatures: attribute -> what its logits are then divided by before they become probabilities; 1 where not
            named.
        thresholds: attribute -> confidence under which it is better to abstain; 0 where not named.
        priors: attribute -> how common its classes are. Its label is the class that is likeliest relative to that, the
            choice for the balanced accuracy; where not named, the likeliest one.
        sigma_scale: factor on the network's standard deviations that makes them those of held-out faces.
    """

    name: str
    backbone: str
    schema: str
    tasks: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    input_size: int
    channels: int
    crop_scale: float
    passes: int = 1
    flip: bool = False
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    points_head: str = "direct"
    uncertainty: bool = False
    refine: bool = False
    locator: ModelSpec | None = None
    sharing: str = "hard"
    sharing_options: Mapping[str, Any] = field(default_factory=dict)
    cascade: Mapping[str, Sequence[str]] = field(default_factory=dict)
    offsets: Mapping[str, Sequence[float]] = field(default_factory=dict)
    temperatures: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    priors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    sigma_scale: float = 1.0

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, source: str | Path) -> ModelSpec:
        """Read what :meth:`to_json` wrote; ``source`` names the file in errors.

        Raises:
            ModelError: the text is missing or does not describe a model of this version.
        """
        try:
            values = json.loads(text or "")
            names = {f.name for f in fields(cls)}
            if not isinstance(values, dict) or not set(values) <= names:
                raise ValueError(f"expected the keys {sorted(names)}")
            values["tasks"] = tuple(values["tasks"])
            for key in ("attributes", "offsets", "priors", "cascade"):
                values[key] = {k: tuple(v) for k, v in values.get(key, {}).items()}
            if values.get("locator") is not None:
                values["locator"] = cls.from_json(json.dumps(values["locator"]), f"the locator of {source}")
            spec = cls(**values)
            spec._check()
            return spec
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{source} does not carry a facemtl model description: {error}") from None

    def with_locator(self, locator: ModelSpec) -> ModelSpec:
        """The same model, whose first pass is the locator's.

        Raises:
            ModelError: a locator of other main points or channels, or whose crops do not divide this model's.
        """
        spec = replace(self, locator=locator, passes=max(self.passes, 2))
        try:
            spec._check()
        except ValueError as error:
            raise ModelError(f"{locator.name} cannot lay the crops of {self.name}: {error}") from None
        return spec

    def outputs(self) -> dict[str, tuple[int, ...]]:
        """What the network gives, name -> shape for one face, in the order of the tasks.

        Points (K, 2) and ``landmark_sigma`` (K,) in network coordinates, logits (classes,), angles (3,) in degrees.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for task in self.tasks:
            schema = schema_of(task, self.schema)
            if schema is not None:
                shapes[task] = (len(SCHEMAS[schema]), 2)
            else:
                shapes[task] = (len(ANGLES if task == ANGLES_TASK else self.attributes[task]),)
            if task == POINTS and self.uncertainty:
                shapes[SIGMA] = (len(SCHEMAS[self.schema]),)
        return shapes

    def point_tasks(self) -> dict[str, str]:
        """Landmark schema -> the task that gives its points."""
        return {schema: task for task in self.tasks if (schema := schema_of(task, self.schema))}

    def _check(self) -> None:
        if self.schema not in SCHEMAS:
            raise ValueError(f"unknown landmark schema {self.schema!r}")
        points = [task for task in self.tasks if schema_of(task, self.schema)]
        missing = set(self.tasks) - {ANGLES_TASK, *points} - set(self.attributes)
        if missing:
            raise ValueError(f"no class names for {sorted(missing)}")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError("no tasks, or one of them twice")
        if len(self.point_tasks()) < len(points):
            raise ValueError(f"the points of {self.schema} are the main ones, and need no second task")
        if self.channels not in (1, 3) or self.input_size < 1 or not self.crop_scale > 0 or self.passes < 1:
            raise ValueError("channels must be 1 or 3; input_size, crop_scale and passes positive")
        if POINTS not in self.tasks and (self.passes > 1 or self.uncertainty or self.refine):
            raise ValueError("later passes, landmark_sigma and refine need landmarks")
        if not isinstance(self.points_head, str) or not {type(self.uncertainty), type(self.refine)} == {bool}:
            raise ValueError("points_head must be a name, uncertainty and refine true or false")
        if self.locator and not self._can_be_laid_by(self.locator):
            raise ValueError("a locator needs the same main points, channels, and a side that divides input_size")
        if not isinstance(self.sharing, str) or not isinstance(self.sharing_options, Mapping):
            raise ValueError("sharing must be a name, and sharing_options a table")
        if not {*self.cascade, *(name for before in self.cascade.values() for name in before)} <= set(self.tasks):
            raise ValueError("a cascade of tasks that the model does not have")
        unknown = {*self.offsets, *self.temperatures, *self.thresholds, *self.priors} - set(self.attributes)
        if unknown:
            raise ValueError(f"offsets, temperatures, thresholds or priors of {sorted(unknown)}, no attributes")
        for task, prior in self.priors.items():
            if len(prior) != len(self.attributes[task]) or not all(0 < share <= 1 for share in prior):
                raise ValueError(f"the prior of {task} must be a share over 0 for each class")
        for task, offsets in self.offsets.items():
            if len(offsets) != len(self.attributes[task]) or not all(map(math.isfinite, offsets)):
                raise ValueError(f"the offsets of {task} must be a finite number for each class")
        if not all(0 < value < math.inf for value in (self.sigma_scale, *self.temperatures.values())):
            raise ValueError("temperatures and sigma_scale must be positive and finite")
        if not all(0 <= value <= 1 for value in self.thresholds.values()):
            raise ValueError("thresholds must be confidences, 0 to 1")

    def _can_be_laid_by(self, locator: ModelSpec) -> bool:
        same = (self.schema, self.channels) == (locator.schema, locator.channels)
        fits = same and self.input_size % locator.input_size == 0 and not locator.locator
        return fits and POINTS in self.tasks and POINTS in locator.tasks

    def override(self, passes: int | None = None, flip: bool | None = None) -> ModelSpec:
        """The same model run another way; None keeps what the file says.

        Raises:
            ModelError: fewer than one pass, or several passes of a model without landmarks.
        """
        spec = replace(self, passes=self.passes if passes is None else passes, flip=self.flip if flip is None else flip)
        if spec.passes < 1 or (spec.passes > 1 and POINTS not in spec.tasks):
            raise ModelError(f"{self.name} cannot run {spec.passes} passes: a later pass needs landmarks, at least 1")
        return spec


def weights_folder() -> Path:
    """Where the shipped models are: inside the installed package, or ``weights/`` of a checkout."""
    here = Path(__file__).parent
    installed = here / "_weights"
    return installed if installed.is_dir() else here.parent / "weights"


def list_models() -> list[str]:
    """Names of the shipped models, for ``Predictor(name)``."""
    return sorted(card.parent.name for card in weights_folder().glob("*/card.toml"))


def load_card(name: str | Path) -> dict[str, Any]:
    """The model card of a shipped model or of a folder, as plain dictionaries.

    Raises:
        ModelError: unknown, or not readable as TOML.
    """
    path = _folder(name) / "card.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the model card {path} cannot be read: {error}") from None


def find_model(model: str | Path, suffix: str = ".onnx") -> Path:
    """The file of a shipped model, of a folder with a card, or of a path to a file; hashes of a card are checked.

    Raises:
        ModelError: nothing there, or the file is not the one that its card describes.
    """
    path = Path(model)
    if path.suffix in (".onnx", ".safetensors"):
        if not path.is_file():
            raise ModelError(f"the model file {path} is missing")
        return path
    folder = _folder(model)
    path = folder / f"model{suffix}"
    if not path.is_file():
        raise ModelError(f"{folder} holds no model{suffix}")
    hashes = load_card(folder).get("sha256")
    if not isinstance(hashes, dict) or hashes.get(path.name) != sha256(path):
        raise ModelError(f"{path} is damaged: its sha256 is not the one of its card; install it again")
    return path


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder(name: str | Path) -> Path:
    for folder in (weights_folder() / name, Path(name)):
        if (folder / "card.toml").is_file():
            return folder
    raise ModelError(f"unknown model {str(name)!r}; known: {', '.join(list_models()) or 'none'}, or give a path")
