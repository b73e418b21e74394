"""Points of another program as a teacher: its habits learned from labels, and what it says brought into patches."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from scripts import ROOT
from tiny_training import HELDOUT, read_log, tiny_data, tiny_recipe, tiny_set, train_quietly

from facemtl.data.cache import build_cache
from facemtl.errors import ConfigError, OutputError
from facemtl.training.peer_points import with_peer_points, write_peer_points
from facemtl.training.recipe import read_recipe
from facemtl.training.training_data import TrainingData

with patch.object(sys, "path", [str(ROOT / "tools"), *sys.path]):  # as Python does for a script in that folder
    import peer_points
    from peers.habits import FOLDS, Habit, crossed

MESH = 300  # points: more than the greatest anchor


# --- in a training ---


@pytest.fixture
def file(tmp_path, faces) -> Path:
    """Says that every point of every face lies two pixels to the right; of face 1 it says nothing."""
    points = np.stack([sample.points for sample in faces]) + np.float32([2, 0])
    points[1] = np.nan
    write_peer_points(tmp_path / "said" / "mtfl.npz", faces, {"mtfl5": points})
    return tmp_path / "said" / "mtfl.npz"


@pytest.fixture
def cache(tmp_path, faces):
    return build_cache(faces, tmp_path / "cache", 64, 1, progress=False)


def test_what_is_said_stands_in_the_patches(cache, faces, file):
    found = with_peer_points(cache, faces, file, ("landmarks",), "mtfl5").taught
    assert list(found) == ["landmarks"]
    assert found["landmarks"].dtype == np.float32
    # a patch of 64 pixels shows two sides of the face box
    apart = 2 * 32 / cache.sides
    expected = cache.points + np.stack([apart, 0 * apart], axis=1)[:, None]
    expected[1] = np.nan
    np.testing.assert_allclose(found["landmarks"], expected, atol=1e-4)
    assert cache.taught == {}


def test_only_points_that_are_taught_are_read(cache, faces, file):
    assert with_peer_points(cache, faces, file, ("smile",), "mtfl5").taught == {}
    # in a model whose main points are others they are a task of their own
    assert list(with_peer_points(cache, faces, file, ("landmarks_mtfl5",), "ibug68").taught) == ["landmarks_mtfl5"]


def test_a_file_that_is_not_of_these_faces_is_refused(cache, faces, file):
    def complaint(samples) -> str:
        with pytest.raises(ConfigError) as error:
            with_peer_points(cache, samples, file, ("landmarks",), "mtfl5")
        return str(error.value)

    assert "other faces" in complaint(faces[:-1])
    assert "other faces" in complaint([*faces[:-1], replace(faces[-1], source="another")])
    write_peer_points(file, faces, {"mtfl5": np.zeros((len(faces), 68, 2), np.float32)})
    assert "shape (40, 68, 2)" in complaint(faces)
    write_peer_points(file, faces, {"nobody7": np.zeros((len(faces), 7, 2), np.float32)})
    assert "nobody7" in complaint(faces)
    np.savez(file, mtfl5=np.zeros((len(faces), 5, 2), np.float32))
    assert "other faces" in complaint(faces)
    file.write_bytes(b"PK damaged")
    assert "tools/peer_points.py writes it" in complaint(faces)
    file.unlink()
    assert "tools/peer_points.py writes it" in complaint(faces)


def test_a_file_that_holds_objects_is_not_opened(cache, faces, file):
    np.savez(file, sources=np.array([sample.source for sample in faces], dtype=object))
    with pytest.raises(ConfigError, match="cannot be read"):
        with_peer_points(cache, faces, file, ("landmarks",), "mtfl5")


def test_a_file_that_cannot_be_written_is_an_output_error(tmp_path, faces):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_peer_points(tmp_path / "file" / "mtfl.npz", faces, {})


def test_what_agrees_with_the_labels_changes_nothing_and_what_does_not_does(tmp_path, faces, folder):
    errors = {}
    for name, moved in (("plain", None), ("agrees", 0), ("differs", 3)):
        recipe = tiny_recipe(tasks=("landmarks",), lesson=0.5, peer_points="" if moved is None else str(tmp_path))
        if moved is not None:
            points = np.stack([sample.points for sample in faces[HELDOUT:]]) + np.float32(moved)
            write_peer_points(tmp_path / "mtfl.npz", faces[HELDOUT:], {"mtfl5": points})
        assert train_quietly(recipe, tiny_data(recipe, faces, folder / "cache"), tmp_path / name)
        errors[name] = float(read_log(tmp_path / name)[-1]["heldout/nme"])
    assert errors["agrees"] == pytest.approx(errors["plain"], rel=1e-4)
    assert abs(errors["differs"] - errors["plain"]) > 0.1


def test_a_recipe_that_reads_a_share_of_the_faces_reads_what_is_said_of_them(tmp_path, faces, folder):
    said = np.stack([sample.points for sample in faces[HELDOUT:]])
    write_peer_points(tmp_path / "mtfl.npz", faces[HELDOUT:], {"mtfl5": said})
    cache = tiny_data(tiny_recipe(fraction=0.5, peer_points=str(tmp_path)), faces, folder / "cache").train["mtfl"]
    assert cache.taught["landmarks"].shape == (16, 5, 2)
    np.testing.assert_allclose(cache.taught["landmarks"], cache.points, atol=1e-4)


def test_beside_teachers_it_counts_as_one_more(tmp_path, cache, faces, file):
    import torch

    from facemtl.models.files import save_model
    from facemtl.training.distillation import teach

    recipe = tiny_recipe(tasks=("landmarks",))
    model = recipe.create_model()
    save_model(tmp_path / "teacher.safetensors", model, recipe.spec(model.backbone.input_size, 1))
    teachers = [tmp_path / "teacher.safetensors"] * 2
    said = with_peer_points(cache, faces, file, ("landmarks",), "mtfl5")

    def taught(of) -> np.ndarray:
        return teach(of, teachers, ("landmarks",), "mtfl5", tmp_path, torch.device("cpu"), False).taught["landmarks"]

    alone, both = taught(cache), taught(said)
    others = np.arange(len(faces)) != 1
    np.testing.assert_allclose(both[others], (2 * alone + said.taught["landmarks"])[others] / 3, atol=1e-4)
    np.testing.assert_array_equal(both[1], alone[1])


# --- habits ---


def meshes(count: int, seed: int = 0) -> np.ndarray:
    """(N, MESH, 2): one shape, bent by three numbers a face."""
    rng = np.random.default_rng(seed)
    shape, bends = rng.normal(size=(1, MESH, 2)), rng.normal(size=(3, MESH, 2))
    numbers = np.random.default_rng(seed + 1 + count).normal(size=(count, 3))
    return 50 + 20 * shape + np.einsum("ni,imc->nmc", numbers, bends)


def marks(found: np.ndarray) -> np.ndarray:
    """What annotators would mark: means of some points, and one beside the eyes' outer corners."""
    return np.stack([found[:, :9].mean(1), found[:, 20:30].mean(1), 1.5 * found[:, 33] - 0.5 * found[:, 263]], axis=1)


def turned(points: np.ndarray) -> np.ndarray:
    return points @ np.array([[0.6, 0.8], [-0.8, 0.6]]) * 3 + [70, -20]


def test_a_habit_is_learned_from_faces_that_have_both():
    found = meshes(200)
    marked = marks(found)
    found[5], marked[7, 1] = np.nan, np.nan  # nothing was found here, and a point not marked there
    habit = Habit.learned(found, marked)
    fresh = meshes(30)
    np.testing.assert_allclose(habit(fresh), marks(fresh), atol=0.05)
    fresh[3] = np.nan
    assert np.isnan(habit(fresh)[3]).all()
    assert np.isfinite(habit(fresh)[[2, 4]]).all()


def test_it_moves_turns_and_grows_with_the_face():
    habit = Habit.learned(meshes(200), marks(meshes(200)))
    fresh = meshes(30)
    np.testing.assert_allclose(habit(turned(fresh)), turned(habit(fresh)), atol=1e-6)


def test_faces_that_are_marked_badly_count_little():
    found = meshes(200)
    marked = marks(found)
    marked[::10] += 40
    fresh = meshes(30)
    np.testing.assert_allclose(Habit.learned(found, marked)(fresh), marks(fresh), atol=0.5)


def test_what_is_said_of_a_face_does_not_depend_on_its_own_label():
    found = meshes(100)
    marked = marks(found)
    said = crossed(found, marked)
    np.testing.assert_allclose(said, marked, atol=0.1)
    changed = marked.copy()
    changed[17] += 30
    again = crossed(found, changed)
    np.testing.assert_array_equal(again[17], said[17])
    assert (again != said).any(axis=(1, 2)).sum() == 100 - 100 // FOLDS  # all faces of the other folds


# --- the tool ---


class Looker:
    """A peer whose mesh of each picture is made of the labels, by source; of picture 3 it finds another face."""

    def __init__(self, name: str, command: list[str]) -> None:
        assert (name, Path(command[0]).parent.parent.name) == ("facemesh-refined", "there")
        self.closed = False

    def found(self, mode, samples):
        assert mode == "detect"
        owner = [i for i in range(len(samples)) if i != 2]
        points = []
        for i in owner:
            mesh = np.resize(np.float64(samples[i].points), (MESH, 2))  # one after the other, again and again
            mesh[[33, 263, 1, 61, 291]] = samples[i].points
            points.append(mesh + (500 if i == 3 else 0))
        return {"points": np.float32(points), "owner": np.array(owner)}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recipe(here, monkeypatch) -> Path:
    """Of a set with 16 training faces."""
    tiny_set(here / "mtfl_layout")
    monkeypatch.setenv("FACEMTL_DATA", str(here))
    (here / "r.toml").write_text('name = "r"\ndata = "mtfl_layout"\nbatch_size = 8\npeer_points = "said"\n')
    return here / "r.toml"


def test_the_tool_writes_what_a_recipe_reads(here, recipe, monkeypatch, capsys):
    monkeypatch.setattr(peer_points, "Peer", Looker)
    monkeypatch.setattr(sys, "argv", ["peer_points.py", str(recipe), "--out", "said", "--environment", "there"])
    assert peer_points.main() == 0
    told = capsys.readouterr().out
    assert "mtfl5 of mtfl_layout: 14 of 16 faces" in told
    assert "mtfl5 of held-out mtfl_layout: 6 of 8 faces" in told
    cache = TrainingData.read(read_recipe(recipe), 1, here / "cache", progress=False).train["mtfl_layout"]
    known = np.isfinite(cache.taught["landmarks"]).all(axis=(1, 2))
    assert np.flatnonzero(~known).tolist() == [2, 3]
    assert np.median(np.abs(cache.taught["landmarks"] - cache.points)[known]) < 0.5


def test_without_the_peer_it_says_so(here, recipe, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peer_points.py", str(recipe), "--environment", "nowhere"])
    assert peer_points.main() == 2
    assert "nowhere" in capsys.readouterr().err
