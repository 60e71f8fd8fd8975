"""Anonymous pipes: messages in one for each direction, units of a semaphore as bytes in one."""

from __future__ import annotations

import fcntl
import os
import select
from multiprocessing import connection

from .. import _core
from ..adapters.connections import stream_pipe
from ..adapters.limits import of_kernel
from ..adapters.tokens import Tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["at_once", "connections", "limits", "memory", "tokens"]

at_once = select.PIPE_BUF

memory = _core.new_block


def connections(duplex: bool) -> tuple[connection.Connection, connection.Connection]:
    """The two ends of a pipe; without `duplex` the first only reads and the second only writes."""
    return stream_pipe(os.pipe, duplex)


class PipeTokens(Tokens):
    """Units in a pipe."""

    # A kernel page holds 4096 of them, and no pipe is smaller.
    capacity = 4096

    @staticmethod
    def _open() -> tuple[int, int]:
        return os.pipe()


tokens = PipeTokens


def limits() -> dict[str, Any]:
    """The bytes that a pipe holds, and what all pipes of a user may hold."""
    read, write = os.pipe()
    try:
        capacity = fcntl.fcntl(read, fcntl.F_GETPIPE_SZ)
    finally:
        os.close(read)
        os.close(write)
    return {"F_GETPIPE_SZ": capacity, **of_kernel("fs.pipe-max-size", "fs.pipe-user-pages-soft")}
