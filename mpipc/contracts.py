"""What a mechanism offers to the objects above it.

A mechanism's class stands before the class from :mod:`mpipc.objects` in the order of bases, so what
it defines is what runs; the definitions here are the contract, and the types.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext
    from typing import Any, ClassVar, Protocol
else:
    Protocol = object

__all__ = [
    "CountingSemaphore",
    "Mechanism",
    "Memory",
    "MemoryProvider",
    "MessageQueue",
    "Packets",
    "QueueEnds",
    "Tokens",
    "WaitingRoom",
]


class HasFileno(Protocol):
    """What can be polled while it is referred to."""

    def fileno(self) -> int: ...


if TYPE_CHECKING:
    Descriptor = int | HasFileno


class Mechanism(Protocol):
    """What a mechanism's module offers, unless it offers whole objects as ``shm`` does.

    It may also have ``lock``, a callable without arguments: a CountingSemaphore of one unit for
    Lock and RLock, where one that knows its holder is better than a token. And ``wrappers``, a
    :class:`mpipc.objects.sharedctypes.Wrappers` for values with locks. Where its row offers the
    option ``max_bytes``, ``memory`` takes that as a second argument. ``at_once`` (int) is
    there if its connections are byte streams, which a kill can leave in the middle of a message: so
    many bytes are written in one step, or not at all.
    """

    tokens: type[Tokens]
    memory: MemoryProvider

    def connections(self, duplex: bool) -> tuple[Connection[Any, Any], Connection[Any, Any]]:
        """Two connected ends; without `duplex` the first only reads and the second only writes.

        They are stock's connections or behave like them: whole messages of any size, EOFError and
        BrokenPipeError once the other end is gone everywhere, a pollable ``fileno()``. What moves
        packets becomes one by :func:`mpipc.adapters.connections.packet_pipe`.
        """

    def limits(self) -> dict[str, Any]:
        """What the kernel allows here and now, by its own names.

        Raises
        ------
        OSError, ImportError
            The mechanism does not work here; the message says why and what to do.
        """


class Packets(Protocol):
    """What carries packets in one direction, from whoever has it to whoever has it.

    In order, whole, each to one receiver. Calls do not wait. Picklable while a process is being
    spawned and through a connection; closed with its last reference.
    """

    @property
    def max_packet(self) -> int:
        """The bytes that a packet may have."""

    def try_send(self, packet: bytes, /) -> bool:
        """Send; False if there is no room now. BrokenPipeError if nobody can receive."""

    def try_recv(self) -> bytes | None:
        """Take the next one, None if there is none now. EOFError if there can be no more."""

    def readable_fd(self) -> int:
        """A descriptor that polls as readable while a packet waits."""

    def writable_fd(self) -> tuple[Descriptor, int]:
        """A descriptor and the event by which poll() tells that there may be room."""


class CountingSemaphore(Protocol):
    """Units that processes take and give back. Picklable while a process is being spawned."""

    @property
    def handle(self) -> int:
        """A number that tells it from others in this process."""

    def acquire(self, timeout: float | None) -> bool:
        """Take a unit; wait `timeout` seconds at most, None for ever. Signal handlers run."""

    def release(self) -> None:
        """Give a unit back."""

    def value(self) -> int:
        """Units that are left."""


class Tokens(CountingSemaphore, Protocol):
    """A counting semaphore that holds `capacity` units at most; for more there is an adapter."""

    capacity: ClassVar[int]

    def __init__(self, value: int) -> None: ...

    def try_release(self) -> bool:
        """Give a unit back, unless there is no room for it."""


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

    def _open(self, maxsize: int, ctx: BaseContext, **extras: bool) -> None:
        """Make the channel, for `maxsize` items at most; 0 for no bound.

        `extras` are keywords beyond stock's that the mechanism's row names.
        """
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
