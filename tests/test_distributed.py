"""One training on several processes: the losses of one process, files written once, a lost worker that is named.

Tolerance: two workers add the same numbers in another order, so that the losses of a network without batch statistics
are those of one process but for the last bits of float32, which eight steps carry to 1e-4 of a loss at most.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_cases import CASES, case, case_data, forked
from tiny_training import read_log, results, tiny_set, train_quietly

from facemtl.errors import ConfigError
from facemtl.training.batches import StepDataset
from facemtl.training.distributed import World, current_world, joined
from facemtl.training.engine import CHECKPOINT, MODEL
from facemtl.training.watching import WATCH, read_watch

ROOT = Path(__file__).parent.parent
# Processes that import torch once and can be killed.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["__main__", "facemtl.training.engine"])
QUICK = ["summed", "pcgrad"]
TOLERANCE = {"upgrad": 1e-3}  # relative, of losses; the last bits move the weights of its solver by 0.4 %


@pytest.fixture(scope="module")
def alone(folder) -> Iterator[Path]:
    """Trainings by this process alone: the quick cases, others when they are asked for."""
    data = case_data(folder)
    for name in QUICK:
        assert train_quietly(case(name), data, folder / "alone" / name)
    return folder / "alone"


def start(size: int, *arguments: object) -> list:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [CHILDREN.Process(target=forked, args=(rank, size, port, *arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def finish(processes: list) -> list[int]:
    for process in processes:
        process.join(600)
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def together(folder, alone) -> Path:
    """The quick cases by two workers."""
    assert finish(start(2, folder, folder / "together", QUICK)) == [0, 0]
    return folder / "together"


def assert_same_losses(ours: Path, theirs: Path, name: str) -> None:
    wanted = {*case(name).tasks, "landmark_sigma"}
    (first,), (second,) = read_log(ours / name), read_log(theirs / name)
    compared = [key for key in first if key.split("/")[-1] in wanted]
    assert len(compared) >= 3 * len(case(name).tasks)
    for key in compared:
        assert float(first[key]) == pytest.approx(float(second[key]), rel=TOLERANCE.get(name, 1e-4), abs=1e-7), key
    one, two = (read_watch(folder / name / WATCH)[0] for folder in (ours, theirs))
    for key in one:  # of the first step, which nothing has carried on yet
        assert one[key] == pytest.approx(two[key], rel=1e-4, abs=1e-5, nan_ok=True), key


# --- by hand ---


def test_a_batch_is_dealt_out_in_order():
    assert [World(rank, 3).part(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ConfigError, match="batch_size = 8 cannot be dealt out to 3 workers: set a multiple of it"):
        World(0, 3).part(8)


def test_a_worker_makes_its_own_crops_of_the_batch_and_has_all_targets(folder):
    recipe, data = case("summed"), case_data(folder)

    def batches(part: slice, cut: bool):
        augmentation = recipe.augmentation(40, 1)
        dataset = StepDataset(data.train, augmentation, recipe.tasks, 8, seed=3, mix=recipe.mix, cut=cut, part=part)
        return [dataset[step] for step in (0, 5)]

    for cut in (True, False):
        for whole, part in zip(batches(slice(None), cut), batches(World(1, 2).part(8), cut), strict=True):
            for field in ("images", "rows", "matrices"):
                ours, theirs = getattr(part, field), getattr(whole, field)
                assert theirs is ours is None or torch.equal(ours, theirs[4:])
            for task, aim in whole.targets.items():
                torch.testing.assert_close(part.targets[task], aim, equal_nan=True, rtol=0, atol=0)


def test_without_torchrun_a_process_is_alone_and_nothing_is_exchanged():
    with joined() as world:
        assert world == current_world() == World(0, 1)
    rows, outputs = torch.tensor([[1.0, 2.0]]), {"smile": torch.tensor([[3.0]])}
    assert world.gradients(rows, "features") is rows
    assert world.own(rows[0]).tolist() == [1, 2]
    assert world.gathered(outputs)["smile"] is outputs["smile"]
    assert (world.any(True), world.any(False), world.from_first(lambda: 7)) == (True, False, 7)


def test_a_direction_on_features_is_cut_in_two():
    # Averaged over the two workers, what each finds from its own faces is the whole.
    direction = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert [World(rank, 2).own(direction).tolist() for rank in (0, 1)] == [[2, 4], [6, 8]]


# --- two workers ---


@pytest.mark.parametrize("name", QUICK)
def test_two_workers_have_the_losses_of_one(alone, together, name):
    assert_same_losses(together, alone, name)


def test_every_file_is_written_once(together, alone):
    for name in QUICK:
        files = [sorted(p.relative_to(f) for p in f.rglob("*") if "tfevents" not in p.name)
                 for f in (together / name, alone / name)]  # fmt: skip
        assert files[0] == files[1]
        assert len(list((together / name / "tensorboard").glob("events*"))) == 1


def test_workers_that_are_stopped_continue_to_the_same_bytes(folder, together):
    assert finish(start(2, folder, folder / "stopped", ["summed"], (2, 5, None))) == [0, 0]
    assert results(folder / "stopped" / "summed") == results(together / "summed")


def test_a_batch_that_cannot_be_dealt_out_is_an_error_for_all(folder):
    assert finish(start(3, folder, folder / "three", ["summed"])) == [1, 1, 1]
    assert not (folder / "three" / "summed" / CHECKPOINT).exists()


# --- torchrun ---


def torchrun(*arguments: object, **options: object) -> subprocess.Popen:
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_every_weighing_has_the_losses_of_one_process(folder, alone, tmp_path):
    process = torchrun(ROOT / "tests" / "distributed_cases.py", folder, tmp_path, *CASES)
    _, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors
    data = case_data(folder)
    for name in CASES:
        if not (alone / name).exists():
            assert train_quietly(case(name), data, alone / name)
        assert_same_losses(tmp_path, alone, name)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A working folder with a recipe and a data set."""
    folder = tmp_path_factory.mktemp("work")
    tiny_set(folder / "set")
    (folder / "small.toml").write_text('data = "mtfl_layout"\nbatch_size = 8\npatch_size = 64\nepochs = 2000\n')
    return folder


def long_training(work: Path, out: Path, *arguments: object) -> subprocess.Popen:
    tool = ("tools/train.py", work / "small.toml", "--data-root", work / "set", "--cache", work / "cache")
    # A session of its own, as a terminal gives: what is sent to torchrun reaches its workers through it alone.
    return torchrun(*tool, "--out", out, "--quiet", *arguments, cwd=ROOT, start_new_session=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while process.poll() is None and not path.exists():
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_ends_the_job_with_a_message_and_the_same_command_continues(work, tmp_path, killed):
    process = long_training(work, tmp_path / "run")
    wait_for(tmp_path / "run" / CHECKPOINT, process)
    os.kill(children(process.pid)[killed], signal.SIGKILL)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert output == ""
    assert "; the same torchrun command continues from the last checkpoint" in errors
    assert "SIGKILL" in errors  # torchrun says which
    assert not (tmp_path / "run" / MODEL).exists()

    done = len((tmp_path / "run" / "log.csv").read_text().splitlines()) - 1
    process = long_training(work, tmp_path / "run", "--max-steps", 2 * (done + 1))
    _, errors = process.communicate(timeout=600)
    assert f"stopped at step {2 * (done + 1)} of 4000; the same command continues" in errors
    assert errors.count("stopped at step") == 1
    epochs = [int(row["epoch"]) for row in read_log(tmp_path / "run")]
    assert epochs == list(range(1, done + 2))
    assert np.diff([row["step"] for row in read_watch(tmp_path / "run" / WATCH)]).min(initial=133) == 133


@pytest.mark.slow
def test_ctrl_c_stops_all_workers_at_the_same_step(work, tmp_path):
    process = long_training(work, tmp_path)
    wait_for(tmp_path / CHECKPOINT, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    assert output == ""
    assert errors.count("; the same command continues from") == 1
    assert errors.count("stopped at step ") == 1
