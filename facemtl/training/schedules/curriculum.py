"""From easy faces to hard ones (Bengio et al., ICML 2009): what an epoch draws from, and which losses of a step count.

How much is admitted follows the competence of Platanios et al. (NAACL 2019), a square root: c(t) = sqrt(c0^2 + (1 -
c0^2) t / T), with T ``epochs`` and c0 ``start``; from T on everything is. What is easy is said in one of two ways:

* ``pose_size``: faces that look into the camera and are large in their picture. Each epoch draws from the easiest
  share of every data set, more often than once where it needs to, so that its length stays.
* ``loss``: self-paced (Kumar, Packer and Koller, NIPS 2010), by what the network makes of each face just now. Of the
  faces of a batch that label a task, the share with the smallest losses counts for that task, at least one; the others
  are taken for unlabelled. Nothing is remembered from step to step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from facemtl.data.cache import CropCache
from facemtl.data.sample import MISSING
from facemtl.face import ATTRIBUTES
from facemtl.head_pose import angles_from_five
from facemtl.landmarks import SCHEMAS

BY = ("pose_size", "loss")
DEFAULTS = {"by": "", "start": 0.3, "epochs": 0.0}  # epochs: half of the training's
CLASS_STEP = 30.0  # degrees between neighbouring classes of pose

FaceLosses = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Attributes:
    by: one of :data:`BY`.
    start: share admitted at first, over 0, at most 1.
    epochs: after which everything is.
    """

    by: str
    start: float
    epochs: float

    def share(self, epoch: float) -> float:
        """What is admitted after this many epochs."""
        return math.sqrt(min(1.0, self.start**2 + (1 - self.start**2) * epoch / self.epochs))

    def admitted(self, count: int, epoch: float) -> int:
        """Of ``count`` faces, how many; rounded up."""
        return math.ceil(round(self.share(epoch) * count, 9))


def easiest_first(cache: CropCache, rows: np.ndarray) -> np.ndarray:
    """Rows of a set (repeated ones too), the easy ones first; of equally hard ones in their order."""
    return rows[np.argsort(difficulty(cache)[rows], kind="stable")]


def difficulty(cache: CropCache) -> np.ndarray:
    """(N,) float64 from 0 to 1: the mean of a face's rank by how far it is turned and of its rank by smallness.

    A rank is the share of the set that is easier, ties halved; 0.5 where the set does not say.
    """
    smallness = np.full(len(cache), np.nan) if cache.sides is None else -cache.sides.astype(np.float64)
    return (_ranks(turned(cache)) + _ranks(smallness)) / 2


def turned(cache: CropCache) -> np.ndarray:
    """(N,) float64 degrees between each face and the camera, left or right: of its angles, else of its class of pose
    (a class is 30 degrees from the next), else as five points show it; NaN without any."""
    count = len(cache)
    yaw = np.full(count, np.nan) if cache.angles is None else cache.angles[:, 0].astype(np.float64)
    labels = cache.labels.get("pose", np.full(count, MISSING))
    middle = (len(ATTRIBUTES["pose"]) - 1) / 2
    by_class = np.where(labels == MISSING, np.nan, (labels - middle) * CLASS_STEP)
    by_points = angles_from_five(SCHEMAS[cache.schema].to_five(cache.points))[:, 0]
    return np.abs(np.where(np.isfinite(yaw), yaw, np.where(np.isfinite(by_class), by_class, by_points)))


def _ranks(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    ranks = np.full(len(values), 0.5)
    if known.any():
        ranks[known] = (rankdata(values[known]) - 0.5) / known.sum()
    return ranks


def self_paced(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], share: float, losses: FaceLosses
) -> dict[str, Tensor]:
    """The targets of a batch without those of its hardest faces, task by task; no value is read from the device.

    Args:
        outputs: of the network, (N, ...) each.
        targets: task -> (N, ...) targets.
        share: of the labelled faces of a task that stay, rounded up.
        losses: outputs and targets -> output -> loss, a scalar, as they are for a batch.
    """
    with torch.no_grad():
        alone = torch.func.vmap(
            lambda out, aim: dict(losses(_batch_of_one(out), _batch_of_one(aim))), randomness="error"
        )
        per_face = alone({name: out.detach() for name, out in outputs.items()}, dict(targets))
        kept = {}
        for task, aim in targets.items():
            known = torch.isfinite(aim) if aim.is_floating_point() else aim != MISSING
            known = known.reshape(len(aim), -1).any(dim=1)
            loss = torch.where(known, per_face[task], torch.inf)
            places = loss.argsort(stable=True).argsort()
            easy = places < torch.ceil(share * known.sum() - 1e-6)
            missing = torch.nan if aim.is_floating_point() else MISSING
            kept[task] = torch.where(easy.reshape(-1, *[1] * (aim.ndim - 1)), aim, missing)
    return kept


def _batch_of_one(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[None] for name, value in values.items()}
