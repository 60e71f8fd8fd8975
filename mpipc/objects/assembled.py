"""Everything a context hands out, for mechanisms that offer connections, tokens and memory."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.context import BaseContext

from .. import _stock
from .._context import mechanism_of
from .._replacement import Replacement
from .assembled_pool import Pool
from .fed_queues import JoinableQueue, Queue, SimpleQueue
from .locks import BoundedSemaphore, Lock, RLock, Semaphore
from .sharedctypes import Array, RawArray, RawValue, Value

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
        state = (parties, action, timeout, ctx.Condition(), mechanism_of(ctx).memory(8))
        self.__setstate__(state)  # type: ignore[attr-defined]
