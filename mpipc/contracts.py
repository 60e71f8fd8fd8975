"""What a mechanism offers to the objects above it.

A mechanism's class stands before the class from :mod:`mpipc.objects` in the order of bases, so what
it defines is what runs; the definitions here are the contract, and the types.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any, Protocol
else:
    Protocol = object

__all__ = ["Memory", "MemoryProvider", "MessageQueue", "QueueEnds", "WaitingRoom"]


class Memory(Protocol):
    """A zeroed piece of shared memory, picklable while a process is being spawned."""

    def create_memoryview(self) -> memoryview:
        """All of it, writable."""


class MemoryProvider(Protocol):
    """Hands out shared memory."""

    def __call__(self, size: int, /) -> Memory:
        """`size` bytes; MemoryError where there are none."""


class QueueEnds:
    """A channel of messages, of which this process holds both ends."""

    @property
    def _reader(self) -> Any:
        """The end to receive from, a connection."""
        raise NotImplementedError

    @property
    def _writer(self) -> Any:
        """The end to send to, a connection."""
        raise NotImplementedError

    def _attach(self, reader: Any, writer: Any) -> None:
        """Take up both ends, made here or unpickled."""
        raise NotImplementedError


class MessageQueue(QueueEnds):
    """A queue that counts its items and the tasks they stand for.

    ``put`` and ``get`` are as in stock, and nothing is left to do when ``put`` returns. What fails
    while an item is pickled or sent goes to ``_on_queue_feeder_error``.
    """

    _ignore_epipe: bool

    @property
    def _used(self) -> bool:
        """Whether this process has put anything."""
        raise NotImplementedError

    def _qsize(self) -> int:
        """What ``qsize`` answers, also in a subclass with one of its own."""
        raise NotImplementedError

    def _open(self, maxsize: int, ctx: BaseContext) -> None:
        """Make the channel, for `maxsize` items at most; 0 for no bound."""
        raise NotImplementedError

    def _unfinished(self) -> int:
        """Items put of which no task_done() has told."""
        raise NotImplementedError

    def _task_done(self) -> bool:
        """Count one task as done; False if none is unfinished."""
        raise NotImplementedError

    def _join_tasks(self) -> None:
        """Wait until no task is unfinished."""
        raise NotImplementedError


class WaitingRoom:
    """Where those who wait for a condition sleep. ``wait`` and ``notify`` are as in stock."""

    @property
    def block(self) -> Any:
        """The memory it lies in."""
        raise NotImplementedError

    def _open(self, block: Any = None) -> None:
        """Make the room, or enter the one in `block`."""
        raise NotImplementedError

    def _waiters(self) -> int:
        """How many sleep in it."""
        raise NotImplementedError
