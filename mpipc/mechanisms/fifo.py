"""FIFOs: what pipe does with anonymous pipes, and memory in mapped files.

Each has its name, in a private directory, only until both ends of it are open.
"""

from __future__ import annotations

import os
import select
from multiprocessing import connection

from ..adapters.blocks import Blocks, FileArena
from ..adapters.connections import stream_pipe
from ..adapters.leases import nameless
from ..adapters.limits import of_kernel
from .pipe import PipeTokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["at_once", "connections", "limits", "memory", "tokens"]

at_once = select.PIPE_BUF


def new_fifo() -> tuple[int, int]:
    """The descriptors to read from a new FIFO and to write to it."""
    return nameless("fifo", _open_fifo)


def _open_fifo(path: str) -> tuple[int, int]:
    os.mkfifo(path, 0o600)
    # Otherwise each open() would wait for the other.
    read = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        write = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(read)
        raise
    os.set_blocking(read, True)
    return read, write


def _new_arena(size: int) -> FileArena:
    return FileArena(nameless("arena", _open_file), size)


def _open_file(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


memory = Blocks(_new_arena)


def connections(duplex: bool) -> tuple[connection.Connection, connection.Connection]:
    """The two ends of a pipe; without `duplex` the first only reads and the second only writes."""
    return stream_pipe(new_fifo, duplex)


class FifoTokens(PipeTokens):
    """Units in a FIFO."""

    @staticmethod
    def _open() -> tuple[int, int]:
        return new_fifo()


tokens = FifoTokens


def limits() -> dict[str, Any]:
    """The bytes that all pipes and FIFOs of a user may hold, in pages, and that one may."""
    try:
        ends = new_fifo()
    except OSError as error:
        raise OSError(
            error.errno,
            f"no FIFO can be made in {os.environ.get('TMPDIR') or '/tmp'}: {error.strerror}; "
            "let TMPDIR name a directory of a local file system that you may write to",
        ) from None
    for fd in ends:
        os.close(fd)
    return of_kernel("fs.pipe-max-size", "fs.pipe-user-pages-soft")
