"""Files as meeting places: waiting for a change with inotify, changing one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import struct
import sys
import time
import weakref

from .. import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Exclusive", "Watch"]

# Closing an inotify descriptor that has watched takes the kernel some 10 ms, so some are kept.
KEPT = 2
# How often to look where the kernel has no more of them for this user (128 by default).
PAUSE = 0.01

# struct flock: type, whence, start, length (0: all of the file), pid.
LOCK, UNLOCK = (struct.pack("hhqqi4x", kind, 0, 0, 0, 0) for kind in (fcntl.F_WRLCK, fcntl.F_UNLCK))

_idle: list[int] = []
_watching: weakref.WeakSet[Watch] = weakref.WeakSet()
_exclusive: weakref.WeakSet[Exclusive] = weakref.WeakSet()


class Watch:
    """A descriptor, of this process alone, that is readable once something has happened to a file.

    What happened before it was made is not told. Closed with its last reference, and in a forked
    child, which would take its parent's events. Where the kernel gives no more inotify, it pauses
    and is readable for no reason: who makes a watch, looks, sleeps and drops it, again and again,
    then looks now and then.

    Parameters
    ----------
    path : str
        A file or a directory.
    mask : int
        The events, as inotify names them.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """

    def __init__(self, path: str, mask: int) -> None:
        self._fd = self._number = -1
        try:
            self._fd = _take_inotify()
            self._number = _kernel.inotify_add_watch(self._fd, path, mask)
        except OSError as error:
            self.close()
            if error.errno not in (errno.EMFILE, errno.ENOSPC):
                raise
            time.sleep(PAUSE)
            self._fd = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        _watching.add(self)

    def fileno(self) -> int:
        return self._fd

    def ring(self) -> None:
        """Become readable although nothing has happened."""
        if self._number >= 0:
            # The end of each watch is reported; nobody else watches the root directory here.
            _end_watch(self._fd, _kernel.inotify_add_watch(self._fd, "/", _kernel.IN_DELETE_SELF))

    def close(self) -> None:
        """Watch no more."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._number < 0 or len(_idle) >= KEPT:
            os.close(fd)
            return
        _end_watch(fd, self._number)
        _drain(fd)
        _idle.append(fd)
        if len(_idle) > KEPT:
            os.close(_idle.pop())

    def _forget(self) -> None:
        os.close(self._fd)
        self._fd = self._number = -1

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not finalizing():
            self.close()


def _take_inotify() -> int:
    with contextlib.suppress(IndexError):
        return _idle.pop()
    return _kernel.inotify_init1(_kernel.IN_CLOEXEC | _kernel.IN_NONBLOCK)


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            os.read(fd, 1 << 14)


def _end_watch(fd: int, number: int) -> None:
    try:
        _kernel.inotify_rm_watch(fd, number)
    except OSError as error:
        # It ended with its file.
        if error.errno != errno.EINVAL:
            raise


class Exclusive:
    """A file that one thread of one process has, in ``with``, which gives its descriptor.

    It is an OFD lock: the kernel frees it when its holder is killed.
    """

    def __init__(self, path: str) -> None:
        self._file = io.FileIO(path, "r+")
        _exclusive.add(self)

    def __enter__(self) -> int:
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLKW, LOCK)
        except BaseException:
            self._file.close()
            raise
        return self._file.fileno()

    def __exit__(self, *_: object) -> None:
        # A child that another thread forked meanwhile still has it open: closing is not enough.
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, UNLOCK)
        self._file.close()

    def _forget(self) -> None:
        self._file.close()


def _after_fork() -> None:
    """Close what the parent's threads were using."""
    while _idle:
        os.close(_idle.pop())
    for watch in _watching:
        watch._forget()
    for exclusive in _exclusive:
        exclusive._forget()
    _watching.clear()
    _exclusive.clear()


os.register_at_fork(after_in_child=_after_fork)
