"""POSIX IPC: message queues, named semaphores and shared memory."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import select
import sys
import time
import weakref
from _multiprocessing import SemLock

from ..adapters.blocks import Blocks, FileArena
from ..adapters.connections import PacketConnection, packet_pipe
from ..adapters.leases import Lease
from ..adapters.limits import of_kernel, setting
from ..adapters.overflow import Overflowing

try:
    import posix_ipc
except ImportError as error:
    raise ImportError(
        f"mpipc-posix needs the package posix_ipc: pip install posix_ipc ({error})"
    ) from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["connections", "limits", "memory", "tokens"]

# Messages, bytes of each, and how many queues of a process may be such: the kernel charges a user
# for all that their queues could hold, of 800 KiB by default, so that later ones get less.
# Ten messages are what the kernel allows without privileges (msg_max).
SHAPES = ((10, 2048, 16), (10, 256, 80), (4, 128, sys.maxsize))
# A process killed between giving a unit back and waking strands a sleeper: look again by itself.
SLICE = 1.0
# The kind of stock's type that any thread may release.
SEMAPHORE = 1


def remove_queue(name: str) -> None:
    with contextlib.suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_message_queue("/" + name)


def remove_semaphore(name: str) -> None:
    with contextlib.suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_semaphore("/" + name)


def remove_memory(name: str) -> None:
    with contextlib.suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_shared_memory("/" + name)


class Queue:
    """A message queue."""

    def __init__(self) -> None:
        _living.add(self)
        self._lease = Lease(remove_queue)
        self._queue = _new_queue("/" + self._lease.name)
        self.max_packet: int = self._queue.max_message_size

    def __getstate__(self) -> Lease:
        return self._lease

    def __setstate__(self, lease: Lease) -> None:
        self._lease = lease
        self._queue = posix_ipc.MessageQueue("/" + lease.name, posix_ipc.O_NONBLOCK)
        self.max_packet = self._queue.max_message_size

    def __del__(self) -> None:
        if "_queue" in self.__dict__:
            self._queue.close()

    def try_send(self, packet: bytes) -> bool:
        """Send, if there is room."""
        try:
            self._queue.send(packet)
        except posix_ipc.BusyError:
            return False
        return True

    def try_recv(self) -> bytes | None:
        """Take the next packet."""
        try:
            packet: bytes = self._queue.receive()[0]
        except posix_ipc.BusyError:
            return None
        return packet

    def readable_fd(self) -> int:
        return int(self._queue.mqd)

    def writable_fd(self) -> tuple[int, int]:
        return self._queue.mqd, select.POLLOUT


_living: weakref.WeakSet[Queue] = weakref.WeakSet()


def _new_queue(name: str) -> Any:
    """A queue of the first shape that there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (hard, hard))
    for messages, size, most in SHAPES:
        if len(_living) >= most:
            continue
        try:
            return posix_ipc.MessageQueue(
                name,
                posix_ipc.O_CREX | posix_ipc.O_NONBLOCK,
                mode=0o600,
                max_messages=min(messages, *setting("fs.mqueue.msg_max")),
                max_message_size=min(size, *setting("fs.mqueue.msgsize_max")),
            )
        except OSError as error:
            refused = error
    raise OSError(
        refused.errno or errno.EMFILE,
        f"no room for one more POSIX message queue ({refused}): all queues of a user may take "
        f"{hard} bytes (RLIMIT_MSGQUEUE, `ulimit -q`), there may be "
        f"{setting('fs.mqueue.queues_max')[0]} (fs.mqueue.queues_max), and each takes a "
        "descriptor (RLIMIT_NOFILE, `ulimit -n`); close some or raise the limit",
    ) from refused


def connections(duplex: bool) -> tuple[PacketConnection, PacketConnection]:
    """Two connected ends; without `duplex` the first only reads and the second only writes."""
    return packet_pipe(lambda: Overflowing(Queue(), _new_arena), duplex)


class Semaphore:
    """A named semaphore, by stock's type.

    That of posix_ipc drops what a signal handler raises while it waits, but for KeyboardInterrupt.
    """

    capacity: int = SemLock.SEM_VALUE_MAX

    def __init__(self, value: int) -> None:
        self._lease = Lease(remove_semaphore)
        self._semaphore = SemLock(SEMAPHORE, value, self.capacity, "/" + self._lease.name, False)

    def __getstate__(self) -> Lease:
        return self._lease

    def __setstate__(self, lease: Lease) -> None:
        self._lease = lease
        self._semaphore = SemLock._rebuild(0, SEMAPHORE, self.capacity, "/" + lease.name)

    @property
    def handle(self) -> int:
        """Its address in this process."""
        handle: int = self._semaphore.handle
        return handle

    def acquire(self, timeout: float | None) -> bool:
        """Take a unit; wait `timeout` seconds at most, None for ever."""
        acquire = self._semaphore.acquire
        if acquire(False):
            return True
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if acquire(True, min(SLICE, left)):
                return True
        return False

    def release(self) -> None:
        """Give a unit back."""
        self._semaphore.release()

    def try_release(self) -> bool:
        """Give a unit back, unless that is more than a semaphore can count."""
        try:
            self._semaphore.release()
        except ValueError:
            return False
        return True

    def value(self) -> int:
        """Units that are left."""
        value: int = self._semaphore._get_value()
        return value


def _new_arena(size: int) -> FileArena:
    """Shared memory without a name, which it has only while it is being made."""
    lease = Lease(remove_memory)
    try:
        fd = posix_ipc.SharedMemory("/" + lease.name, posix_ipc.O_CREX, mode=0o600).fd
        remove_memory(lease.name)
    finally:
        lease.release()
    return FileArena(fd, size)


tokens = Semaphore
memory = Blocks(_new_arena)


def limits() -> dict[str, Any]:
    """What the kernel allows for message queues, and units of a semaphore."""
    if not posix_ipc.MESSAGE_QUEUES_SUPPORTED:
        raise OSError("posix_ipc was built without message queues: build it on this machine")
    if not os.path.isdir("/proc/sys/fs/mqueue"):
        raise OSError("this kernel has no POSIX message queues (CONFIG_POSIX_MQUEUE)")
    try:
        queue = Queue()
        assert queue.try_send(b"x") and queue.try_recv() == b"x"
        Semaphore(1)
        memory(8)
    except posix_ipc.PermissionsError as error:
        raise PermissionError(f"POSIX IPC is forbidden here, perhaps by seccomp: {error}") from None
    return {
        "RLIMIT_MSGQUEUE": resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1],
        **of_kernel("fs.mqueue.queues_max", "fs.mqueue.msg_max", "fs.mqueue.msgsize_max"),
        "SEM_VALUE_MAX": Semaphore.capacity,
    }
