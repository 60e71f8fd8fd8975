"""TCP on loopback; both ends have proved to each other that they know the process's authkey."""

from __future__ import annotations

import errno
import hmac
import os
import select
import socket
from multiprocessing import AuthenticationError, connection, process

from .. import _core
from .._handles import dup_fd
from ..adapters.connections import broken_pipe
from ..adapters.limits import of_kernel
from .pipe import tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["at_once", "connections", "limits", "memory", "tokens"]

at_once = 0

memory = _core.new_block

NONCE = 32


class TcpConnection(connection.Connection):
    """Stock's connection, which learns of a closed peer as on a Unix socket.

    TCP takes the first data that go to a peer which has closed, and refuses only the next.
    """

    def _send_bytes(self, buf: Any) -> None:
        poller = select.poll()
        poller.register(self.fileno(), select.POLLRDHUP)
        if poller.poll(0):
            raise broken_pipe()
        try:
            super()._send_bytes(buf)  # type: ignore[misc]
        except ConnectionResetError:
            # The peer closed with messages unread.
            raise broken_pipe() from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (dup_fd(self.fileno()), self.readable, self.writable)


def _rebuild(fd: Any, readable: bool, writable: bool) -> TcpConnection:
    return TcpConnection(fd.detach(), readable, writable)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that no other process has had a part in."""
    with _listener() as listener:
        one = socket.socket()
        try:
            # Without waiting: strangers may have filled the listener's queue.
            one.setblocking(False)
            error = one.connect_ex(listener.getsockname())
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, f"cannot connect to 127.0.0.1: {os.strerror(error)}")
            two = _accept(listener, one.getsockname())
        except BaseException:
            one.close()
            raise
    try:
        for sock in (one, two):
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _prove(one, two)
        _prove(two, one)
    except BaseException:
        one.close()
        two.close()
        raise
    return one, two


def _listener() -> socket.socket:
    while True:
        sock, bound = socket.socket(), 0
        try:
            # Ports of connections that closed a minute ago may be taken again.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            bound = sock.getsockname()[1]
            sock.listen()
            sock.setblocking(True)
            return sock
        except OSError as error:
            sock.close()
            # Another that was given the same port may listen already; without a port none is left.
            if error.errno != errno.EADDRINUSE or not bound:
                raise


def _accept(listener: socket.socket, address: Any) -> socket.socket:
    """The connection from an address; others that come before it are dropped unread."""
    while True:
        sock, peer = listener.accept()
        if peer == address:
            return sock
        sock.close()


def _prove(one: socket.socket, two: socket.socket) -> None:
    """Let the end `one` prove to `two` that it knows the key."""
    key = bytes(process.current_process().authkey)
    nonce = os.urandom(NONCE)
    two.sendall(nonce)
    one.sendall(hmac.digest(key, one.recv(NONCE, socket.MSG_WAITALL), "sha256"))
    expected = hmac.digest(key, nonce, "sha256")
    if not hmac.compare_digest(two.recv(len(expected), socket.MSG_WAITALL), expected):
        raise AuthenticationError("the other end of a TCP connection on 127.0.0.1 is not ours")


def connections(duplex: bool) -> tuple[TcpConnection, TcpConnection]:
    """The two ends of a pipe; without `duplex` the first only reads and the second only writes."""
    one, two = pair()
    return (
        TcpConnection(one.detach(), writable=duplex),
        TcpConnection(two.detach(), readable=duplex),
    )


def limits() -> dict[str, Any]:
    """The bytes that a connection may hold on either side: least, first and most."""
    try:
        one, two = pair()
    except OSError as error:
        raise OSError(
            error.errno,
            f"no TCP connection within 127.0.0.1: {error.strerror}; is the interface lo up "
            "(ip link set lo up), and does a firewall or seccomp forbid it?",
        ) from None
    one.close()
    two.close()
    return of_kernel("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")
