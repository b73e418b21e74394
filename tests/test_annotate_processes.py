"""Several processes share parts, and what they write is what one writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotate_fakes import (
    BRIGHT,
    DARK,
    DEADLY,
    GREY,
    Deadly,
    open_fake,
    write_pictures,
)

from facemtl.annotate import on_processes as processes_module
from facemtl.annotate import work as work_module
from facemtl.annotate.inputs import Item, find_items
from facemtl.annotate.on_processes import Shares, make_parts
from facemtl.annotate.plan import Plan
from facemtl.annotate.rows import read_part
from facemtl.annotate.work import Annotator


def plan_of(folder: Path, values: list[int], part_size: int, batch: int) -> Plan:
    """For pictures of these values, beside them."""
    write_pictures(folder / "in", values)
    settings = {"part_size": part_size, "batch": batch, "format": "jsonl", "base": str(folder)}
    return Plan.make(folder, settings, find_items(["in"], folder))


@pytest.mark.parametrize(
    ("processes", "sizes"),
    [
        # A quarter of what is left for two, in batches of 4 rounded down, one at least: 40 / 4 = 10 -> 8, 32 / 4 = 8,
        # then 4 that the part of 20 still has, 20 / 4 = 5 -> 4, 16 / 4 = 4, 12 / 4 = 3 -> 4 ...
        (2, [8, 8, 4, 4, 4, 4, 4, 4]),
        (1, [20, 8, 4, 4, 4]),  # half of it: 40 / 2 = 20, 20 / 2 = 10 -> 8, 12 / 2 = 6 -> 4
        (9, [4] * 10),
    ],
)
def test_shares_are_large_at_first_and_small_in_the_end(tmp_path, processes, sizes):
    items = [Item(str(number)) for number in range(40)]
    plan = Plan.make(tmp_path, {"part_size": 20, "batch": 4, "format": "jsonl"}, items)
    shares = Shares(plan, [0, 1], processes)
    taken = list(iter(shares.take, None))
    assert [len(share.items) for share in taken] == sizes
    assert [item for share in taken for item in share.items] == items
    assert [share.first for share in taken] == np.cumsum([0, *sizes[:-1]]).tolist()
    assert [share.part for share in taken] == [share.first // 20 for share in taken]


def test_the_900_pictures_of_the_benchmark_are_shared_evenly(tmp_path):
    """Parts of 256 would leave one of two processes with 512 of them: 1.76 times as fast as one at best."""
    items = [Item(str(number)) for number in range(900)]
    plan = Plan.make(tmp_path, {"part_size": 256, "batch": 16, "format": "jsonl"}, items)
    shares = Shares(plan, range(plan.parts), 2)
    had = [0, 0]
    while (share := shares.take()) is not None:
        had[had.index(min(had))] += len(share.items)  # who has done less is free first
    assert sum(had) == 900
    assert max(had) <= 450 + 16


def test_shares_of_missing_parts_only(tmp_path):
    items = [Item(str(number)) for number in range(9)]
    plan = Plan.make(tmp_path, {"part_size": 2, "batch": 4, "format": "jsonl"}, items)
    taken = list(iter(Shares(plan, [1, 4], 2).take, None))
    assert [(share.part, share.first, [item.source for item in share.items]) for share in taken] == [
        (1, 2, ["2", "3"]),
        (4, 8, ["8"]),
    ]


def test_who_makes_what_does_not_change_what_goes_to_the_network_together(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, [GREY, BRIGHT] * 5 + [DARK], part_size=11, batch=3)
    first, items = plan.items(0)
    seen = []

    class Spy:
        detector = None

        def batch(self, images):
            seen.append([int(image[-1, -1, 0]) for image in images])
            return [[] for _ in images]

    def batches(begin: int) -> list[list[int]]:
        seen.clear()
        made = list(Annotator(plan, Spy).rows(begin, items[begin:]))
        assert [len(rows) for rows in made] == [3, 3, 3, 2][begin // 3 :]
        assert [row["index"] for rows in made for row in rows] == list(range(begin, 11))
        return list(seen)

    for most in (work_module.BATCH_PIXELS, 2 * 30 * 32):  # small pictures, and such that two are too many
        monkeypatch.setattr(work_module, "BATCH_PIXELS", most)
        whole = batches(first)
        assert whole[0] == [GREY, BRIGHT, GREY][: 2 if most == 2 * 30 * 32 else 3]
        for begin in (3, 6, 9):
            assert batches(begin) == whole[-len(batches(begin)) :]


def test_of_a_share_only_what_a_process_died_over_is_made_again(tmp_path):
    values = [GREY, DARK, BRIGHT, DEADLY] + [GREY, BRIGHT, DARK, 90] * 3
    plan = plan_of(tmp_path, values, part_size=16, batch=2)
    assert len(Shares(plan, [0], 2).take().items) == 4  # two batches; a process dies over the second
    (tmp_path / "killer").touch()
    heard = []
    make_parts(plan, [0], Deadly(tmp_path / "killer"), 2, heard.append)
    assert not (tmp_path / "killer").exists()
    assert heard == [2] * 8  # nothing was counted, or made, twice
    made = read_part(plan.path(0))
    Annotator(plan, open_fake).make(0)
    assert made == read_part(plan.path(0))
    assert [len(row["faces"]) for row in made] == [1, 0, 2, 1] + [1, 2, 0, 1] * 3


def test_no_more_processes_start_than_there_are_batches(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, [GREY] * 3, part_size=2, batch=2)
    started = []

    class Counted(processes_module._Worker):
        def start(self) -> None:
            started.append(1)
            super().start()

    monkeypatch.setattr(processes_module, "_Worker", Counted)
    make_parts(plan, [0, 1], open_fake, 8, lambda count: None)
    assert len(started) == 2
    assert plan.missing() == []
