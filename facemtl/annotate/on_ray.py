"""Parts made by Ray Data, on one machine or a cluster whose nodes all see the inputs and the annotation's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facemtl.annotate.plan import Plan
from facemtl.annotate.work import Annotator
from facemtl.errors import DependencyError
from facemtl.predictor import Predictor

BLOCKS = 16  # of parts for each actor: what dies with an actor is small, and many blocks cost


class _Actor:
    """What Ray Data keeps alive between blocks, and starts again elsewhere if its process or node is lost."""

    def __init__(self, plan: Plan, open_predictor: Callable[[], Predictor]) -> None:
        self._plan = plan
        self._annotator = Annotator(plan, open_predictor)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for part in batch["part"].tolist():
            if not self._plan.path(part).exists():  # a block of which a lost actor had made a part
                self._annotator.make(part)
        return batch


def make_parts_on_ray(
    plan: Plan,
    parts: Sequence[int],
    open_predictor: Callable[[], Predictor],
    actors: int,
    done: Callable[[int], None],
) -> None:
    """Make these parts; arguments as :func:`facemtl.annotate.on_processes.make_parts`, with actors of one CPU each.

    Uses the Ray that is running or that RAY_ADDRESS names, and starts one on this machine otherwise.

    Raises:
        DependencyError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise DependencyError("the engine ray needs Ray: pip install 'facemtl[scale]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False  # ours counts inputs
    items: list[dict[str, Any]] = [{"part": part} for part in parts]
    rows = ray.data.from_items(items, override_num_blocks=min(len(items), BLOCKS * actors)).map_batches(
        _Actor,
        batch_size=1,
        concurrency=min(actors, len(items)),
        fn_constructor_args=(plan, open_predictor),
        num_cpus=1,
    )
    for row in rows.iter_rows():
        done(plan.size(int(row["part"])))
