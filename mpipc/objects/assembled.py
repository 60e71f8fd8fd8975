"""Everything a context hands out, for mechanisms that offer connections, tokens and memory."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import connection
from multiprocessing import sharedctypes as stock
from multiprocessing.context import BaseContext

from .. import _stock
from .._context import mechanism_of
from .._replacement import Replacement
from . import sharedctypes
from .fed_queues import JoinableQueue, Queue, SimpleQueue
from .locks import BoundedSemaphore, Lock, RLock, Semaphore
from .pool import Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..contracts import MemoryProvider

__all__ = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Pipe",
    "Pool",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "Value",
]

Condition = _stock.Condition
Event = _stock.Event

WRAPPERS = sharedctypes.Wrappers(
    stock.Synchronized, stock.SynchronizedArray, stock.SynchronizedString
)


def Pipe(
    duplex: bool = True, *, ctx: BaseContext | None = None
) -> tuple[connection.Connection, connection.Connection]:
    """Two connections; with ``duplex=False`` the first reads and the second writes."""
    ends: tuple[connection.Connection, connection.Connection]
    ends = mechanism_of(ctx).connections(bool(duplex))
    return ends


class Barrier(_stock.Barrier, metaclass=Replacement):
    """Stock's barrier, over a condition and memory of the mechanism."""

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: BaseContext,
    ) -> None:
        # Two C ints: the state and how many have come. A new block is zeroed.
        state = (parties, action, timeout, ctx.Condition(), memory_of(ctx)(8))
        self.__setstate__(state)  # type: ignore[attr-defined]


def RawValue(typecode_or_type: Any, *args: Any, ctx: BaseContext | None = None) -> Any:
    """A ctypes object in shared memory."""
    return sharedctypes.raw_value(memory_of(ctx), typecode_or_type, *args)


def RawArray(
    typecode_or_type: Any, size_or_initializer: Any, *, ctx: BaseContext | None = None
) -> Any:
    """A ctypes array in shared memory."""
    return sharedctypes.raw_array(memory_of(ctx), typecode_or_type, size_or_initializer)


def Value(
    typecode_or_type: Any, *args: Any, lock: Any = True, ctx: BaseContext | None = None
) -> Any:
    """A ctypes object in shared memory, with a lock unless ``lock=False``."""
    obj = RawValue(typecode_or_type, *args, ctx=ctx)
    return sharedctypes.with_lock(obj, lock, ctx, WRAPPERS)


def Array(
    typecode_or_type: Any,
    size_or_initializer: Any,
    *,
    lock: Any = True,
    ctx: BaseContext | None = None,
) -> Any:
    """A ctypes array in shared memory, with a lock unless ``lock=False``."""
    obj = RawArray(typecode_or_type, size_or_initializer, ctx=ctx)
    return sharedctypes.with_lock(obj, lock, ctx, WRAPPERS)


def memory_of(ctx: BaseContext | None) -> MemoryProvider:
    """Where a context's values lie."""
    provider: MemoryProvider = mechanism_of(ctx).memory
    return provider
