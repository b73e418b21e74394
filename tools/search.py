#!/usr/bin/env python3
"""Search over recipe keys (sharing, widths, weights of losses, any other) with Optuna, under a time budget.

    python tools/search.py tools/recipes/search_tcdcn.toml --hours 2
    python tools/search.py tools/recipes/search_tcdcn.toml --hours 4     # continues: the budget counts all calls

Trials are judged by held-out training rows; test rows are never read. The best recipe is printed as TOML and written
to best.toml beside trials.csv and the storage file.
Exit status: 0 finished, 2 something is wrong with the input, 130 interrupted and saved.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path, help="a TOML file with recipe, metric and [ranges]")
    parser.add_argument("--hours", type=float, required=True, help="of training, over all calls with this --out")
    parser.add_argument("--trials", type=int, help="stop once so many are finished")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="for all trials"
    )
    parser.add_argument("--out", type=Path, help="folder of the search; default runs/<name of the file>")
    parser.add_argument("--data-root", type=Path, help="folder of the data set; default under $FACEMTL_DATA")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where cut patches are kept")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()

    # --help must not wait for torch.
    from facemtl.training.engine import Interrupted
    from facemtl.training.search import read_search, run_search
    from facemtl.training.training_data import TrainingData

    def read(recipe):
        channels = recipe.create_model().backbone.channels
        return TrainingData.read(recipe, channels, args.cache, args.data_root, not args.quiet)

    try:
        search = read_search(args.search, args.settings)
        out = args.out or Path("runs") / args.search.stem
        found = run_search(search, out, read, 3600 * args.hours, args.trials, args.device, not args.quiet)
        for number, reason in found.failed.items():
            print(f"trial {number} could not be trained: {reason}", file=sys.stderr)
        print(f"{found.finished} trials in {found.seconds / 3600:.2f} hours; {out / 'best.toml'}", file=sys.stderr)
        print(found.as_toml(), end="")
    except (Interrupted, KeyboardInterrupt):
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
