"""All ways of weighing tasks, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from facemtl.errors import ConfigError, DependencyError
from facemtl.landmarks import POINTS
from facemtl.models.face_model import FaceModel
from facemtl.training.weighing.base import Weighing
from facemtl.training.weighing.dynamic import Dynamic
from facemtl.training.weighing.fixed import Fixed
from facemtl.training.weighing.gradnorm import GradNorm
from facemtl.training.weighing.library import Aggregated, Make, OneATask, Scalarized, with_options
from facemtl.training.weighing.library_robust import cr_mogm, krum, krum_needs, trimmed_mean, trimmed_mean_needs
from facemtl.training.weighing.shared import ON
from facemtl.weights import SIGMA

if TYPE_CHECKING:
    from facemtl.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Method:
    """One way of weighing.

    Attributes:
        kind: its class.
        options: name -> default; values are of the default's type, numbers at least 0.
        make: for a class of the library, its options -> number of tasks -> an instance.
        several: it needs two tasks.
        positive: it divides by losses or takes their logarithms.
        needs: options -> fewest tasks, where it is not two.
    """

    kind: type[Weighing]
    options: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[..., Make] | None = None
    several: bool = True
    positive: bool = False
    needs: Callable[[dict[str, Any]], int] | None = None


def _scalarizer(name: str, options: Mapping[str, Any] | None = None, **always: Any) -> Method:
    return Method(Scalarized, options or {}, with_options("scalarization", name, **always), positive=True)


def _aggregator(name: str, options: Mapping[str, Any] | None = None, **always: Any) -> Method:
    # On parameters: what the methods are defined on, and where tasks of different faces can conflict.
    return Method(Aggregated, {"on": "parameters", **(options or {})}, with_options("aggregation", name, **always))


WEIGHINGS: dict[str, Method] = {
    "fixed": Method(Fixed, several=False),
    "dynamic": Method(Dynamic, {"rho": 2.0, "tau": 2, "sigma2": 0.01, "covariance": 1e-5}),
    "gradnorm": Method(GradNorm, {"alpha": 1.5, "rate": 0.025, "on": "features"}, positive=True),
    # Scalarizers.
    "uw": Method(OneATask, make=with_options("scalarization", "UW", shape=int), several=False),
    "imtl_l": Method(OneATask, make=with_options("scalarization", "IMTLL", shape=int), several=False, positive=True),
    "dwa": _scalarizer("DWA", {"temperature": 2.0}),
    "famo": _scalarizer("FAMO", {"lr": 0.025, "weight_decay": 1e-3}, shape=int),
    "stch": _scalarizer("STCH", {"mu": 0.1}),
    "geometric_mean": _scalarizer("GeometricMean"),
    "random_loss": _scalarizer("Random"),
    "cosmos": _scalarizer("COSMOS", {"lambda_": 1.0}, weights=torch.ones),
    "pbi": _scalarizer("PBI", {"theta": 5.0}, weights=torch.ones),
    # Aggregators.
    "aligned_mtl": _aggregator("AlignedMTL", {"scale_mode": "min"}),
    "cagrad": _aggregator("CAGrad", {"c": 0.5}),
    "config": _aggregator("ConFIG"),
    "cr_mogm": Method(Aggregated, {"on": "parameters", "of": "upgrad", "alpha": 0.9}, cr_mogm),
    "dualproj": _aggregator("DualProj"),
    "excess_mtl": _aggregator("ExcessMTL", {"robust_step_size": 1.0, "n_warmup_steps": 0}),
    "fairgrad": _aggregator("FairGrad", {"alpha": 1.0}),
    "graddrop": _aggregator("GradDrop"),
    "gradvac": _aggregator("GradVac", {"beta": 0.5}),
    "imtl_g": _aggregator("IMTLG"),
    "krum": Method(Aggregated, {"on": "parameters", "n_byzantine": 0, "n_selected": 1}, krum, needs=krum_needs),
    "mean": _aggregator("Mean"),
    "mgda": _aggregator("MGDA", {"epsilon": 1e-3, "max_iters": 100}),
    "nash_mtl": _aggregator("NashMTL", {"max_norm": 1.0, "update_weights_every": 1, "optim_niter": 20}, n_tasks=int),
    "pcd": _aggregator("PCD", {"tau": 0.02, "beta": 0.999}),
    "pcgrad": _aggregator("PCGrad"),
    "random_gradient": _aggregator("Random"),
    "sum": _aggregator("Sum"),
    "trimmed_mean": Method(Aggregated, {"on": "parameters", "trim_number": 1}, trimmed_mean, needs=trimmed_mean_needs),
    "upgrad": _aggregator("UPGrad"),
}


def check_weighing(recipe: Recipe) -> None:
    """Raise unless the weighing of a recipe can work.

    Raises:
        ConfigError: what has to be changed.
        DependencyError: it is a method of a library that is not installed.
    """
    start = f"recipe {recipe.name!r}: weighing = {recipe.weighing!r}"
    if recipe.weighing not in WEIGHINGS:
        raise ConfigError(f"{start}, expected one of {', '.join(WEIGHINGS)}")
    method = WEIGHINGS[recipe.weighing]
    unknown = sorted(set(recipe.weighing_options) - set(method.options))
    if unknown:
        raise ConfigError(f"{start} has no options {unknown}, it has {', '.join(method.options) or 'none'}")
    for key, value in recipe.weighing_options.items():
        if not _fits(key, value, method.options[key]):
            expected = f"one of {', '.join(ON)}" if key == "on" else _expected(method.options[key])
            raise ConfigError(f"recipe {recipe.name!r}: weighing_options.{key} = {value!r}, expected {expected}")
    factors = recipe.weights
    weighed = [task for task in recipe.tasks if factors.get(task, 1.0)]
    if method.several and len(weighed) < 2:
        raise ConfigError(
            f"{start} needs two tasks or more with weights over 0, there is {weighed}: add tasks, or set weighing = "
            "'fixed'"
        )
    if method.positive and recipe.uncertainty and factors.get(SIGMA, 1.0):
        raise ConfigError(
            f"{start} needs losses over 0, and that of {SIGMA} can be under: set uncertainty = false, or "
            f"weights.{SIGMA} = 0"
        )
    if recipe.weighing == "dynamic" and recipe.weighing_options.get("tau", 1) < 1:
        raise ConfigError(f"recipe {recipe.name!r}: weighing_options.tau = 0, expected 1 epoch or more")
    if recipe.weighing == "dynamic" and POINTS not in weighed:
        raise ConfigError(f"{start} needs landmarks, its main task, among the tasks with a weight over 0")
    options = {**method.options, **recipe.weighing_options}
    if method.needs and len(weighed) < (fewest := method.needs(options)):
        raise ConfigError(
            f"{start} with these options chooses among {fewest} tasks or more, there are {len(weighed)} with weights "
            f"over 0: add tasks, or lower {' or '.join(k for k in method.options if k != 'on')} in weighing_options"
        )
    if options.get("covariance") and recipe.points_head == "heatmap":
        raise ConfigError(
            f"{start}: heat maps have no last layer on the shared features: set weighing_options.covariance = 0, or "
            "another points_head"
        )
    if method.make:
        _library_instance(start, method, options)


def create_weighing(recipe: Recipe, model: FaceModel) -> Weighing:
    """The weighing of a recipe for a network in training.

    Raises:
        ConfigError: as :func:`check_weighing`, which a recipe has been through.
    """
    method = WEIGHINGS[recipe.weighing]
    options = {**method.options, **recipe.weighing_options}
    kind = method.kind
    if method.make:
        own = {key: options.pop(key) for key in ("on",) if key in options}
        kind = partial(kind, make=method.make(**options), **own)
        options = {}
    return kind(recipe.tasks, recipe.weights, model, **options)


def _library_instance(start: str, method: Method, options: Mapping[str, Any]) -> None:
    """Let the library say what it cannot do, on two losses of 1 or two gradients at right angles."""
    example = torch.eye(2) if "on" in options else torch.ones(1 if method.kind is OneATask else 2)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "You are solving a parameterized problem that is not DPP"
            )  # NashMTL's speed
            method.make(**{key: value for key, value in options.items() if key != "on"})(len(example))(example)
    except ValueError as error:
        raise ConfigError(f"{start} with {dict(options)}: {error}") from None
    except ImportError as error:
        raise DependencyError(f"{start}: {error}") from None


def _fits(key: str, value: Any, default: Any) -> bool:
    if key == "on":
        return value in ON
    if isinstance(default, str):
        return isinstance(value, str)
    kinds = int if isinstance(default, int) else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < 1e300


def _expected(default: Any) -> str:
    if isinstance(default, str):
        return "a string"
    return "a whole number, at least 0" if isinstance(default, int) else "a number, at least 0"
