"""Every data set that recipes know: documented, checkable, and an error where it is not there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from face_files import complaint

from facemtl.data.sets import DATA_SETS, read_split

DATASETS = Path(__file__).parents[1] / "datasets"
OWN = ("table", "pts_folder", "mtfl_layout", "shards")  # formats for faces of one's own share a page
PUBLISHED = [name for name in DATA_SETS if name not in OWN]


def folder_of(name: str) -> Path:
    return DATASETS / ("own_faces" if name in OWN else name.removesuffix("_aligned"))


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_set_has_a_page_that_names_it(name):
    assert name in (folder_of(name) / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_of_a_published_set_tells_source_terms_and_splits(name):
    text = (folder_of(name) / "README.md").read_text(encoding="utf-8").lower()
    assert "http" in text
    for word in ("terms", "splits", "--check"):
        assert word in text, word


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_is_validated_by_a_script_of_its_own(name):
    script = folder_of(name) / "prepare.py"
    tree = ast.parse(script.read_text(encoding="utf-8"))
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "run_prepare"]
    assert ast.literal_eval(call.args[1]) == folder_of(name).name


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("split", ["train", "heldout", "test"])
def test_a_set_that_is_not_there_is_an_error_that_says_so(name, split, tmp_path):
    said = complaint(read_split, name, split, tmp_path / "nowhere")
    assert "nowhere" in said or f"no split {split!r}; known: " in said or "needs h5py" in said
