"""Kernel objects with names: who uses one, and who removes it.

Each named object has a lease: a file in a private directory that says what the object is, and on
which all its users hold a shared lock (flock). The kernel drops the lock of whoever dies, so a
lease that can be locked exclusively has no user left, and whoever finds it so removes object and
lease: the last user that closes it, the next program that starts, or ``python -m mpipc clean``.

=====================================  ===========================================================
killed                                 what the next one finds and does
=====================================  ===========================================================
before the record is written           an empty lease without a lock: only the file is removed
before the object is made              a record of nothing: the remover finds no such object
while using it, or before removing it  a record without a lock: object and file are removed
between removing object and file       as before the object is made
=====================================  ===========================================================
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import io
import os
import re
import stat
import sys
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module

from .. import _lifetime
from .._handles import dup_fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = ["Lease", "at_exit", "clean", "existing", "is_lease", "key_of", "nameless", "new_file"]

PREFIX = "mpipc-"
# After the finalizers of the objects themselves, and after stock's own threads have ended.
EXIT_PRIORITY = -110

_LEASE = re.compile(PREFIX + "[0-9a-f]{24}")
_directory: str | None = None
_at_exit = False
_held: weakref.WeakSet[Lease] = weakref.WeakSet()
# Those that this process released while others had them. Each release looks at two of them again.
_left: collections.deque[str] = collections.deque()


class Lease:
    """A process's share in a named kernel object. Made before the object, released after it.

    Picklable while a process is being spawned; a forked child has it too.

    Parameters
    ----------
    remove : callable, optional
        A function of a module that removes the object, given its name; it may be called when there
        is no such object, or in another program. None for objects that are files: those beside the
        lease, and in :meth:`directory`, are removed with it.

    Attributes
    ----------
    name : str
        An unguessable name for the object, of letters, digits and ``-``.
    path : str
        The lease's file. What else belongs to the object may stand beside it, under names that
        begin with this path and a dot.
    """

    def __init__(self, remove: Callable[[str], None] | None = None) -> None:
        self.name = PREFIX + os.urandom(12).hex()
        self.path, self._fd = _new_file(self.name)
        if remove is not None:
            os.write(self._fd, f"{remove.__module__}:{remove.__name__}".encode())
        _held.add(self)

    def directory(self) -> str:
        """Make a private directory for files that go with the lease."""
        path = self.path + ".d"
        os.mkdir(path, 0o700)
        return path

    def __getstate__(self) -> tuple[str, str, Any]:
        return self.name, self.path, dup_fd(self._fd)

    def __setstate__(self, state: tuple[str, str, Any]) -> None:
        self.name, self.path, fd = state
        self._fd = fd.detach()
        _held.add(self)

    def release(self) -> None:
        """Use the object no more; without other users, it is removed."""
        fd = self.__dict__.pop("_fd", None)
        if fd is None:
            return
        # Not by its path: a cleaner of old files may have taken that away meanwhile.
        try:
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(fd)
        if _reap(again, self.path) is None:
            # Others have it; should they all be killed, we are the one who knows of it.
            _left.append(self.path)
        for _ in range(min(2, len(_left))):
            path = _left.popleft()
            if reap(path) is None and os.path.exists(path):
                _left.append(path)

    def abandon(self) -> None:
        """Give up an object that is not ours after all: only the lease goes."""
        os.ftruncate(self._fd, 0)
        self.release()

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # Once the interpreter shuts down modules may be gone; the exit hook has run by then.
        if not finalizing():
            self.release()


def _new_file(name: str) -> tuple[str, int]:
    global _directory
    while True:
        if _directory is None:
            _directory = os.path.join(_base(), f"{PREFIX}{os.getuid()}-{os.urandom(12).hex()}")
            os.mkdir(_directory, 0o700)
        path = os.path.join(_directory, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # Whoever removed the last lease in it removed the directory too.
            _directory = None
            continue
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.fstat(fd).st_nlink:
            return path, fd
        # Somebody cleaned up before we had locked it.
        os.close(fd)


def new_file(path: str) -> io.FileIO:
    """Make a file that only this user may read and write, and open it."""
    return io.FileIO(path, "x+", opener=lambda path, flags: os.open(path, flags, 0o600))


def _base() -> str:
    return os.environ.get("TMPDIR") or "/tmp"


def reap(path: str) -> str | None:
    """Remove a lease and its object if it has no users left; return its name if so."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    return _reap(fd, path)


def _reap(fd: int, path: str) -> str | None:
    name = os.path.basename(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another may have done it already; the removers do not mind.
        module, _, remover = os.pread(fd, 4096, 0).decode().partition(":")
        if module:
            getattr(import_module(module), remover)(name)
        else:
            _remove_beside(path)
        os.unlink(path)
    except (BlockingIOError, FileNotFoundError):
        return None
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):  # not empty, or another did it
        os.rmdir(os.path.dirname(path))
    return name


def _remove_beside(path: str) -> None:
    directory, name = os.path.split(path)
    for entry in os.scandir(directory):
        if not entry.name.startswith(f"{name}."):
            continue
        if entry.is_dir(follow_symlinks=False):
            for file in os.listdir(entry):
                os.unlink(os.path.join(entry, file))
            os.rmdir(entry)
        else:
            os.unlink(entry)


def nameless(kind: str, open_new: Callable[[str], T]) -> T:
    """Open what needs a name only until it is open.

    Parameters
    ----------
    kind : str
        What it is, for those who list descriptors: the path ends with a dot and this.
    open_new : callable
        Makes and opens a file at the path it is given. What it returns is returned; the path is
        gone by then, and was nobody else's.
    """
    lease = Lease()
    path = f"{lease.path}.{kind}"
    try:
        return open_new(path)
    finally:
        # First by hand, for a process forked meanwhile has the lease too.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        lease.release()


def clean(failed: Callable[[str, Exception], object] | None = None) -> Iterator[str]:
    """Remove the named objects of this user that no living process uses; yield their names.

    Parameters
    ----------
    failed : callable, optional
        Told the path of a lease whose object could not be removed, and why. It stays for another
        time: the package that its mechanism needs may be missing here.
    """
    for directory in _directories():
        # The last user of the last lease in it may be removing it.
        with contextlib.suppress(FileNotFoundError):
            for path in _leases(directory):
                try:
                    name = reap(path)
                except Exception as error:
                    if failed:
                        failed(path, error)
                else:
                    if name:
                        yield name
            with contextlib.suppress(OSError):  # others still have leases in it
                os.rmdir(directory)


def is_lease(path: str) -> bool:
    """Whether this is the file of a lease, by its name."""
    return _LEASE.fullmatch(os.path.basename(path)) is not None


def key_of(name: str) -> int:
    """A number for kernel objects that have no names but keys; 0 has a meaning of its own."""
    return int(name[-8:], 16) & 0x7FFFFFFF or 1


def existing() -> list[str]:
    """The leases of this user's programs, in use or left behind: their files."""
    found = []
    for directory in _directories():
        with contextlib.suppress(FileNotFoundError):
            found += _leases(directory)
    return found


def _directories() -> Iterator[str]:
    prefix = f"{PREFIX}{os.getuid()}-"
    try:
        with os.scandir(_base()) as entries:
            named = [entry.path for entry in entries if entry.name.startswith(prefix)]
    except OSError:
        # Who cannot look into it has left nothing there.
        return
    for path in named:
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(path)
            # Anybody may make something of such a name.
            if (
                stat.S_ISDIR(found.st_mode)
                and found.st_uid == os.getuid()
                and not stat.S_IMODE(found.st_mode) & 0o077
            ):
                yield path


def _leases(directory: str) -> list[str]:
    return [os.path.join(directory, name) for name in os.listdir(directory) if is_lease(name)]


def at_exit() -> bool:
    """Whether this process is about to end and has let go of all objects."""
    return _at_exit


def _release_all() -> None:
    global _at_exit
    _at_exit = True
    for lease in list(_held):
        lease.release()
    # Some had a last user that was killed; nobody else may come by for long.
    if _directory is not None:
        with contextlib.suppress(FileNotFoundError):
            for path in _leases(_directory):
                with contextlib.suppress(Exception):  # this one stays for clean(), which tells
                    reap(path)


_lifetime.at_exit(_release_all, EXIT_PRIORITY)
