"""Calls that do not depend on each other, placed on the processes and GPUs of this machine, or on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import torch

from facemtl.errors import ConfigError, DependencyError

ENGINES = ("local", "ray")
PASSED_ON = ("FACEMTL_DATA",)  # environment variables that a process on another machine needs


def place(calls: Sequence[Callable[[], Any]], jobs: int, engine: str = "local") -> Iterator[Any]:
    """What each call returned, in the order in which they end.

    Args:
        calls: can be sent to another process.
        jobs: how many run at a time, at least 1.
        engine: ``local``: processes of this machine, its GPUs dealt out in turn. ``ray``: tasks of one CPU each, and of
            one GPU where there is any, on the Ray that is running or that RAY_ADDRESS names, else on this machine;
            paths must mean the same on all of its machines. A call whose process or machine is lost is made again.

    Raises:
        ConfigError: arguments out of their range.
        DependencyError: Ray is not installed.
        Exception: what a call raised; those that have not begun are not made.
    """
    check_placing(jobs, engine)
    return _locally(calls, jobs) if engine == "local" else _on_ray(calls, jobs)


def check_placing(jobs: int, engine: str) -> None:
    """Raise where :func:`place` would, for those who have much to prepare before.

    Raises:
        ConfigError: arguments out of their range.
    """
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1, found {jobs}")
    if engine not in ENGINES:
        raise ConfigError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")


def _locally(calls: Sequence[Callable[[], Any]], jobs: int) -> Iterator[Any]:
    gpus = torch.cuda.device_count()
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    yield from parallel(
        joblib.delayed(_call)(call, number % gpus if gpus else None) for number, call in enumerate(calls)
    )


def _call(call: Callable[[], Any], gpu: int | None = None) -> Any:
    if gpu is not None:
        torch.cuda.set_device(gpu)  # "cuda" means this one from here on
    return call()


def _on_ray(calls: Sequence[Callable[[], Any]], jobs: int) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise DependencyError("the engine ray needs Ray: pip install 'facemtl[scale]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    run = ray.remote(_call).options(
        num_cpus=1,
        num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
        runtime_env={"env_vars": {name: os.environ[name] for name in PASSED_ON if name in os.environ}},
    )
    left, running = list(reversed(calls)), []
    try:
        while left or running:
            while left and len(running) < jobs:
                running.append(run.remote(left.pop()))
            (ended,), running = ray.wait(running)
            yield ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        for call in running:
            ray.cancel(call, force=True)
