"""The wheel holds all that a user needs: built, installed elsewhere, it predicts what the checkout does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from facemtl import Predictor, __version__
from facemtl.serve import vendor
from facemtl.weights import list_models

ROOT = Path(__file__).parent.parent
# A user's program: no torch, no network, another folder.
PROGRAM = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("no network")

socket.socket.connect = refuse
sys.modules["torch"] = None
import facemtl
from facemtl.serve import vendor
from facemtl.weights import list_models

faces = facemtl.Predictor()(sys.argv[1])
print(json.dumps([facemtl.__file__, list_models(), [face.to_dict() for face in faces]]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the contents of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run = [sys.executable, "-m"]
    build = [*run, "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob(f"facemtl-{__version__}-py3-none-any.whl")
    target = folder / "site"
    install = [*run, "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return target


def test_the_wheel_predicts_what_the_checkout_does(installed, tmp_path):
    photo = ROOT / "examples" / "astronaut.png"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", PROGRAM, str(photo)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    home, models, faces = json.loads(done.stdout)
    assert Path(home).is_relative_to(installed)
    assert models == list_models()
    assert faces == [face.to_dict() for face in Predictor()(photo)]


def test_the_wheel_holds_what_code_reads_beside_itself(installed):
    package = installed / "facemtl"
    for file in ("data/mtfl_heldout.txt", "training/report.html.jinja", "_weights/tcdcn/model.onnx"):
        assert (package / file).is_file(), file
    for file in (ROOT / "facemtl/serve/_static").iterdir():
        assert (package / "serve/_static" / file.name).exists(), file


def test_the_wheel_holds_the_network_library_of_the_page_where_npm_is(installed):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    assert vendor.missing(installed / "facemtl/serve/_static/onnxruntime-web") == []


def test_the_wheel_holds_nothing_of_the_checkout_that_is_not_the_package(installed):
    beside = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert beside == {"facemtl", "bin"}
