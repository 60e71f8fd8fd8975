"""A lock for a few lines of ours that may go wherever its file goes: flock().

The kernel takes it from a process that is killed. It tells open descriptions apart, not processes,
so each process opens the file anew.
"""

from __future__ import annotations

import os
import threading
import weakref
from fcntl import LOCK_EX, LOCK_UN, flock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = ["FileLock"]

_all: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """A lock on the file behind a descriptor, which must stay open as long.

    Parameters
    ----------
    fd : int
        From now on it has an open description of its own.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own()
        _all.add(self)

    def _own(self) -> None:
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self._threads = threading.Lock()

    def alone(self, function: Callable[..., T], *args: Any) -> T:
        """Call the function while no other process and no other thread does."""
        with self._threads:
            try:
                # In here, so that no signal can come between: unlocking twice does no harm.
                flock(self._fd, LOCK_EX)
                return function(*args)
            finally:
                flock(self._fd, LOCK_UN)


def _after_fork() -> None:
    for lock in list(_all):
        lock._own()


os.register_at_fork(after_in_child=_after_fork)
