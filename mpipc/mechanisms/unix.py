"""Unix stream sockets: a connected pair for messages, another for the units of a semaphore."""

from __future__ import annotations

import select
import socket
from multiprocessing import connection

from .. import _core
from ..adapters.tokens import Tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["at_once", "connections", "limits", "memory", "tokens"]

at_once = select.PIPE_BUF

memory = _core.new_block


def pair() -> tuple[int, int]:
    """Two blocking sockets, whatever socket.setdefaulttimeout() says."""
    one, two = socket.socketpair()
    one.setblocking(True)
    two.setblocking(True)
    return one.detach(), two.detach()


def connections(duplex: bool) -> tuple[connection.Connection, connection.Connection]:
    """The two ends of a pipe; without `duplex` the first only reads and the second only writes."""
    one, two = pair()
    return (
        connection.Connection(one, writable=duplex),
        connection.Connection(two, readable=duplex),
    )


class UnixTokens(Tokens):
    """Units in a socket pair."""

    # Each byte takes a buffer of the kernel's, of which at least this many fit by default.
    capacity = 128

    @staticmethod
    def _open() -> tuple[int, int]:
        return pair()


tokens = UnixTokens


def limits() -> dict[str, Any]:
    """The room for bytes that nobody has taken yet."""
    with socket.socket(socket.AF_UNIX) as sock:
        return {"SO_SNDBUF": sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)}
