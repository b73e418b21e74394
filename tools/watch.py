#!/usr/bin/env python3
"""Draw what the tasks of a training did to each other, from the watch file of its folder; also while it runs.

    python tools/watch.py runs/tcdcn                  # writes runs/tcdcn/watch.png and prints the warnings of the run

Exit status: 0 finished, 2 something is wrong with the input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import DataError, FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a training")
    parser.add_argument("--out", type=Path, help="the picture, PNG; default watch.png in the run's folder")
    args = parser.parse_args()

    # --help must not wait for torch.
    from facemtl.files import write_beside
    from facemtl.training.watch_plots import watch_figure
    from facemtl.training.watching import WARNINGS, WATCH, read_watch

    try:
        rows = read_watch(args.run / WATCH)
        if not rows:
            raise DataError(f"{args.run / WATCH} has no snapshot yet")
        out, figure = args.out or args.run / "watch.png", watch_figure(rows, args.run.name)
        write_beside(out, lambda path: figure.savefig(path, format="png"))
        warnings = args.run / WARNINGS
        print(warnings.read_text(encoding="utf-8") if warnings.is_file() else "", end="")
        print(out)
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
