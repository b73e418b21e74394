#!/usr/bin/env python3
"""What each way of sharing makes of a recipe's network: parameters, of them shared, and multiply-adds a crop.

    python tools/sharing.py tools/recipes/tcdcn.toml
    python tools/sharing.py tools/recipes/tcdcn60.toml --set tasks='["landmarks", "pose"]'

Prints a Markdown table, with every way at its defaults. Multiply-adds are those of convolutions and matrix products.
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
    args = parser.parse_args()

    # --help must not wait for torch.
    from facemtl.models.sharing.registry import SHARINGS
    from facemtl.training.recipe import read_recipe
    from facemtl.training.sharing_costs import costs_of

    try:
        recipe = read_recipe(args.recipe, args.settings)
        rows = {name: costs_of(recipe, name) for name in SHARINGS}
    except FaceMTLError as error:
        print(error, file=sys.stderr)
        return 2
    print("| sharing | parameters | shared | multiply-adds |\n| --- | ---: | ---: | ---: |")
    for name, (parameters, shared, macs) in rows.items():
        print(f"| `{name}` | {parameters:,} | {shared:,} | {macs:,} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
