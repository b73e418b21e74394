"""Parts made by this process or by several, one a pipe: a worker ends when the process that started it is gone."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from facemtl.annotate.plan import Plan
from facemtl.annotate.work import Annotator
from facemtl.errors import FaceMTLError, OutputError
from facemtl.predictor import Predictor

MOST_DEATHS = 3  # of processes over one part
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
        done: hears of inputs that are done; a part that died with its process counts again.

    Raises:
        OutputError: ``MOST_DEATHS`` processes died over one part.
        FaceMTLError, OSError: what a process met.
    """
    if processes == 1:
        annotator = Annotator(plan, open_predictor)
        for part in parts:
            annotator.make(part, done)
        return
    left = deque(parts)
    with ExitStack() as stack:
        workers = [_Worker(plan, open_predictor, stack) for _ in range(min(processes, len(parts)))]
        _share_out(workers, left, done)


def _share_out(workers: list[_Worker], left: deque[int], done: Callable[[int], None]) -> None:
    deaths: Counter[int] = Counter()
    for worker in workers:
        worker.begin(left)
    while any(worker.part is not None for worker in workers):
        ready = wait([worker.pipe for worker in workers if worker.part is not None])
        for worker in workers:
            if worker.pipe not in ready:
                continue
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                part, code = worker.part, worker.end()
                deaths[part] += 1
                done(-worker.counted)
                if deaths[part] == MOST_DEATHS:
                    first, items = worker.plan.items(part)
                    names = f"{items[0].source} to {items[-1].source}"
                    raise OutputError(
                        f"{MOST_DEATHS} processes died over part {part} (inputs {first} to {first + len(items) - 1}, "
                        f"{names}), the last with exit code {code}: is memory short, or one of them harmful?"
                    ) from None
                left.appendleft(part)
                worker.start()
                worker.begin(left)
                continue
            if isinstance(message, Exception):
                raise message
            if isinstance(message, int):
                worker.counted += message
                done(message)
            else:
                worker.begin(left)


class _Worker:
    """A process that makes parts, and the part it is at."""

    def __init__(self, plan: Plan, open_predictor: Callable[[], Predictor], stack: ExitStack) -> None:
        self.plan = plan
        self._open_predictor = open_predictor
        self.part: int | None = None
        self.counted = 0  # inputs of the part that were reported
        self.pipe: Connection
        self._process: SpawnProcess
        self.start()
        stack.callback(self.end)

    def start(self) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(theirs, self.plan, self._open_predictor), daemon=True)
        self._process.start()
        theirs.close()  # so that its death closes the pipe

    def begin(self, left: deque[int]) -> None:
        self.part, self.counted = (left.popleft() if left else None), 0
        if self.part is not None:
            try:
                self.pipe.send(self.part)
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
            annotator.make(pipe.recv(), pipe.send)
            pipe.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the main process has no more, or is gone
    except (FaceMTLError, OSError) as error:
        pipe.send(error)
