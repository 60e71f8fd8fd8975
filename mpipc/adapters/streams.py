"""The ends of a queue over a byte stream, which many processes share.

A kill in the middle of a message leaves the stream where no message begins. So whoever is in the
middle of one says so in shared memory, and who comes later, or waits for the rest, finds that the
process of that name is dead: from then on everybody gets OwnerDied instead of damaged messages. A
short message is written in one step, and nobody is in the middle while he waits for one to begin;
so a kill there costs nothing.
"""

from __future__ import annotations

import io
import os
import select
from multiprocessing import connection

from .._handles import dup_fd
from ..errors import OwnerDied
from .lockfiles import is_dead, me

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..contracts import Memory

__all__ = ["MARKS", "StreamEnd"]

# Bytes of shared memory: who is in the middle of sending, and of receiving.
MARKS = 16
SENDING, RECEIVING = range(2)
PID = 40  # bits of a mark below the pid: when that process started
HEADER = 8
# How often who waits for the rest of a message looks whether the other lives.
TICK = 200


class StreamEnd(connection.Connection):
    """One end of a queue's stream.

    Parameters
    ----------
    end : Connection
        One that only reads or only writes. It is used up.
    memory : Memory
        MARKS bytes that both ends have.
    at_once : int
        So many bytes are written in one step, or not at all.
    """

    _handle: int

    def __init__(self, end: connection.Connection, memory: Memory, at_once: int) -> None:
        super().__init__(os.dup(end.fileno()), readable=end.readable, writable=end.writable)
        end.close()
        self._share(memory, at_once)

    def _share(self, memory: Memory, at_once: int) -> None:
        # Whoever waits has to look around now and then.
        os.set_blocking(self._handle, False)
        self._memory = memory
        self._at_once = at_once
        self._marks = memory.create_memoryview().cast("Q")

    def __reduce__(self) -> tuple[Any, ...]:
        fd = dup_fd(self._handle)
        return _rebuild, (fd, self.readable, self.writable, self._memory, self._at_once)

    def give_up(self, pid: int) -> None:
        """Let nobody wait for room any more: they get OwnerDied, naming that process."""
        self._marks[RECEIVING] = pid << PID  # no process was started then

    def _send_bytes(self, buf: Any) -> None:
        self._check(SENDING)
        if len(buf) + HEADER <= self._at_once:
            super()._send_bytes(buf)  # type: ignore[misc]
            return
        self._wait(select.POLLOUT, RECEIVING)
        self._marks[SENDING] = _mark()
        try:
            super()._send_bytes(buf)  # type: ignore[misc]
        finally:
            self._marks[SENDING] = 0

    def await_message(self) -> None:
        """Sleep until there is something to receive."""
        self._check(RECEIVING)
        self._wait(select.POLLIN, SENDING)

    def _recv_bytes(self, maxsize: int | None = None) -> Any:
        self.await_message()
        self._marks[RECEIVING] = _mark()
        try:
            return super()._recv_bytes(maxsize)  # type: ignore[misc]
        finally:
            self._marks[RECEIVING] = 0

    def _send(self, buf: Any) -> None:
        data = memoryview(buf)
        while data:
            try:
                data = data[os.write(self._handle, data) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, RECEIVING)

    def _recv(self, size: int) -> io.BytesIO:
        found = io.BytesIO()
        while size:
            try:
                data = os.read(self._handle, size)
            except BlockingIOError:
                self._wait(select.POLLIN, SENDING)
                continue
            if not data:
                if found.tell():
                    raise OSError("got end of file during message")
                raise EOFError
            found.write(data)
            size -= len(data)
        return found

    def _wait(self, event: int, other: int) -> None:
        """Sleep until something can be read or written, or the one on the other side is dead."""
        poller = select.poll()
        poller.register(self._handle, event)
        while not poller.poll(TICK):
            self._check(other)

    def _check(self, which: int) -> None:
        mark = self._marks[which]
        if not mark:
            return
        pid, started = mark >> PID, mark & ((1 << PID) - 1)
        if is_dead(f"{pid}-{started}"):
            what = "sending to" if which == SENDING else "receiving from"
            raise OwnerDied(
                f"process {pid} died in the middle of {what} this queue, whose other messages "
                "cannot be told apart any more: make a new one, or use mpipc-shm",
                pid,
            )


def _mark() -> int:
    pid, _, started = me().partition("-")
    return int(pid) << PID | int(started)


def _rebuild(fd: Any, readable: bool, writable: bool, memory: Memory, at_once: int) -> StreamEnd:
    end = StreamEnd.__new__(StreamEnd)
    connection.Connection.__init__(end, fd.detach(), readable, writable)
    end._share(memory, at_once)
    return end
