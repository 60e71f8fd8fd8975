"""Unix sockets that keep the borders of packets: SOCK_SEQPACKET."""

from __future__ import annotations

import select
import socket

from .. import _core
from .._handles import dup_fd
from ..adapters.connections import PacketConnection, broken_pipe
from .pipe import tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["connections", "limits", "memory", "tokens"]

memory = _core.new_block


class Packets:
    """One of two connected sockets; it sends to the other and receives from it."""

    # The kernel charges a packet to its sender with some overhead, and refuses what is charged more
    # than the send buffer has (200 KiB by default, 4 KiB at least): from there on it depends.
    max_packet = 1 << 15

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    def __getstate__(self) -> Any:
        return dup_fd(self._socket.fileno())

    def __setstate__(self, fd: Any) -> None:
        self._socket = socket.socket(fileno=fd.detach())

    def try_send(self, packet: bytes) -> bool:
        """Send, if there is room."""
        try:
            self._socket.send(packet)
        except BlockingIOError:
            return False
        except (ConnectionRefusedError, ConnectionResetError):
            # It went with packets unread. Stock's one-way pipes do not tell the difference.
            raise broken_pipe() from None
        return True

    def try_recv(self) -> bytes | None:
        """Take the next packet."""
        try:
            packet = self._socket.recv(self.max_packet)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            raise EOFError from None
        if not packet:
            raise EOFError
        return packet

    def readable_fd(self) -> int:
        return self._socket.fileno()

    def writable_fd(self) -> tuple[int, int]:
        return self._socket.fileno(), select.POLLOUT


def connections(duplex: bool) -> tuple[PacketConnection, PacketConnection]:
    """Two connected ends; without `duplex` the first only reads and the second only writes."""
    one, two = map(Packets, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    return (
        PacketConnection(one, one if duplex else None),
        PacketConnection(two if duplex else None, two),
    )


def limits() -> dict[str, Any]:
    """The room for packets that nobody has taken yet, in bytes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        return {"SO_SNDBUF": sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)}
