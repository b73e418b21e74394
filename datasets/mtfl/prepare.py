#!/usr/bin/env python3
"""Check and unpack the published MTFL.zip, validate every row, print the counts.

python datasets/mtfl/prepare.py MTFL.zip            # unpacks into $FACEMTL_DATA/MTFL
python datasets/mtfl/prepare.py --check             # validates what is there
python datasets/mtfl/prepare.py --write-heldout     # makes facemtl/data/mtfl_heldout.txt anew
python datasets/mtfl/prepare.py --measure-frames    # where the points of the training file lie beside a detector's
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from facemtl.data.archives import folder_of_file, unpack_zip
from facemtl.data.mtfl import HELDOUT_ROWS, LABEL_ORDER, SCALED, read_mtfl_file
from facemtl.data.prepare import count_labels, run_prepare
from facemtl.data.sample import FaceSample
from facemtl.detect import MtcnnDetector
from facemtl.face import Face
from facemtl.files import write_beside
from facemtl.geometry import box_from_five, crop_matrix, warp_crop
from facemtl.image import read_image
from facemtl.training.predictions import face_of_sample

MAX_UNPACKED = 2 << 30  # bytes; the published set is far smaller
HELDOUT = 1000
MEASURED = 700  # faces of each kind
HASH_DISTANCE = 24  # of 256 bits: crops of one photo differ by at most 19 in this set, all others by at least 27


def unpack(archive: Path, root: Path) -> None:
    """Make ``root`` of the folder of training.txt in the archive; see :func:`facemtl.data.archives.unpack_zip`."""
    unpack_zip(archive, root, "MTFL.zip", folder_of_file(archive, "training.txt"), MAX_UNPACKED)


def describe(root: Path) -> str:
    """Counts per file, folder and label, as a table to print."""
    lines = []
    for name in ("training.txt", "testing.txt"):
        samples = read_mtfl_file(root, name)
        folders = Counter(s.group for s in samples)
        lines.append(f"{name}: {len(samples)} faces ({', '.join(f'{k} {v}' for k, v in sorted(folders.items()))})")
        lines += [count_labels(samples, task) for task in sorted(LABEL_ORDER)]
        if name == "testing.txt":
            lines.append(f"  boxes: {sum(s.box is not None for s in samples)}")
    return "\n".join(lines)


def face_hash(sample: FaceSample) -> np.ndarray:
    """256 bits of the face: is a pixel of a 17 x 16 grey crop brighter than its left neighbour (difference hash)."""
    image = read_image(sample.image)
    crop = warp_crop(image, crop_matrix(box_from_five(sample.points), 68, scale=1.2), 68)
    small = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), (17, 16), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1])


def duplicate_groups(samples: list[FaceSample]) -> np.ndarray:
    """(N,) a group number per sample; near-duplicate pictures share one."""
    hashes = np.stack([face_hash(s) for s in samples])
    group = np.arange(len(samples))
    for i in range(len(samples)):
        near = np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]).sum(axis=1) <= HASH_DISTANCE) + i + 1
        for j in near:
            group[group == group[j]] = group[i]
    return group


def choose_heldout(samples: list[FaceSample], seed: int = 0) -> list[int]:
    """Row numbers, counted from 1: each folder in its share, whole groups of near-duplicates."""
    group = duplicate_groups(samples)
    rng = np.random.default_rng(seed)
    folders: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        folders[sample.group].append(row)
    chosen: list[int] = []
    for name in sorted(folders):
        rows = np.array(folders[name])
        want = round(HELDOUT * len(rows) / len(samples))
        taken: list[int] = []
        for row in rng.permutation(rows):
            members = np.flatnonzero(group == group[row]).tolist()
            if row in taken or len(taken) + len(members) > want:
                continue
            if all(samples[m].group == name for m in members):
                taken += members
        chosen += taken
    return sorted(row + 1 for row in chosen)


def write_heldout(root: Path, path: Path) -> int:
    rows = choose_heldout(read_mtfl_file(root, "training.txt"))
    header = (
        "# Rows of MTFL's training.txt, counted from 1, that no shipped weight trains on.\n"
        "# Stratified by folder, near-duplicates together; made by datasets/mtfl/prepare.py --write-heldout.\n"
    )
    write_beside(path, lambda partial: partial.write_text(header + "".join(f"{row}\n" for row in rows)))
    return len(rows)


def describe_and_write_heldout(root: Path) -> str:
    target = Path(__file__).parents[2] / "facemtl" / "data" / HELDOUT_ROWS
    return f"{describe(root)}\nwrote {write_heldout(root, target)} held-out rows to {target.name}"


def measure_frames(root: Path) -> str:
    """How far the middle of the labelled points lies from that of the default detector's, by folder and kind of row."""
    kinds: dict[str, list[FaceSample]] = defaultdict(list)
    for sample in read_mtfl_file(root, "training.txt"):
        whole = "pictures as they were" if (sample.points % 1 == 0).all() else "scaled pictures"
        kinds[f"{sample.group}, {whole}" if sample.group == SCALED else sample.group].append(sample)
    detector, rng = MtcnnDetector(), np.random.default_rng(0)
    lines = ["label minus detection, middle of the five points, pixels: median and its standard error"]
    for kind, samples in sorted(kinds.items()):
        drawn = [samples[i] for i in rng.permutation(len(samples))[:MEASURED]]
        found = [(s, _over(detector, s)) for s in tqdm(drawn, desc=kind, unit="face", disable=None)]
        apart = np.array([s.points.mean(axis=0) - (box[:2] + box[2:]) / 2 for s, box in found if box is not None])
        middle = np.median(apart, axis=0)
        # Of a median: 1.25 standard deviations, each 1.48 times the median distance from the middle.
        error = 1.25 * 1.48 * np.median(np.abs(apart - middle), axis=0) / np.sqrt(len(apart))
        x, y = (f"{m:+.2f} +- {e:.2f}" for m, e in zip(middle, error, strict=True))
        lines.append(f"  {kind}: {len(apart)} faces, x {x}, y {y}")
    return "\n".join(lines)


def _over(detector: MtcnnDetector, sample: FaceSample) -> np.ndarray | None:
    """The detected box, whose middle is that of the detector's own five points, over the labelled face."""
    faces = [
        Face(box, 1.0, np.zeros((0, 2), np.float32), "mtfl5") for box in detector.detect(read_image(sample.image)).boxes
    ]
    face = face_of_sample(faces, sample)
    return None if face is None else face.box


def main() -> int:
    more = {
        "--write-heldout": ("make the list of held-out rows anew", describe_and_write_heldout),
        "--measure-frames": ("measure the points beside those of the default detector", measure_frames),
    }
    print(run_prepare(__doc__, "mtfl", "MTFL.zip", unpack, describe, more))
    return 0


if __name__ == "__main__":
    sys.exit(main())
