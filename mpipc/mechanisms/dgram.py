"""Unix sockets for datagrams, SOCK_DGRAM: as seqpacket's, but they tell of no closed end.

Between two that are connected to each other, the kernel bounds the bytes on their way and not their
number (net.unix.max_dgram_qlen), and POLLOUT tells of room for them.
"""

from __future__ import annotations

import socket

from .. import _core
from ..adapters.connections import PacketConnection
from .pipe import tokens
from .seqpacket import Packets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["connections", "limits", "memory", "tokens"]

memory = _core.new_block


def connections(duplex: bool) -> tuple[PacketConnection, PacketConnection]:
    """Two connected ends; without `duplex` the first only reads and the second only writes."""
    one, two = map(Packets, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return (
        PacketConnection(one, one if duplex else None, here),
        PacketConnection(two if duplex else None, two, there),
    )


def limits() -> dict[str, Any]:
    """The room for packets that nobody has taken yet, in bytes."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, two:
        return {"SO_SNDBUF": one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)}
