"""Parameters on disk: safetensors with the model's description inside, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facemtl.errors import ModelError, OutputError
from facemtl.files import write_beside
from facemtl.models.face_model import FaceModel
from facemtl.models.factory import create_model
from facemtl.weights import METADATA_KEY, ModelSpec


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: str) -> None:
    """Write beside and rename: whoever reads ``path`` finds the old file or the new one, whole.

    Raises:
        OutputError: it cannot be written there, or the disk is full; what was there before still is.
    """
    contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    try:
        write_beside(path, lambda partial: save_file(contiguous, partial, {METADATA_KEY: metadata}))
    except SafetensorError as error:
        raise OutputError(f"{path} cannot be written: {error}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a file and the text that was stored with them.

    Raises:
        ModelError: missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, (file.metadata() or {}).get(METADATA_KEY)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is missing or damaged: {error}") from None


def save_model(path: Path, model: FaceModel, spec: ModelSpec) -> None:
    """Write a model with its description."""
    write_tensors(path, model.state_dict(), spec.to_json())


def load_spec(path: Path) -> ModelSpec:
    """The description of a model that a file holds.

    Raises:
        ModelError: missing or damaged.
    """
    return ModelSpec.from_json(read_tensors(path)[1], path)


def load_model(path: Path) -> tuple[FaceModel, ModelSpec]:
    """Build the network that a file describes and fill it; in evaluation mode.

    Raises:
        ModelError: missing, damaged, or the parameters are not those of the network described.
    """
    tensors, text = read_tensors(path)
    spec = ModelSpec.from_json(text, path)
    model = model_from_spec(spec)
    built, described = (model.backbone.input_size, model.backbone.channels), (spec.input_size, spec.channels)
    if built != described:
        raise ModelError(f"{path} describes crops of (size, channels) {described}, but {spec.backbone} takes {built}")
    load_parameters(model, tensors, path)
    return model.eval(), spec


def load_parameters(model: FaceModel, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Fill a network; every name and shape must fit.

    Raises:
        ModelError: they are those of another model.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differ = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    if differ:
        name = differ[0]
        raise ModelError(
            f"{source} holds the parameters of another model: {len(differ)} differ, such as {name!r} of shape "
            f"{found.get(name, 'none')}, expected {expected.get(name, 'none')}"
        )
    model.load_state_dict(dict(tensors))


def model_from_spec(spec: ModelSpec) -> FaceModel:
    """The untrained network that a description names."""
    options = {k: v for k, v in spec.backbone_options.items() if k != "pretrained"}
    model = create_model(
        spec.backbone,
        spec.tasks,
        spec.schema,
        spec.attributes,
        points_head=spec.points_head,
        uncertainty=spec.uncertainty,
        refine=spec.refine,
        sharing=spec.sharing,
        sharing_options=spec.sharing_options,
        cascade=spec.cascade,
        **options,
    )
    if spec.locator:
        model.locator = model_from_spec(spec.locator)
    return model
