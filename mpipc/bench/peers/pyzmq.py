"""ZeroMQ by Unix sockets: PUSH and PULL as a queue, PAIR as a pipe."""

from __future__ import annotations

import itertools
import os
from multiprocessing import util
from typing import Any

import zmq

from . import decode, encode, process_class

_numbers = itertools.count()


def new_address() -> str:
    """An abstract name, which is gone with its socket."""
    return f"ipc://@mpipc-bench-{os.getpid()}-{next(_numbers)}"


class End:
    """A socket, opened by the process that first uses it."""

    def __init__(self, address: str, kind: int, binds: bool, limit: int = 1000) -> None:
        self._how = address, kind, binds, limit
        self._socket: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._how

    def _open(self) -> Any:
        address, kind, binds, limit = self._how
        self._socket = zmq.Context.instance().socket(kind)
        self._socket.set_hwm(limit)
        (self._socket.bind if binds else self._socket.connect)(address)
        # Waits until what was sent has left the process.
        util.Finalize(self, zmq.Context.instance().destroy, exitpriority=0)
        return self._socket

    def send(self, message: object) -> None:
        """Send a message."""
        (self._socket or self._open()).send(encode(message), copy=False)

    def recv(self) -> object:
        """Receive a message."""
        return decode((self._socket or self._open()).recv())

    def close(self) -> None:
        """Close this process's socket, if it has one."""
        if self._socket is not None:
            self._socket.close()


class Queue:
    """Many may put, one gets."""

    def __init__(self, maxsize: int = 0) -> None:
        address = new_address()
        limit = maxsize or 1000
        self._inlet = End(address, zmq.PUSH, binds=False, limit=limit)
        self._outlet = End(address, zmq.PULL, binds=True, limit=limit)
        self.put, self.get = self._inlet.send, self._outlet.recv

    def close(self) -> None:
        """Close this process's sockets."""
        self._inlet.close()
        self._outlet.close()


class Context:
    """Its queue and pipe."""

    Queue = Queue

    def __init__(self, method: str) -> None:
        self.Process = process_class(method)

    def Pipe(self) -> tuple[End, End]:
        """Two ends."""
        address = new_address()
        return End(address, zmq.PAIR, binds=True), End(address, zmq.PAIR, binds=False)


context = Context
