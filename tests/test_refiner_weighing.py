"""A refiner and weighings of gradients: by hand on a network of numbers, then with every way of sharing."""

import pytest
import torch
from tiny_training import SMALL_GRIDNET, tiny_recipe
from torch import Tensor, nn, tensor

from facemtl.models.face_model import FaceModel
from facemtl.models.sharing.registry import SHARINGS, shares_nothing, trunk_of
from facemtl.training.batches import Batch
from facemtl.training.losses import task_losses
from facemtl.training.recipe import Recipe
from facemtl.training.sharing_costs import costs_of
from facemtl.training.weighing.registry import create_weighing

pytest.importorskip("torchjd.aggregation")
TASKS = ("landmarks", "smile")
ON = ("parameters", "features")

# --- by hand ---


class ToyBackbone(nn.Module):
    """x -> maps (a x, a b x), where a = 2 and b = 3, and the second again as features."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(tensor([2.0, 3.0]))

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.shared[0] * x
        second = self.shared[1] * first
        return first, second, second

    def vector(self, grid: Tensor) -> Tensor:
        return 1 * grid


class ToyHead(nn.Linear):
    def forward(self, vector: Tensor, grid: Tensor) -> tuple[Tensor, None, None]:
        return super().forward(vector), None, None


class ToyRefiner(nn.Module):
    """Adds r . maps, where r = (1, 1/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(tensor([1.0, 0.5]))

    def forward(self, maps: tuple[Tensor, Tensor], _: Tensor, points: Tensor) -> Tensor:
        return points + self.row[0] * maps[0] + self.row[1] * maps[1]


def toy_gradients(weighing: str, **options: object) -> tuple[Tensor, Tensor]:
    """On (a, b) and on r, of one step for an input of 1; losses are the outputs, of heads that give 1 and -1 times the
    features.

    The coarse points a b have the gradient (b, a) = (3, 2) on (a, b), the refiner's part of the points, a + a b / 2,
    has (1 + b / 2, a / 2) = (2.5, 1), and smile has (-3, -2). On r it is (a, a b) = (2, 6), of the points alone.
    """
    heads = {"landmarks": ToyHead(1, 1, bias=False), "smile": nn.Linear(1, 1, bias=False)}
    model = FaceModel(ToyBackbone(), heads, ToyRefiner()).train()
    model.standardise = nn.Identity()
    for task, value in zip(TASKS, (1.0, -1.0), strict=True):
        nn.init.constant_(heads[task].weight, value)
    recipe = Recipe(name="toy", tasks=TASKS, weighing=weighing, weighing_options=options)
    images, targets = torch.ones(1, 1), {"landmarks": torch.zeros(1, 5, 2), "smile": torch.zeros(1, dtype=torch.long)}
    found = create_weighing(recipe, model)
    found.backward({name: output.sum() for name, output in model(images).items()}, Batch(images, targets), ())
    return model.backbone.shared.grad, model.refiner.row.grad


def test_the_gradients_that_the_others_are_made_of():
    shared, own = toy_gradients("fixed")
    torch.testing.assert_close(shared, tensor([3 + 2.5 - 3, 2 + 1 - 2]))
    torch.testing.assert_close(own, tensor([2.0, 6.0]))


@pytest.mark.parametrize("on", ON)
def test_a_mean_halves_all_that_is_shared_and_the_refiner_has_the_whole_of_its_own(on):
    shared, own = toy_gradients("mean", on=on)
    torch.testing.assert_close(shared, tensor([2.5, 1.0]) / 2)
    torch.testing.assert_close(own, tensor([2.0, 6.0]))


def test_pcgrad_on_parameters_knows_no_number_of_the_refiner():
    # g = (5.5, 3) and (-3, -2): g1.g2 = -22.5, |g1|^2 = 39.25, |g2|^2 = 13.
    shared, own = toy_gradients("pcgrad")
    first = tensor([5.5, 3.0]) + 22.5 / 13 * tensor([-3.0, -2.0])
    second = tensor([-3.0, -2.0]) + 22.5 / 39.25 * tensor([5.5, 3.0])
    torch.testing.assert_close(shared, first + second)
    torch.testing.assert_close(own, tensor([2.0, 6.0]))


def test_mgda_on_features_sees_what_the_refiner_reads_of_the_maps_before():
    # On (features, first map, second map): g = (1, 1, 1/2) and (-1, 0, 0); the shortest vector between them has
    # ((g2 - g1) . g2) / |g1 - g2|^2 = 2 / 5.25 of the first.
    share = 2 / 5.25
    features, first, second = share * tensor([1, 1, 0.5]) + (1 - share) * tensor([-1.0, 0, 0])
    shared, own = toy_gradients("mgda", on="features")
    torch.testing.assert_close(shared, tensor([first + 3 * (second + features), 2 * (second + features)]))
    torch.testing.assert_close(own, tensor([2.0, 6.0]))


# --- whichever way tasks share ---

SHARING_SOMETHING = [
    *((name, {}) for name in SHARINGS if not shares_nothing(name, {})),
    *((name, {"split": split}) for name in ("hard", "soft_mean") for split in (1, 2, 3)),
]


def gradients(model: FaceModel, recipe: Recipe) -> dict[str, Tensor]:
    model.zero_grad()
    weighing = create_weighing(recipe, model)
    torch.manual_seed(1)  # the refiner's noise
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    targets = {"landmarks": torch.zeros(4, 5, 2), "smile": tensor([0, 1, 0, 1])}
    losses = task_losses(model.train()(images), targets)
    weighing.backward(losses, Batch(images, targets), ())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("sharing", "options"), SHARING_SOMETHING)
@pytest.mark.parametrize("head", ["direct", "heatmap"])
def test_a_mean_halves_what_is_shared_and_leaves_the_rest(sharing, options, head):
    def recipe_of(weighing: str, **chosen: object) -> Recipe:
        return tiny_recipe(
            tasks=TASKS,
            backbone="gridnet",
            backbone_options=SMALL_GRIDNET,
            refine=True,
            points_head=head,
            sharing=sharing,
            sharing_options=options,
            weighing=weighing,
            weighing_options=chosen,
        )

    model = recipe_of("fixed").create_model()
    plain = gradients(model, recipe_of("fixed"))
    for on in ON if trunk_of(sharing, options) else ON[:1]:
        found = gradients(model, recipe_of("mean", on=on))
        assert found.keys() == plain.keys()
        for name, grad in found.items():
            own = name.startswith(("heads.", "refiner.", "backbone.own."))
            # Of a grid that heads read, the neck is not before the features.
            own |= on == "features" and head == "heatmap" and name.startswith("backbone.neck.")
            torch.testing.assert_close(grad, plain[name] / (1 if own else 2), rtol=1e-4, atol=1e-6, msg=f"{on} {name}")


def test_a_refiner_is_not_shared_and_does_not_count_as_such():
    changes = {"tasks": TASKS, "backbone": "gridnet", "backbone_options": SMALL_GRIDNET}
    (all_with, shared_with, _), (all_without, shared_without, _) = (
        costs_of(tiny_recipe(**changes, refine=refine), "hard") for refine in (True, False)
    )
    assert shared_with == shared_without
    assert all_with > all_without
