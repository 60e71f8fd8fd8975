"""A look past the objects, at the words that lie in a channel's shared memory."""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator
from typing import Any

PAGE = 4096
LOCK = 64
HEAD = 72
TAIL = 80
GET_GIVEN = 88
GET_CALLED = 92
SPARE = 108
NPAGES = 112
READ_AT = 128
WRITE_AT = 132
HAND = 164
LOOKED_AT = 168
SHUT = 180
FREE_PAGES = 184
FEWEST = 188
FREE_LIST = 192
FREE_LISTS = 21
PERIOD_AT = 2368
EXTENT_HEADER = 128
HEIR = 64
FIRST_RECORD = PAGE + EXTENT_HEADER
RECORD_BYTES = 16

TID = 0x3FFFFFFF  # of who has the lock
OWNER_DIED = 0x40000000
LINKED = 0x80000000
EMPTY = 0x7FC00000


class Words:
    """32- and 64-bit words by their offset."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    def get32(self, offset: int) -> int:
        return struct.unpack_from("<I", self._memory, offset)[0]

    def get64(self, offset: int) -> int:
        return struct.unpack_from("<Q", self._memory, offset)[0]

    def set32(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self._memory, offset, value)

    def set64(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self._memory, offset, value)

    def content(self, offset: int, size: int) -> bytes:
        return self._memory[offset : offset + size]

    def owner_died(self) -> None:
        """Do what the kernel does when the holder of the lock dies."""
        self.set32(LOCK, OWNER_DIED)


def a_period_passes(channels: Any) -> None:
    """What is free now in the first channel has been free for so long."""
    with words(channels) as memory:
        memory.set32(FEWEST, memory.get32(FREE_PAGES))
        memory.set64(PERIOD_AT, 0)


@contextlib.contextmanager
def words(channels: Any) -> Iterator[Words]:
    """Map the first channel of a segment as far as it has pages now."""
    size = channels.inspect()["npages"] * PAGE
    with mmap.mmap(channels.fd, size) as memory:
        yield Words(memory)


def assert_tiled(report: dict[str, Any]) -> None:
    """Each extent begins where the one before it ends; free neighbours of one kind are joined."""
    page, before = 1, None
    for start, pages, holder in report["extents"]:
        assert start == page and pages > 0
        assert not (before == holder and holder in ("free", "empty"))
        page, before = start + pages, holder
    assert page == report["npages"]


def linked_pages(report: dict[str, Any]) -> int:
    return sum(pages for _, pages, holder in report["extents"] if holder == "linked")
