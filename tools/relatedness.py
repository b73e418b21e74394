#!/usr/bin/env python3
"""Which tasks help which? Add-one and leave-one-out tables, affinity and gradient cosines, and how these predict those.

    python tools/relatedness.py tools/recipes/relatedness_tcdcn.toml --jobs 2
    python tools/relatedness.py tools/recipes/relatedness_tcdcn.toml --tables-only   # from the kept results

Takes a comparison (tools/compare.py) with methods that differ in their tasks alone; interrupted, the same command
continues. Beside the results of the runs, --results keeps the snapshots of the trainings with all tasks, the tables
(<name>-relatedness.md) and their pictures.
Exit status: 0 finished, 2 something is wrong with the input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="a TOML file with seeds, [common] and [methods.<name>]")
    parser.add_argument("--results", type=Path, help="small result files; default docs/results/<name>")
    parser.add_argument("--runs", type=Path, help="trainings; default runs/<name>")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where cut patches are kept")
    parser.add_argument("--data-root", type=Path, help="folder of the data set; default under $FACEMTL_DATA")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; does not change the results")
    parser.add_argument("--engine", default="local", help="local, or ray: on a Ray cluster (default: %(default)s)")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    args = parser.parse_args()

    # --help must not wait for torch.
    from facemtl.data.sets import read_split
    from facemtl.files import write_beside
    from facemtl.training.comparison import SPLITS, read_comparison
    from facemtl.training.comparison_runs import load_errors, run_comparison
    from facemtl.training.engine import Interrupted
    from facemtl.training.relatedness import keep_watched, load_watched, relate, task_sets
    from facemtl.training.relatedness_report import as_markdown, relatedness_figure

    try:
        comparison = read_comparison(args.comparison)
        task_sets(comparison)  # says now what is missing, not after hours of training
        results = args.results or Path("docs/results") / comparison.name
        runs = args.runs or Path("runs") / comparison.name
        if not args.tables_only:
            run_comparison(comparison, runs, results, args.cache, args.data_root, args.jobs, args.engine)
            keep_watched(comparison, runs, results)
        text = (
            f"# {comparison.name}: relatedness\n\nMade by `python tools/relatedness.py {args.comparison.as_posix()}`.\n"
        )
        for split in SPLITS:
            samples = read_split(next(iter(comparison.methods.values())).data, split, args.data_root)
            errors = load_errors(comparison, results, split)
            related = relate(comparison, errors, samples, load_watched(comparison, results), split)
            text += f"\n{as_markdown(related)}"
            picture, figure = results / f"{comparison.name}-relatedness-{split}.png", relatedness_figure(related)
            write_beside(picture, lambda path, figure=figure: figure.savefig(path, format="png"))
        table = results / f"{comparison.name}-relatedness.md"
        write_beside(table, lambda path: path.write_text(text, encoding="utf-8"))
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
