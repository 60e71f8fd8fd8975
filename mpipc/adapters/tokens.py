"""Counting semaphores whose units are bytes in a kernel buffer: one byte, one unit.

Whoever reads the byte has the unit, so no two processes can; whoever waits sleeps in poll(). The
buffer is shared by all who have its descriptors, and gone with the last of them.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time

from .._handles import dup_fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

__all__ = ["Tokens"]


class Tokens:
    """A counting semaphore in a pipe or a socket pair.

    Attributes
    ----------
    capacity : int
        Units that fit, whatever the size of the kernel's buffers.
    """

    capacity: ClassVar[int]

    @staticmethod
    def _open() -> tuple[int, int]:
        """Make the buffer: the descriptors to read from and to write to."""
        raise NotImplementedError

    def __init__(self, value: int) -> None:
        self._read_fd, self._write_fd = self._open()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        os.write(self._write_fd, bytes(value))

    def __getstate__(self) -> tuple[object, object]:
        return dup_fd(self._read_fd), dup_fd(self._write_fd)

    def __setstate__(self, state: tuple[Any, Any]) -> None:
        self._read_fd, self._write_fd = (fd.detach() for fd in state)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for name in ("_read_fd", "_write_fd"):
            fd = self.__dict__.pop(name, None)
            if fd is not None:
                close(fd)

    @property
    def handle(self) -> int:
        """The descriptor that is readable while there are units."""
        return self._read_fd

    def acquire(self, timeout: float | None) -> bool:
        """Take a unit; wait `timeout` seconds at most, None for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poller = None
        while True:
            try:
                os.read(self._read_fd, 1)
                return True
            except BlockingIOError:
                left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if poller is None:
                poller = select.poll()
                poller.register(self._read_fd, select.POLLIN)
            poller.poll(None if left is None else left * 1000)

    def release(self) -> None:
        """Give a unit back."""
        os.write(self._write_fd, b"\0")

    def try_release(self) -> bool:
        """Give a unit back unless the buffer is full."""
        try:
            os.write(self._write_fd, b"\0")
        except BlockingIOError:
            return False
        return True

    def value(self) -> int:
        """Units that are left."""
        count: int = struct.unpack("i", fcntl.ioctl(self._read_fd, termios.FIONREAD, bytes(4)))[0]
        return count
