"""The picture of a watch file, and the tool that draws it."""

from functools import partial

import numpy as np
import pytest
from scripts import run_script

from facemtl.image import read_image
from facemtl.training.watch_plots import mean_cosines, smoothed, watch_figure
from facemtl.training.watching import WARNINGS, WATCH, as_csv, columns_of

TASKS = ("landmarks", "smile", "pose")
NAN = float("nan")


def rows(count: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(0)
    filled = [{name: float(rng.uniform(0.1, 1)) for name in columns_of(TASKS)} | {"step": i + 1} for i in range(count)]
    return [row | {"loss/pose": NAN, "cosine/smile/pose": NAN} if row["step"] % 2 else row for row in filled]


@pytest.fixture
def watch(monkeypatch):
    return partial(run_script, "tools/watch.py", monkeypatch)


def test_lines_are_means_of_the_last_known_values():
    values = np.array([NAN, 1.0, 3.0, NAN, 5.0, 7.0, 9.0])
    # The fifth from the end of the last is the third: 3, 5, 7 and 9.
    np.testing.assert_allclose(smoothed(values), [NAN, 1, 2, 2, 3, 4, 6])


def test_mean_cosines_by_hand():
    seen = [{"cosine/a/b": 0.5, "cosine/a/c": NAN}, {"cosine/a/b": -0.1, "cosine/a/c": NAN}]
    np.testing.assert_allclose(mean_cosines(seen, ["a", "b", "c"]), [[1, 0.2, NAN], [0.2, 1, NAN], [NAN, NAN, 1]])


def test_a_figure_has_a_line_a_task_and_a_matrix():
    figure = watch_figure(rows(12), "some run")
    losses, gradients, weights, undone, conflict, matrix = figure.axes
    for axes in (losses, gradients, weights):
        assert [line.get_label() for line in axes.lines if not line.get_label().startswith("_")] == list(TASKS)
    assert [line.get_label() for line in undone.lines if not line.get_label().startswith("_")] == ["smile", "pose"]
    assert len(conflict.lines) == 2
    assert len(matrix.texts) == 6
    assert figure.get_suptitle() == "some run"


def test_the_tool_draws_and_tells_the_warnings(watch, tmp_path, capsys):
    (tmp_path / WATCH).write_text(as_csv(columns_of(TASKS), rows(40)))
    (tmp_path / WARNINGS).write_text("step 4: smile costs landmarks\n")
    assert watch(tmp_path) == 0
    assert capsys.readouterr().out == f"step 4: smile costs landmarks\n{tmp_path / 'watch.png'}\n"
    assert read_image(tmp_path / "watch.png").std() > 5


def test_a_run_without_snapshots_is_one_sentence(watch, tmp_path, capsys):
    assert watch(tmp_path) == 2
    assert "watch.csv cannot be read as the watch file of a run" in capsys.readouterr().err
    (tmp_path / WATCH).write_text(as_csv(columns_of(TASKS), []))
    assert watch(tmp_path) == 2
    assert capsys.readouterr().err == f"{tmp_path / WATCH} has no snapshot yet\n"
