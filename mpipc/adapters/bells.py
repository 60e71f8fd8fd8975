"""Bells to poll, and packets with bells for a transport that has no descriptor.

Two bells: `news` rings from when a packet is there until the last one is taken, `room`
from when one is taken until a sender finds that there is no room. Both change under a guard that
the kernel gives back when its holder is killed; what the killed one did not ring the next call
does:

================================  ==================================================================
killed                            what the others see
================================  ==================================================================
between sending and ringing       a packet that shows with the next one: as if sent only then
between hushing and taking        the same; it is the first in the queue as before
between ringing and taking        a sender wakes, finds no room, hushes the bell and sleeps again
between finding no room and hush  the same
================================  ==================================================================
"""

from __future__ import annotations

import contextlib
import os
import select

from .._handles import dup_fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Protocol
else:
    Protocol = object

__all__ = ["Bell", "BelledPackets", "Transport"]


class Bell:
    """An eventfd that is readable from `ring` to `hush`. Picklable as packets are."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __getstate__(self) -> Any:
        return dup_fd(self._fd)

    def __setstate__(self, fd: Any) -> None:
        self._fd = fd.detach()

    def __del__(self, close: Any = os.close) -> None:
        if "_fd" in self.__dict__:
            close(self._fd)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def ring(self) -> None:
        """Make the descriptor readable."""
        os.eventfd_write(self._fd, 1)

    def hush(self) -> None:
        """Make it unreadable."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)


class Transport(Protocol):
    """What carries packets in one direction and cannot be polled. Picklable as packets are."""

    max_packet: int

    @property
    def guard(self) -> AbstractContextManager[None]:
        """A lock, which the kernel gives back when its holder is killed."""

    def try_send(self, packet: bytes, /) -> bool:
        """Send; False if there is no room now."""

    def try_recv(self) -> bytes | None:
        """Take the next one, None if there is none now."""

    def count(self) -> int:
        """How many packets wait."""


class BelledPackets:
    """Packets by a transport, with descriptors that tell of news and of room."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._news, self._room = Bell(), Bell()

    @property
    def max_packet(self) -> int:
        """The bytes that a packet may have."""
        return self._transport.max_packet

    def try_send(self, packet: bytes) -> bool:
        """Send, if there is room."""
        with self._transport.guard:
            try:
                if self._transport.try_send(packet):
                    return True
            finally:
                # Without room there are packets, so that it does not lie then either.
                self._news.ring()
            self._room.hush()
            return False

    def try_recv(self) -> bytes | None:
        """Take the next packet."""
        with self._transport.guard:
            waiting = self._transport.count()
            if waiting <= 1:
                self._news.hush()
            if not waiting:
                return None
            self._room.ring()
            return self._transport.try_recv()

    def readable_fd(self) -> int:
        return self._news.fileno()

    def writable_fd(self) -> tuple[int, int]:
        return self._room.fileno(), select.POLLIN
