"""Pools and executors of two workers."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import time
from collections.abc import Iterator
from concurrent import futures
from functools import partial
from typing import Any

from mpipc._context import MechanismContext

from .messages import noise_array, time_trips
from .model import Sample

WORKERS = 2
MIB = 1 << 20


def nothing(_: object) -> None:
    """Do nothing with an argument of any size."""


def large_result(_: object) -> Any:
    """Return the same 1 MiB each time: making it is not what is measured."""
    global _array
    if _array is None:
        _array = noise_array(MIB)
    return _array


_array: Any = None


@contextlib.contextmanager
def warm_pool(ctx: Any) -> Iterator[Any]:
    """A pool whose workers have all begun."""
    with ctx.Pool(WORKERS) as pool:
        pool.map(nothing, range(50 * WORKERS), 1)
        yield pool


def pool_map(ctx: Any, count: int) -> Sample:
    """Many tasks that are known at once."""
    with warm_pool(ctx) as pool:
        began = time.perf_counter()
        pool.map(nothing, range(count), 1)
        return Sample.since(began, count)


def pool_imap_unordered(ctx: Any, count: int) -> Sample:
    """Many tasks, their results as they come."""
    with warm_pool(ctx) as pool:
        began = time.perf_counter()
        for _ in pool.imap_unordered(nothing, range(count), 1):
            pass
        return Sample.since(began, count)


def pool_apply(ctx: Any, count: int) -> Sample:
    """One task after the other."""
    with warm_pool(ctx) as pool:
        return time_trips(count, partial(pool.apply, nothing, (None,)))


def pool_large_results(ctx: Any, count: int) -> Sample:
    """Tasks that return 1 MiB."""
    with warm_pool(ctx) as pool:
        pool.map(large_result, range(2 * WORKERS), 1)
        began = time.perf_counter()
        for _ in pool.imap_unordered(large_result, range(count), 1):
            pass
        return Sample.since(began, count)


def pool_large_arguments(ctx: Any, count: int) -> Sample:
    """Tasks that are given 1 MiB."""
    array = noise_array(MIB)
    with warm_pool(ctx) as pool:
        pool.map(nothing, [array] * 2 * WORKERS, 1)
        began = time.perf_counter()
        for _ in pool.imap_unordered(nothing, (array for _ in range(count)), 1):
            pass
        return Sample.since(began, count)


def executor(ctx: Any) -> Any:
    """A side's executor: a peer's own, ours where there is one, or stock's over the context."""
    if hasattr(ctx, "ProcessPoolExecutor"):
        return ctx.ProcessPoolExecutor(WORKERS)
    module: Any = futures
    if isinstance(ctx, MechanismContext) and importlib.util.find_spec("mpipc.futures"):
        module = importlib.import_module("mpipc.futures")
    return module.ProcessPoolExecutor(WORKERS, mp_context=ctx)


def executor_map(ctx: Any, count: int) -> Sample:
    """Many tasks that are known at once."""
    with executor(ctx) as workers:
        list(workers.map(nothing, range(50 * WORKERS)))
        began = time.perf_counter()
        for _ in workers.map(nothing, range(count)):
            pass
        return Sample.since(began, count)
