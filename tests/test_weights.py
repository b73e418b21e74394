"""Model files: the description inside, parameters that fit or are refused, cards, and no half-written file."""

import json
import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from facemtl import weights
from facemtl.errors import ModelError, OutputError
from facemtl.models.factory import create_model
from facemtl.models.files import load_model, read_tensors, save_model, write_tensors
from facemtl.weights import ModelSpec, find_model, list_models, load_card, sha256

SPEC = ModelSpec(
    name="some",
    backbone="tcdcn",
    schema="mtfl5",
    tasks=("landmarks", "smile"),
    attributes={"smile": ("smiling", "not_smiling")},
    input_size=40,
    channels=1,
    crop_scale=1.2,
    passes=2,
    flip=True,
)
FULL = replace(
    SPEC,
    tasks=("smile", "landmarks", "landmarks_ibug68", "angles"),
    points_head="simcc",
    uncertainty=True,
    refine=True,
    offsets={"smile": (0.5, -0.5)},
    priors={"smile": (0.75, 0.25)},
    temperatures={"smile": 1.5},
    thresholds={"smile": 0.8},
    sigma_scale=1.25,
    locator=replace(SPEC, tasks=("landmarks",), attributes={}, input_size=20, crop_scale=1.4, passes=1),
)


@pytest.fixture
def model_file(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, create_model("tcdcn", SPEC.tasks), SPEC)
    return path


# --- the description ---


@pytest.mark.parametrize("spec", [replace(SPEC, backbone_options={"shared_filters": False}), FULL])
def test_a_description_reads_back_the_same(spec):
    assert ModelSpec.from_json(spec.to_json(), "x") == spec


def test_what_a_description_leaves_out_has_defaults():
    defaults = {
        "passes": 1,
        "flip": False,
        "backbone_options": {},
        "points_head": "direct",
        "uncertainty": False,
        "refine": False,
        "locator": None,
        "offsets": {},
        "priors": {},
        "temperatures": {},
        "thresholds": {},
        "sigma_scale": 1.0,
    }
    values = {key: value for key, value in json.loads(SPEC.to_json()).items() if key not in defaults}
    spec = ModelSpec.from_json(json.dumps(values), "x")
    assert {key: getattr(spec, key) for key in defaults} == defaults


def test_the_outputs_of_a_network_and_their_shapes_for_one_face():
    assert SPEC.outputs() == {"landmarks": (5, 2), "smile": (2,)}
    expected = {
        "smile": (2,),
        "landmarks": (5, 2),
        "landmark_sigma": (5,),
        "landmarks_ibug68": (68, 2),
        "angles": (3,),
    }
    assert FULL.outputs() == expected
    assert list(FULL.outputs()) == list(expected)
    assert replace(FULL, tasks=("angles",), uncertainty=False).outputs() == {"angles": (3,)}


def test_the_schemas_of_a_models_points():
    assert SPEC.point_tasks() == {"mtfl5": "landmarks"}
    assert FULL.point_tasks() == {"mtfl5": "landmarks", "ibug68": "landmarks_ibug68"}
    assert replace(SPEC, tasks=("smile",)).point_tasks() == {}


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '"tcdcn"', "{}", '{"name": "x"}'])
def test_text_that_is_no_description_is_refused_by_file(text):
    with pytest.raises(ModelError, match=r"^some\.onnx does not carry a facemtl model description"):
        ModelSpec.from_json(text, "some.onnx")


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "blue"},
        {"schema": "wflw"},
        {"tasks": ["landmarks", "hat"]},
        {"tasks": []},
        {"tasks": 3},
        {"attributes": ["smile"]},
        {"attributes": None},
        {"input_size": 0},
        {"input_size": "40"},
        {"channels": 2},
        {"crop_scale": 0},
        {"crop_scale": float("nan")},
        {"passes": 0},
        {"tasks": ["landmarks", "smile", "landmarks"]},
        {"tasks": ["landmarks", "landmarks_wflw"]},
        {"tasks": ["landmarks", "landmarks_mtfl5"]},  # the same points twice
        {"tasks": ["smile"], "passes": 2},
        {"tasks": ["smile"], "passes": 1, "uncertainty": True},
        {"uncertainty": "yes"},
        {"refine": 1},
        {"tasks": ["smile"], "passes": 1, "refine": True},
        {"locator": json.loads(replace(FULL.locator, input_size=30).to_json())},
        {"locator": json.loads(replace(FULL.locator, channels=3).to_json())},
        {"locator": json.loads(replace(FULL.locator, schema="ibug68").to_json())},
        {"locator": json.loads(FULL.to_json())},  # which has a locator itself
        {"locator": {"name": "x"}},
        {"locator": True},
        {"points_head": 3},
        {"offsets": {"gender": [1.0, 0.0]}},
        {"offsets": {"smile": [1.0]}},
        {"offsets": {"smile": [float("nan"), 0.0]}},
        {"offsets": {"smile": ["a", "b"]}},
        {"offsets": [1.0]},
        {"priors": {"gender": [0.5, 0.5]}},
        {"priors": {"smile": [1.0]}},
        {"priors": {"smile": [1.0, 0.0]}},
        {"priors": {"smile": [float("nan"), 0.5]}},
        {"temperatures": {"gender": 1.0}},
        {"temperatures": {"smile": 0}},
        {"temperatures": {"smile": "hot"}},
        {"temperatures": [1.0]},
        {"temperatures": {"smile": float("nan")}},
        {"thresholds": {"gender": 0.5}},
        {"thresholds": {"smile": 1.5}},
        {"thresholds": {"smile": float("nan")}},
        {"thresholds": None},
        {"sigma_scale": 0},
        {"sigma_scale": float("inf")},
        {"sigma_scale": None},
    ],
)
def test_an_impossible_description_is_refused(changes):
    with pytest.raises(ModelError, match="model description"):
        ModelSpec.from_json(json.dumps({**json.loads(SPEC.to_json()), **changes}), "x")


def test_override_changes_what_is_given():
    assert SPEC.override() == SPEC
    assert SPEC.override(passes=1, flip=False) == replace(SPEC, passes=1, flip=False)
    with pytest.raises(ModelError, match="some cannot run 0 passes"):
        SPEC.override(passes=0)
    pointless = replace(SPEC, tasks=("smile",), passes=1)
    assert pointless.override(flip=False).passes == 1
    with pytest.raises(ModelError, match="a later pass needs landmarks"):
        pointless.override(passes=2)


# --- parameters ---


def test_a_model_file_holds_the_parameters_bit_for_bit_and_the_description(model_file):
    model, spec = load_model(model_file)
    assert spec == SPEC
    assert not model.training
    again = model_file.with_name("again.safetensors")
    save_model(again, model, spec)
    assert again.read_bytes() == model_file.read_bytes()


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere\.safetensors is missing or damaged"):
        load_model(tmp_path / "nowhere.safetensors")
    with pytest.raises(ModelError, match="is missing or damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 8, 100, 5000, -1])
def test_a_file_cut_short_is_refused(model_file, length):
    model_file.write_bytes(model_file.read_bytes()[:length])
    with pytest.raises(ModelError, match="is missing or damaged"):
        load_model(model_file)


def test_a_damaged_header_is_refused_or_harmless(model_file):
    whole = model_file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    expected, _ = load_model(model_file)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(header)] ^= 1 << rng.integers(8)
        model_file.write_bytes(damaged)
        try:
            model, _ = load_model(model_file)
        except ModelError:
            refused += 1
        else:  # the name of the run, say
            for key, value in model.state_dict().items():
                assert torch.equal(value, expected.state_dict()[key]), key
    assert refused > 80


def test_bytes_that_are_something_else_are_refused(model_file):
    model_file.write_bytes(b"\x80\x04\x95 a pickle" * 20)
    with pytest.raises(ModelError, match="is missing or damaged"):
        load_model(model_file)


def test_parameters_without_a_description_are_refused(model_file):
    save_file(load_file(model_file), model_file)
    with pytest.raises(ModelError, match="does not carry a facemtl model description"):
        load_model(model_file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("landmarks",)}, "2 differ, such as 'heads.smile.*, expected none"),
        ({"schema": "ibug68"}, r"2 differ, such as 'heads.landmarks.linear.* of shape \(10,.*\), expected \(136,.*\)"),
        ({"backbone_options": {"shared_filters": False}}, "8 differ"),
    ],
)
def test_parameters_of_another_model_are_refused(model_file, changes, message):
    tensors, _ = read_tensors(model_file)
    write_tensors(model_file, tensors, replace(SPEC, **changes).to_json())
    with pytest.raises(ModelError, match=f"holds the parameters of another model: .*{message}"):
        load_model(model_file)


@pytest.mark.parametrize("changes", [{"input_size": 48}, {"channels": 3}])
def test_a_description_of_other_crops_is_refused(model_file, changes):
    tensors, _ = read_tensors(model_file)
    write_tensors(model_file, tensors, replace(SPEC, **changes).to_json())
    with pytest.raises(ModelError, match=r"but tcdcn takes \(40, 1\)"):
        load_model(model_file)


def test_an_unknown_backbone_is_refused(model_file):
    tensors, _ = read_tensors(model_file)
    write_tensors(model_file, tensors, replace(SPEC, backbone="vgg").to_json())
    with pytest.raises(ModelError, match="unknown backbone 'vgg'"):
        load_model(model_file)


@contextmanager
def full_disk(free: int):
    """Files can grow to ``free`` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(model_file):
    before = model_file.read_bytes()
    with full_disk(10_000), pytest.raises(OutputError, match=r"model\.safetensors cannot be written"):
        save_model(model_file, create_model("tcdcn", SPEC.tasks), SPEC)
    assert model_file.read_bytes() == before
    assert list(model_file.parent.iterdir()) == [model_file]


def test_a_place_that_cannot_be_written_is_an_output_error(model_file):
    with pytest.raises(OutputError, match="cannot be made"):
        write_tensors(model_file / "inside.safetensors", {"a": torch.zeros(1)}, "")
    with pytest.raises(OutputError, match="cannot be written"):
        write_tensors(Path("/proc/model.safetensors"), {"a": torch.zeros(1)}, "")


# --- shipped models and cards ---


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A weights folder with one model whose files are anything."""
    monkeypatch.setattr(weights, "weights_folder", lambda: tmp_path / "weights")
    folder = tmp_path / "weights" / "tiny"
    folder.mkdir(parents=True)
    for name in ("model.onnx", "model.safetensors"):
        (folder / name).write_bytes(name.encode())
    hashes = "".join(f'"{name}" = "{sha256(folder / name)}"\n' for name in ("model.onnx", "model.safetensors"))
    (folder / "card.toml").write_text(f'summary = "tiny"\n[sha256]\n{hashes}')
    return folder


def test_a_digest_is_sha256_in_hexadecimal(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_model_is_found_by_name_by_folder_and_by_file(shipped):
    assert list_models() == ["tiny"]
    assert load_card("tiny")["summary"] == "tiny"
    assert find_model("tiny") == shipped / "model.onnx"
    assert find_model("tiny", ".safetensors") == shipped / "model.safetensors"
    assert find_model(shipped) == find_model(str(shipped)) == shipped / "model.onnx"
    assert find_model(shipped / "model.safetensors") == shipped / "model.safetensors"


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_a_file_that_is_not_the_one_of_its_card_is_refused(shipped, name):
    (shipped / name).write_bytes(b"other")
    with pytest.raises(ModelError, match=f"{name} is damaged: its sha256 is not the one of its card"):
        find_model("tiny", Path(name).suffix)


@pytest.mark.parametrize("card", ['summary = "no hashes"', 'sha256 = "all fine"', "[sha256]\nreadme = 'x'"])
def test_a_card_without_the_hash_vouches_for_nothing(shipped, card):
    (shipped / "card.toml").write_text(card)
    with pytest.raises(ModelError, match="its sha256 is not the one of its card"):
        find_model("tiny")


@pytest.mark.parametrize("content", [b"summary = ", b"\xff\xff"])
def test_a_card_that_is_no_toml_is_refused(shipped, content):
    (shipped / "card.toml").write_bytes(content)
    with pytest.raises(ModelError, match=r"card\.toml cannot be read"):
        find_model("tiny")


def test_an_unknown_model_is_an_error_that_lists_the_known_ones(shipped):
    with pytest.raises(ModelError, match="unknown model 'huge'; known: tiny, or give a path"):
        find_model("huge")
    with pytest.raises(ModelError, match=r"huge\.onnx is missing"):
        find_model("huge.onnx")
    (shipped / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"tiny holds no model\.onnx"):
        find_model("tiny")
