"""What a training starts from: the parameters of another one, as far as both have them, or of a pretrained backbone.

Labels arrive in time, and nothing has to be learned anew for it. With ``init`` a training starts from the model of an
earlier one whose task set was another: heads of tasks that are new start fresh, heads of tasks that are gone are left
out, and points follow their annotation scheme, so that the ``landmarks`` of a model of mtfl5 become the
``landmarks_mtfl5`` of one whose main points are ibug68. Everything else has to fit in name and shape. What must not be
forgotten stays in ``mix`` or, where its labels are gone, in ``teachers`` (Li and Hoiem, "Learning without Forgetting",
ECCV 2016): the earlier model's answers to the new faces.

timm's published weights come by ``backbone_options.pretrained = true``, which downloads them. Without a network, fetch
a model's ``.safetensors`` file elsewhere and name it as ``init``; parameters of its classifier are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from facemtl.errors import ModelError
from facemtl.landmarks import POINTS, points_task
from facemtl.models.face_model import FaceModel
from facemtl.models.factory import TIMM_PREFIX
from facemtl.models.files import load_parameters, read_tensors
from facemtl.weights import ModelSpec

if TYPE_CHECKING:
    from facemtl.training.recipe import Recipe


def start_from(model: FaceModel, recipe: Recipe) -> None:
    """Fill a fresh network from the recipe's ``init``.

    Raises:
        ModelError: the file is missing or damaged, or what both should have differs.
    """
    source = Path(recipe.init)
    tensors, text = read_tensors(source)
    if text is None and recipe.backbone.startswith(TIMM_PREFIX):
        load_parameters(model, model.state_dict() | _of_timm(model, tensors, source), source)
        return
    spec = ModelSpec.from_json(text, source)
    if "cross_stitch" in (spec.sharing, recipe.sharing) and spec.tasks != recipe.tasks:
        raise ModelError(
            f"{source} has the tasks {', '.join(spec.tasks)}, and cross-stitch units mix tasks by their place: keep "
            "tasks as they were, or start from a model of another sharing"
        )
    # A locator is added to a network that is done (tools/add_locator.py).
    tensors = {name: value for name, value in tensors.items() if not name.startswith("locator.")}
    found = {_renamed(name, spec.schema, recipe.schema): value for name, value in tensors.items()}
    given = {_new_name(task, spec.schema, recipe.schema) for task in spec.tasks}
    gone, new = given - set(model.tasks), set(model.tasks) - given
    kept = {name: value for name, value in found.items() if not _of_some(name, gone)}
    # A refiner may be added to a network that was trained without one.
    fresh = {n: v for n, v in model.state_dict().items() if _of_some(n, new) or n.startswith("refiner.")}
    if spec.schema != recipe.schema or POINTS in gone:
        kept = {name: value for name, value in kept.items() if not name.startswith("refiner.")}
    load_parameters(model, fresh | kept, source)


def _new_name(task: str, was: str, now: str) -> str:
    """A task's name in a model whose main points have another scheme."""
    if was == now:
        return task
    return {POINTS: points_task(was), points_task(now): POINTS}.get(task, task)


def _renamed(parameter: str, was: str, now: str) -> str:
    return ".".join(_new_name(part, was, now) for part in parameter.split("."))


def _of_some(parameter: str, tasks: set[str]) -> bool:
    return not tasks.isdisjoint(parameter.split("."))


def _of_timm(model: FaceModel, tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """A timm model's own parameters under our names; what is left over must be its classifier's."""
    body = model.backbone.body
    wanted = body.state_dict()
    classifiers = body.pretrained_cfg.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    missing = sorted(set(wanted) - set(tensors))
    strange = [n for n in sorted(set(tensors) - set(wanted)) if not n.startswith(tuple(f"{c}." for c in classifiers))]
    if missing or strange:
        raise ModelError(
            f"{source} holds neither a model of this package nor the parameters of this timm backbone: "
            f"{len(missing)} are missing and {len(strange)} are of something else, such as {(missing or strange)[0]!r}"
        )
    return {f"backbone.body.{name}": tensors[name] for name in wanted}
