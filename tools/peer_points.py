#!/usr/bin/env python3
"""What MediaPipe's face mesh says of a recipe's training pictures, in the conventions of its data sets.

    python tools/benchmark_peers.py --make-environment    # once
    python tools/peer_points.py tools/recipes/facemtl-s.toml --out runs/mesh

A recipe with peer_points = "runs/mesh" then learns it.
For each kind of points that a set of the recipe has, a linear map from the mesh to them is learned from its training
faces; what it says of those is learned from other faces. A face whose box overlaps the set's too little is another one,
and left out. Prints what the maps are worth on held-out faces, which nothing was learned from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from peers.client import WORKER, PeerError, environment_python
from peers.habits import Habit, crossed
from peers.methods import Peer

from facemtl.data.sample import FaceSample, face_box
from facemtl.data.sets import read_split
from facemtl.errors import BoxError, FaceMTLError
from facemtl.geometry import box_from_five
from facemtl.landmarks import SCHEMAS
from facemtl.matching import iou
from facemtl.training.metrics import nme
from facemtl.training.peer_points import write_peer_points
from facemtl.training.recipe import read_recipe

PEER = "facemesh-refined"
SAME_FACE = 0.4  # intersection over union of two boxes


def found_points(peer: Peer, samples: Sequence[FaceSample]) -> np.ndarray:
    """(N, M, 2) float64 points of the peer in each picture, NaN where it finds no face."""
    found = peer.found("detect", samples)
    points = np.full((len(samples), *found["points"].shape[1:]), np.nan)
    points[found["owner"]] = found["points"]
    return points


def without_others(points: np.ndarray, schema: str, samples: Sequence[FaceSample]) -> np.ndarray:
    """The points, NaN where they are not those of the sample's face."""
    kept = points.copy()
    for own, five, sample in zip(kept, SCHEMAS[schema].to_five(points), samples, strict=True):
        try:
            same = iou(np.float64(box_from_five(five)), np.float64(face_box(sample))) >= SAME_FACE
        except BoxError:  # no face was found
            same = False
        if not same:
            own[:] = np.nan
    return kept


def marked_points(samples: Sequence[FaceSample]) -> np.ndarray:
    return np.stack([sample.points for sample in samples]).astype(np.float64)


def say(peer: Peer, sets: Mapping[str, Sequence[FaceSample]]) -> dict[str, dict[str, np.ndarray]]:
    """Set -> schema -> (N, K, 2) float32 points of its training faces; prints what they are worth."""
    meshes = {name: found_points(peer, samples) for name, samples in sets.items()}
    said: dict[str, dict[str, np.ndarray]] = {name: {} for name in sets}
    for teacher, marked in sets.items():
        if not any(np.isfinite(sample.points).any() for sample in marked):
            continue
        schema = marked[0].schema
        habit = Habit.learned(meshes[teacher], marked_points(marked))
        for name, samples in sets.items():
            own = name == teacher
            points = crossed(meshes[name], marked_points(samples)) if own else habit(meshes[name])
            said[name][schema] = np.float32(without_others(points, schema, samples))
            known = np.isfinite(said[name][schema]).all(axis=(1, 2)).sum()
            print(f"{schema} of {name}: {known} of {len(samples)} faces")
        others = read_split(teacher, "heldout")
        points = without_others(habit(found_points(peer, others)), schema, others)
        errors = 100 * nme(points, marked_points(others), SCHEMAS[schema].eye_pair)
        known = np.isfinite(errors)
        print(f"{schema} of held-out {teacher}: {known.sum()} of {len(known)} faces, NME {errors[known].mean():.2f} %")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="whose data sets are looked at")
    parser.add_argument("--out", type=Path, default=Path("runs/mesh"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--environment", type=Path, default=Path(".venv-peers"), help="(default: %(default)s)")
    args = parser.parse_args()
    try:
        recipe = read_recipe(args.recipe)
        sets = {name: read_split(name, "train") for name in (recipe.mix or (recipe.data,))}
        peer = Peer(PEER, [str(environment_python(args.environment)), str(WORKER), PEER])
        try:
            said = say(peer, sets)
        finally:
            peer.close()
        for name, points in said.items():
            write_peer_points(args.out / f"{name}.npz", sets[name], points)
    except (FaceMTLError, PeerError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
