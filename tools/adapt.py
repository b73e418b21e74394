#!/usr/bin/env python3
"""Adapt a trained model to a new task or landmark scheme from few labelled faces, from four starts, and compare them.

    python tools/adapt.py runs/tcdcn/model.safetensors landmarks_ibug68 --data udacity68 --source-data mtfl
    python tools/adapt.py runs/no-glasses/model.safetensors glasses --data mtfl --source-data mtfl --shots 5 20 80

Starts: untrained, a new head on the frozen backbone, fine-tuning, and fine-tuning from a Reptile initialisation that
was meta-trained on the source's data without the new task. Errors are those of held-out rows, of people who are not
among the labelled. The table is printed and written to adaptation.md; interrupted, the same command continues.
Exit status: 0 finished, 2 something is wrong with the input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="model.safetensors of a training without the new task")
    parser.add_argument("task", help="an attribute, or points such as landmarks_ibug68")
    parser.add_argument("--data", required=True, help="data set that labels the new task")
    parser.add_argument("--source-data", default="mtfl", help="data set that Reptile's small tasks are cut from")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 20, 80], help="labelled faces, of each class")
    parser.add_argument("--draws", type=int, default=10, help="of the labelled faces")
    parser.add_argument("--steps", type=int, default=100, help="of each adaptation")
    parser.add_argument("--rounds", type=int, default=300, help="episodes of Reptile")
    parser.add_argument("--meta-shots", type=int, default=10, help="labelled faces of an episode, of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the results; default runs/adapt-<task>")
    parser.add_argument("--data-root", type=Path, help="folder of --data; default under $FACEMTL_DATA")
    parser.add_argument("--source-root", type=Path, help="folder of --source-data; default under $FACEMTL_DATA")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where cut patches are kept")
    parser.add_argument("--patch-size", type=int, default=96, help="side of the cached patches in pixels")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()

    # --help must not wait for torch.
    from facemtl.data.cache import build_cache
    from facemtl.data.sets import read_split
    from facemtl.files import write_beside
    from facemtl.training.adaptation import Adaptation, Plan, adapted_recipe, as_markdown

    try:
        numbers = {name: getattr(args, name) for name in ("draws", "steps", "rounds", "meta_shots", "seed")}
        plan = Plan(args.source, args.data, args.task, tuple(args.shots), **numbers)
        channels = adapted_recipe(plan).create_model().backbone.channels
        target, heldout, source = (
            build_cache(read_split(name, split, root), args.cache, args.patch_size, channels, not args.quiet)
            for name, split, root in (
                (args.data, "train", args.data_root),
                (args.data, "heldout", args.data_root),
                (args.source_data, "train", args.source_root),
            )
        )
        out = args.out or Path("runs") / f"adapt-{args.task}"
        text = as_markdown(plan, Adaptation(plan, target, heldout, source, out).run(not args.quiet))
        write_beside(out / "adaptation.md", lambda partial: partial.write_text(text, encoding="utf-8"))
        print(text, end="")
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
