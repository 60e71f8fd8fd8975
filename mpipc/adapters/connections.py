"""Connections over what is not a byte stream in one descriptor."""

from __future__ import annotations

import io
import os
import select
import socket
from collections.abc import Callable
from errno import EPIPE
from multiprocessing import connection

from .._handles import dup_fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..contracts import Descriptor, Packets

__all__ = ["PacketConnection", "TwoWay", "broken_pipe", "packet_pipe", "stream_pipe"]


def broken_pipe() -> BrokenPipeError:
    """What a sender gets when nobody is left to receive."""
    return BrokenPipeError(EPIPE, os.strerror(EPIPE))


class TwoWay(connection.Connection):
    """Stock's connection with a descriptor for each direction; ``fileno()`` is the one to read."""

    _handle: int

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__(read_fd)
        self._write_fd = write_fd

    def _close(self, _close: Any = os.close) -> None:
        _close(self._write_fd)
        super()._close(_close)  # type: ignore[misc]

    def _send(self, buf: Any) -> None:
        super()._send(buf, lambda _, data: os.write(self._write_fd, data))  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_two_way, (dup_fd(self._handle), dup_fd(self._write_fd))


def _rebuild_two_way(read_fd: Any, write_fd: Any) -> TwoWay:
    return TwoWay(read_fd.detach(), write_fd.detach())


def stream_pipe(
    new_pipe: Callable[[], tuple[int, int]], duplex: bool
) -> tuple[connection.Connection, connection.Connection]:
    """Two connected ends over byte streams that go one way.

    Parameters
    ----------
    new_pipe : callable
        Makes a stream: the descriptors to read from and to write to.
    duplex : bool
        Otherwise the first end only reads and the second only writes.
    """
    read, write = new_pipe()
    if not duplex:
        return (
            connection.Connection(read, writable=False),
            connection.Connection(write, readable=False),
        )
    back_read, back_write = new_pipe()
    return TwoWay(read, back_write), TwoWay(back_read, write)


# The first byte of a packet says where in its message it stands. A receiver that meets a FIRST
# drops what it had of an earlier message, and what follows no FIRST: its sender or its receiver
# was killed half-way.
FIRST, LAST = 1, 2


class PacketConnection(connection.Connection):
    """A connection that cuts messages into packets and puts them together again.

    Parameters
    ----------
    incoming, outgoing : Packets or None
        What this end receives from and sends to.
    life : socket or None
        One end of a socket pair whose other end lies with the peer. It hangs up when the last
        process that has the peer is gone, killed or not. None if the packets' own descriptors tell.
    """

    def __init__(
        self,
        incoming: Packets | None,
        outgoing: Packets | None,
        life: socket.socket | None = None,
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._life = life
        self._parts: list[memoryview] = []
        super().__init__(
            self._new_handle(), readable=incoming is not None, writable=outgoing is not None
        )

    def _new_handle(self) -> int:
        """A descriptor that is readable while a packet waits or when the peer is gone."""
        self._epoll = None
        if self._life is None:
            packets = self._incoming or self._outgoing
            assert packets is not None
            return packets.readable_fd()
        self._epoll = select.epoll()
        self._epoll.register(self._life.fileno(), select.EPOLLRDHUP)
        if self._incoming is not None:
            self._epoll.register(self._incoming.readable_fd(), select.EPOLLIN)
        return self._epoll.fileno()

    def _close(self) -> None:
        # What the other end has too, in this process, stays until that one is closed.
        self._incoming = self._outgoing = None
        if self._life is not None:
            self._life.close()
        if self._epoll is not None:
            self._epoll.close()

    def __reduce__(self) -> tuple[Any, ...]:
        life = None if self._life is None else dup_fd(self._life.fileno())
        return _rebuild_packets, (type(self), self._incoming, self._outgoing, life)

    def _peer_is_gone(self) -> bool:
        return self._life is not None and bool(
            _poll(((self._life.fileno(), select.POLLRDHUP),), timeout=0)
        )

    def _send_bytes(self, buf: Any) -> None:
        outgoing = self._outgoing
        assert outgoing is not None
        data = memoryview(buf).cast("B")
        room = outgoing.max_packet - 1
        for start in range(0, len(data) or 1, room):
            place = FIRST * (start == 0) | LAST * (start + room >= len(data))
            packet = bytes((place,)) + data[start : start + room]
            while True:
                if self._peer_is_gone():
                    raise broken_pipe()
                if outgoing.try_send(packet):
                    break
                self._wait_for(outgoing.writable_fd())

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        while not self._add(self._recv_packet()):
            pass
        parts, self._parts = self._parts, []
        if maxsize is not None and sum(map(len, parts)) > maxsize:
            return None
        message = io.BytesIO()
        for part in parts:
            message.write(part)
        return message

    def await_message(self) -> None:
        """Sleep until there is something to receive, or the peer is gone."""
        self._check_readable()  # type: ignore[attr-defined]
        self._wait_for(self._arrival())

    def try_recv_bytes(self) -> bytes | None:
        """Receive a message if it is there wholly; what is there of one is kept for later."""
        assert self._incoming is not None
        while packet := self._incoming.try_recv():
            if self._add(packet):
                parts, self._parts = self._parts, []
                return b"".join(parts)
        return None

    def _add(self, packet: bytes) -> bool:
        """Add a packet to the message that it is of; whether that is whole."""
        if packet[0] & FIRST:
            self._parts = []
        elif not self._parts:
            return False
        self._parts.append(memoryview(packet)[1:])
        return bool(packet[0] & LAST)

    def _recv_packet(self) -> bytes:
        incoming = self._incoming
        assert incoming is not None
        while True:
            # In this order: what was sent before the peer went is still to be had.
            gone = self._peer_is_gone()
            packet = incoming.try_recv()
            if packet is not None:
                return packet
            if gone:
                raise EOFError
            self._wait_for(self._arrival())

    def _arrival(self) -> tuple[Descriptor, int]:
        """The event that a packet is there to be received."""
        assert self._incoming is not None
        return self._incoming.readable_fd(), select.POLLIN

    def _wait_for(self, event: tuple[Descriptor, int], timeout: float | None = None) -> None:
        """Sleep until the event, until the peer is gone, or for `timeout` seconds."""
        life = () if self._life is None else ((self._life.fileno(), select.POLLRDHUP),)
        _poll((event, *life), None if timeout is None else timeout * 1000)


def _poll(
    events: tuple[tuple[Descriptor, int], ...], timeout: float | None
) -> list[tuple[int, int]]:
    poller = select.poll()
    for fd, event in events:
        poller.register(fd, event)
    return poller.poll(timeout)


def _rebuild_packets(
    cls: type[PacketConnection], incoming: Packets | None, outgoing: Packets | None, life: Any
) -> PacketConnection:
    return cls(incoming, outgoing, life and socket.socket(fileno=life.detach()))


def packet_pipe(
    new_packets: Callable[[], Packets],
    duplex: bool,
    end: type[PacketConnection] = PacketConnection,
) -> tuple[PacketConnection, PacketConnection]:
    """Two connected ends over packets that do not tell by themselves when a peer is gone.

    Parameters
    ----------
    new_packets : callable
        Makes what carries packets in one direction.
    duplex : bool
        Otherwise the first end only receives and the second only sends.
    end : type
        Of both ends.
    """
    forth = new_packets()
    back = new_packets() if duplex else None
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return end(forth, back, one), end(back, forth, two)
