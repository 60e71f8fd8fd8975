"""Locks and semaphores that are files in a private directory."""

from __future__ import annotations

import contextlib
import os
import select
import time
import warnings
from functools import cache

from .. import _kernel
from .._lifetime import AFTER_OBJECTS, at_exit
from ..errors import OwnerDiedWarning
from .leases import Lease, new_file
from .watches import Exclusive, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

__all__ = ["Counter", "LockFile", "is_dead", "me"]

# Stands for a holder that has ended normally: such a lock stays held until somebody releases it.
ENDED = "0-0"


def _started(pid: int) -> str | None:
    """When a process was started, None if it is dead."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may hold anything.
            state, *fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in (b"Z", b"X") else fields[18].decode()


@cache
def _owner(pid: int) -> str:
    return f"{pid}-{_started(pid)}"


def me() -> str:
    """This process, told from a later one with its pid."""
    return _owner(os.getpid())


def is_dead(owner: str) -> bool:
    """Whether the process of that name has ended, other than by leaving its locks to others."""
    pid, _, started = owner.partition("-")
    return owner != ENDED and _started(int(pid)) != started


class _Units:
    """What LockFile and Counter share: a private directory, and how to wait."""

    def __init__(self) -> None:
        self._lease = Lease()
        self._directory = self._lease.directory()

    @property
    def handle(self) -> int:
        """A number that tells it from others in this process."""
        return id(self)

    def acquire(self, timeout: float | None) -> bool:
        """Take a unit; wait `timeout` seconds at most, None for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._take():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            with contextlib.suppress(FileNotFoundError):
                self._sleep(None if left is None else left * 1000)
        return True

    def _take(self) -> bool:
        raise NotImplementedError

    def _sleep(self, milliseconds: float | None) -> None:
        """Until a unit may have been given back; FileNotFoundError if that was just now."""
        raise NotImplementedError


class Counter(_Units):
    """A counting semaphore: eight bytes in a file that one process at a time may change."""

    capacity: ClassVar[int] = 0x7FFFFFFF

    def __init__(self, value: int) -> None:
        super().__init__()
        self._path = os.path.join(self._directory, "count")
        with new_file(self._path) as file:
            file.write(value.to_bytes(8, "little"))

    def _take(self) -> bool:
        with Exclusive(self._path) as fd:
            value = _read_count(fd)
            if value:
                _write_count(fd, value - 1)
        return value > 0

    def _sleep(self, milliseconds: float | None) -> None:
        # Taking changes the file too and wakes for nothing; what counts is that giving does,
        # in one step with what it changes.
        watch = Watch(self._path, _kernel.IN_MODIFY)
        if not self.value():
            _poll((watch,), milliseconds)

    def release(self) -> None:
        """Give a unit back."""
        with Exclusive(self._path) as fd:
            _write_count(fd, _read_count(fd) + 1)

    def try_release(self) -> bool:
        """Give a unit back; there is always room."""
        self.release()
        return True

    def value(self) -> int:
        """Units that are left."""
        with open(self._path, "rb", buffering=0) as file:
            return _read_count(file.fileno())


def _read_count(fd: int) -> int:
    return int.from_bytes(os.pread(fd, 8, 0), "little")


def _write_count(fd: int, value: int) -> None:
    os.pwrite(fd, value.to_bytes(8, "little"), 0)


# The locks that this process has taken and not released.
_held: set[str] = set()


class LockFile(_Units):
    """One unit, taken by whoever makes the lock's file.

    The file is a symbolic link to the name of its holder: making one fails if it is there, as with
    O_EXCL, and it is never seen without its content. Whoever removes or replaces it has the guard,
    another file, so that nobody removes a lock that is not the one it looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self._path = os.path.join(self._directory, "lock")
        self._guard = os.path.join(self._directory, "guard")
        new_file(self._guard).close()

    def _holder(self) -> str | None:
        try:
            return os.readlink(self._path)
        except FileNotFoundError:
            return None

    def _take(self) -> bool:
        try:
            os.symlink(me(), self._path)
        except FileExistsError:
            return self._take_from_dead()
        _held.add(self._path)
        return True

    def _take_from_dead(self) -> bool:
        holder = self._holder()
        if holder is None or not is_dead(holder):
            return False
        with Exclusive(self._guard):
            if self._holder() != holder:
                return False
            _replace(self._path, me())
            _held.add(self._path)
        try:
            warnings.warn(
                f"process {holder.partition('-')[0]} died holding {self!r}; it is now yours, and "
                "what it protects may be half changed",
                OwnerDiedWarning,
                stacklevel=4,
            )
        except OwnerDiedWarning:
            self.release()
            raise
        return True

    def _sleep(self, milliseconds: float | None) -> None:
        mask = _kernel.IN_ATTRIB | _kernel.IN_DELETE_SELF | _kernel.IN_DONT_FOLLOW
        watch = Watch(self._path, mask)
        holder = self._holder()
        if holder is None:
            return
        if holder == ENDED:
            return _poll((watch,), milliseconds)
        try:
            life = os.pidfd_open(int(holder.partition("-")[0]))
        except ProcessLookupError:
            return
        try:
            if not is_dead(holder):
                _poll((watch, life), milliseconds)
        finally:
            os.close(life)

    def release(self) -> None:
        """Give the unit back, whoever took it.

        Raises
        ------
        ValueError
            Nobody has it.
        """
        with Exclusive(self._guard):
            _held.discard(self._path)
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                raise ValueError("semaphore or lock released too many times") from None

    def value(self) -> int:
        """Units that are left."""
        return 0 if self._holder() else 1


def _replace(path: str, holder: str) -> None:
    """Give a lock another holder. The guard is held."""
    new = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)  # of somebody killed here
    os.symlink(holder, new)
    os.rename(new, path)


def _poll(ready: tuple[Watch | int, ...], milliseconds: float | None) -> None:
    poller = select.poll()
    for each in ready:
        poller.register(each, select.POLLIN)
    poller.poll(milliseconds)


def _leave_held() -> None:
    """At a normal exit: whatever this process still holds stays held, as with stock."""
    for path in list(_held):
        with contextlib.suppress(FileNotFoundError), Exclusive(path.removesuffix("lock") + "guard"):
            if os.readlink(path) == me():
                _replace(path, ENDED)


at_exit(_leave_held, AFTER_OBJECTS)
# A forked child holds no locks.
os.register_at_fork(after_in_child=_held.clear)
