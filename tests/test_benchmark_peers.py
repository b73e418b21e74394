"""tools/benchmark_peers.py: peers judged by the functions that judge our models; what fails has a row that says why.

No peer is needed: workers here are scripts that speak as tools/peers/worker.py does, and libraries are stand-ins.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import numpy as np
import pytest

from facemtl.data.mtfl import read_mtfl
from facemtl.data.sample import FaceSample
from facemtl.training.predictions import Predictions
from facemtl.weights import DEFAULT_MODEL, weights_folder

TOOLS = Path(__file__).parents[1] / "tools"
with patch.object(sys, "path", [str(TOOLS), *sys.path]):  # as Python does for a script in that folder
    import benchmark_peers
    from peers import client, methods, table
    from peers.table import GIVEN, OWN, Accuracy, Row, Time

WORKER = """
import json, sys
import numpy as np

folder, *options = sys.argv[1:]
if "broken" in options:
    print("No module named 'dlib'", file=sys.stderr)
    sys.exit(3)
if "hangs" in options:
    sys.stdin.read()
print(json.dumps({"version": "peer 1.0", "modes": ["detect", "again"]}), flush=True)
asked = open(folder + "/asked.txt", "a")
for line in sys.stdin:
    request = json.loads(line)
    print(request["do"], file=asked, flush=True)
    answer = {"wall": 0.016, "cpu": 0.008, "images": 16}
    if request["do"] in options:
        answer = {"error": "RuntimeError: not\\ntoday"}
    elif request["do"] == "points":
        found = np.load(folder + "/found.npz")
        np.savez(request["out"], boxes=np.full((len(found["points"]), 4), np.nan), **found)
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with the script of a peer; without FACEMTL_DATA."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FACEMTL_DATA", raising=False)
    (tmp_path / "fake_worker.py").write_text(WORKER, encoding="utf-8")
    return tmp_path


@pytest.fixture
def samples(tiny_mtfl) -> list[FaceSample]:
    return read_mtfl(tiny_mtfl, "test")


@pytest.fixture
def peer() -> Iterator[Callable[..., methods.Peer]]:
    """Starts a fake peer, which finds what found.npz in the working folder holds."""
    started: list[methods.Peer] = []

    def start(*options: str, name: str = "mtcnn", fresh: bool = False) -> methods.Peer:
        started.append(methods.Peer(name, [sys.executable, "fake_worker.py", ".", *options], fresh))
        return started[-1]

    yield start
    for one in started:
        one.close()


def finds(points: np.ndarray, owner: list[int]) -> None:
    np.savez("found.npz", points=np.float32(points), owner=np.int64(owner))


def truth(samples: list[FaceSample]) -> np.ndarray:
    return np.stack([sample.points for sample in samples])


# --- which points of a peer stand for MTFL's five -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("mtcnn", 5, [0, 1, 2, 3, 4]),
        ("dlib", 68, [38.5, 44.5, 30, 48, 54]),  # means of 36..41 and 42..47
        ("facemesh", 468, [143.8125, 371.75, 1, 61, 291]),  # means of two outlines of 16 points
        ("facemesh-refined", 478, [468, 473, 1, 61, 291]),
    ],
)
def test_five_points(name, count, expected):
    numbered = np.stack([np.arange(count), 2.0 * np.arange(count)], axis=1)[None]  # point i at (i, 2 i)
    np.testing.assert_allclose(
        methods.five_points(name, numbered), np.stack([expected, np.multiply(expected, 2)], axis=1)[None]
    )


def test_every_peer_has_five_points_and_packages_that_are_pinned():
    assert list(methods.FIVE) == list(client.PEERS)
    pinned = {line.split("==")[0] for line in client.REQUIREMENTS.read_text().splitlines() if "==" in line}
    assert {package for packages in client.PEERS.values() for package in packages} <= pinned


# --- accuracy -------------------------------------------------------------------------------------------------------


def test_a_peer_that_finds_the_true_points_has_no_error(samples, peer):
    finds(truth(samples), list(range(16)))
    (row,) = benchmark_peers.measure_accuracy([peer()], samples)
    assert (row.method, row.boxes, row.version, row.problem) == ("mtcnn", OWN, "peer 1.0", "")
    assert row.accuracy == pytest.approx(Accuracy(16, 100, 0, 0, 0, 0), abs=1e-5)


def test_a_constant_offset_is_in_the_raw_figures_alone(samples, peer):
    true = truth(samples)
    along = true[:, 1] - true[:, 0]  # from eye to eye: a tenth of it is an NME of 10 %, an eighth a failure
    finds(true + along[:, None] / 8, list(range(16)))
    (row,) = benchmark_peers.measure_accuracy([peer()], samples)
    assert row.accuracy == pytest.approx(Accuracy(16, 100, 12.5, 100, 0, 0), abs=1e-4)


def test_a_face_that_is_not_found_is_a_failure_and_in_no_mean(samples, peer):
    finds(truth(samples)[4:], list(range(4, 16)))
    (row,) = benchmark_peers.measure_accuracy([peer()], samples)
    assert row.accuracy == pytest.approx(Accuracy(16, 75, 0, 25, 0, 25), abs=1e-5)


def test_of_several_faces_the_one_over_the_true_face_counts_and_none_that_is_elsewhere(samples, peer):
    true = truth(samples)
    finds(np.concatenate([true + 500, true[:15]]), [*range(16), *range(15)])
    (row,) = benchmark_peers.measure_accuracy([peer()], samples)
    assert row.accuracy == pytest.approx(Accuracy(16, 93.75, 0, 6.25, 0, 6.25), abs=1e-5)


def test_points_all_in_one_place_are_no_face(samples, peer):
    points = truth(samples)
    points[0] = 7
    finds(points, list(range(16)))
    (row,) = benchmark_peers.measure_accuracy([peer()], samples)
    assert row.accuracy.found == 93.75


def test_how_far_two_that_never_met_agree(samples, peer, monkeypatch):
    """Ours errs along the eyes, the peer along and across, in every other face the other way: an offset for neither."""
    true = truth(samples)
    along = (true[:, 1] - true[:, 0])[:, None]
    across = along[..., ::-1] * [-1, 1]
    sign = np.where(np.arange(16) % 4 < 2, 1, -1)[:, None, None]
    finds(true + 0.03 * sign * (along + across), list(range(16)))
    found = peer().predictions("detect", samples)
    mine = SimpleNamespace(
        name="mine", predictions=lambda mode, samples: replaced_points(found, true + 0.04 * sign * along)
    )
    (agreement,) = benchmark_peers.measure_agreement([mine], [peer()], samples)
    assert agreement[:3] == ("mine", "mtcnn", 16)
    # 4 along; 3 and 3; their mean 3.5 and 1.5; apart 1 and 3. The cosine between the two errors is that of 45 degrees.
    expected = [4, math.hypot(3, 3), math.hypot(3.5, 1.5), math.hypot(1, 3), math.sqrt(0.5)]
    assert agreement[3:] == pytest.approx(expected, rel=1e-3)
    told = benchmark_peers.document([], 16, "", [agreement])
    assert "| mine | mtcnn | 16    | 4.00" in told


def replaced_points(predictions: Predictions, points: np.ndarray) -> Predictions:
    columns = {f"pred_{i}_{axis}": points[:, i, k] for i in range(5) for k, axis in enumerate("xy")}
    return replace(predictions, frame=predictions.frame.assign(**columns))


def test_a_peer_is_asked_once_until_something_changes(samples, peer):
    finds(truth(samples)[:9], list(range(9)))
    for _ in range(2):
        peer().predictions("detect", samples)
    assert Path("asked.txt").read_text().split() == ["points"]
    peer().predictions("detect", samples[:15])
    peer(fresh=True).predictions("detect", samples)
    assert Path("asked.txt").read_text().split() == ["points"] * 3


# --- times ----------------------------------------------------------------------------------------------------------


def test_times_are_medians_over_rounds_and_the_first_round_warms_up(samples):
    asked = []
    walls = {"boxes": iter([9.0, 0.16, 0.80, 0.32]), "detect": iter([9.0, 1.6, 1.6, 1.6])}

    def round_of(mode: str) -> tuple[float, float]:
        asked.append(mode)
        wall = next(walls[mode])
        return wall, wall / 2

    method = SimpleNamespace(name="a", modes=("boxes", "detect"), load=asked.append, round=round_of)
    times, problems = benchmark_peers.measure_times([method], samples, rounds=3)
    assert problems == {}
    assert times == {("a", "boxes"): Time(20, 10, 50, 0.5), ("a", "detect"): Time(100, 100, 100, 0.5)}
    assert asked == [samples, *["boxes", "detect"] * 4]
    given, own = (benchmark_peers.with_times(Row("a", boxes), times, {}) for boxes in (GIVEN, OWN))
    assert (given.landmarks, given.detection, given.time) == (times["a", "boxes"], None, times["a", "boxes"])
    assert (own.landmarks, own.detection, own.time) == (*times.values(), times["a", "detect"])


def test_a_peer_tells_its_own_times(samples, peer):
    times, _ = benchmark_peers.measure_times([peer()], samples, rounds=2)
    assert times == {("mtcnn", "detect"): Time(1, 1, 1, 0.5), ("mtcnn", "again"): Time(1, 1, 1, 0.5)}
    row = benchmark_peers.with_times(Row("mtcnn", OWN), times, {})
    assert row.landmarks is times["mtcnn", "again"]  # points alone, of a peer that takes no boxes


# --- what fails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([sys.executable, "fake_worker.py", ".", "broken"], r"^ended with status 3: No module named 'dlib'$"),
        (["no/such/python"], "No such file"),
        # the real worker, in this environment, where there is no MediaPipe
        ([sys.executable, str(client.WORKER), "facemesh"], r"^ModuleNotFoundError: No module named 'mediapipe'$"),
    ],
)
def test_a_peer_that_cannot_start_says_why(command, reason):
    if command[-1] == "facemesh" and importlib.util.find_spec("mediapipe"):
        pytest.skip("MediaPipe is installed here")
    with pytest.raises(client.PeerError, match=reason):
        methods.Peer("mtcnn", command)


def test_a_peer_that_hangs_is_ended():
    with pytest.raises(client.PeerError, match="no answer within 0 s"):
        client.PeerProcess([sys.executable, "fake_worker.py", ".", "hangs"], Path("log"), start_seconds=0.2)


def test_a_peer_that_fails_at_its_work_keeps_its_row(samples, peer):
    (row,) = benchmark_peers.measure_accuracy([peer("points")], samples)
    assert (row.method, row.accuracy, row.problem) == ("mtcnn", None, "RuntimeError: not today")


def test_a_peer_that_fails_while_timed_keeps_its_accuracy(samples, peer):
    finds(truth(samples), list(range(16)))
    failing = peer("round")
    (row,) = benchmark_peers.measure_accuracy([failing], samples)
    row = benchmark_peers.with_times(row, *benchmark_peers.measure_times([failing], samples, rounds=1))
    assert row.accuracy.found == 100
    assert (row.time, row.problem) == (None, "while timed: RuntimeError: not today")


def test_what_cannot_be_installed_together_is_installed_one_by_one(monkeypatch):
    environment = Path("peers-environment")
    environment.mkdir()
    commands = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        fails = "-r" in command or command[-1].startswith("dlib")
        return SimpleNamespace(returncode=int(fails), stdout="", stderr="a\nERROR: no wheel\n" if fails else "")

    monkeypatch.setattr(subprocess, "run", run)
    assert client.make_environment(environment, "python3.12") == {"dlib-bin": "ERROR: no wheel"}
    assert commands[0] == ["python3.12", "-m", "venv", "peers-environment"]
    assert commands[1][-2:] == ["-r", str(client.REQUIREMENTS)]
    assert len(commands) == 2 + 7


def test_an_environment_is_made_once(monkeypatch):
    environment = Path("peers-environment")
    environment.mkdir()
    commands = []
    done = SimpleNamespace(returncode=0, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or done)
    assert [client.make_environment(environment) for _ in range(2)] == [{}, {}]
    assert len(commands) == 2


# --- the table ------------------------------------------------------------------------------------------------------

ROWS = [
    Row("ours", GIVEN, "1", Accuracy(16, 100, 5, 3, 4, 2), Time(0.5, 0.4, 0.6, 1)),
    Row("dlib", OWN, "dlib-bin 1", Accuracy(16, 92.31, 6.254, 16, 5, 13), Time(1, 1, 1, 1), Time(8, 7, 9, 0.99)),
    Row("mtcnn", "-", problem="no a|b"),
]


def test_csv():
    assert table.as_csv(ROWS).splitlines() == [
        "method,boxes,faces,found,nme,failures,corrected_nme,corrected_failures,landmarks_ms_median,landmarks_ms_low,"
        "landmarks_ms_high,detection_ms_median,detection_ms_low,detection_ms_high,cores,version,problem",
        "ours,published,16,100,5,3,4,2,0.5,0.4,0.6,,,,1,1,",
        "dlib,own detector,16,92.31,6.254,16,5,13,1,1,1,8,7,9,0.99,dlib-bin 1,",
        "mtcnn,-,,,,,,,,,,,,,,,no a|b",
    ]


def test_markdown():
    lines = table.as_markdown(ROWS).splitlines()
    assert len({len(line) for line in lines}) == 1  # lined up
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]] == [
        ["ours", GIVEN, "100.0", "5.00 / 3.0", "4.00 / 2.0", "0.50 (0.40, 0.60)", "-", "1.00", ""],
        ["dlib", OWN, "92.3", "6.25 / 16.0", "5.00 / 13.0", "1.00 (1.00, 1.00)", "8.00 (7.00, 9.00)", "0.99", ""],
        ["mtcnn", "-", "-", "-", "-", "-", "-", "-", "no a/b"],
    ]


def test_the_picture_shows_what_was_measured_and_names_what_was_not():
    figure = table.draw(ROWS, "title")
    for axes, values in zip(figure.axes, ((5, 6.254), (4, 5), (2, 13)), strict=True):
        places = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() in ("o", "s")]
        assert places == list(zip((0.5, 8), values, strict=True))
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[:2] == ["ours", "dlib"]
    assert words[-1] == "mtcnn: not measured"


# --- as a user runs it ----------------------------------------------------------------------------------------------


def test_one_command(tiny_mtfl, capsys):
    if not (weights_folder() / DEFAULT_MODEL).is_dir():
        pytest.skip(f"there is no weights/{DEFAULT_MODEL}")
    arguments = ["--data-root", str(tiny_mtfl), "--count", "5", "--rounds", "1", "--timed", "2", "--out", "out"]
    assert benchmark_peers.main([DEFAULT_MODEL, "--peers", "dlib", *arguments]) == 0
    with Path("out/peers.csv").open(newline="", encoding="utf-8") as file:
        ours, searched, dlib = csv.DictReader(file)
    assert [ours["method"], ours["boxes"], ours["faces"]] == [f"ours: {DEFAULT_MODEL}", GIVEN, "5"]
    assert float(ours["landmarks_ms_median"]) > 0
    assert searched["boxes"] == OWN
    assert float(searched["detection_ms_median"]) > 0
    assert dlib["method"] == "dlib"
    assert dlib["problem"] == "no environment in .venv-peers: run once with --make-environment"
    text = Path("out/peers.md").read_text(encoding="utf-8")
    assert text.startswith("5 faces of MTFL's test split. Milliseconds a face on one thread: median")
    assert text.strip() == capsys.readouterr().out.strip()
    height, width = cv2.imread("out/peers.png").shape[:2]
    assert (height, width) == (576, 1512)


def test_accuracy_alone(tiny_mtfl, capsys):
    if not (weights_folder() / DEFAULT_MODEL).is_dir():
        pytest.skip(f"there is no weights/{DEFAULT_MODEL}")
    assert benchmark_peers.main(["--peers", "--data-root", str(tiny_mtfl), "--rounds", "0", "--out", "out"]) == 0
    assert {path.name for path in Path("out").iterdir()} == {"peers.csv", "peers.md"}
    assert "Not timed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "error: set FACEMTL_DATA"),
        (["--data-root", "nowhere"], "error: nowhere/testing.txt is missing"),
        (["--dlib-side", "--data-root", "nowhere"], "error: no environment in .venv-peers"),
    ],
)
def test_errors_of_the_user_are_one_sentence(arguments, words, capsys):
    assert benchmark_peers.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_an_unknown_model_is_an_error(tiny_mtfl, capsys):
    assert benchmark_peers.main(["smal", "--peers", "--data-root", str(tiny_mtfl)]) == 2
    assert "error: unknown model 'smal'" in capsys.readouterr().err


def test_fewer_faces_are_spread_over_the_file():
    assert benchmark_peers.spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert benchmark_peers.spread([1, 2], 4) == benchmark_peers.spread([1, 2], None) == [1, 2]


def test_the_side_of_dlibs_rectangles(samples):
    found = {"owner": np.array([0, 0, 1]), "boxes": np.zeros((3, 4), np.float32)}
    for i, (owner, side, away) in enumerate([(0, 1.25, 0), (0, 9.0, 999), (1, 1.35, 0)]):
        x1, y1, x2, y2 = benchmark_peers.face_box(samples[owner])
        x, y, half = (x1 + x2) / 2 + away, (y1 + y2) / 2, side * (x2 - x1) / 2
        found["boxes"][i] = x - half, y - half, x + half, y + half
    words = benchmark_peers.dlib_side(SimpleNamespace(found=lambda mode, samples: found), samples)
    assert words == "dlib's rectangles: 1.300 of the face box, median of 2 held-out faces"
