"""All ways of sharing, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from facemtl.errors import ModelError
from facemtl.models.sharing.base import Sharing, split_at
from facemtl.models.sharing.branches import Branches
from facemtl.models.sharing.cross_stitch import CrossStitch
from facemtl.models.sharing.dirty import Dirty
from facemtl.models.sharing.group_lasso import GroupLasso
from facemtl.models.sharing.l2_mean import ToTheMean
from facemtl.models.sharing.mmoe import MMoE
from facemtl.models.sharing.mtan import MTAN
from facemtl.models.sharing.pairwise import Pairwise
from facemtl.models.sharing.ple import PLE
from facemtl.models.sharing.stages import stages_of
from facemtl.models.sharing.trace_norm import TraceNorm

HARD = "hard"  # with the split at the end a plain network, which stands in no wrapper
END = "end"


@dataclass(frozen=True, slots=True)
class Way:
    """One way of sharing.

    Attributes:
        kind: its class.
        options: name -> default; a value is of the default's type.
        least: name of a numeric option -> the smallest value it may have.
        several: it needs two tasks.
    """

    kind: type[Sharing]
    options: Mapping[str, Any] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    several: bool = False


def _soft(kind: type[Sharing], **strengths: float) -> Way:
    return Way(kind, {"split": 0, **strengths}, dict.fromkeys(strengths, 0), several=True)


SHARINGS: dict[str, Way] = {
    HARD: Way(Branches, {"split": END}),
    "separate": Way(Branches),
    "soft_mean": _soft(ToTheMean, strength=1e-3),
    "soft_pairwise": _soft(Pairwise, strength=2e-4),
    "soft_group": Way(GroupLasso, {"split": 0, "strength": 1e-5, "q": 2.0}, {"strength": 0, "q": 1}, several=True),
    "soft_dirty": _soft(Dirty, block=2e-5, sparse=1e-5),
    "soft_trace": _soft(TraceNorm, strength=1e-4),
    "cross_stitch": Way(CrossStitch, {"own": 0.9, "per_channel": True}, {"own": 0}, several=True),
    "mtan": Way(MTAN, {"reduction": 4}, {"reduction": 1}),
    "mmoe": Way(MMoE, {"experts": 4, "split": -1}, {"experts": 1}),
    "ple": Way(
        PLE,
        {"shared_experts": 1, "task_experts": 1, "split": -2},
        {"shared_experts": 1, "task_experts": 1},
    ),
}


def options_of(name: str, options: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """The options of a way of sharing, with their defaults.

    Raises:
        ModelError: an unknown name or option (the known ones are listed), a value that cannot be, or too few tasks.
    """
    if name not in SHARINGS:
        raise ModelError(f"sharing = {name!r}, expected one of {', '.join(SHARINGS)}")
    way = SHARINGS[name]
    unknown = sorted(set(options) - set(way.options))
    if unknown:
        raise ModelError(f"sharing = {name!r} has no options {unknown}, it has {', '.join(way.options) or 'none'}")
    for key, value in options.items():
        if not _fits(key, value, way):
            raise ModelError(f"sharing_options.{key} = {value!r}, expected {_expected(key, way)}")
    if way.several and len(tasks) < 2:
        raise ModelError(
            f"sharing = {name!r} needs two tasks or more, there is {list(tasks)}: add tasks, or set 'hard'"
        )
    return {**way.options, **options}


def is_plain(name: str, options: Mapping[str, Any]) -> bool:
    """Whether all tasks read the features of one plain backbone."""
    return name == HARD and options.get("split", END) == END


def trunk_of(name: str, options: Mapping[str, Any]) -> bool:
    """Whether there is one tensor that all tasks read and that all they share comes before."""
    return is_plain(name, options) or (issubclass(SHARINGS[name].kind, Branches) and not shares_nothing(name, options))


def shares_nothing(name: str, options: Mapping[str, Any]) -> bool:
    """Whether no parameter is reached by the losses of two tasks."""
    if is_plain(name, options) or not issubclass(SHARINGS[name].kind, Branches):
        return False
    return {**SHARINGS[name].options, **options}.get("split", 0) == 0


def shared_backbone(
    name: str,
    options: Mapping[str, Any],
    backbone: nn.Module,
    make: Callable[[], nn.Module],
    tasks: Sequence[str],
) -> nn.Module:
    """What stands in the place of a backbone: itself where all of it is shared, else a :class:`Sharing`.

    Args:
        name: a key of :data:`SHARINGS`.
        options: of that way.
        backbone: the first network of the kind.
        make: builds another one.
        tasks: of the network.

    Raises:
        ModelError: as :func:`options_of`, a split where there is none, or a backbone that cannot be cut.
    """
    chosen = options_of(name, options, tasks)
    if is_plain(name, chosen):
        return backbone
    if name == HARD:
        stages = stages_of(backbone)
        if split_at(stages, chosen["split"], least_left=0) == len(stages.modules):
            return backbone
    return SHARINGS[name].kind(backbone, make, tasks, **chosen)


def _fits(key: str, value: Any, way: Way) -> bool:
    default = way.options[key]
    if (key, value) in (("q", "inf"), ("split", END)):
        return key == "q" or default == END
    if isinstance(default, bool):
        return isinstance(value, bool)
    kinds = int if key == "split" or isinstance(default, int) else int | float
    within = isinstance(value, kinds) and not isinstance(value, bool) and way.least.get(key, -1e9) <= value < 1e9
    return within and not (key == "own" and value > 1)


def _expected(key: str, way: Way) -> str:
    default = way.options[key]
    if key == "split":
        end = " or 'end'" if default == END else ""
        return f"a whole number of stages that are shared, negative ones from the end{end}"
    if isinstance(default, bool):
        return "true or false"
    kind = "a whole number" if isinstance(default, int) else "a number"
    if key == "own":
        return f"{kind} from 0 to 1"
    return f"{kind}, at least {way.least[key]:g}" + (", or 'inf'" if key == "q" else "")
