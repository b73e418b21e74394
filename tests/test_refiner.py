"""The refiner: windows around each point, by hand; what moves and teaches what; one added to a trained network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import mixed_data, mixed_recipe

from facemtl.errors import ConfigError, ModelError
from facemtl.models.face_model import COARSE
from facemtl.models.factory import create_model
from facemtl.models.files import save_model
from facemtl.models.gridnet import fuse
from facemtl.models.refiner import APART, TOGETHER, LocalRefiner, windows
from facemtl.training.engine import Run
from facemtl.training.losses import task_losses
from facemtl.training.training_data import TrainingData

S = 32
GRIDNET = {"input_size": S, "stem": 4, "widths": [6, 8], "depths": [1, 1], "neck": 4, "hidden": 12}


def refined(**choices):
    torch.manual_seed(0)
    return create_model("gridnet", ("landmarks", "smile"), refine=True, **GRIDNET, **choices)


def crops(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, S, S), dtype=torch.uint8, generator=generator)


# --- windows ---


def test_the_window_around_the_middle_is_the_middle_of_the_map():
    maps = torch.rand(2, 3, S, S)
    found = windows(maps, torch.zeros(2, 1, 2), 12)
    first = (S - 12) // 2
    torch.testing.assert_close(found, maps[:, :, first : first + 12, first : first + 12])


def test_windows_follow_their_points_by_whole_and_half_cells_and_are_0_outside():
    maps = torch.rand(1, 1, S, S)
    points = torch.tensor([[[3 / S, -2 / S], [0.5 / S, 0.0], [0.5, 0.0]]])  # the last lies on the right edge
    moved, half, edge = windows(maps, points, 12)[:, 0]
    first = (S - 12) // 2
    torch.testing.assert_close(moved, maps[0, 0, first - 2 : first + 10, first + 3 : first + 15])
    rows = maps[0, 0, first : first + 12]
    torch.testing.assert_close(half, (rows[:, first : first + 12] + rows[:, first + 1 : first + 13]) / 2)
    torch.testing.assert_close(edge[:, :6], rows[:, -6:])
    assert (edge[:, 6:] == 0).all()


def test_the_windows_of_faces_and_points_are_not_mixed_up():
    maps = torch.rand(2, 3, S, S)
    points = torch.rand(2, 5, 2) * 0.2
    together = windows(maps, points, 6).reshape(2, 5, 3, 6, 6)
    for face in range(2):
        for point in range(5):
            alone = windows(maps[face, None], points[face, None, point, None], 6)[0]
            torch.testing.assert_close(together[face, point], alone)


# --- in a network ---


def fresh_refiner() -> tuple[LocalRefiner, tuple[torch.Tensor, torch.Tensor], torch.Tensor, torch.Tensor]:
    """With what it reads of four faces: maps, features, points."""
    torch.manual_seed(0)
    maps = torch.randn(4, 4, S, S), torch.randn(4, 6, S // 2, S // 2)
    return LocalRefiner(5, (4, 6), 7), maps, torch.randn(4, 7), torch.rand(4, 5, 2) - 0.5


def test_a_fresh_refiner_leaves_points_nearly_where_they_are():
    refiner, maps, face, points = fresh_refiner()
    assert (refiner.eval()(maps, face, points) - points).abs().max() < 0.1


def test_what_is_seen_at_one_point_and_of_the_face_moves_every_point():
    refiner, maps, face, points = fresh_refiner()
    torch.nn.init.normal_(refiner.joint[3].weight)
    moved = refiner.eval()(maps, face, points)
    elsewhere = points.clone()
    elsewhere[:, 0] += 0.1
    by_a_window = refiner(maps, face, elsewhere) - moved
    assert (by_a_window[:, 1:].abs() > 1e-6).all()
    assert ((refiner(maps, face + 1, points) - moved).abs() > 1e-6).all()
    torch.testing.assert_close(refiner(maps, face, points)[:2], refiner([m[:2] for m in maps], face[:2], points[:2]))


def test_in_training_points_are_moved_by_noise_of_the_stated_size():
    torch.manual_seed(0)
    refiner = LocalRefiner(5, (1, 1), 3).train()
    torch.nn.init.zeros_(refiner.outer)
    points, face, maps = (
        torch.zeros(4000, 5, 2),
        torch.zeros(4000, 3),
        (torch.zeros(4000, 1, 8, 8), torch.zeros(4000, 1, 4, 4)),
    )
    moved = refiner(maps, face, points).detach()
    scale = 1 / 7  # the mean square of the third power of a number between 0 and 1
    assert moved.square().mean() == pytest.approx(scale * (TOGETHER**2 + APART**2), rel=0.1)
    assert moved.mean(dim=1).square().mean() == pytest.approx(scale * (TOGETHER**2 + APART**2 / 5), rel=0.1)
    torch.testing.assert_close(refiner.eval()(maps, face, points), points)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_recipe_says_how_much_of_the_noise_there_is(share):
    refiner = mixed_recipe(refine=True, refiner_noise=share).create_model().refiner
    points, face = torch.zeros(4000, 5, 2), torch.zeros(4000, refiner.joint[1].in_features - 5 * 32)
    torch.nn.init.zeros_(refiner.outer)
    maps = (
        torch.zeros(4000, refiner.halve.conv.in_channels, 8, 8),
        torch.zeros(4000, refiner.inner.shape[1] // 36 - 32, 4, 4),
    )
    moved = refiner.train()(maps, face, points).detach()
    assert moved.square().mean() == pytest.approx(share**2 / 7 * (TOGETHER**2 + APART**2), rel=0.1)


def test_coarse_points_are_an_output_of_training_alone():
    model = refined(uncertainty=True)
    assert set(model.train()(crops(4))) == {"landmarks", "landmark_sigma", COARSE, "smile"}
    assert set(model.eval()(crops(4))) == {"landmarks", "landmark_sigma", "smile"}


def test_the_head_learns_from_its_own_points_and_the_refiner_from_the_moved_ones():
    model = refined().train()
    outputs = model(crops(4))
    targets = {"landmarks": torch.zeros(4, 5, 2)}
    losses = task_losses(outputs, targets)
    assert list(losses) == ["landmarks", COARSE]
    torch.testing.assert_close(losses[COARSE], task_losses({"landmarks": outputs[COARSE]}, targets)["landmarks"])
    parts = [
        model.heads["landmarks"].linear.weight,
        model.backbone.neck[3].weight,  # of the features, which the refiner reads too
        model.refiner.outer,
        model.refiner.joint[3].bias,
    ]
    of_points = torch.autograd.grad(losses["landmarks"], parts, allow_unused=True, retain_graph=True)
    of_coarse = torch.autograd.grad(losses[COARSE], parts, allow_unused=True)
    assert [g is None for g in of_points] == [True, True, False, False]
    assert [g is None for g in of_coarse] == [False, False, True, True]


def test_fused_it_computes_the_same():
    model = refined().train()
    for seed in range(3):
        model(crops(8, seed))  # batch statistics
    model.eval()
    with torch.inference_mode():
        plain, fused = model(crops(3)), fuse(model)(crops(3))
    torch.testing.assert_close(fused["landmarks"], plain["landmarks"], atol=1e-5, rtol=0)


def test_without_points_there_is_nothing_to_refine():
    with pytest.raises(ModelError, match="refine needs landmarks among the tasks"):
        create_model("gridnet", ("smile",), refine=True, **GRIDNET)


def test_a_backbone_without_fine_maps_cannot_be_refined():
    with pytest.raises(ModelError, match="refine reads fine maps, which backbone 'tcdcn' does not give"):
        create_model("tcdcn", ("landmarks",), refine=True)


# --- added to a trained network ---


@pytest.fixture
def trained(tmp_path) -> Path:
    torch.manual_seed(3)
    recipe = mixed_recipe()
    save_model(tmp_path / "trained.safetensors", recipe.create_model(), recipe.spec(32, 3))
    return tmp_path / "trained.safetensors"


def start(recipe, faces, folder: Path) -> tuple[Run, TrainingData]:
    data = mixed_data(recipe, faces, folder / "cache")
    return Run(recipe, data, folder, torch.device("cpu")), data


def test_a_refiner_is_added_and_what_is_frozen_stays_bitwise(tmp_path, faces, trained):
    frozen = ("backbone", "heads.landmarks.linear", "heads.smile")
    run, _ = start(mixed_recipe(init=str(trained), refine=True, frozen=frozen), faces, tmp_path)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    for step in range(2):
        run.step(run.dataset[step])
    after = run.model.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith(frozen)} <= still
    assert any(name.startswith("backbone") and "running" in name for name in still)
    assert not any(name in still for name in ("refiner.inner", "refiner.outer", "heads.gender.weight"))


@pytest.mark.parametrize(
    ("frozen", "told"),
    [
        (("neck",), "the network has no module 'neck'; it has, among others, standardise, backbone, heads"),
        (("",), "the network has no module ''"),
        (("backbone", "heads"), "nothing is left to train"),
    ],
)
def test_a_frozen_module_that_is_not_there_or_the_whole_network_is_an_error(tmp_path, faces, trained, frozen, told):
    with pytest.raises(ConfigError, match=f"frozen: {told}"):
        start(mixed_recipe(init=str(trained), frozen=frozen), faces, tmp_path)


def test_frozen_modules_need_something_to_start_from():
    with pytest.raises(ConfigError, match=r"frozen = .*expected empty without init"):
        mixed_recipe(frozen=("backbone",))


# --- teachers ---


@pytest.mark.parametrize("seeing", [False, True], ids=["without a refiner", "with one"])
def test_a_refiner_learns_from_teachers_that_have_one_and_the_coarse_points_from_all(tmp_path, faces, seeing):
    recipe = mixed_recipe(refine=seeing)
    save_model(tmp_path / "teacher.safetensors", recipe.create_model(), recipe.spec(32, 3))
    teachers = (str(tmp_path / "teacher.safetensors"),)
    run, _ = start(mixed_recipe(refine=True, lesson=1.0, dropout=0.0, teachers=teachers), faces, tmp_path)
    batch = run.dataset[0]
    outputs = run.model.train()(batch.images)
    losses, learned = run._learned(batch.images, replace(batch, taught={"landmarks": outputs[COARSE].detach()}))
    assert learned[COARSE] == 0  # the teacher says what the network does, and has all of the loss
    assert losses[COARSE] > 0
    assert torch.equal(learned["landmarks"], losses["landmarks"]) != seeing
