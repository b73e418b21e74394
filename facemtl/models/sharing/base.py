"""What every way of sharing has in common: it stands in the place of a backbone and gives each task features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from facemtl.errors import ModelError
from facemtl.models.sharing.stages import Stages

# What a task reads on its way: the crops, then what each stage gives it: maps of half the side first, and a quarter;
# the features last, and before them the map that heat maps are read from.
Read = Sequence[Tensor]


class Sharing(nn.Module):
    """Several tasks on stages of one kind of backbone.

    Attributes:
        own: task -> what no other task's loss reaches; all else is shared.
        trunk: the stages that all tasks read first, of which the last gives what is the same for all of them; or None.

    Args:
        backbone: a network of the kind, of which sizes are taken.
        tasks: in the order of the network.
    """

    def __init__(self, backbone: nn.Module, tasks: Sequence[str]) -> None:
        super().__init__()
        self.input_size, self.channels, self.features = backbone.input_size, backbone.channels, backbone.features
        self.tasks = tuple(tasks)
        self.own = nn.ModuleDict()
        self.trunk: nn.Sequential | None = None

    def by_task(self, images: Tensor) -> dict[str, Read]:
        """Standardised crops (N, C, S, S) -> task -> what it reads on its way, at last its features (N, F)."""
        raise NotImplementedError


def split_at(stages: Stages, split: int | str, least_left: int = 1) -> int:
    """How many stages are shared: ``end`` is all, a negative number counts from there.

    Raises:
        ModelError: there are not so many, or too few are left.
    """
    count = len(stages.modules)
    found = count if split == "end" else split + count * (split < 0)
    if not 0 <= found <= count - least_left:
        raise ModelError(
            f"sharing_options.split = {split!r}: the backbone has {count} stages, expected a whole number from "
            f"{-count} to {count - least_left}"
            + (" or 'end'" if least_left == 0 else f": {least_left} or more must be left to the tasks")
        )
    return found
