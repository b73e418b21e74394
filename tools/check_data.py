#!/usr/bin/env python3
"""Look for mistakes in labelled faces: broken pictures, leaks, points in a wrong order, shifted coordinates, doubts.

    python tools/check_data.py mtfl
    python tools/check_data.py table=my/faces mtfl:test       # a set of one's own, and whether it leaks into another
    python tools/check_data.py mtfl --fail-on warning --allow duplicate same_box
    python tools/check_data.py --self-test mtfl               # mistakes planted in real faces: what is caught

Each set is NAME, NAME=FOLDER, and :SPLIT,SPLIT after it for some of its splits. Writes report.html (one file; it shows
faces of the sets) and report.json to --out, and prints a summary.

Exit status: 0 nothing as bad as --fail-on, 1 something, 2 the check could not be made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from facemtl.checking.check import check
from facemtl.checking.findings import KINDS, SEVERITIES
from facemtl.checking.planting import self_test, table
from facemtl.checking.report import summary, worst, write_check
from facemtl.checking.sets import read_parts
from facemtl.errors import FaceMTLError
from facemtl.files import make_folder, write_beside
from facemtl.weights import DEFAULT_MODEL


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    model = None if args.model == "none" else args.model
    try:
        parts = [part for name in args.sets for part in read_parts(name)]
        if args.self_test:
            print(table(self_test(parts, args.faces, model, args.threads, bar)))
            return 0
        out = args.out or Path("runs/check") / "-".join(dict.fromkeys(part.name for part in parts))
        make_folder(out)  # said now, not after all faces
        report = check(parts, model, args.threads, args.asked, bar)
        text = json.dumps(report.plain(), indent=1, allow_nan=False)
        write_beside(out / "report.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))
        write_check(report, out / "report.html", ", ".join(args.sets), lambda kinds: bar(kinds, "report"))
    except FaceMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(summary(report))
    print(f"\nwritten to {out}")
    found = worst(report.findings, args.allow)
    limit = len(SEVERITIES) if args.fail_on == "never" else SEVERITIES.index(args.fail_on)
    return int(found is not None and args.fail_on != "never" and SEVERITIES.index(found) <= limit)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="SET", help="NAME, NAME=FOLDER, with :SPLIT,SPLIT for some splits")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"what is asked about each face, or none (default: {DEFAULT_MODEL})"
    )
    parser.add_argument("--asked", type=positive, metavar="N", help="ask about N faces of each split (default: all)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of the network (default: 1)")
    parser.add_argument("--out", type=Path, help="folder to write to (default: runs/check/NAME)")
    parser.add_argument(
        "--fail-on", choices=(*SEVERITIES, "never"), default="error", help="exit with 1 from here on (default: error)"
    )
    parser.add_argument(
        "--allow", nargs="+", default=[], choices=KINDS, metavar="KIND", help="kinds that are known and never fail"
    )
    parser.add_argument("--self-test", action="store_true", help="plant mistakes in copies and print what is caught")
    parser.add_argument(
        "--faces", type=positive, default=300, metavar="N", help="of each split, for --self-test (default: 300)"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def bar(things: Iterable, what: str) -> Iterable:
    return tqdm(things, desc=what, disable=None, leave=False)


if __name__ == "__main__":
    sys.exit(main())
