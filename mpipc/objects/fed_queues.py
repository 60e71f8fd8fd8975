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
from ..adapters.streams import MARKS, StreamEnd
from .batches import QueueBatches, SimpleQueueBatches
from .synchronize import SEM_VALUE_MAX

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


class Queue(QueueBatches, _stock.Queue, metaclass=Replacement):  # type: ignore[type-arg]
    """A multi-producer, multi-consumer queue. What does not fit waits in its sender's memory."""

    def __init__(self, maxsize: int = 0, *, ctx: BaseContext) -> None:
        self._maxsize = maxsize if operator.index(maxsize) > 0 else SEM_VALUE_MAX
        self._reader, self._writer = ends(ctx)
        self._rlock = Guard()
        self._wlock = Guard()
        self._opid = os.getpid()
        self._sem = ctx.BoundedSemaphore(self._maxsize)
        self._ignore_epipe = False
        self._reset()  # type: ignore[attr-defined]
        util.register_after_fork(self, _stock.Queue._after_fork)  # type: ignore[attr-defined]


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
