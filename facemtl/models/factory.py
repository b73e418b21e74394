"""One call that builds every network of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from facemtl.errors import ModelError
from facemtl.face import ANGLES_TASK, ATTRIBUTES
from facemtl.landmarks import POINTS, SCHEMAS, points_task, schema_of
from facemtl.models.cascade import Cascade, width_of
from facemtl.models.face_model import FaceModel
from facemtl.models.gridnet import GridNet
from facemtl.models.heads import NEEDS_GRID, POINT_HEADS, AnglesHead, ClassHead, DirectHead
from facemtl.models.refiner import LocalRefiner
from facemtl.models.sharing.registry import HARD, shared_backbone
from facemtl.models.tcdcn import tcdcn_eccv2014, tcdcn_tpami2016
from facemtl.models.timm_backbone import TimmBackbone

TIMM_PREFIX = "timm/"

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "tcdcn": tcdcn_eccv2014,
    "tcdcn60": tcdcn_tpami2016,
    "gridnet": GridNet,
}


def known_tasks(schema: str, attributes: Mapping[str, Sequence[str]] = ATTRIBUTES) -> tuple[str, ...]:
    """Every task that a model whose main points have this schema may have."""
    further = (points_task(name) for name in SCHEMAS if name != schema)
    return (POINTS, *further, *attributes, ANGLES_TASK)


def create_model(
    backbone: str,
    tasks: Sequence[str],
    schema: str = "mtfl5",
    attributes: Mapping[str, Sequence[str]] = ATTRIBUTES,
    points_head: str = "direct",
    uncertainty: bool = False,
    dropout: float = 0.0,
    refine: bool = False,
    sharing: str = HARD,
    sharing_options: Mapping[str, Any] | None = None,
    cascade: Mapping[str, Sequence[str]] | None = None,
    cascade_gradients: bool = False,
    **backbone_options: Any,
) -> FaceModel:
    """Build a network with one head a task; ``tasks=["landmarks"]`` is the single-task baseline.

    Args:
        backbone: a key of :data:`BACKBONES`, or ``timm/<name>``.
        tasks: ``landmarks``, points of further schemas (``landmarks_ibug68``), names of ``attributes``, ``angles``; at
            least one.
        schema: which main points, a key of :data:`facemtl.landmarks.SCHEMAS`.
        attributes: attribute name -> class names.
        points_head: how the main points are read off, a key of :data:`facemtl.models.heads.POINT_HEADS`; further
            points are regressed directly.
        uncertainty: also give the standard deviation of the main points.
        dropout: share of the features that attributes do without in training.
        refine: look again at what lies around each main point (:class:`facemtl.models.refiner.LocalRefiner`), on the
            first two maps that the points read, however tasks share.
        sharing, sharing_options: what tasks share of the backbone, a key of
            :data:`facemtl.models.sharing.registry.SHARINGS`.
        cascade: task -> tasks whose outputs its head reads too, with ``cascade_gradients`` back through them
            (:class:`facemtl.models.cascade.Cascade`).
        backbone_options: passed on, such as ``shared_filters=False`` or timm's ``input_size=96``.

    Raises:
        ModelError: an unknown name (the known ones are listed), an option that the backbone does not take, a head
            that needs a grid on a backbone that has none, nothing to refine, or a sharing or cascade that cannot be.
    """
    tasks = tuple(tasks)
    if schema not in SCHEMAS:
        raise ModelError(f"unknown landmark schema {schema!r}; known: {', '.join(SCHEMAS)}")
    known = known_tasks(schema, attributes)
    if not tasks or len(set(tasks)) != len(tasks) or not set(tasks) <= set(known):
        raise ModelError(f"tasks must be one or more, each once, of {', '.join(known)}; got {list(tasks)}")
    if points_head not in POINT_HEADS:
        raise ModelError(f"unknown points head {points_head!r}; known: {', '.join(POINT_HEADS)}")
    body = _create_backbone(backbone, backbone_options)
    if points_head in NEEDS_GRID and not hasattr(body, "maps"):
        raise ModelError(f"points head {points_head!r} reads a grid, which backbone {backbone!r} does not give")
    if refine and POINTS not in tasks:
        raise ModelError(f"refine needs {POINTS} among the tasks")
    if refine and not hasattr(body, "maps"):
        raise ModelError(f"refine reads fine maps, which backbone {backbone!r} does not give")
    grid_channels = getattr(body, "grid_channels", 0)
    feeds = dict(cascade or {})
    chain = Cascade(tasks, feeds, cascade_gradients)
    if points_head in NEEDS_GRID and POINTS in feeds:
        raise ModelError(
            f"points head {points_head!r} reads the grid alone: take {POINTS} out of cascade, or set 'direct'"
        )

    def head(task: str) -> nn.Module:
        features = body.features + sum(width_of(name, schema, attributes) for name in feeds.get(task, ()))
        if task == POINTS:
            return POINT_HEADS[points_head](features, grid_channels, len(SCHEMAS[schema]), uncertainty)
        if further := schema_of(task, schema):
            return DirectHead(features, grid_channels, len(SCHEMAS[further]))
        if task == ANGLES_TASK:
            return AnglesHead(features)
        return ClassHead(features, len(attributes[task]), dropout)

    refiner = LocalRefiner(len(SCHEMAS[schema]), body.fine_channels, body.features) if refine else None
    heads = {task: head(task) for task in tasks}
    shared = shared_backbone(
        sharing, sharing_options or {}, body, lambda: _create_backbone(backbone, backbone_options), tasks
    )
    return FaceModel(shared, heads, refiner, chain)


def _create_backbone(name: str, options: Mapping[str, Any]) -> nn.Module:
    if name.startswith(TIMM_PREFIX):
        build: Callable[..., nn.Module] = TimmBackbone
        options = {"name": name.removeprefix(TIMM_PREFIX), **options}
    elif name in BACKBONES:
        build = BACKBONES[name]
    else:
        raise ModelError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}, {TIMM_PREFIX}<any timm model>")
    try:
        return build(**options)
    except TypeError as error:
        raise ModelError(f"backbone {name!r} does not take these options: {error}") from error
