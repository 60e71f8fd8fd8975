"""The rings and words of shared memory, with real-time signals to wake who waits for them.

Who waits blocks the signal in its own thread, notes itself down in shared memory, looks once more
and sleeps in sigtimedwait(). Who changes something queues a signal to the one who has waited
longest. Processes ignore it at other times, and those that do not are not sent it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from multiprocessing import connection

from .. import _core, _kernel
from .._lifetime import watch_exit
from ..adapters.blocks import Blocks, FileArena
from ..adapters.connections import broken_pipe
from ..adapters.limits import of_process
from . import shm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

__all__ = ["SIGNAL", "connections", "limits", "lock", "memory", "tokens"]

memory = _core.new_block

SIGNAL = signal.SIGRTMAX - 2

# Bytes that may wait before a sender sleeps; the message that passes the mark is not held up.
MOST_BYTES = 1 << 20
# With so many, there is a message that holds its sender until somebody takes it.
HOLDING = 8 << 20

# Whoever was to wake us may have been killed before that, or the peer may have been.
SLICE = 0.1
# Where more wait than there are slots, the others just look now and then.
CROWDED_SLICE = 0.01

# A slot is 0, or from the highest bit on: pid, thread, ticket, state. Linux has pids of 22 bits.
SLOTS = 63
CALLED, WAITING = 1, 2
STATE = 3
TICKETS = 1 << 18
NOBODY = bytes(8 * SLOTS)

# Unlike blocks of the core, these may go through a pipe, as the ends of pipes may.
_new_block = Blocks(lambda size: FileArena(os.memfd_create("mpipc-waiters"), size))

_kernel.ignore_by_default(SIGNAL)
watch_exit()


class Waiters:
    """Those who wait for one thing, in shared memory: the next ticket, and the slots."""

    def __init__(self) -> None:
        self._block = _new_block(8 + len(NOBODY))
        self._view()

    def _view(self) -> None:
        self._bytes = self._block.create_memoryview()
        self._words = self._bytes.cast("Q")

    def __getstate__(self) -> Any:
        return self._block

    def __setstate__(self, block: Any) -> None:
        self._block = block
        self._view()

    def wait(
        self, attempt: Callable[[], object], more: Callable[[], object], timeout: float | None
    ) -> bool:
        """Repeat `attempt` until it succeeds; False if it has not in `timeout` seconds.

        `more` tells whether there is something left for others.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (SIGNAL,))
        slot, mine = None, 0
        try:
            slot, mine = self._enter()
            longest = SLICE if slot else CROWDED_SLICE
            while True:
                if slot:
                    _kernel.compare_exchange(self._bytes, slot, mine | CALLED, mine | WAITING)
                if attempt():
                    return True
                left = longest if deadline is None else min(deadline - time.monotonic(), longest)
                if left <= 0:
                    return False
                # Other signals' handlers run meanwhile.
                signal.sigtimedwait((SIGNAL,), left)
        finally:
            if slot and self._leave(slot, mine) and more():
                self.wake()
            if SIGNAL not in blocked:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (SIGNAL,))

    def _enter(self) -> tuple[int | None, int]:
        """Take a slot: its number, None if there is none, and what is in it but for the state."""
        while True:
            ticket = self._words[0]
            if _kernel.compare_exchange(self._bytes, 0, ticket, (ticket + 1) % TICKETS):
                break
        mine = os.getpid() << 42 | threading.get_native_id() << 20 | ticket << 2
        for slot in range(1, 1 + SLOTS):
            word = self._words[slot]
            # A slot is also had from somebody who has been killed.
            if word and _is_there(word):
                continue
            if _kernel.compare_exchange(self._bytes, slot, word, mine | WAITING):
                return slot, mine
        return None, mine

    def _leave(self, slot: int, mine: int) -> bool:
        """Give a slot back; whether its holder had been called."""
        if _kernel.compare_exchange(self._bytes, slot, mine | WAITING, 0):
            return False
        _kernel.compare_exchange(self._bytes, slot, mine | CALLED, 0)
        # The call may arrive later too, and is then ignored or ends a later sleep early.
        signal.sigtimedwait((SIGNAL,), 0)
        return True

    def wake(self) -> bool:
        """Call the one who has waited longest; whether there was one."""
        while self._bytes[8:] != NOBODY:
            next_ticket, *slots = self._words
            waiting = [
                ((word >> 2) - next_ticket & TICKETS - 1, slot, word)
                for slot, word in enumerate(slots, 1)
                if word & STATE == WAITING
            ]
            if not waiting:
                break
            _, slot, word = min(waiting)
            called = word ^ WAITING ^ CALLED
            if _kernel.compare_exchange(self._bytes, slot, word, called):
                if _call(word):
                    return True
                _kernel.compare_exchange(self._bytes, slot, called, 0)
        return False

    def wake_all(self) -> None:
        """Call all who wait."""
        while self.wake():
            pass


def _is_there(word: int) -> bool:
    """Whether the thread in a slot lives, and the signal would not be the end of it.

    Its number may be another's by now, of a program that knows nothing of us.
    """
    try:
        with open(f"/proc/{word >> 42}/task/{word >> 20 & 0x3FFFFF}/status", "rb") as file:
            status = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # Ignored or handled. Not what it blocks: in sigtimedwait() the kernel takes that back.
    harmless = 0
    for field in (b"\nSigIgn:", b"\nSigCgt:"):
        harmless |= int(status.partition(field)[2].split(None, 1)[0], 16)
    return bool(harmless >> SIGNAL - 1 & 1)


def _call(word: int) -> bool:
    """Queue the signal to the thread in a slot, with its ticket; whether that is there."""
    if not _is_there(word):
        return False
    try:
        ticket = word >> 2 & TICKETS - 1
        _kernel.rt_tgsigqueueinfo(word >> 42, word >> 20 & 0x3FFFFF, SIGNAL, ticket)
    except ProcessLookupError:
        return False
    except BlockingIOError:
        # This user has as many signals queued as may be; the slice will end the sleep.
        pass
    return True


class Units:
    """A counting semaphore in a word; with `owned`, a lock that outlives a killed holder."""

    capacity: ClassVar[int] = 0x7FFFFFFF

    def __init__(self, value: int, owned: bool = False) -> None:
        self._word = _core.SemLock()
        self._word._open(_core.SEMAPHORE, value, 1 if owned else self.capacity, owned)
        self._waiters = Waiters()

    @property
    def handle(self) -> int:
        """A number that tells it from others in this process."""
        return self._word.handle

    def _take(self) -> bool:
        return self._word.acquire(False)

    def acquire(self, timeout: float | None) -> bool:
        """Take a unit; wait `timeout` seconds at most, None for ever."""
        return self._take() or (
            timeout != 0 and self._waiters.wait(self._take, self.value, timeout)
        )

    def release(self) -> None:
        """Give a unit back."""
        self._word.release()
        self._waiters.wake()

    def try_release(self) -> bool:
        """Give a unit back; there is always room."""
        self.release()
        return True

    def value(self) -> int:
        """Units that are left."""
        return self._word._get_value()


tokens = Units


def lock() -> Units:
    """One unit, which passes on when its holder is killed."""
    return Units(1, owned=True)


class Direction:
    """Who waits for messages, and who for room, in one direction of a pipe."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.readers = Waiters()
        self.writers = Waiters()


class Connection(shm.Connection):
    """An end of a pipe of shared memory that never sleeps there."""

    _incoming: Direction
    _outgoing: Direction

    def _receive(self, receive: Callable[..., Any], *args: Any) -> Any:
        self.poll(None)
        received = receive(*args)
        self._incoming.writers.wake()
        return received

    def recv(self) -> Any:
        """Receive an object."""
        return self._receive(super().recv)

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive a message."""
        message: bytes = self._receive(super().recv_bytes, maxlength)
        return message

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Receive a message into a buffer; its length."""
        size: int = self._receive(super().recv_bytes_into, buf, offset)
        return size

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether there is a message, or no more to come."""
        arrived = super().poll
        if arrived(0) or (timeout is not None and timeout <= 0):
            return arrived(0)
        return self._incoming.readers.wait(lambda: arrived(0), lambda: arrived(0), timeout)

    _poll = poll

    def _send_with(self, send: Callable[..., None], *args: Any) -> None:
        if self.closed or not self._writable:
            send(*args)  # which says so
            return
        self._await_less_than(MOST_BYTES)
        send(*args)
        self._outgoing.readers.wake()
        self._await_less_than(HOLDING)
        if self._backlog() >= HOLDING:
            raise broken_pipe()

    def _backlog(self) -> int:
        """Bytes sent from here that nobody has taken yet; 0 once this end is closed."""
        segment = self.segment
        return segment.inspect(self._outgoing.channel)["backlog"] if segment else 0

    def _await_less_than(self, size: int) -> None:
        """Wait until fewer bytes wait, or nobody is there who could take them."""

        def is_over() -> bool:
            return self._backlog() < size or self._peer_is_gone()

        if not is_over():
            self._outgoing.writers.wait(is_over, is_over, None)

    def _peer_is_gone(self) -> bool:
        fd = self._handle
        if fd is None:
            return True
        poller = select.poll()
        poller.register(fd, select.POLLRDHUP)
        return bool(poller.poll(0))

    def send(self, obj: Any) -> None:
        """Send an object."""
        self._send_with(super().send, obj)

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send a message."""
        self._send_with(super().send_bytes, buf, offset, size)

    _send_bytes = send_bytes

    def close(self) -> None:
        """Close this end."""
        if not self.closed:
            super().close()
            self._incoming.writers.wake_all()
            self._outgoing.readers.wake_all()

    _close = close

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (super().__reduce__(), self._incoming, self._outgoing)


def _rebuild(reduced: tuple[Any, ...], incoming: Direction, outgoing: Direction) -> Connection:
    rebuild, args = reduced
    return _join(rebuild(*args), incoming, outgoing)


def _join(end: Connection, incoming: Direction, outgoing: Direction) -> Connection:
    end._incoming = incoming
    end._outgoing = outgoing
    return end


def connections(duplex: bool) -> tuple[connection.Connection, connection.Connection]:
    """Two connected ends; without `duplex` the first only reads and the second only writes."""
    # The core would hold a sender up by itself, if it knew of a bound.
    one, two = _core.open_pipe(Connection, duplex, 0, 0)
    forth, back = Direction(0), Direction(1)
    if duplex:
        return _join(one, back, forth), _join(two, forth, back)
    return _join(one, forth, back), _join(two, back, forth)


def limits() -> dict[str, Any]:
    """How many signals may be queued for all processes of this user."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (SIGNAL,))
    try:
        _kernel.rt_tgsigqueueinfo(os.getpid(), threading.get_native_id(), SIGNAL, 1)
        arrived = signal.sigtimedwait((SIGNAL,), 1)
    except OSError as error:
        raise OSError(
            error.errno,
            f"this process may not queue signals ({error}): a seccomp filter may forbid "
            "rt_tgsigqueueinfo, or 'ulimit -i' may be used up",
        ) from None
    finally:
        if SIGNAL not in blocked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (SIGNAL,))
    if arrived is None:
        raise OSError(f"a queued signal {SIGNAL} did not arrive: does something else take it?")
    return {"signal": SIGNAL, **of_process("RLIMIT_SIGPENDING")}
