"""Teachers: what they see in a crop comes back as what the patch shows, averaged, kept, and asked for once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from facemtl.data.cache import CropCache
from facemtl.data.targets import moved_targets
from facemtl.errors import ConfigError, ModelError
from facemtl.landmarks import SCHEMAS
from facemtl.models.files import save_model
from facemtl.training import distillation
from facemtl.training.distillation import VIEW_JITTER, VIEWS, ask, teach
from facemtl.training.recipe import Recipe
from facemtl.weights import ModelSpec

P, SIZE = 96, 48
CPU = torch.device("cpu")
TASKS = ("landmarks", "smile", "pose", "angles")


def spec_of(**changes) -> ModelSpec:
    values = {"name": "teacher", "tasks": TASKS, "backbone": "gridnet", "crop_scale": 1.4}
    return Recipe(**{**values, **changes}).spec(SIZE, 3)


# --- views, and the way back from them ---


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_is_said_of_a_view_is_the_target_of_its_patch(mirrored):
    # Whatever the patch shows, moved into the view and given as a network would, comes back as it was.
    rng = np.random.default_rng(0)
    spec = spec_of(tasks=(*TASKS, "landmarks_ibug68"))
    box = np.array([24.0, 24, 72, 72])
    truth = {
        "landmarks": rng.uniform(20, 76, (6, 5, 2)),
        "landmarks_ibug68": rng.uniform(20, 76, (6, 68, 2)),
        "angles": np.float32(rng.uniform(-40, 40, (6, 3))),
        "pose": rng.dirichlet(np.ones(5), 6),
        "smile": rng.dirichlet(np.ones(2), 6),
    }
    matrices, rolls = zip(*(distillation._view(box, spec, 3, row, mirrored) for row in range(6)), strict=True)
    assert len(set(rolls)) == 6
    for task, values in truth.items():
        moved = [
            moved_targets({task: value}, matrix, SIZE, "mtfl5")[task]
            for value, matrix in zip(values, matrices, strict=True)
        ]
        output = torch.from_numpy(np.stack(moved))
        if task in ("pose", "smile"):
            output = output.log()  # logits whose softmax they are
        back = distillation._in_patch(task, output, matrices, rolls, mirrored, spec)
        np.testing.assert_allclose(back, values, atol=2e-5 if task != "angles" else 1e-4, err_msg=task)


def test_views_are_the_same_each_time_and_differ_from_each_other():
    box, spec = np.array([24.0, 24, 72, 72]), spec_of()
    views = {
        (view, row): distillation._view(box, spec, view, row, view >= VIEWS)
        for view in range(2 * VIEWS)
        for row in (0, 1)
    }
    again = distillation._view(box, spec, 5, 1, True)
    np.testing.assert_array_equal(again[0], views[5, 1][0])
    assert len({roll for _, roll in views.values()}) == 4 * VIEWS
    assert max(abs(roll) for _, roll in views.values()) <= 2 * VIEW_JITTER.roll
    for (view, _), (matrix, _) in views.items():
        assert (np.linalg.det(matrix[:, :2]) < 0) == (view >= VIEWS)


# --- a teacher that knows the truth ---


class Observer(nn.Module):
    """Tells eyes, nose and head angles by looking at two blue and green dots, and a red one between them.

    The left eye is the dot with the smaller x, so that a mirror image is seen as such; both corners of the mouth are
    said to be where the nose is.
    """

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        images = images.double()
        places = torch.arange(images.shape[-1], dtype=torch.float64)
        mass = images.sum(dim=(2, 3))
        x = (images.sum(dim=2) * places).sum(dim=2) / mass
        y = (images.sum(dim=3) * places).sum(dim=2) / mass
        dots = (torch.stack([x, y], dim=2) - (images.shape[-1] - 1) / 2) / images.shape[-1]  # (N, 3, 2)
        swapped = dots[:, 0, 0] > dots[:, 1, 0]
        left = torch.where(swapped[:, None], dots[:, 1], dots[:, 0])
        right = torch.where(swapped[:, None], dots[:, 0], dots[:, 1])
        nose = dots[:, 2]
        across = right - left
        yaw = 100 * ((nose - (left + right) / 2) * across).sum(dim=1) / across.square().sum(dim=1)
        roll = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0]))
        pose = torch.stack([-yaw, -yaw / 2, 0 * yaw, yaw / 2, yaw], dim=1) / 10
        return {
            "landmarks": torch.stack([left, right, nose, nose, nose], dim=1).float(),
            "angles": torch.stack([yaw, torch.full_like(yaw, 7), roll], dim=1).float(),
            "pose": pose.float(),
            "smile": torch.log(torch.tensor([[0.75, 0.25]])).expand(len(images), 2),
        }


def dotted(dots: list[tuple[float, float]]) -> np.ndarray:
    """A patch with a soft dot in each of the three channels."""
    y, x = np.mgrid[:P, :P]
    patch = [200 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.5**2)) for px, py in dots]
    return np.round(np.stack(patch, axis=-1)).astype(np.uint8)


# Eyes, 20 pixels apart, and nose: half way; a tenth towards the right eye, leaning; the same, the other way.
FACES = [
    [(37.0, 45.0), (57.0, 45.0), (47.0, 52.0)],
    [(37.0, 41.0), (57.0, 45.0), (49.0, 43.4)],
    [(38.0, 50.0), (58.0, 46.0), (46.0, 48.4)],
]
ANGLES = [[0, 7, 0], [10, 7, 11.3099], [-10, 7, -11.3099]]  # the lean is that of 4 pixels on 20


def faces(count: int = 3, **labels) -> CropCache:
    patches = np.stack([dotted(FACES[i % 3]) for i in range(count)])
    return CropCache(patches, np.full((count, 5, 2), np.nan, np.float32), labels, "mtfl5")


def test_a_teacher_that_sees_the_truth_teaches_it():
    answers = ask(faces(), [(Observer(), spec_of())], ("gender", *TASKS), CPU, progress=False)
    assert set(answers) == set(TASKS)  # of gender it knows nothing
    assert {values.dtype for values in answers.values()} == {np.dtype(np.float32)}
    for row, (left, right, nose) in enumerate(FACES):
        np.testing.assert_allclose(answers["landmarks"][row], [left, right, nose, nose, nose], atol=0.1)
    np.testing.assert_allclose(answers["angles"], ANGLES, atol=0.6)
    np.testing.assert_allclose(answers["smile"], [[0.75, 0.25]] * 3, rtol=1e-6)
    logits = np.array([[0, 0, 0, 0, 0], [-1, -0.5, 0, 0.5, 1], [1, 0.5, 0, -0.5, -1]])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers["pose"], expected, atol=0.03)


def test_many_faces_are_asked_in_parts_and_keep_their_order(monkeypatch):
    whole = ask(faces(7), [(Observer(), spec_of())], TASKS, CPU, progress=False)
    monkeypatch.setattr(distillation, "BATCH", 3)
    parts = ask(faces(7), [(Observer(), spec_of())], TASKS, CPU, progress=False)
    for task in TASKS:
        np.testing.assert_allclose(parts[task], whole[task], rtol=0, atol=1e-4)


class Constant(nn.Module):
    """Says the same of every crop."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        count = len(images)
        return {
            "smile": torch.log(torch.tensor([[0.25, 0.75]])).expand(count, 2),
            "angles": torch.tensor([[20.0, -3.0, 0.0]]).expand(count, 3).clone(),
        }


def test_a_task_is_the_mean_of_the_teachers_that_have_it():
    # Constant says a yaw of 20 of every crop and of its mirror image alike, which is none; so it says of roll, but for
    # the turns of the views.
    one, two = (Observer(), spec_of()), (Constant(), spec_of(tasks=("smile", "angles"), passes=1))
    both = ask(faces(), [one, two], TASKS, CPU, progress=False)
    alone = ask(faces(), [one], TASKS, CPU, progress=False)
    for task in ("landmarks", "pose"):
        np.testing.assert_array_equal(both[task], alone[task])
    np.testing.assert_allclose(both["smile"], [[0.5, 0.5]] * 3, rtol=1e-6)
    np.testing.assert_allclose(both["angles"][:, :2], (alone["angles"][:, :2] + [0, -3]) / 2, atol=1e-4)


# --- asked once ---


def write_teacher(path: Path, seed: int = 0, **changes) -> Path:
    torch.manual_seed(seed)
    recipe = Recipe(**{"name": "teacher", "tasks": ("landmarks", "smile"), **changes})
    model = recipe.create_model()
    save_model(path, model, recipe.spec(model.backbone.input_size, model.backbone.channels))
    return path


def grey(faces: CropCache) -> CropCache:
    return replace(faces, patches=faces.patches.max(axis=3))


def taught(cache: CropCache, teacher: Path, folder: Path, tasks=("landmarks", "smile", "pose")) -> CropCache:
    return teach(cache, [str(teacher)], tasks, "mtfl5", folder, CPU, progress=False)


def test_the_taught_cache_is_the_cache_with_answers(tmp_path):
    cache = grey(faces(smile=np.array([0, 1, -1])))
    found = taught(cache, write_teacher(tmp_path / "one.safetensors"), tmp_path / "run")
    assert {task: (v.shape, v.dtype) for task, v in found.taught.items()} == {
        "landmarks": ((3, 5, 2), np.dtype(np.float32)),
        "smile": ((3, 2), np.dtype(np.float32)),
    }
    np.testing.assert_allclose(found.taught["smile"].sum(axis=1), 1, rtol=1e-6)
    middle = (P - 1) / 2  # an untrained head says the middle of the crop
    assert np.abs(found.taught["landmarks"] - middle).max() < 10
    assert found.patches is cache.patches
    assert (found.labels, found.schema, found.angles) == (cache.labels, "mtfl5", None)
    assert cache.taught == {}


def test_answers_are_kept_and_asked_for_again_only_of_other_teachers_faces_and_tasks(tmp_path, monkeypatch):
    asked = []

    def counted(*arguments):
        asked.append(1)
        return ask(*arguments)

    monkeypatch.setattr(distillation, "ask", counted)
    cache, run = grey(faces()), tmp_path / "run"
    teacher = write_teacher(tmp_path / "one.safetensors")
    first = taught(cache, teacher, run)
    again = taught(cache, teacher, run)
    assert len(asked) == 1
    assert [path.suffix for path in run.iterdir()] == [".npz"]
    for task, values in first.taught.items():
        np.testing.assert_array_equal(again.taught[task], values)

    write_teacher(teacher, seed=1)  # another one under the same name
    other = taught(cache, teacher, run)
    assert len(asked) == 2
    assert not np.array_equal(other.taught["smile"], first.taught["smile"])
    taught(replace(cache, patches=cache.patches[::-1]), teacher, run)
    taught(cache, teacher, run, tasks=("smile",))
    assert len(asked) == 4
    assert len(list(run.iterdir())) == 4


def test_a_teacher_that_does_not_fit_is_refused(tmp_path):
    colour, cache = faces(), grey(faces())
    five = write_teacher(tmp_path / "five.safetensors")
    many = write_teacher(tmp_path / "many.safetensors", schema="ibug68")
    with pytest.raises(
        ConfigError, match=r"many\.safetensors has ibug68 points and 1 channels; the student needs mtfl5"
    ):
        taught(cache, many, tmp_path)
    with pytest.raises(ConfigError, match=r"mtfl5 points and 1 channels; the student needs mtfl5 and 3"):
        taught(colour, five, tmp_path)
    with pytest.raises(ModelError, match=r"gone\.safetensors is missing or damaged"):
        taught(cache, tmp_path / "gone.safetensors", tmp_path)
    assert not list(tmp_path.glob("*.npz"))


def test_a_student_whose_main_points_have_another_schema_needs_such_a_teacher(tmp_path):
    many = write_teacher(tmp_path / "many.safetensors", schema="ibug68")
    found = teach(grey(faces()), [many], ("landmarks",), "ibug68", tmp_path, CPU, progress=False)
    assert found.taught["landmarks"].shape == (3, len(SCHEMAS["ibug68"]), 2)
