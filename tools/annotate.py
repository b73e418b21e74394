#!/usr/bin/env python3
"""Annotate folders, globs, photos, videos, CSV / Parquet lists, WebDataset shards, zip and tar files.

    python tools/annotate.py photos --out faces
    python tools/annotate.py clip.mp4 'shards/faces-{000..012}.tar' list.csv photos.zip --out faces --processes 4
    python tools/annotate.py photos --out faces --format jsonl --schema ibug68
    python tools/annotate.py photos --out /shared/faces --engine ray --processes 32

Killed or interrupted, the same command goes on; the result is that of an uninterrupted run. Every input has one row:
its faces, none, or the reason why it failed. docs/annotate.md describes the rows.
Exit status: 0 every input has its row (also where some failed), 2 something is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError

# Our own sentence about a file that cannot be read is enough; OpenCV and FFmpeg read these when they are loaded.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="what to annotate; relative to the current folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result; made if missing")
    parser.add_argument("--format", default="parquet", help="parquet or jsonl (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="how many work at once (default: %(default)s)")
    parser.add_argument("--engine", default="local", help="local or ray (default: %(default)s)")
    parser.add_argument("--part-size", type=int, default=256, help="inputs a file (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="pictures at once (default: %(default)s)")
    parser.add_argument("--column", default="image", help="of lists: names the files (default: %(default)s)")
    parser.add_argument("--model", help="a shipped model or a path (default: the best shipped one)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process (default: %(default)s)")
    parser.add_argument("--tasks", help="only these, such as landmarks,pose (default: all of the model)")
    parser.add_argument("--schema", help="which points, such as ibug68, where the model has several")
    parser.add_argument("--passes", type=int, help="how often a face is looked at (default: as the model says)")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, help="also mirrored (default: as the model)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args()

    # --help must not wait for OpenCV and onnxruntime.
    from facemtl.annotate import PredictorOptions, annotate
    from facemtl.weights import DEFAULT_MODEL

    try:
        options = PredictorOptions(
            args.model or DEFAULT_MODEL,
            args.device,
            args.threads,
            tuple(args.tasks.split(",")) if args.tasks else None,
            args.schema,
            args.passes,
            args.flip,
        ).pinned()
        found = annotate(
            args.inputs,
            args.out,
            options,
            options.identity(),
            format=args.format,
            processes=args.processes,
            engine=args.engine,
            part_size=args.part_size,
            batch=args.batch,
            column=args.column,
            progress=not args.quiet,
        )
    except KeyboardInterrupt:
        print(f"interrupted; the same command continues in {args.out}", file=sys.stderr)
        return 130
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{found.inputs} inputs: {found.with_faces} with {found.faces} faces, {found.without} without, "
        f"{found.failed} failed; in {args.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
