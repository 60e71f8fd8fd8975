"""Shared memory: message queues and futex words in memfds, all in the compiled core.

Each class puts the core's operations before stock's class, so that ``isinstance`` holds and what
the core does not answer is stock's.
"""

from __future__ import annotations

import os
from importlib import import_module
from multiprocessing.context import BaseContext

from .. import _core, _stock
from .._context import death_policy, max_bytes
from .._lifetime import leave_orderly, watch_exit
from .._replacement import Replacement
from ..adapters.limits import of_process
from ..objects import connection, queues
from ..objects.synchronize import ConditionSurface, checked_value, made_for_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..objects.sharedctypes import Array, RawArray, RawValue, Value
    from .shm_barrier import Barrier
    from .shm_pool import Pool

__all__ = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Connection",
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

# Bytes that may wait before a sender blocks. Stock's pipes hold 64 KiB, its socket pairs about 200;
# more lets a sender run ahead of a reader that is only late.
PIPE_CAPACITY = 1 << 20

memory = _core.new_block
empty = _core.empty_array

watch_exit()


class Connection(_core.ConnectionCore, connection.Connection):
    """An end of a pipe, or of a queue."""


def Pipe(
    duplex: bool = True, *, ctx: BaseContext | None = None, views: bool = False
) -> tuple[Connection, Connection]:
    """Two connections; with ``duplex=False`` the first reads and the second writes."""
    return _core.open_pipe(Connection, bool(duplex), PIPE_CAPACITY, max_bytes(ctx), views)


class Queue(_core.QueueCore, queues.Queue, metaclass=Replacement):
    """A multi-producer, multi-consumer queue. Items arrive in the order in which they were put."""

    def _open(self, maxsize: int, ctx: BaseContext, **extras: bool) -> None:
        self._attach(*_core.open_queue(Connection, maxsize, 0, max_bytes(ctx), **extras))


class JoinableQueue(queues.JoinableQueue, Queue):
    """A queue with ``task_done`` and ``join``, which raises OwnerDied if it waits for the dead.

    With ``redeliver=True`` it does not raise: what a process has taken and not done when it is
    killed, or ends, is handed to another consumer, before all that waits. ``task_done`` is then for
    the oldest message that the calling thread has taken and not done; if it has none, for the
    oldest that its process has.
    """

    def _open(self, maxsize: int, ctx: BaseContext, **extras: bool) -> None:
        self._attach(*_core.open_queue(Connection, maxsize, 0, max_bytes(ctx), True, **extras))

    def _attach(self, reader: _core.ConnectionCore, writer: _core.ConnectionCore) -> None:
        super()._attach(reader, writer)
        leave_orderly(self)


class SimpleQueue(_core.SimpleQueueCore, queues.SimpleQueue, metaclass=Replacement):
    """A queue without a bound on items, whose ``put`` waits when much is waiting already."""

    def _open(self, ctx: BaseContext, **extras: bool) -> None:
        self._attach(*_core.open_queue(Connection, 0, PIPE_CAPACITY, max_bytes(ctx), **extras))


class Lock(_core.SemLock, _stock.Lock, metaclass=Replacement):
    """A lock that any process or thread may release."""

    def __init__(self, *, ctx: BaseContext | None, on_owner_death: str | None = None) -> None:
        self._is_fork_ctx = made_for_fork(ctx)
        self._open(_core.SEMAPHORE, 1, 1, True, on_owner_death or death_policy(ctx))


class RLock(_core.SemLock, _stock.RLock, metaclass=Replacement):
    """A lock that its holder may take again, and only its holder may release."""

    def __init__(self, *, ctx: BaseContext | None, on_owner_death: str | None = None) -> None:
        self._is_fork_ctx = made_for_fork(ctx)
        self._open(_core.RECURSIVE_MUTEX, 1, 1, True, on_owner_death or death_policy(ctx))


class Semaphore(_core.SemLock, _stock.Semaphore, metaclass=Replacement):
    """A number of units to take and give back.

    With ``undo=True`` the units that a process holds when it ends or is killed are given back.
    """

    def __init__(self, value: int = 1, *, ctx: BaseContext | None, undo: bool = False) -> None:
        value = checked_value(value, self.SEM_VALUE_MAX)
        self._is_fork_ctx = made_for_fork(ctx)
        self._open(_core.SEMAPHORE, value, self.SEM_VALUE_MAX, False, undo=undo)


class BoundedSemaphore(_core.SemLock, _stock.BoundedSemaphore, metaclass=Replacement):
    """A semaphore that cannot be released above its first value. One of 1 is a lock.

    With ``undo=True`` it is a semaphore, of 1 too, and gives back as that one does.
    """

    def __init__(
        self,
        value: int = 1,
        *,
        ctx: BaseContext | None,
        on_owner_death: str | None = None,
        undo: bool = False,
    ) -> None:
        value = checked_value(value, self.SEM_VALUE_MAX)
        self._is_fork_ctx = made_for_fork(ctx)
        policy = on_owner_death or death_policy(ctx)
        self._open(_core.SEMAPHORE, value, value, value == 1 and not undo, policy, undo)


class Condition(_core.ConditionCore, ConditionSurface, metaclass=Replacement):
    """A condition variable. The first 62 who wait are notified in the order in which they came."""

    def __init__(
        self, lock: Any = None, *, ctx: BaseContext, on_owner_death: str | None = None
    ) -> None:
        super().__init__(lock or RLock(ctx=ctx, on_owner_death=on_owner_death), ctx=ctx)


class Event(_core.EventCore, _stock.Event, metaclass=Replacement):
    """A flag to wait for."""

    def __init__(self, *, ctx: BaseContext) -> None:
        self._open()


def limits() -> dict[str, Any]:
    """What a process may have open, and how large a file in memory may be."""
    os.close(os.memfd_create("mpipc-probe", os.MFD_CLOEXEC))
    return of_process("RLIMIT_NOFILE", "RLIMIT_FSIZE")


# Most processes never need them, and some load ctypes and more.
LATER = {
    "Barrier": "mpipc.mechanisms.shm_barrier",
    "Pool": "mpipc.mechanisms.shm_pool",
    **dict.fromkeys(["Array", "RawArray", "RawValue", "Value"], "mpipc.objects.sharedctypes"),
    "wrappers": "mpipc.mechanisms.shm_wrappers",
}


def __getattr__(name: str) -> object:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(LATER[name]), name)
    globals()[name] = value
    return value
