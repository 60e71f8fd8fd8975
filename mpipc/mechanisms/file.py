"""A spool directory: a message is a file made visible by rename; inotify wakes who waits."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import select
import struct
import time
from multiprocessing import connection

from .. import _kernel
from ..adapters.bells import Bell
from ..adapters.connections import PacketConnection, broken_pipe, packet_pipe
from ..adapters.leases import Lease, new_file
from ..adapters.limits import of_kernel
from ..adapters.lockfiles import Counter, LockFile, is_dead, me
from ..adapters.watches import Exclusive, Watch
from .fifo import memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["connections", "limits", "lock", "memory", "tokens"]

lock = LockFile
tokens = Counter

# What may wait before a sender blocks, as in a pipe. A longer message waits alone, and holds its
# sender until somebody takes it.
MOST_BYTES = 1 << 20
MOST_MESSAGES = 4096

# A message up to this is written while the book is held, instead of holding it twice.
SHORT = 1 << 16

# The spool's book, a file that only its Exclusive holder touches: the number of the next message,
# and how many messages and bytes wait. It is written so that a kill leaves it with too much rather
# than too little; who is stopped by that counts anew.
BOOK = struct.Struct("QQQ")

_serial = itertools.count()


class Spool:
    """Messages in one direction, each a file named by its number and size, in hexadecimal.

    Who waits in a call is woken by inotify. Its descriptors are of one process each, so for those
    who poll there is a bell beside, rung while messages wait. It changes while
    the book is held; who is killed before ringing leaves that to the next sender.
    """

    max_packet = 1 << 62

    def __init__(self) -> None:
        self._lease = Lease()
        self.directory = self._lease.directory()
        self._start(Bell())
        with new_file(self._book) as file:
            file.write(BOOK.pack(0, 0, 0))

    def _start(self, bell: Bell) -> None:
        self._bell = bell
        self._book = os.path.join(self.directory, "book")
        # Seen in the directory and perhaps taken meanwhile, the oldest last. What is not among
        # them is newer, for numbers are given and directories read by one at a time.
        self._names: list[str] = []
        self._refused = b""

    def __getstate__(self) -> tuple[Lease, str, Bell]:
        return self._lease, self.directory, self._bell

    def __setstate__(self, state: tuple[Lease, str, Bell]) -> None:
        self._lease, self.directory, bell = state
        self._start(bell)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def try_send(self, packet: bytes) -> bool:
        """Write a file and make it visible, if there is room."""
        size = len(packet)
        new = self._path(f"new.{me()}.{next(_serial)}")
        try:
            with Exclusive(self._book) as book:
                if not self._has_room(book, size):
                    return False
                if size <= SHORT:
                    self._publish(book, new, packet)
                    return True
            _write(new, packet)
            with Exclusive(self._book) as book:
                if not self._has_room(book, size):
                    return False
                self._publish(book, new, packet)
                return True
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)

    def _publish(self, book: int, new: str, packet: bytes) -> None:
        """Make a message visible; a short one is yet to be written."""
        size = len(packet)
        if size <= SHORT:
            _write(new, packet)
        number, count, used = BOOK.unpack(os.pread(book, BOOK.size, 0))
        os.pwrite(book, BOOK.pack(number + 1, count + 1, used + size), 0)
        os.rename(new, self._path(f"{number:016x}.{size:x}"))
        self._bell.ring()

    def holds_back(self, size: int) -> bool:
        """Whether so many bytes still wait."""
        with Exclusive(self._book) as book:
            self._refused = os.pread(book, BOOK.size, 0)
            _, _, used = BOOK.unpack(self._refused)
            return bool(used >= size)

    def _has_room(self, book: int, size: int) -> bool:
        for count_anew in (False, True):
            if count_anew:
                self._count(book)
            seen = os.pread(book, BOOK.size, 0)
            _, count, used = BOOK.unpack(seen)
            if not count or (count < MOST_MESSAGES and used + size <= MOST_BYTES):
                return True
        self._refused = seen
        return False

    def _count(self, book: int) -> None:
        """Read the directory, correct the book, remove what killed senders have left."""
        names = []
        for name in os.listdir(self.directory):
            kind, _, rest = name.partition(".")
            if kind == "new":
                if is_dead(rest.partition(".")[0]):
                    os.unlink(self._path(name))
            elif rest:
                names.append(name)
        self._names = sorted(names, reverse=True)
        number = os.pread(book, 8, 0)
        used = sum(int(name.partition(".")[2], 16) for name in names)
        os.pwrite(book, number + struct.pack("QQ", len(names), used), 0)

    def _oldest(self, book: int) -> str | None:
        while self._names:
            if os.path.exists(self._path(self._names[-1])):
                return self._names[-1]
            self._names.pop()
        if BOOK.unpack(os.pread(book, BOOK.size, 0))[1]:
            self._count(book)
        if not self._names:
            self._bell.hush()
            return None
        return self._names[-1]

    def waiting(self) -> bool:
        """Whether a message waits."""
        with Exclusive(self._book) as book:
            return self._oldest(book) is not None

    def try_recv(self) -> bytes | None:
        """Take the oldest message. It is gone with a receiver that is killed here."""
        with Exclusive(self._book) as book:
            name = self._oldest(book)
            if name is None:
                return None
            path = self._path(name)
            file = io.FileIO(path)
            os.unlink(path)
            self._names.pop()
            number, count, used = BOOK.unpack(os.pread(book, BOOK.size, 0))
            used -= int(name.partition(".")[2], 16)
            os.pwrite(book, BOOK.pack(number, count - 1, used), 0)
            if count == 1:
                self._bell.hush()
        with file:
            return file.readall()

    def readable_fd(self) -> int:
        return self._bell.fileno()

    def arrival(self) -> tuple[Watch, int]:
        """A new watch, readable once a message waits."""
        watch = Watch(self.directory, _kernel.IN_MOVED_TO)
        if self.waiting():
            watch.ring()
        return watch, select.POLLIN

    def writable_fd(self) -> tuple[Watch, int]:
        """A new watch, readable once the spool is no longer what try_send() found full."""
        watch = Watch(self.directory, _kernel.IN_DELETE)
        # Not in the middle of what a receiver does, who removes a file and then says so here.
        with Exclusive(self._book) as book:
            if os.pread(book, BOOK.size, 0) != self._refused:
                watch.ring()
        return watch, select.POLLIN


def _write(path: str, packet: bytes) -> None:
    with new_file(path) as file:
        unwritten = memoryview(packet)
        while unwritten:
            unwritten = unwritten[file.write(unwritten) :]


class FileConnection(PacketConnection):
    """An end over spools; who waits for a message waits for its file."""

    def _send_bytes(self, buf: Any) -> None:
        outgoing, size = self._outgoing, memoryview(buf).nbytes
        super()._send_bytes(buf)
        assert isinstance(outgoing, Spool)
        while size > MOST_BYTES and outgoing.holds_back(size):
            if self._peer_is_gone():
                raise broken_pipe()
            self._wait_for(outgoing.writable_fd())

    def _arrival(self) -> tuple[Watch, int]:
        incoming = self._incoming
        assert isinstance(incoming, Spool)
        return incoming.arrival()

    def _poll(self, timeout: float | None) -> bool:
        incoming = self._incoming
        assert isinstance(incoming, Spool)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (self._peer_is_gone() or incoming.waiting()):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._wait_for(self._arrival(), left)
        return True


def connections(duplex: bool) -> tuple[connection.Connection, connection.Connection]:
    """Two connected ends; without `duplex` the first only reads and the second only writes."""
    return packet_pipe(Spool, duplex, FileConnection)


def limits() -> dict[str, Any]:
    """The kernel's bounds on inotify for this user: who waits or polls has one."""
    spool = Spool()
    watch, _ = spool.arrival()
    if not spool.try_send(b"x") or not _is_readable(watch) or spool.try_recv() != b"x":
        raise OSError(
            f"the file system of {spool.directory} does not report changes: set TMPDIR to a "
            "directory on a local one"
        )
    return of_kernel(
        "fs.inotify.max_user_instances",
        "fs.inotify.max_user_watches",
        "fs.inotify.max_queued_events",
    )


def _is_readable(watch: Watch) -> bool:
    return bool(select.select([watch], [], [], 0)[0])
