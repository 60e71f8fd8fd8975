"""What a process does by itself: locks nobody else wants, values, making things."""

from __future__ import annotations

import timeit
from typing import Any

from mpipc._context import MechanismContext

from .model import Measure, Sample


def operation(statement: str, setup: str = "", collect: bool = False) -> Measure:
    """Time a statement that one process repeats; `setup` finds the context as ``ctx``.

    `collect` leaves the garbage collector on, whose work is part of making things.
    """
    if collect:
        setup = f"import gc; gc.enable(); {setup}"

    def measure(ctx: Any, count: int) -> Sample:
        names = {"ctx": ctx, "new_block": block_maker(ctx)}
        return Sample(timeit.Timer(statement, setup or "pass", globals=names).timeit(count) / count)

    return measure


def block_maker(ctx: Any) -> Any:
    """What allocates shared memory for a side's values and arrays."""
    if isinstance(ctx, MechanismContext):
        from mpipc import _core

        return _core.new_block
    from multiprocessing.heap import BufferWrapper

    return BufferWrapper
