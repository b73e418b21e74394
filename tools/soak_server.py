"""Ten thousand requests to `facemtl serve`, good and bad: no error that was not provoked, and memory that stays flat.

    python tools/soak_server.py --out out/soak_server

starts a service of its own (a process at a free port, of this machine alone), sends it faces from several clients at
once, and between them what it must refuse; checks every status, and that each client gets the faces of its own picture;
reads the memory of the process (resident set, Linux) as it goes. Prints the counts and the growth, writes soak.json and
soak.png, and exits with 1 if anything was not as expected or memory grew by more than --most MiB after the first fifth.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from facemtl.data.synthetic import render_face

PICTURES = 24
MAX_BYTES = 1_000_000  # of a request, so that those over it are soon sent
BOUNDARY = "soak"
READY = "(Ctrl-C ends)"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: its share among all, the status that it must get, and how to make its body and headers."""

    share: float
    status: int
    make: Callable[[bytes], tuple[bytes, dict[str, str]]]


def form(data: bytes, field_name: str = "image", boxes: str | None = None) -> tuple[bytes, dict[str, str]]:
    """A body as browsers send it."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field_name}"; filename="a.png"\r\n\r\n'
    body = part.encode() + data
    if boxes is not None:
        body += f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n{boxes}'.encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return body + f"\r\n--{BOUNDARY}--\r\n".encode(), headers


@cache
def _huge(_: bytes) -> tuple[bytes, dict[str, str]]:
    return form(cv2.imencode(".png", np.zeros((6000, 5000), np.uint8))[1].tobytes())


KINDS = {
    "a face": Kind(0.75, 200, form),
    "a face with its box": Kind(0.08, 200, lambda picture: form(picture, boxes="[[20, 20, 140, 140]]")),
    "too many bytes": Kind(0.02, 413, lambda picture: form(bytes(3 * MAX_BYTES // 2))),
    "too many pixels": Kind(0.02, 413, _huge),
    "no picture": Kind(0.03, 415, lambda picture: form(b"hello")),
    "no form": Kind(0.02, 415, lambda picture: (picture, {"Content-Type": "image/png"})),
    "half a picture": Kind(0.03, 422, lambda picture: form(picture[: len(picture) // 2])),
    "no such field": Kind(0.02, 422, lambda picture: form(picture, "photo")),
    "a box that is none": Kind(0.02, 422, lambda picture: form(picture, boxes="[[5, 5, 5, 5]]")),
    "another origin": Kind(0.01, 403, lambda picture: (form(picture)[0], form(picture)[1] | {"Origin": "null"})),
}


@dataclass(slots=True)
class Record:
    """What happened so far; one lock for all clients."""

    counts: Counter = field(default_factory=Counter)
    busy: int = 0
    wrong: list[str] = field(default_factory=list)
    answers: dict[int, str] = field(default_factory=dict)
    memory: list[tuple[int, float, float]] = field(default_factory=list)  # requests, seconds, MiB
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> int:
    args = _arguments()
    pictures = [cv2.imencode(".png", render_face(seed, 160).image)[1].tobytes() for seed in range(PICTURES)]
    record = Record()
    start = time.monotonic()
    with served(args.serve) as (port, pid):
        clients = [
            threading.Thread(target=_client, args=(port, pid, number, args, pictures, record, start))
            for number in range(args.clients)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        record.memory.append((args.requests, time.monotonic() - start, resident_mib(pid)))
    return _report(record, args, time.monotonic() - start)


@contextmanager
def served(options: list[str]) -> Iterator[tuple[int, int]]:
    """A service of its own; its port and process id."""
    command = [sys.executable, "-m", "facemtl", "serve", "--port", "0", "--max-bytes", str(MAX_BYTES), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            if READY not in line:
                raise SystemExit(f"the service did not start: {line}")
            yield int(line.split("/")[2].rpartition(":")[2]), process.pid
        finally:
            process.terminate()


def resident_mib(pid: int) -> float:
    """Memory of a process that is in RAM, MiB (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"the service, process {pid}, has ended")


def _client(
    port: int, pid: int, number: int, args: argparse.Namespace, pictures: list[bytes], record: Record, start: float
) -> None:
    """Every client sends its share of the requests, one after the other over one connection."""
    draw = random.Random(number)
    names, shares = list(KINDS), [kind.share for kind in KINDS.values()]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for i in range(number, args.requests, args.clients):
        if i % args.every < args.clients and i // args.every == len(record.memory):
            with record.lock:
                record.memory.append((i, time.monotonic() - start, resident_mib(pid)))
        name, picture = draw.choices(names, shares)[0], draw.randrange(PICTURES)
        body, headers = KINDS[name].make(pictures[picture])
        try:
            while (answer := _send(connection, body, headers))[0] == 503:  # the queue is full; ask again
                with record.lock:
                    record.busy += 1
                time.sleep(0.02)
        except (OSError, http.client.HTTPException) as error:
            with record.lock:
                record.wrong.append(f"{name}: {type(error).__name__} {error}")
            connection.close()
            continue
        with record.lock:
            _check(name, picture, *answer, record)
    connection.close()


def _send(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection.request("POST", "/predict", body, headers)
    with connection.getresponse() as answer:
        return answer.status, answer.read()


def _check(name: str, picture: int, status: int, body: bytes, record: Record) -> None:
    record.counts[f"{name}: {status}"] += 1
    if status != KINDS[name].status:
        record.wrong.append(f"{name}: {status} and not {KINDS[name].status}: {body[:200]!r}")
    elif name == "a face":
        faces = json.dumps(json.loads(body)["images"][0]["faces"])
        if record.answers.setdefault(picture, faces) != faces:
            record.wrong.append(f"{name}: picture {picture} has another answer than before")


def _report(record: Record, args: argparse.Namespace, seconds: float) -> int:
    record.memory.sort()
    sent = sum(record.counts.values())
    settled = next(mib for count, _, mib in record.memory if count >= args.requests / 5)
    first, last = record.memory[0][2], record.memory[-1][2]
    for name in sorted(record.counts):
        print(f"{record.counts[name]:7d}  {name}")
    print(f"{sent} requests in {seconds:.0f} s from {args.clients} clients; 503 and asked again: {record.busy}")
    print(
        f"{len(set(record.answers.values()))} different answers to {len(record.answers)} pictures, each always the same"
    )
    print(f"memory: {first:.0f} MiB at first, {settled:.0f} after a fifth, {last:.0f} at the end")
    print(f"errors that were not provoked: {len(record.wrong)}")
    for line in record.wrong[:20]:
        print(f"  {line}")
    args.out.mkdir(parents=True, exist_ok=True)
    summary = {
        "requests": sent,
        "seconds": round(seconds, 1),
        "counts": dict(record.counts),
        "busy": record.busy,
        "wrong": record.wrong,
        "memory_mib": [[count, round(second, 1), round(mib, 1)] for count, second, mib in record.memory],
    }
    (args.out / "soak.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    _plot(record, args.out / "soak.png")
    return int(bool(record.wrong) or last - settled > args.most)


def _plot(record: Record, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([count for count, _, _ in record.memory], [mib for _, _, mib in record.memory])
    axes.set(xlabel="requests", ylabel="resident memory of the service, MiB", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--every", type=int, default=100, help="requests between two looks at the memory")
    parser.add_argument("--most", type=float, default=20, help="MiB of growth after the first fifth that fail the run")
    parser.add_argument("--out", type=Path, default=Path("out/soak_server"))
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="last: options of facemtl serve")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
