#!/usr/bin/env python3
"""Train a model from a recipe.

    python tools/train.py tools/recipes/tcdcn.toml
    python tools/train.py tools/recipes/tcdcn.toml --set epochs=5 --set weights.pose=0.1 --out runs/short
    python tools/train.py tools/recipes/tcdcn.toml            # again: continues where it was stopped

On several processes of one machine, which share each batch (a GPU each, where there are any):

    torchrun --nproc-per-node=2 tools/train.py tools/recipes/tcdcn.toml

The run's folder holds the log (log.csv, tensorboard/), the checkpoint and, at the end, model.safetensors.
Exit status: 0 finished, 2 something is wrong with the input, 130 interrupted and saved, 1 another
process of the training has ended: the same command continues from the last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemtl.errors import FaceMTLError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a TOML file of tools/recipes")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="change a key")
    parser.add_argument("--out", type=Path, help="folder of the run; default runs/<name>")
    parser.add_argument("--data-root", type=Path, help="folder of the data set; default under $FACEMTL_DATA")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where cut patches are kept")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--max-steps", type=int, help="save and stop after this many steps of the whole training")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()

    # --help must not wait for torch.
    from facemtl.training.distributed import WorkerLost, joined
    from facemtl.training.engine import Interrupted, train
    from facemtl.training.recipe import read_recipe
    from facemtl.training.training_data import TrainingData

    try:
        recipe = read_recipe(args.recipe, args.settings)
        channels = recipe.create_model().backbone.channels
        out = args.out or Path("runs") / recipe.name
        with joined() as world:
            show = world.leads and not args.quiet
            with world.first():
                data = TrainingData.read(recipe, channels, args.cache, args.data_root, show)
            model = train(recipe, data, out, args.device, show, args.max_steps)
        if world.leads:
            print(model)
    except Interrupted as stop:
        if world.leads:
            print(stop, file=sys.stderr)
        return 130
    except WorkerLost as lost:
        print(lost, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped outside of the training steps; the same command continues", file=sys.stderr)
        return 130
    except (FaceMTLError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
