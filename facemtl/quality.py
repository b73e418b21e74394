"""``Face.quality``: the probability that a crop shows a face, from how unsure the network is of the face's points.

Where there is no face, or little of one, the network's own standard deviations of the points grow. On held-out rows of
MTFL their mean, over the side of the points' face box, tells faces from background almost without error, while the
disagreement of one pass with the next and the attributes' confidences add nothing to it
(``python tools/calibrate_quality.py`` prints the area under the curve, and how quality falls with blur, occlusion and
displaced crops). So quality is a logistic function of the logarithm of that one number, fitted for each model.
"""

from __future__ import annotations

import math

# model -> (slope, limit): log-odds = slope * log(limit / relative sigma). The lines that
# `python tools/calibrate_quality.py MODEL` printed, fitted on MTFL's training rows with as many faces as background.
FITTED: dict[str, tuple[float, float]] = {
    "facemtl-s": (12.62, 0.0213),
}
LARGEST = 30.0  # log-odds beyond which a probability of 64 bits says nothing more


def quality(model: str, relative_sigma: float) -> float | None:
    """Probability 0..1 that there is a face, with even odds beforehand.

    Args:
        model: name of the model (``ModelSpec.name``).
        relative_sigma: mean standard deviation of the main points over the side of their face box, over 0.

    Returns:
        None for a model that is not in :data:`FITTED`.
    """
    if model not in FITTED:
        return None
    slope, limit = FITTED[model]
    odds = slope * math.log(limit / max(relative_sigma, 1e-9))
    return 1 / (1 + math.exp(-min(max(odds, -LARGEST), LARGEST)))
