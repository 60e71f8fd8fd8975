"""Queues as stock knows them, around a mechanism that moves whole messages.

Stock's Queue is a pipe, two locks, a semaphore that counts free places and a thread that feeds the
pipe. A mechanism of ours does in one operation what all of them do, so the parts stand here as
views of it, for the libraries and tests that look at them.
"""

from __future__ import annotations

import operator
import os
import threading
from collections import deque
from functools import cached_property
from multiprocessing.context import BaseContext, assert_spawning

from .. import _stock
from ..contracts import MessageQueue, QueueEnds
from .views import SemaphoreView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SEM_VALUE_MAX = 0x7FFFFFFF  # what stock calls unbounded

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


class Queue(MessageQueue, _stock.Queue):  # type: ignore[type-arg]
    """Stock's queue without a feeder thread: when ``put`` returns, the item is in the queue.

    A mechanism's class stands before this one, see :class:`mpipc.contracts.MessageQueue`.
    """

    def __init__(self, maxsize: int = 0, *, ctx: BaseContext, **extras: bool) -> None:
        maxsize = max(0, operator.index(maxsize))
        if maxsize > SEM_VALUE_MAX:
            raise OverflowError(f"maxsize must be at most {SEM_VALUE_MAX}, got {maxsize}")
        self._maxsize = maxsize or SEM_VALUE_MAX
        # A bound that the mechanism could never reach is none.
        self._open(maxsize if maxsize < 1 << 28 else 0, ctx, **extras)
        self._rlock = ctx.Lock()
        self._wlock = ctx.Lock()
        self._opid = os.getpid()
        self._reset()

    @cached_property
    def _notempty(self) -> threading.Condition:
        """What stock's feeder thread waits for."""
        return threading.Condition(threading.Lock())

    @cached_property
    def _buffer(self) -> deque[Any]:
        """What stock's feeder thread has still to send: nothing."""
        return deque()

    def _reset(self, after_fork: bool = False) -> None:
        self._thread = None
        self._jointhread = None
        self._joincancelled = False
        self._close = None
        self._closed = False

    def __getstate__(self) -> Any:
        assert_spawning(self)
        return (
            self._ignore_epipe,
            self._maxsize,
            self._reader,
            self._writer,
            self._rlock,
            self._wlock,
            self._opid,
        )

    def __setstate__(self, state: Any) -> None:
        (
            self._ignore_epipe,
            self._maxsize,
            reader,
            writer,
            self._rlock,
            self._wlock,
            self._opid,
        ) = state
        self._attach(reader, writer)
        self._reset()

    @property
    def _sem(self) -> SemaphoreView:
        """The places that are free."""
        return SemaphoreView(lambda: max(0, self._maxsize - self._qsize()))

    @property
    def _poll(self) -> Any:
        return self._reader.poll

    @property
    def _recv_bytes(self) -> Any:
        return self._reader.recv_bytes

    @property
    def _send_bytes(self) -> Any:
        return self._writer.send_bytes

    def empty(self) -> bool:
        """Whether no item waits."""
        return not self._reader.poll()

    def close(self) -> None:
        """Put and get nothing more from this process; items already put stay for others."""
        self._closed = True
        if self._used:
            self._reader.close()
            self._writer.close()

    def join_thread(self) -> None:
        """Nothing to wait for: items are in the queue once put() has returned."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Nothing to cancel: no thread holds items back."""
        self._joincancelled = True

    def _terminate_broken(self) -> None:
        self._reader.close()
        self.close()
        self.join_thread()


class JoinableQueue(MessageQueue, _stock.JoinableQueue):  # type: ignore[type-arg]
    """``task_done`` and ``join`` for a queue whose mechanism counts tasks.

    Stands before a mechanism's Queue; ``put`` is that one's, since each item is a task.
    """

    def __init__(self, maxsize: int = 0, *, ctx: BaseContext, **extras: bool) -> None:
        super().__init__(maxsize, ctx=ctx, **extras)
        self._cond = ctx.Condition()

    def __getstate__(self) -> Any:
        state: Any = super().__getstate__()
        return (*state, self._cond)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[:-1])
        self._cond = state[-1]

    @property
    def _unfinished_tasks(self) -> SemaphoreView:
        """The tasks that are not done."""
        return SemaphoreView(self._unfinished)

    def task_done(self) -> None:
        """Say that a task taken from the queue is done."""
        if not self._task_done():
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait until every task that was put has been done."""
        self._join_tasks()


class SimpleQueue(QueueEnds, _stock.SimpleQueue):  # type: ignore[type-arg]
    """Stock's simple queue around a mechanism's ``put`` and ``get``."""

    def __init__(self, *, ctx: BaseContext, **extras: bool) -> None:
        self._open(ctx, **extras)
        self._rlock = ctx.Lock()
        self._wlock = ctx.Lock()

    def _open(self, ctx: BaseContext, **extras: bool) -> None:
        """Make the channel, see :meth:`mpipc.contracts.MessageQueue._open`."""
        raise NotImplementedError

    def __getstate__(self) -> Any:
        assert_spawning(self)
        return self._reader, self._writer, self._rlock, self._wlock

    def __setstate__(self, state: Any) -> None:
        reader, writer, self._rlock, self._wlock = state
        self._attach(reader, writer)

    @property
    def _poll(self) -> Any:
        return self._reader.poll

    def empty(self) -> bool:
        """Whether no item waits."""
        return not self._reader.poll()

    def close(self) -> None:
        """Close both ends in this process."""
        self._reader.close()
        self._writer.close()
