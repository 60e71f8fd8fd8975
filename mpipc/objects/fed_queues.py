"""Stock's queues, feeder threads included, over connections and locks of any mechanism."""

from __future__ import annotations

import operator
import os
from multiprocessing import connection, util
from multiprocessing.context import BaseContext

from .. import _stock
from .._context import mechanism_of
from .._replacement import Replacement
from ..adapters.guards import Guard
from ..adapters.places import Places
from ..adapters.streams import MARKS, StreamEnd
from .batches import QueueBatches, SimpleQueueBatches
from .locks import SEMAPHORE, SemLock, Surface
from .synchronize import SEM_VALUE_MAX, checked_value, made_for_fork

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


class PlacesLock(SemLock):
    """What stock's semaphore has inside, over places. Those too many vanish without an error."""

    units: Places

    def release(self) -> None:
        """Give a place back."""
        self._held -= 1
        self.units.release()


class Room(Surface, _stock.BoundedSemaphore):
    """The free places of a queue, as stock counts them."""

    def __init__(self, queue: Queue, ctx: BaseContext) -> None:
        mechanism, most = mechanism_of(ctx), checked_value(queue._maxsize, SEM_VALUE_MAX)
        parts = mechanism.tokens(0), mechanism.memory(8)
        places = Places(most, *parts, queue._reader, queue._writer, queue._wlock)
        self._is_fork_ctx = made_for_fork(ctx)
        self._adopt(PlacesLock(SEMAPHORE, most, places))

    @property
    def places(self) -> Places:
        """What messages take along."""
        places: Places = self._semlock.units  # type: ignore[assignment]
        return places


class Queue(QueueBatches, _stock.Queue, metaclass=Replacement):  # type: ignore[type-arg]
    """A multi-producer, multi-consumer queue. What does not fit waits in its sender's memory."""

    def __init__(self, maxsize: int = 0, *, ctx: BaseContext) -> None:
        self._maxsize = maxsize if operator.index(maxsize) > 0 else SEM_VALUE_MAX
        self._reader, self._writer = ends(ctx)
        self._rlock = Guard()
        self._wlock = Guard()
        self._opid = os.getpid()
        # Of so many places none is ever missed.
        unbounded = self._maxsize == SEM_VALUE_MAX
        self._sem = ctx.BoundedSemaphore(SEM_VALUE_MAX) if unbounded else Room(self, ctx)
        self._ignore_epipe = False
        self._reset()
        util.register_after_fork(self, _stock.Queue._after_fork)  # type: ignore[attr-defined]

    def _reset(self, after_fork: bool = False) -> None:
        super()._reset(after_fork)  # type: ignore[misc]
        if isinstance(self._sem, Room):
            self._send_bytes = self._sem.places.send_bytes
            self._recv_bytes = self._sem.places.recv_bytes


class JoinableQueue(Queue, _stock.JoinableQueue):  # type: ignore[type-arg]
    """A queue with ``task_done`` and ``join``."""

    def __init__(self, maxsize: int = 0, *, ctx: BaseContext) -> None:
        super().__init__(maxsize, ctx=ctx)
        self._unfinished_tasks = ctx.Semaphore(0)
        self._cond = ctx.Condition()


class SimpleQueue(SimpleQueueBatches, _stock.SimpleQueue, metaclass=Replacement):  # type: ignore[type-arg]
    """A queue whose ``put`` waits while the mechanism's buffers are full."""

    def __init__(self, *, ctx: BaseContext) -> None:
        self._reader, self._writer = ends(ctx)
        self._rlock = Guard()
        self._wlock = Guard()
        self._poll = self._reader.poll


def ends(ctx: BaseContext) -> tuple[connection.Connection, connection.Connection]:
    """The reading and the writing end of a queue."""
    mechanism = mechanism_of(ctx)
    reader, writer = mechanism.connections(False)
    at_once = getattr(mechanism, "at_once", None)
    if at_once is None:
        return reader, writer
    memory = mechanism.memory(MARKS)
    return StreamEnd(reader, memory, at_once), StreamEnd(writer, memory, at_once)
