"""One call that builds every network of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from facemtl.errors import ModelError
from facemtl.face import ATTRIBUTES
from facemtl.landmarks import SCHEMAS
from facemtl.models.face_model import FaceModel, PointsHead
from facemtl.models.tcdcn import tcdcn_eccv2014, tcdcn_tpami2016
from facemtl.models.timm_backbone import TimmBackbone

TIMM_PREFIX = "timm/"

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "tcdcn": tcdcn_eccv2014,
    "tcdcn60": tcdcn_tpami2016,
}


def create_model(
    backbone: str,
    tasks: Sequence[str],
    schema: str = "mtfl5",
    attributes: Mapping[str, Sequence[str]] = ATTRIBUTES,
    **backbone_options: Any,
) -> FaceModel:
    """Build a network with one head a task; ``tasks=["landmarks"]`` is the single-task baseline.

    Args:
        backbone: a key of :data:`BACKBONES`, or ``timm/<name>``.
        tasks: ``landmarks`` and names of ``attributes``, at least one.
        schema: which points, a key of :data:`facemtl.landmarks.SCHEMAS`.
        attributes: attribute name -> class names.
        backbone_options: passed on, such as ``shared_filters=False`` or timm's ``input_size=96``.

    Raises:
        ModelError: an unknown name (the known ones are listed) or an option that the backbone does not take.
    """
    tasks = tuple(tasks)
    known = ("landmarks", *attributes)
    if not tasks or len(set(tasks)) != len(tasks) or not set(tasks) <= set(known):
        raise ModelError(f"tasks must be one or more, each once, of {', '.join(known)}; got {list(tasks)}")
    if schema not in SCHEMAS:
        raise ModelError(f"unknown landmark schema {schema!r}; known: {', '.join(SCHEMAS)}")
    body = _create_backbone(backbone, backbone_options)
    heads: dict[str, nn.Module] = {
        task: PointsHead(body.features, len(SCHEMAS[schema]))
        if task == "landmarks"
        else nn.Linear(body.features, len(attributes[task]))
        for task in tasks
    }
    return FaceModel(body, heads)


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
