from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facemtl.data.synthetic import write_mtfl_layout

if TYPE_CHECKING:
    from facemtl.data.sample import FaceSample
    from facemtl.training.training_data import TrainingData


def _real(folder: str, faces: str) -> Path:
    if not os.environ.get("FACEMTL_DATA"):
        pytest.skip(f"needs the {faces} faces: FACEMTL_DATA is not set")
    root = Path(os.environ["FACEMTL_DATA"]) / folder
    if not root.is_dir():
        pytest.skip(f"needs the {faces} faces: there is no {root}")
    return root


@pytest.fixture(scope="session")
def mtfl_root() -> Path:
    """The unpacked MTFL set; for tests that need real faces."""
    return _real("MTFL", "MTFL")


@pytest.fixture(scope="session")
def genki_root() -> Path:
    """The unpacked GENKI-4K set."""
    return _real("genki4k", "GENKI-4K")


@pytest.fixture(scope="session")
def udacity_root() -> Path:
    """The unpacked set of Udacity's facial keypoints."""
    return _real("udacity68", "udacity68")


@pytest.fixture(scope="session")
def utkface_root() -> Path:
    """The unpacked UTKFace set."""
    return _real("utkface", "UTKFace")


@pytest.fixture(scope="session")
def tiny_mtfl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training and 16 test faces, rendered, in MTFL's layout. Shared by all tests: copy it before changing it."""
    folder = tmp_path_factory.mktemp("data") / "MTFL"
    write_mtfl_layout(folder, train=40, test=16, seed=1)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What trainings need is imported when a test asks for it: most tests do without torch.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the trainings that the tests of one file share are kept."""
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[FaceSample]:
    """40 rendered faces, of which 8 are held out. Shared by all tests, and not to be changed."""
    from tiny_training import tiny_faces

    return tiny_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def data(folder: Path, faces: list[FaceSample]) -> TrainingData:
    """For every recipe of the standard network."""
    from tiny_training import tiny_data, tiny_recipe

    return tiny_data(tiny_recipe(), faces, folder / "cache")
