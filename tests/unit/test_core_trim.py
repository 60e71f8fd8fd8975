"""Memory that a queue has not needed for a while goes back to the kernel."""

from __future__ import annotations

import os
import queue as queue_errors
from typing import Any

import pytest
from core_memory import (
    EMPTY,
    FEWEST,
    FREE_PAGES,
    PAGE,
    PERIOD_AT,
    Words,
    a_period_passes,
    assert_tiled,
    words,
)

import mpipc

MIB = 1 << 20
WARM = 512  # pages
TRIMMED = 4 * MIB  # what a queue has then: the reserve and its chunks


@pytest.fixture
def ctx():
    return mpipc.get_context("shm", start_method="fork")


def backed(segment: Any) -> int:
    return os.fstat(segment.fd).st_blocks * 512


def wait_in_vain(queue: Any, seconds: float = 0.25) -> None:
    with pytest.raises(queue_errors.Empty):
        queue.get(timeout=seconds)


def exchange(queue: Any, sizes: list[int]) -> None:
    """All in it at once, then out, whole; in another process as well as here."""
    messages = [bytes([n % 255 + 1]) * size for n, size in enumerate(sizes)]
    for message in messages:
        queue.put(message)
    for message in messages:
        assert queue.get(timeout=5) == message
    pid = os.fork()
    if not pid:
        for message in messages:
            queue.put(message)
        os._exit(0)
    for message in messages:
        assert queue.get(timeout=5) == message
    assert os.waitpid(pid, 0)[1] == 0
    assert_tiled(queue.segment.inspect())


def trimmed_queue(ctx: Any, sizes: list[int], **options: Any) -> Any:
    queue = ctx.Queue(**options)
    exchange(queue, sizes)
    a_period_passes(queue.segment)
    wait_in_vain(queue)
    assert backed(queue.segment) <= TRIMMED
    return queue


def extents(queue: Any, holder: str) -> list[tuple[int, int]]:
    return [(page, pages) for page, pages, by in queue.segment.inspect()["extents"] if by == holder]


def assert_counted(queue: Any) -> None:
    with words(queue.segment) as memory:
        assert memory.get32(FREE_PAGES) == sum(pages for _, pages in extents(queue, "free"))


def test_who_waits_gives_back_down_to_a_reserve(ctx):
    queue = ctx.Queue()
    exchange(queue, [MIB] * 12)
    assert backed(queue.segment) >= 12 * MIB
    npages = queue.segment.inspect()["npages"]
    a_period_passes(queue.segment)
    wait_in_vain(queue)
    assert WARM * PAGE <= backed(queue.segment) <= TRIMMED
    assert queue.segment.inspect()["npages"] == npages
    assert_tiled(queue.segment.inspect())
    assert_counted(queue)
    left = backed(queue.segment)
    a_period_passes(queue.segment)
    wait_in_vain(queue)
    assert backed(queue.segment) == left, "the reserve is kept"
    exchange(queue, [MIB] * 11 + [10, 5000, 100_000])
    assert queue.segment.inspect()["npages"] == npages, "what was given back is used first"
    assert_counted(queue)


def test_without_a_look_at_the_words_it_takes_a_period_or_two(ctx):
    queue = ctx.Queue()
    exchange(queue, [MIB] * 12)
    for _ in range(10):
        wait_in_vain(queue, 1)
        if backed(queue.segment) <= TRIMMED:
            break
    assert backed(queue.segment) <= TRIMMED


def gives_back(ctx, send):
    """Whether what is sent through a queue with much idle memory makes it give that back."""
    queue = ctx.Queue()
    exchange(queue, [MIB] * 12)
    a_period_passes(queue.segment)
    send(queue)
    assert_tiled(queue.segment.inspect())
    return backed(queue.segment) <= TRIMMED


def test_small_messages_back_and_forth_give_back(ctx):
    def send(queue):
        for number in range(20_000):
            queue.put(number)
            assert queue.get() == number

    assert gives_back(ctx, send)


def test_small_messages_that_always_wait_give_back(ctx):
    def send(queue):
        queue.put(bytes(1000))
        for _ in range(15_000):
            queue.put(bytes(1000))
            queue.get()

    assert gives_back(ctx, send)


def test_what_was_needed_in_the_period_stays(ctx):
    queue = ctx.Queue()
    exchange(queue, [MIB] * 12)
    a_period_passes(queue.segment)
    exchange(queue, [MIB] * 12)
    before = backed(queue.segment)
    wait_in_vain(queue)
    assert backed(queue.segment) == before


def test_little_memory_stays(ctx):
    queue = ctx.Queue()
    exchange(queue, [MIB] * 4)
    before = backed(queue.segment)
    a_period_passes(queue.segment)
    wait_in_vain(queue)
    assert backed(queue.segment) == before


@pytest.mark.parametrize("duplex", [False, True])
def test_who_waits_for_a_pipe_gives_back(ctx, duplex):
    reader, writer = ctx.Pipe(duplex)
    message = bytes(12 * MIB)
    pid = os.fork()
    if not pid:
        writer.send_bytes(message)
        os._exit(0)
    assert reader.recv_bytes() == message
    os.waitpid(pid, 0)
    segment = reader.segment
    if duplex:  # which of the two directions it came by
        most = max(range(2), key=lambda which: segment.inspect(which)["npages"])
        offset = segment.options[4] * most
    else:
        offset = 0
    fd = segment.fd
    for where, value in ((FEWEST, b"\0\x0b\0\0"), (PERIOD_AT, bytes(8))):
        os.pwrite(fd, value, offset + where)
    assert not reader.poll(0.3)
    assert backed(segment) <= TRIMMED
    pid = os.fork()
    if not pid:
        writer.send_bytes(message)
        os._exit(0)
    assert reader.recv_bytes() == message
    os.waitpid(pid, 0)


def test_free_neighbours_of_both_kinds_serve_a_message_together(ctx):
    queue = trimmed_queue(ctx, [12 * MIB])
    report = queue.segment.inspect()
    free, empty = extents(queue, "free"), extents(queue, "empty")
    assert len(free) == len(empty) == 1 and free[0][0] + free[0][1] == empty[0][0]
    queue.put(bytes([7]) * ((free[0][1] + empty[0][1] - 1) * PAGE))
    assert queue.segment.inspect()["npages"] == report["npages"]
    assert set(queue.get()) == {7}
    assert_tiled(queue.segment.inspect())
    assert_counted(queue)


def test_all_that_max_bytes_allows_can_be_had_again():
    ctx = mpipc.get_context("shm", start_method="fork", max_bytes=16 * MIB)
    queue = trimmed_queue(ctx, [8 * MIB])
    for _ in range(3):
        exchange(queue, [15 * MIB])
        with pytest.raises(MemoryError):
            queue.put(bytes(17 * MIB))
        a_period_passes(queue.segment)
        wait_in_vain(queue)
        assert backed(queue.segment) <= TRIMMED
    exchange(queue, [MIB] * 14)


def test_looking_at_messages_does_not_hinder(ctx):
    numpy = pytest.importorskip("numpy")
    queue = ctx.Queue(views=True)
    for number in range(5):
        queue.put(numpy.full(3 * MIB, number, "B"))
    arrays = [queue.get() for _ in range(5)]
    kept = arrays[2]
    del arrays
    a_period_passes(queue.segment)
    wait_in_vain(queue)
    assert backed(queue.segment) <= TRIMMED + 3 * MIB
    assert_tiled(queue.segment.inspect())
    assert (kept == 2).all()
    del kept
    exchange(queue, [15 * MIB, 5000])


# -- recovery: states written by hand --------------------------------------------------------------


def describe(memory: Words, page: int, pages: int, holder: int) -> None:
    memory.set64(page * PAGE, pages << 32 | holder)


def test_recovery_keeps_what_is_empty(ctx):
    queue = trimmed_queue(ctx, [12 * MIB])
    before = queue.segment.inspect()
    with words(queue.segment) as memory:
        memory.owner_died()
    assert queue.segment.inspect()["extents"] == before["extents"]
    assert_counted(queue)
    exchange(queue, [12 * MIB, 100])
    assert queue.segment.inspect()["npages"] == before["npages"]


@pytest.mark.parametrize("kinds", [(0, 0), (EMPTY, EMPTY), (0, EMPTY), (EMPTY, 0)])
def test_recovery_joins_those_of_one_kind(ctx, kinds):
    queue = trimmed_queue(ctx, [12 * MIB])
    ((page, pages),) = extents(queue, "empty")
    with words(queue.segment) as memory:
        for i, kind in enumerate(kinds):
            describe(memory, page + i * 100, 100 if i == 0 else pages - 100, kind)
        memory.owner_died()
    assert_tiled(queue.segment.inspect())
    assert sum(count for _, count in extents(queue, "empty")) == sum(
        count for count, kind in zip((100, pages - 100), kinds, strict=True) if kind == EMPTY
    )
    assert_counted(queue)
    exchange(queue, [12 * MIB, 100])


def test_recovery_after_a_kill_before_the_memory_went(ctx):
    """EMPTY, but backed: it counts as given back and works as such."""
    queue = ctx.Queue()
    exchange(queue, [12 * MIB])
    page, pages = max(extents(queue, "free"), key=lambda found: found[1])
    with words(queue.segment) as memory:
        describe(memory, page, pages, EMPTY)
        memory.owner_died()
    assert extents(queue, "empty") == [(page, pages)]
    exchange(queue, [12 * MIB, 5000, 100])


def test_recovery_after_a_kill_while_backing_again(ctx):
    queue = trimmed_queue(ctx, [12 * MIB])
    ((page, pages),) = extents(queue, "empty")
    os.posix_fallocate(queue.segment.fd, page * PAGE, 300 * PAGE)
    with words(queue.segment) as memory:
        memory.owner_died()
    assert extents(queue, "empty") == [(page, pages)]
    exchange(queue, [12 * MIB])


def test_a_message_in_what_was_said_to_be_empty_is_safe(ctx):
    """Stray writes: what a message lies in is in use, whatever its header says."""
    queue = ctx.Queue()
    queue.put(b"x" * 100_000)
    page, pages = next(e for e in extents(queue, "linked") if e[1] > 20)
    with words(queue.segment) as memory:
        describe(memory, page, pages, EMPTY)
        memory.owner_died()
    assert queue.get() == b"x" * 100_000
