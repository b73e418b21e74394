"""Rows made by this process or by several, each at the end of a pipe; this one writes the parts.

A worker ends when the process that started it is gone.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from operator import itemgetter
from typing import Any

from facemtl.annotate.inputs import Item
from facemtl.annotate.plan import Plan
from facemtl.annotate.rows import write_rows
from facemtl.annotate.work import Annotator
from facemtl.errors import FaceMTLError, OutputError
from facemtl.predictor import Predictor

MOST_DEATHS = 3  # of processes over one batch
PATIENCE = 2  # seconds for a batch
_SPAWN = multiprocessing.get_context("spawn")  # no process inherits threads or locks of onnxruntime in mid-air


def make_parts(
    plan: Plan,
    parts: Sequence[int],
    open_predictor: Callable[[], Predictor],
    processes: int,
    done: Callable[[int], None],
) -> None:
    """Make these parts.

    Args:
        plan: of the annotation.
        parts: their numbers.
        open_predictor: opens the predictor in each process.
        processes: how many; 1 is this one.
        done: hears how many inputs have become rows.

    Raises:
        OutputError: ``MOST_DEATHS`` processes died over one batch.
        FaceMTLError, OSError: what a process met.
    """
    if processes == 1:
        annotator = Annotator(plan, open_predictor)
        for part in parts:
            annotator.make(part, done)
        return
    batches = sum(-(-plan.size(part) // plan.settings["batch"]) for part in parts)
    processes = min(processes, batches)
    with ExitStack() as stack:
        workers = [_Worker(plan, open_predictor, stack) for _ in range(processes)]
        _share_out(workers, plan, Shares(plan, parts, processes), done)


@dataclass(slots=True)
class Share:
    """Inputs of one part that follow one another, and the index of the first of them."""

    part: int
    first: int
    items: list[Item]

    def cut(self, count: int) -> Share:
        """Its first ``count`` inputs, which are no longer its own."""
        taken = Share(self.part, self.first, self.items[:count])
        self.first += len(taken.items)
        del self.items[:count]
        return taken


class Shares:
    """Parts, in their order, in shares of whole batches: large ones at first, so that a process reads on in its archive
    or video, and the smaller the less is left, down to a batch, so that all processes end together.

    Args:
        plan: the plan.
        parts: numbers of the parts.
        processes: how many share them.
    """

    def __init__(self, plan: Plan, parts: Sequence[int], processes: int) -> None:
        self._plan, self._processes = plan, processes
        self._parts = deque(parts)
        self._left = sum(map(plan.size, parts))
        self._rest = Share(0, 0, [])  # of the part that has begun

    def take(self) -> Share | None:
        """The next one, or None."""
        if not self._rest.items:
            if not self._parts:
                return None
            part = self._parts.popleft()
            self._rest = Share(part, *self._plan.items(part))
        batch = self._plan.settings["batch"]
        share = self._rest.cut(max(1, self._left // (2 * self._processes) // batch) * batch)
        self._left -= len(share.items)
        return share


def _share_out(workers: list[_Worker], plan: Plan, shares: Shares, done: Callable[[int], None]) -> None:
    deaths: Counter[int] = Counter()
    made: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)  # rows of the parts that are not whole yet
    for worker in workers:
        worker.begin(shares.take())
    while busy := [worker for worker in workers if worker.share is not None]:
        ready = wait([worker.pipe for worker in busy])
        for worker in busy:
            if worker.pipe not in ready:
                continue
            share = worker.share
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                code = worker.end()
                deaths[share.first] += 1
                if deaths[share.first] == MOST_DEATHS:
                    batch = share.cut(plan.settings["batch"])
                    raise OutputError(
                        f"{MOST_DEATHS} processes died over inputs {batch.first} to {share.first - 1} "
                        f"({batch.items[0].source} to {batch.items[-1].source}), the last with exit code {code}: "
                        "is memory short, or one of them harmful?"
                    ) from None
                worker.start()
                worker.begin(share)
                continue
            if isinstance(message, Exception):
                raise message
            share.cut(len(message))
            if not share.items:
                worker.begin(shares.take())  # before the part is written: it need not wait for that
            rows = made[share.part]
            rows += message
            if len(rows) == plan.size(share.part):
                write_rows(plan.path(share.part), sorted(made.pop(share.part), key=itemgetter("index")))
            done(len(message))


class _Worker:
    """A process that makes rows, and what is left of the share that it is at."""

    def __init__(self, plan: Plan, open_predictor: Callable[[], Predictor], stack: ExitStack) -> None:
        self._plan = plan
        self._open_predictor = open_predictor
        self.share: Share | None = None
        self.pipe: Connection
        self._process: SpawnProcess
        self.start()
        stack.callback(self.end)

    def start(self) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(theirs, self._plan, self._open_predictor), daemon=True)
        self._process.start()
        theirs.close()  # so that its death closes the pipe

    def begin(self, share: Share | None) -> None:
        self.share = share
        if share is not None:
            try:
                self.pipe.send((share.first, share.items))
            except OSError:  # it has died: its end of the pipe, which is looked at next, says so
                return

    def end(self) -> int | None:
        """Stop it, at the latest after its batch; its exit code."""
        self.pipe.close()  # which it notices
        self._process.join(PATIENCE)
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _work(pipe: Connection, plan: Plan, open_predictor: Callable[[], Predictor]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one decides
    try:
        annotator = Annotator(plan, open_predictor)
        while True:
            for rows in annotator.rows(*pipe.recv()):
                pipe.send(rows)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the main process has no more, or is gone
    except (FaceMTLError, OSError) as error:
        pipe.send(error)
