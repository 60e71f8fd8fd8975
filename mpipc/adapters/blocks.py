"""Many small blocks in few arenas of a mechanism's memory.

A block is never used again, for another process may still see it when its maker has forgotten it:
arenas are filled from front to back, and one goes when nobody refers to a block in it any more.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref

from .._handles import dup_fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Block", "Blocks", "FileArena", "current_arenas"]

ARENA = 1 << 18
# Of a cache line, so that the blocks of two processes do not share one.
ALIGNMENT = 64


class Block:
    """A zeroed piece of an arena, picklable while a process is being spawned."""

    def __init__(self, arena: Any, start: int, size: int) -> None:
        self.arena = arena
        self.start = start
        self.size = size

    def create_memoryview(self) -> memoryview:
        """All of it, writable."""
        return memoryview(self.arena.buffer).cast("B")[self.start : self.start + self.size]


class Blocks:
    """A memory provider.

    Parameters
    ----------
    new_arena : callable
        Makes zeroed shared memory of a size in bytes: an object whose ``buffer`` is a writable
        buffer of that size, picklable while a process is being spawned.
    """

    def __init__(self, new_arena: Callable[[int], Any]) -> None:
        self._new_arena = new_arena
        self._start_anew()
        _providers.add(self)
        # The parent goes on filling the arena that a forked child has too.
        os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._arena: Any = None
        self._used = ARENA

    def __call__(self, size: int) -> Block:
        if size < 0:
            raise ValueError(f"a block's size must not be negative, got {size}")
        room = max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
        if room > ARENA // 4:
            return Block(self._new_arena(room), 0, size)
        with self._lock:
            if self._used + room > ARENA:
                self._arena = self._new_arena(ARENA)
                self._used = 0
            start = self._used
            self._used += room
            return Block(self._arena, start, size)


_providers: weakref.WeakSet[Blocks] = weakref.WeakSet()


def current_arenas() -> list[Any]:
    """The arenas with room for more blocks, which this process keeps."""
    return [blocks._arena for blocks in _providers if blocks._arena is not None]


class FileArena:
    """Memory that is a mapped file, which the descriptor keeps.

    Parameters
    ----------
    fd : int
        Becomes this object's.
    size : int
        Bytes to map; the file gets room for them now, so that writing cannot fail for want of it.

    Raises
    ------
    MemoryError
        The file system has no room for it.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            raise MemoryError(f"no room for {size} bytes of shared memory: {error}") from None
        self.buffer = mmap.mmap(fd, size)

    def __getstate__(self) -> tuple[Any, int]:
        return dup_fd(self.fd), len(self.buffer)

    def __setstate__(self, state: tuple[Any, int]) -> None:
        fd, size = state
        self.fd = fd.detach()
        self.buffer = mmap.mmap(self.fd, size)

    def __del__(self, close: Any = os.close) -> None:
        if "fd" in self.__dict__:
            close(self.fd)
