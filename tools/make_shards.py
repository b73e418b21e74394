#!/usr/bin/env python3
"""Write the splits of a data set as WebDataset shards.

    python tools/make_shards.py mtfl --out shards                        # shards/train, shards/heldout, shards/test
    python tools/make_shards.py mtfl --out shards --splits train --shard-size 500 --seed 7

facemtl/data/shards.py describes the format; a recipe reads them as the set `shards`.
Exit status: 0 written, 2 something is wrong with the input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set that recipes know")
    parser.add_argument("--out", type=Path, required=True, help="folder of the splits")
    parser.add_argument("--data-root", type=Path, help="folder of the data set; default under $FACEMTL_DATA")
    parser.add_argument("--splits", default="train,heldout,test", help="default: %(default)s")
    parser.add_argument("--shard-size", type=int, default=1000, help="pictures a shard (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the pictures (default: %(default)s)")
    args = parser.parse_args()
    if args.shard_size < 1:
        parser.error("--shard-size must be at least 1")

    from facemtl.data.sets import read_split
    from facemtl.data.shards import write_shards

    try:
        for split in args.splits.split(","):
            samples = read_split(args.data, split, args.data_root)
            shards = write_shards(samples, args.out / split, args.shard_size, args.seed)
            print(f"{split}: {len(samples)} faces in {len(shards)} shards, {args.out / split}")
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
