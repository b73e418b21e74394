"""Losses that wrong labels pull less, and labels made wrong on purpose: by hand, then in training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import mixed_data, mixed_recipe, read_log, tiny_faces, train_quietly

from facemtl.data.cache import CropCache
from facemtl.errors import ConfigError
from facemtl.training.losses import class_loss
from facemtl.training.recipe import recipe_from_dict
from facemtl.training.robust import with_wrong_labels

THREE_TO_ONE = torch.tensor([[math.log(3.0), 0.0]])  # probabilities 3 / 4 and 1 / 4


def loss(label: int, kind: str, **options: float) -> float:
    return class_loss(THREE_TO_ONE, torch.tensor([label]), 0.0, kind, options).item()


def test_generalised_cross_entropy_by_hand():
    assert loss(1, "generalised", q=1.0) == pytest.approx(3 / 4)
    assert loss(1, "generalised", q=0.5) == pytest.approx(1.0)  # (1 - sqrt(1 / 4)) / 0.5
    assert loss(0, "generalised", q=0.5) == pytest.approx((1 - 0.75**0.5) / 0.5)
    assert loss(1, "generalised") == pytest.approx((1 - 0.25**0.7) / 0.7)
    assert loss(1, "generalised", q=1e-4) == pytest.approx(math.log(4), rel=1e-3)  # cross-entropy


def test_symmetric_cross_entropy_by_hand():
    # Reversed: 1/4 log 1 + 3/4 log 0 with log 0 = -4, of which the negative is 3.
    assert loss(1, "symmetric", alpha=1.0, beta=1.0) == pytest.approx(math.log(4) + 3)
    assert loss(1, "symmetric") == pytest.approx(0.1 * math.log(4) + 3)
    assert loss(0, "symmetric", alpha=2.0, beta=0.5) == pytest.approx(2 * math.log(4 / 3) + 0.5)


@pytest.mark.parametrize("kind", ["generalised", "symmetric"])
def test_a_missing_label_has_no_loss_and_no_gradient(kind):
    logits = torch.tensor([[2.0, 1.0], [500.0, -500.0], [0.0, 3.0]], requires_grad=True)
    value = class_loss(logits, torch.tensor([1, -1, 0]), 0.0, kind)
    value.backward()
    assert logits.grad[1].tolist() == [0, 0]
    assert logits.grad[[0, 2]].abs().min() > 0
    both = class_loss(logits[[0, 2]].detach(), torch.tensor([1, 0]), 0.0, kind)
    torch.testing.assert_close(value.detach(), both)
    assert class_loss(logits, torch.full((3,), -1), 0.0, kind).item() == 0


def test_the_surer_the_network_the_less_a_wrong_label_pulls():
    pulls = []
    for kind in ("cross_entropy", "generalised"):
        logits = torch.tensor([[8.0, 0.0]], requires_grad=True)
        class_loss(logits, torch.tensor([1]), 0.0, kind).backward()
        pulls.append(logits.grad[0, 1].abs().item())
    assert pulls[0] > 0.99
    assert pulls[1] < 0.01


def a_set() -> CropCache:
    points = np.full((10, 5, 2), 7.0, np.float32)
    points[0] = np.nan
    labels = {"smile": np.array([0, 1] * 4 + [-1, -1]), "pose": np.arange(10) % 5}
    return CropCache(np.zeros((10, 40, 40), np.uint8), points, labels, "mtfl5")


def test_a_share_of_the_labels_is_wrong():
    cache = a_set()
    noisy = with_wrong_labels(cache, {"smile": 0.25, "pose": 0.5, "landmarks": 0.2}, "mtfl5")
    changed = noisy.labels["smile"] != cache.labels["smile"]
    assert changed.sum() == 2  # a quarter of the 8 that are labelled
    assert not changed[8:].any()
    assert (noisy.labels["pose"] != cache.labels["pose"]).sum() == 5
    assert set(noisy.labels["pose"]) <= set(range(5))
    moved = (noisy.points != cache.points).any(axis=2) & np.isfinite(cache.points).all(axis=2)
    assert moved.sum() == 9  # a fifth of 9 faces' 45 points
    assert np.isnan(noisy.points[0]).all()
    low, high = cache.box[0], cache.box[2]
    assert ((noisy.points[moved] >= low) & (noisy.points[moved] <= high)).all()
    assert (a_set().labels["smile"] == cache.labels["smile"]).all()  # the set itself is as it was
    again = with_wrong_labels(cache, {"smile": 0.25}, "mtfl5")
    assert (again.labels["smile"] == noisy.labels["smile"]).all()
    further = with_wrong_labels(cache, {"landmarks_mtfl5": 0.2, "landmarks": 0.0}, "ibug68")
    assert (further.points[1:] != cache.points[1:]).any(axis=2).sum() == 9


def test_training_with_robust_losses_and_wrong_labels(tmp_path):
    faces = tiny_faces(tmp_path)
    recipe = mixed_recipe(
        epochs=1, smoothing=0.0, class_loss="generalised", class_loss_options={"q": 0.5}, label_noise={"smile": 0.25}
    )
    data = mixed_data(recipe, faces, tmp_path / "cache")
    clean = mixed_data(replace(recipe, label_noise={}), faces, tmp_path / "cache")
    for name, count in (("mtfl", 8), ("genki4k", 8)):
        assert (data.train[name].labels["smile"] != clean.train[name].labels["smile"]).sum() == count
        assert (data.heldout[name].labels["smile"] == clean.heldout[name].labels["smile"]).all()
    assert train_quietly(recipe, data, tmp_path / "run")
    assert float(read_log(tmp_path / "run")[0]["heldout/pose"]) < 2  # at most 1 / q


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_loss": "mae"}, "class_loss = 'mae', expected one of cross_entropy, generalised, symmetric"),
        ({"class_loss_options": {"q": 0.5}}, r"'cross_entropy' has no options \['q'\], it has none"),
        ({"class_loss": "generalised", "class_loss_options": {"q": 1.5}}, "expected over 0, at most 1"),
        ({"class_loss": "symmetric", "smoothing": 0.1}, "smoothing is of cross-entropy: set smoothing = 0, or"),
        ({"label_noise": {"angles": 0.1}}, "label_noise.angles: expected some of its tasks landmarks, smile"),
        ({"label_noise": {"smile": 1}}, "label_noise.smile = 1.0, expected at least 0, under 1"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict({"name": "x", "tasks": ["landmarks", "smile", "angles"], **changes})
