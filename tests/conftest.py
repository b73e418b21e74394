from __future__ import annotations

import os
from pathlib import Path

import pytest

from facemtl.data.synthetic import write_mtfl_layout


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
