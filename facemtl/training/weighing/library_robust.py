"""Methods of torchjd that need more than their class and its options: Byzantine-robust means, and smoothed weights.

Krum and the trimmed mean choose among several gradients. A step in which fewer tasks take part than they need follows
the mean of the gradients, or trims less: such steps come with missing labels, and a recipe cannot rule them out.

Left out are MoDo and SDMGrad, which the library has as weightings of J1 J2' from two independent batches of one step
(their convergence rests on it, and the library warns of anything else): every method here has the one batch that all
others have, so that equal steps stay an equal budget.
"""

from __future__ import annotations

from typing import Any

from facemtl.errors import ConfigError
from facemtl.training.weighing.library import Make, library_class

# What CR-MOGM may smooth: methods of the Gramian without a memory of their own -> class and fixed options.
SMOOTHED: dict[str, tuple[str, dict[str, Any]]] = {
    "aligned_mtl": ("AlignedMTLWeighting", {}),
    "cagrad": ("CAGradWeighting", {"c": 0.5}),
    "dualproj": ("DualProjWeighting", {}),
    "fairgrad": ("FairGradWeighting", {}),
    "imtl_g": ("IMTLGWeighting", {}),
    "mgda": ("MGDAWeighting", {}),
    "pcgrad": ("PCGradWeighting", {}),
    "upgrad": ("UPGradWeighting", {}),
}


def krum(n_byzantine: int, n_selected: int) -> Make:
    """Multi-Krum (Blanchard et al., NIPS 2017): the mean of the ``n_selected`` gradients that lie nearest to others."""
    kind, mean = library_class("aggregation", "Krum"), library_class("aggregation", "Mean")
    kind(n_byzantine, n_selected)  # the library says what it cannot do
    fewest = krum_needs({"n_byzantine": n_byzantine, "n_selected": n_selected})
    return lambda count: kind(n_byzantine, n_selected) if count >= fewest else mean()


def krum_needs(options: dict[str, Any]) -> int:
    """Tasks that Krum chooses among, at least."""
    return max(options["n_byzantine"] + 3, options["n_selected"])


def trimmed_mean(trim_number: int) -> Make:
    """Coordinate by coordinate, without the ``trim_number`` largest and smallest (Yin et al., ICML 2018)."""
    kind = library_class("aggregation", "TrimmedMean")
    return lambda count: kind(min(trim_number, (count - 1) // 2))


def trimmed_mean_needs(options: dict[str, Any]) -> int:
    """Tasks of which one is left, at least."""
    return max(2, 2 * options["trim_number"] + 1)


def cr_mogm(of: str, alpha: float) -> Make:
    """The weights of another method, as a running mean over the steps (Zhou et al., CR-MOGM, NeurIPS 2022).

    Args:
        of: a key of :data:`SMOOTHED`.
        alpha: what the mean keeps a step; 0 is the other method itself.

    Raises:
        ConfigError: another ``of``.
    """
    if of not in SMOOTHED:
        raise ConfigError(f"weighing_options.of = {of!r}, expected one of {', '.join(SMOOTHED)}")
    name, options = SMOOTHED[of]
    inner, smoother, outer = (
        library_class("aggregation", kind) for kind in (name, "CRMOGMWeighting", "GramianWeightedAggregator")
    )
    return lambda count: outer(smoother(inner(**options), alpha=alpha))
