#!/usr/bin/env python3
"""Do the auxiliary tasks help? Train every method of a comparison with every seed, judge it against single-task models.

    python tools/compare.py tools/recipes/compare_tcdcn.toml --jobs 2
    python tools/compare.py tools/recipes/compare_tcdcn.toml --tables-only     # from the kept results, no training

Interrupted, the same command continues. Each run leaves small files of errors per face and of costs under --results;
what is read is written there too (<name>.html, .md, .csv and pictures), and the Markdown printed.
Exit status: 0 finished, 2 something is wrong with the input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError
from facemtl.training.comparison import read_comparison
from facemtl.training.comparison_report import write_tables
from facemtl.training.engine import Interrupted
from facemtl.training.recipe import parse_settings
from facemtl.training.study import run_study, settle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="a TOML file with seeds, [common] and [methods.<name>]")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="for every method"
    )
    parser.add_argument("--results", type=Path, help="small result files; default docs/results/<name>")
    parser.add_argument("--runs", type=Path, help="trainings; default runs/<name>")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where cut patches are kept")
    parser.add_argument("--data-root", type=Path, help="folder of the data set; default under $FACEMTL_DATA")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; does not change the results")
    parser.add_argument("--engine", default="local", help="local, or ray: on a Ray cluster (default: %(default)s)")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    args = parser.parse_args()
    try:
        comparison = read_comparison(args.comparison, parse_settings(args.settings))
        results = args.results or Path("docs/results") / comparison.name
        runs = args.runs or Path("runs") / comparison.name
        if not args.tables_only:
            run_study(comparison, runs, results, args.cache, args.data_root, args.jobs, args.engine)
        settings = [part for setting in args.settings for part in ("--set", setting)]
        command = shlex.join(["python", "tools/compare.py", args.comparison.as_posix(), *settings])
        settled = settle(comparison, results, args.data_root)
        print(write_tables(settled, results, args.data_root, command))
    except (Interrupted, KeyboardInterrupt):
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
