"""A recipe: every choice of one training, read from TOML, changed by ``--set key=value``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from facemtl.data.sets import DATA_SETS
from facemtl.data.transforms import Augmentation
from facemtl.errors import ConfigError
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import POINTS, SCHEMAS
from facemtl.models.face_model import COARSE, LOGITS, FaceModel
from facemtl.models.factory import BACKBONES, TIMM_PREFIX, create_model, known_tasks
from facemtl.models.heads import POINT_HEADS
from facemtl.training.losses import POINT_LOSSES
from facemtl.training.optimisers import OPTIMISERS
from facemtl.training.robust import check_robust
from facemtl.training.schedules.checks import check_schedules
from facemtl.training.sharing import check_sharing
from facemtl.training.weighing.registry import check_weighing
from facemtl.weights import SIGMA, ModelSpec

AUGMENT_ON = ("workers", "device")
SHARES = ("balance", "lesson", "smoothing", "refined", "rough", "mirror", "pixels", "turned", "rolled", "refiner_noise")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The keys of a recipe file, with their defaults.

    Attributes:
        name: of the run and of the model.
        data: main data set, a key of :data:`facemtl.data.sets.DATA_SETS`; an epoch shows its faces once.
        mix: data sets -> share of the crops, relative to each other; empty for the main set alone.
        balance: how far rare classes of pose are repeated, from 0, not at all, to 1, all equally common.
        fraction: share of the training rows used, the first of a fixed random order.
        shuffled_labels: attributes whose training labels are permuted between faces: a control, related to nothing.
        backbone, backbone_options, tasks, schema, points_head, uncertainty, dropout, refine,
            sharing, sharing_options, cascade, cascade_gradients: as :func:`facemtl.models.factory.create_model`.
        init: a model file of the same network to start from, other heads left out and new ones fresh
            (:mod:`facemtl.training.initial`); empty for a fresh start.
        frozen: modules that stay as ``init`` has them, such as ``backbone`` or ``heads.smile``.
        thaws: frozen modules -> epochs after which they are trained all the same.
        teachers: model files whose averaged predictions are learned too (:mod:`facemtl.training.distillation`).
        peer_points: folder of tools/peer_points.py, what another program found on the same pictures: one more teacher
            of points (:mod:`facemtl.training.peer_points`); empty for none.
        taught: tasks that teachers teach; empty for all that they know.
        lesson: share of the teachers in the loss of each task that they know; the labels have the rest. A refiner
            learns from teachers that have one themselves.
        refiner_noise: share of the noise by which the points that a refiner starts from are moved in training
            (:mod:`facemtl.models.refiner`).
        crop_scale, passes, flip: as :class:`facemtl.weights.ModelSpec`.
        patch_size: side of the cached patches in pixels.
        refined, rough, mirror, pixels, stretch, rolled: as :class:`facemtl.data.transforms.Augmentation`.
        turned: share of every set's faces of which a copy that looks aside is added (:mod:`facemtl.data.turning`).
        augment_on: ``workers`` cut and disturb the crops, or the ``device`` that trains
            (:mod:`facemtl.data.device_transforms`): what a GPU needs to be kept busy.
        points_loss: a key of :data:`facemtl.training.losses.POINT_LOSSES`.
        eye_scaled: points count relative to each face's inter-ocular distance, as the error measure has it.
        smoothing: share of a class label's probability that is spread over all classes.
        class_loss, class_loss_options: of attributes, a key of :data:`facemtl.training.robust.CLASS_LOSSES`.
        label_noise: tasks -> share of their training labels made wrong, to study what that does
            (:func:`facemtl.training.robust.with_wrong_labels`).
        weights: output (a task, ``landmark_sigma``, ``landmarks_logits``, ``landmarks_coarse``) -> factor of its loss;
            1 where not named.
        weighing, weighing_options: how losses become one step, a key of
            :data:`facemtl.training.weighing.registry.WEIGHINGS`, after ``weights``.
        optimiser: a key of :data:`facemtl.training.optimisers.OPTIMISERS`.
        learning_rate: at the end of the warm-up; falls along a cosine to 0.
        learning_rates: tasks (their heads) and modules -> factor of it; 1 where not named.
        periods: tasks -> n: in every n-th step alone (:class:`facemtl.training.schedules.timetable.Timetable`).
        joins, leaves: tasks -> epochs after which they join the training, or leave it.
        curriculum: ``by``, ``start`` and ``epochs`` of :mod:`facemtl.training.schedules.curriculum`; empty for none.
        weight_decay: of every parameter with two or more dimensions.
        momentum: of SGD.
        batch_size, epochs, warmup_epochs: as they say; the last, incomplete batch of an epoch is left out.
        ema: decay of the running average of the parameters a step; 0 keeps none.
        early_stopping: task-wise, of the auxiliary tasks, with ``stop_k``, ``stop_threshold``, ``stop_importance``.
        snapshots: least number of looks at what the tasks do to each other (:mod:`facemtl.training.watching`); 0 none.
        affinity: each of them also measures what a step along one task does to the others.
        seed: of everything drawn.
        threads: CPU threads of the network; the result depends on it in the last bits.
        workers: processes that prepare batches; the result does not depend on it.
    """

    name: str
    data: str = "mtfl"
    mix: Mapping[str, float] = field(default_factory=dict)
    balance: float = 0.0
    fraction: float = 1.0
    shuffled_labels: tuple[str, ...] = ()
    backbone: str = "tcdcn"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("landmarks", "glasses", "smile", "gender", "pose")
    schema: str = "mtfl5"
    points_head: str = "direct"
    uncertainty: bool = False
    dropout: float = 0.0
    refine: bool = False
    sharing: str = "hard"
    sharing_options: Mapping[str, Any] = field(default_factory=dict)
    cascade: Mapping[str, Any] = field(default_factory=dict)
    cascade_gradients: bool = False
    init: str = ""
    frozen: tuple[str, ...] = ()
    thaws: Mapping[str, float] = field(default_factory=dict)
    teachers: tuple[str, ...] = ()
    peer_points: str = ""
    taught: tuple[str, ...] = ()
    lesson: float = 0.5
    crop_scale: float = 1.2
    passes: int = 2
    flip: bool = True
    patch_size: int = 96
    refined: float = 0.5
    rough: float = 0.0
    mirror: float = 0.5
    pixels: float = 0.5
    stretch: float = 0.0
    rolled: float = 0.0
    turned: float = 0.0
    refiner_noise: float = 1.0
    augment_on: str = "workers"
    points_loss: str = "squared"
    eye_scaled: bool = False
    smoothing: float = 0.0
    class_loss: str = "cross_entropy"
    class_loss_options: Mapping[str, float] = field(default_factory=dict)
    label_noise: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    weighing: str = "fixed"
    weighing_options: Mapping[str, Any] = field(default_factory=dict)
    optimiser: str = "adamw"
    learning_rate: float = 2e-3
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    periods: Mapping[str, float] = field(default_factory=dict)
    joins: Mapping[str, float] = field(default_factory=dict)
    leaves: Mapping[str, float] = field(default_factory=dict)
    curriculum: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 1e-4
    momentum: float = 0.9
    batch_size: int = 64
    epochs: int = 20
    warmup_epochs: float = 1.0
    ema: float = 0.998
    early_stopping: bool = False
    stop_k: int = 5
    stop_threshold: float = 10.0
    stop_importance: Mapping[str, float] = field(default_factory=dict)
    snapshots: int = 30
    affinity: bool = False
    seed: int = 0
    threads: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError at the first value that cannot work, before anything starts."""
        known = known_tasks(self.schema) if self.schema in SCHEMAS else (POINTS, *ATTRIBUTES)
        weighed = (*known, SIGMA, LOGITS, COARSE)
        checks = {
            "name": (bool(self.name.strip()), "a name: it is also that of the run's folder"),
            "data": (self.data in DATA_SETS, f"one of {', '.join(DATA_SETS)}"),
            "mix": (
                not self.mix
                or (
                    self.data in self.mix and set(self.mix) <= set(DATA_SETS) and all(v > 0 for v in self.mix.values())
                ),
                f"shares over 0 of {self.data} and others of {', '.join(DATA_SETS)}",
            ),
            "tasks": (
                bool(self.tasks) and set(self.tasks) <= set(known) and len(set(self.tasks)) == len(self.tasks),
                f"some of {', '.join(known)}, each once",
            ),
            "taught": (set(self.taught) <= set(self.tasks), "some of tasks"),
            "points_head": (self.points_head in POINT_HEADS, f"one of {', '.join(POINT_HEADS)}"),
            "uncertainty": (
                not self.uncertainty or POINTS in self.tasks,
                "false where landmarks are not among the tasks",
            ),
            "shuffled_labels": (set(self.shuffled_labels) <= set(ATTRIBUTES), f"some of {', '.join(ATTRIBUTES)}"),
            "weights": (
                set(self.weights) <= set(weighed) and all(v >= 0 for v in self.weights.values()),
                f"keys of {', '.join(weighed)}, values at least 0",
            ),
            "stop_importance": (
                set(self.stop_importance) <= set(ATTRIBUTES) and all(v > 0 for v in self.stop_importance.values()),
                f"keys of {', '.join(ATTRIBUTES)}, values over 0",
            ),
            "schema": (self.schema in SCHEMAS, f"one of {', '.join(SCHEMAS)}"),
            "backbone": (
                self.backbone in BACKBONES or self.backbone.startswith(TIMM_PREFIX),
                f"one of {', '.join(BACKBONES)}, {TIMM_PREFIX}<name>",
            ),
            "augment_on": (self.augment_on in AUGMENT_ON, f"one of {', '.join(AUGMENT_ON)}"),
            "points_loss": (self.points_loss in POINT_LOSSES, f"one of {', '.join(POINT_LOSSES)}"),
            "optimiser": (self.optimiser in OPTIMISERS, f"one of {', '.join(OPTIMISERS)}"),
            "fraction": (0 < self.fraction <= 1, "over 0, at most 1"),
            "momentum": (0 <= self.momentum < 1, "at least 0, under 1"),
            "ema": (0 <= self.ema < 1, "at least 0, under 1"),
            "dropout": (0 <= self.dropout < 1, "at least 0, under 1"),
            "refine": (not self.refine or POINTS in self.tasks, "false where landmarks are not among the tasks"),
            "frozen": (
                not self.frozen or bool(self.init or self.backbone_options.get("pretrained")),
                "empty without init or a pretrained backbone: untrained modules would stay so",
            ),
            "passes": (
                self.passes == 1 or (self.passes > 1 and "landmarks" in self.tasks),
                "1, or more with landmarks",
            ),
            "stop_k": (self.stop_k >= 3, "at least 3: two errors have their mean for a median, which says no trend"),
            "early_stopping": (
                not self.early_stopping or "landmarks" in self.tasks,
                "false where landmarks, the main task, are not among the tasks",
            ),
            **{
                key: (getattr(self, key) > 0, "over 0")
                for key in ("crop_scale", "patch_size", "learning_rate", "batch_size", "epochs", "threads")
            },
            **{
                key: (getattr(self, key) >= 0, "at least 0")
                for key in ("weight_decay", "warmup_epochs", "seed", "workers", "snapshots", "stretch")
            },
            **{key: (0 <= getattr(self, key) <= 1, "from 0 to 1") for key in SHARES},
        }
        for key, (fits, expected) in checks.items():
            if not fits:
                raise ConfigError(f"recipe {self.name!r}: {key} = {getattr(self, key)!r}, expected {expected}")
        if self.refined + self.rough > 1:
            raise ConfigError(
                f"recipe {self.name!r}: refined = {self.refined} and rough = {self.rough} are shares of the same "
                "crops: lower one of them until they are 1 or less together"
            )
        check_weighing(self)
        check_schedules(self)
        check_sharing(self)
        check_robust(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they would stand in TOML or JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def spec(self, input_size: int, channels: int) -> ModelSpec:
        """The description of the model that this recipe trains."""
        return ModelSpec(
            name=self.name,
            backbone=self.backbone,
            schema=self.schema,
            tasks=self.tasks,
            attributes={task: ATTRIBUTES[task] for task in self.tasks if task in ATTRIBUTES},
            input_size=input_size,
            channels=channels,
            crop_scale=self.crop_scale,
            passes=self.passes,
            flip=self.flip,
            backbone_options=self.backbone_options,
            points_head=self.points_head,
            uncertainty=self.uncertainty,
            refine=self.refine,
            sharing=self.sharing,
            sharing_options=self.sharing_options,
            cascade={task: tuple(before) for task, before in self.cascade.items()},
        )

    def create_model(self) -> FaceModel:
        """The untrained network."""
        model = create_model(
            self.backbone,
            self.tasks,
            self.schema,
            points_head=self.points_head,
            uncertainty=self.uncertainty,
            dropout=self.dropout,
            refine=self.refine,
            sharing=self.sharing,
            sharing_options=self.sharing_options,
            cascade=self.cascade,
            cascade_gradients=self.cascade_gradients,
            **self.backbone_options,
        )
        if model.refiner is not None:
            model.refiner.noise = self.refiner_noise
        return model

    def augmentation(self, size: int, channels: int) -> Augmentation:
        """The training crops of this recipe."""
        return Augmentation(
            size,
            channels,
            self.crop_scale,
            self.refined,
            self.rough,
            self.mirror,
            self.pixels,
            self.schema,
            self.stretch,
            self.rolled,
        )


def read_recipe(path: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply ``key=value`` settings, whose values are TOML; ``weights.pose=0.1`` goes inside.

    Raises:
        ConfigError: a missing file, an unknown key, a value of the wrong type or out of range.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error}") from None
    values.setdefault("name", path.stem)
    parse_settings(settings, values)
    return recipe_from_dict(values)


def parse_settings(settings: Sequence[str], values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Put ``key=value`` settings into ``values`` (a new dictionary if None) and return it.

    Raises:
        ConfigError: a setting without an equals sign, or one that goes inside a key that is no table.
    """
    values = {} if values is None else values
    for setting in settings:
        _apply(values, setting)
    return values


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Check keys and types and build the recipe.

    Raises:
        ConfigError: as :func:`read_recipe`.
    """
    known = {f.name: f for f in fields(Recipe)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"unknown keys {unknown} in recipe {values.get('name')!r}; known: {', '.join(known)}")
    if "name" not in values:
        raise ConfigError("a recipe needs a name")
    return Recipe(**{key: _typed(key, known[key].type, value) for key, value in values.items()})


def _typed(key: str, annotation: str, value: Any) -> Any:
    expected, fits, convert = _KINDS[annotation]
    if not fits(value):
        raise ConfigError(f"{key} = {value!r}: expected {expected}")
    return convert(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)


# annotation of a field -> what a value of it is called, which values are one, how it is kept
_KINDS: dict[str, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    "str": ("a string", lambda v: isinstance(v, str), str),
    "bool": ("true or false", lambda v: isinstance(v, bool), bool),
    "int": ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool), int),
    "float": ("a finite number", _is_number, float),
    "tuple[str, ...]": ("a list of strings", _is_list, tuple),
    "Mapping[str, Any]": ("a table", _is_table, dict),
    "Mapping[str, float]": (
        "a table of finite numbers",
        lambda v: _is_table(v) and all(map(_is_number, v.values())),
        lambda v: {key: float(number) for key, number in v.items()},
    ),
}


def _apply(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key=value, found {setting!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {setting}: {table} is not a table")
    values[last] = value
