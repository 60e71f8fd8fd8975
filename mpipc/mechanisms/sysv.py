"""System V IPC: message queues, semaphores and shared memory, under keys from their leases."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from .._kernel import semctl_getval, semtimedop
from ..adapters.bells import BelledPackets
from ..adapters.blocks import Blocks
from ..adapters.connections import PacketConnection, packet_pipe
from ..adapters.leases import Lease, at_exit, key_of
from ..adapters.limits import of_kernel, setting

try:
    import sysv_ipc
except ImportError as error:
    raise ImportError(
        f"mpipc-sysv needs the package sysv_ipc: pip install sysv_ipc ({error})"
    ) from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["connections", "limits", "memory", "tokens"]


def remove_queue(name: str) -> None:
    with contextlib.suppress(sysv_ipc.ExistentialError):
        sysv_ipc.remove_message_queue(sysv_ipc.MessageQueue(key_of(name)).id)
    remove_semaphore(name)


def remove_semaphore(name: str) -> None:
    with contextlib.suppress(sysv_ipc.ExistentialError):
        sysv_ipc.remove_semaphore(sysv_ipc.Semaphore(key_of(name)).id)


def remove_memory(name: str) -> None:
    with contextlib.suppress(sysv_ipc.ExistentialError):
        sysv_ipc.remove_shared_memory(Segment(key_of(name)).id)


def _made(remove: Callable[[str], None], make: Callable[[int], Any]) -> tuple[Any, Lease]:
    """What `make` makes of a key, and its lease."""
    while True:
        lease = Lease(remove)
        try:
            return make(key_of(lease.name)), lease
        except sysv_ipc.ExistentialError:
            # The key, of 31 bits, is another's, which must not go with our lease.
            lease.abandon()
        except OSError as error:
            raise OSError(
                error.errno or errno.ENOSPC,
                f"System V IPC refuses one more object ({error}): the machine's limits are "
                f"{limits_of_kernel()}; `ipcs -u` shows what there is",
            ) from error


def _new_semaphore(key: int, value: int) -> Any:
    return sysv_ipc.Semaphore(key, sysv_ipc.IPC_CREX, mode=0o600, initial_value=value)


def change(semid: int, by: int, timeout: float | None, undo: bool) -> bool:
    """Add to a semaphore as soon as that is possible; False if it is not in time."""
    try:
        return semtimedop(semid, by, timeout, undo)
    except OSError as error:
        if error.errno in (errno.EIDRM, errno.EINVAL) and at_exit():
            # A daemon thread goes on although its process has let go of all objects.
            raise SystemExit from None
        raise


class Guard:
    """A semaphore of value 1 around a block; a process killed in the block gives it back.

    That the kernel undoes is right here, where who takes is who gives.
    """

    def __init__(self, semid: int) -> None:
        self._semid = semid

    def __enter__(self) -> None:
        change(self._semid, -1, None, True)

    def __exit__(self, *_: object) -> None:
        change(self._semid, 1, None, True)


class Transport:
    """A message queue and the semaphore that guards its bells, under one key."""

    def __init__(self) -> None:
        (most,), (room,) = setting("kernel.msgmax"), setting("kernel.msgmnb")
        # Some have to fit, so that sender and receiver need not take turns.
        self.max_packet = min(8192, most, max(1, room // 4))
        self._queue, self._lease = _made(remove_queue, self._new_queue)
        self._guard_by(_new_semaphore(key_of(self._lease.name), 1))

    def _new_queue(self, key: int) -> Any:
        return sysv_ipc.MessageQueue(
            key, sysv_ipc.IPC_CREX, mode=0o600, max_message_size=self.max_packet
        )

    def _guard_by(self, semaphore: Any) -> None:
        self.guard = Guard(semaphore.id)

    def __getstate__(self) -> tuple[Lease, int]:
        return self._lease, self.max_packet

    def __setstate__(self, state: tuple[Lease, int]) -> None:
        self._lease, self.max_packet = state
        key = key_of(self._lease.name)
        self._queue = sysv_ipc.MessageQueue(key, max_message_size=self.max_packet)
        self._guard_by(sysv_ipc.Semaphore(key))

    def try_send(self, packet: bytes) -> bool:
        """Send, if there is room."""
        try:
            self._queue.send(packet, False)
        except sysv_ipc.BusyError:
            return False
        return True

    def try_recv(self) -> bytes | None:
        """Take the next packet."""
        try:
            packet: bytes = self._queue.receive(False)[0]
        except sysv_ipc.BusyError:
            return None
        return packet

    def count(self) -> int:
        """How many packets wait."""
        count: int = self._queue.current_messages
        return count


def connections(duplex: bool) -> tuple[PacketConnection, PacketConnection]:
    """Two connected ends; without `duplex` the first only reads and the second only writes."""
    return packet_pipe(lambda: BelledPackets(Transport()), duplex)


class Semaphore:
    """A semaphore whose units stay taken when their holder dies, as stock's.

    SEM_UNDO counts for each process what it took and gave, and takes that back when it ends. That
    is wrong here: another process may release a lock or give units to wait for, and a process that
    ends normally leaves what it holds held.
    """

    # SEMVMX, a constant of the kernel.
    capacity = 32767

    def __init__(self, value: int) -> None:
        semaphore, self._lease = _made(remove_semaphore, lambda key: _new_semaphore(key, value))
        self.handle: int = semaphore.id

    def __getstate__(self) -> Lease:
        return self._lease

    def __setstate__(self, lease: Lease) -> None:
        self._lease = lease
        self.handle = sysv_ipc.Semaphore(key_of(lease.name)).id

    def acquire(self, timeout: float | None) -> bool:
        """Take a unit; wait `timeout` seconds at most, None for ever."""
        return change(self.handle, -1, timeout, False)

    def release(self) -> None:
        """Give a unit back."""
        change(self.handle, 1, None, False)

    def try_release(self) -> bool:
        """Give a unit back, unless that is more than a semaphore can count."""
        return change(self.handle, 1, 0, False)

    def value(self) -> int:
        """Units that are left."""
        return semctl_getval(self.handle)


class Segment(sysv_ipc.SharedMemory):  # type: ignore[misc]
    """Memory that is attached as long as somebody views it."""

    def __del__(self) -> None:
        if self.attached:
            self.detach()


class Arena:
    """A shared memory segment."""

    def __init__(self, size: int) -> None:
        try:
            self.buffer, self.lease = _made(
                remove_memory,
                lambda key: Segment(
                    key, sysv_ipc.IPC_CREX, mode=0o600, size=size, init_character=b"\0"
                ),
            )
        except (OSError, ValueError) as error:
            raise MemoryError(f"no room for {size} bytes of shared memory: {error}") from None

    def __getstate__(self) -> Lease:
        return self.lease

    def __setstate__(self, lease: Lease) -> None:
        self.lease = lease
        self.buffer = Segment(key_of(lease.name))


tokens = Semaphore
memory = Blocks(Arena)


def limits_of_kernel() -> dict[str, int | tuple[int, ...]]:
    """Of queues, segments and sets of semaphores, the last number of ``kernel.sem``."""
    names = ("msgmax", "msgmnb", "msgmni", "sem", "shmmni", "shmmax")
    return of_kernel(*(f"kernel.{name}" for name in names))


def limits() -> dict[str, Any]:
    """What the kernel allows for the objects of all users."""
    if not os.path.isdir("/proc/sysvipc"):
        raise OSError("this kernel has no System V IPC (CONFIG_SYSVIPC)")
    try:
        transport = Transport()
        assert transport.try_send(b"x") and transport.try_recv() == b"x"
        Semaphore(1)
        memory(8)
    except sysv_ipc.PermissionsError as error:
        raise PermissionError(
            f"System V IPC is forbidden here, perhaps by seccomp: {error}"
        ) from None
    return {**limits_of_kernel(), "SEMVMX": Semaphore.capacity}
