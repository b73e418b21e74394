#!/usr/bin/env python3
"""Do the auxiliary tasks help? Train every method of a comparison with every seed, judge it against single-task models.

    python tools/compare.py tools/recipes/compare_tcdcn.toml --jobs 2
    python tools/compare.py tools/recipes/compare_tcdcn.toml --tables-only     # from the kept results, no training

Interrupted, the same command continues. Each run leaves a small file of errors per face under --results; the tables
are written there too (<name>.md and <name>-<split>.png) and printed.
Exit status: 0 finished, 2 something is wrong with the input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from facemtl.data.sets import read_split
from facemtl.errors import FaceMTLError
from facemtl.files import write_beside
from facemtl.training.comparison import SPLITS, read_comparison
from facemtl.training.comparison_plots import forest_plot
from facemtl.training.comparison_runs import load_errors
from facemtl.training.engine import Interrupted
from facemtl.training.recipe import parse_settings
from facemtl.training.study import run_study, settle
from facemtl.training.verdicts import as_csv, as_markdown, judge


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
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    args = parser.parse_args()
    try:
        comparison = read_comparison(args.comparison, parse_settings(args.settings))
        results = args.results or Path("docs/results") / comparison.name
        runs = args.runs or Path("runs") / comparison.name
        if not args.tables_only:
            run_study(comparison, runs, results, args.cache, args.data_root, args.jobs)
        settings = [part for setting in args.settings for part in ("--set", setting)]
        command = shlex.join(["python", "tools/compare.py", args.comparison.as_posix(), *settings])
        text = f"# {comparison.name}\n\nMade by `{command}`.\n\n"
        settled = settle(comparison, results, args.data_root)
        found = []
        for split in SPLITS:
            data = next(iter(comparison.methods.values())).data
            samples = read_split(data, split, args.data_root)
            verdicts = judge(settled.main, load_errors(settled.main, results, split), samples, split)
            found.append(verdicts)
            text += as_markdown(verdicts) + "\n"
            picture, figure = results / f"{comparison.name}-{split}.png", forest_plot(verdicts)
            write_beside(picture, lambda path, figure=figure: figure.savefig(path, format="png", dpi=110))
        write_beside(results / f"{comparison.name}.md", lambda path, text=text: path.write_text(text, encoding="utf-8"))
        table = results / f"{comparison.name}.csv"
        write_beside(table, lambda path: path.write_text(as_csv(found), encoding="utf-8"))
        print(text)
    except (Interrupted, KeyboardInterrupt):
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
