"""What teachers say of training faces, computed once: targets for tasks a set does not label, softer ones for the rest.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), offline: every teacher looks at each
patch in several slightly different crops and their mirror images, and all answers are averaged in the patch's frame.
The student then sees them moved with its own crops, as if they were labels: distillation costs nothing in training.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from facemtl.data.cache import CropCache
from facemtl.data.targets import mirrored_class
from facemtl.data.transforms import Jitter, jittered_crop, to_nchw
from facemtl.errors import ConfigError
from facemtl.face import ANGLES_TASK
from facemtl.files import write_beside
from facemtl.geometry import apply_affine, points_to_crop, warp_crop
from facemtl.landmarks import SCHEMAS, schema_of
from facemtl.models.face_model import FaceModel
from facemtl.models.files import load_model
from facemtl.weights import ModelSpec, sha256

VIEWS = 4  # crops of each patch, and as many mirrored
VIEW_JITTER = Jitter(shift_x=0.02, shift_y=0.02, scale=0.03, roll=4.0, upright=False)
BATCH = 128
FORMAT = 1  # raise it when teachers are asked differently

Teacher = tuple[FaceModel, ModelSpec]


def teach(
    cache: CropCache,
    teachers: Sequence[str | Path],
    tasks: Sequence[str],
    schema: str,
    folder: Path,
    device: torch.device,
    progress: bool = True,
) -> CropCache:
    """The cache with what the teachers say of its patches, read from ``folder`` if they were asked before.

    What it is taught already (:mod:`facemtl.training.peer_points`) counts as one more teacher's.

    Args:
        teachers: model files; a task is taught by those that have it.
        tasks: of the student; those that no teacher has are not taught.
        schema: of the student's main points.

    Raises:
        ConfigError: a teacher with main points of another schema, or with other channels than the cache.
        ModelError: a teacher that cannot be read.
    """
    models = [load_model(Path(path)) for path in teachers]
    channels = 1 if cache.patches.ndim == 3 else 3
    for path, (_, spec) in zip(teachers, models, strict=True):
        if (spec.schema, spec.channels) != (schema, channels):
            raise ConfigError(
                f"the teacher {path} has {spec.schema} points and {spec.channels} channels; "
                f"the student needs {schema} and {channels}"
            )
    path = folder / f"taught-{_fingerprint(cache, teachers, tasks)}.npz"
    if not path.is_file():
        answers = ask(cache, models, tasks, device, progress)
        write_beside(path, lambda partial: _save(partial, answers))
    with np.load(path) as stored:
        taught = {task: stored[task] for task in stored.files}
    for task, values in cache.taught.items():
        asked = sum(task in spec.tasks for _, spec in models)
        answers = taught.get(task, values)
        taught[task] = np.where(np.isfinite(values), (asked * answers + values) / (asked + 1), answers)
    return replace(cache, taught=taught)


def ask(
    cache: CropCache, teachers: Sequence[Teacher], tasks: Sequence[str], device: torch.device, progress: bool = True
) -> dict[str, np.ndarray]:
    """Task -> float32 averaged answers: points (N, K, 2) in patch index coordinates, angles (N, 3) degrees in the
    patch's frame, probabilities (N, classes)."""
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    total = len(teachers) * 2 * VIEWS
    with tqdm(total=total * len(cache), desc="teachers", unit="crop", disable=not progress) as bar:
        for model, spec in teachers:
            taught = [task for task in tasks if task in spec.tasks]
            model.to(device)
            for view in range(2 * VIEWS):
                answers = _one_view(cache, model, spec, taught, view, device, bar)
                for task, answer in answers.items():
                    sums[task] = sums.get(task, 0.0) + answer
                    counts[task] = counts.get(task, 0) + 1
    return {task: np.float32(values / counts[task]) for task, values in sums.items()}


def _one_view(
    cache: CropCache,
    model: FaceModel,
    spec: ModelSpec,
    tasks: Sequence[str],
    view: int,
    device: torch.device,
    bar: tqdm,
) -> dict[str, np.ndarray]:
    mirrored = view >= VIEWS
    parts: dict[str, list[np.ndarray]] = {task: [] for task in tasks}
    for first in range(0, len(cache), BATCH):
        rows = range(first, min(first + BATCH, len(cache)))
        matrices, rolls = zip(*(_view(cache.box, spec, view, row, mirrored) for row in rows), strict=True)
        crops = np.stack(
            [warp_crop(cache.patches[row], m, spec.input_size) for row, m in zip(rows, matrices, strict=True)]
        )
        with torch.inference_mode():
            outputs = model(torch.from_numpy(to_nchw(crops)).to(device))
        for task in tasks:
            parts[task].append(_in_patch(task, outputs[task].float().cpu(), matrices, rolls, mirrored, spec))
        bar.update(len(rows))
    return {task: np.concatenate(values) for task, values in parts.items()}


def _view(box: np.ndarray, spec: ModelSpec, view: int, row: int, mirrored: bool) -> tuple[np.ndarray, float]:
    """The matrix of one view of one patch, and its rotation in degrees."""
    rng = np.random.default_rng((view, row))
    dx, dy, ds, dr = np.clip(rng.standard_normal(4), -2, 2).tolist()
    roll = VIEW_JITTER.roll * dr
    matrix = jittered_crop(
        box, spec.input_size, spec.crop_scale, VIEW_JITTER, (dx, dy, ds), math.radians(roll), mirrored
    )
    return matrix, roll


def _in_patch(
    task: str,
    output: torch.Tensor,
    matrices: Sequence[np.ndarray],
    rolls: Sequence[float],
    mirrored: bool,
    spec: ModelSpec,
) -> np.ndarray:
    """Outputs for crops as targets of their patches: what :func:`facemtl.data.targets.moved_targets` undoes."""
    if points := schema_of(task, spec.schema):
        found = points_to_crop(output.double().numpy(), spec.input_size)
        if mirrored:
            found = found[:, list(SCHEMAS[points].flip_order)]
        return np.stack([apply_affine(m, p) for m, p in zip(matrices, found, strict=True)])
    if task == ANGLES_TASK:
        angles = output.numpy() * ([-1, 1, -1] if mirrored else 1)
        angles[:, 2] += rolls
        return angles
    shares = output.softmax(dim=1).numpy()
    return np.stack([mirrored_class(task, s) for s in shares]) if mirrored else shares


def _fingerprint(cache: CropCache, teachers: Sequence[str | Path], tasks: Sequence[str]) -> str:
    digest = hashlib.sha256(repr((FORMAT, VIEWS, VIEW_JITTER, cache.patches.shape, list(tasks))).encode())
    digest.update("".join(sha256(Path(path)) for path in teachers).encode())
    digest.update(np.ascontiguousarray(cache.patches[:, ::8, ::8]).tobytes())
    return digest.hexdigest()[:16]


def _save(partial: Path, answers: dict[str, np.ndarray]) -> None:
    with partial.open("wb") as file:
        np.savez(file, **answers)
