"""What the next owner of a channel's lock makes of what a dead one left behind.

The states are written by hand, as a process killed between two particular stores leaves them, and
the lock is marked as the kernel marks it.
"""

from __future__ import annotations

import os
import select
import socket

import pytest
from core_memory import (
    FREE_LIST,
    FREE_LISTS,
    HEAD,
    LINKED,
    LOCK,
    PAGE,
    READ_AT,
    SPARE,
    WRITE_AT,
    assert_tiled,
    linked_pages,
    words,
)

import mpipc

SMALL = [b"%d" % i for i in range(5)]
LARGE = [bytes([i]) * 20_000 for i in range(5)]


@pytest.fixture
def queue():
    queue = mpipc.get_context("shm", start_method="fork").Queue()
    for small, large in zip(SMALL, LARGE, strict=True):
        queue.put(small)
        queue.put(large)
    return queue


def drained(queue) -> list[bytes]:
    return [queue.get(timeout=5) for _ in range(queue.qsize())]


def free_extent(queue) -> tuple[int, int]:
    """Empty the queue; return the page and the length of a free extent."""
    drained(queue)
    extents = queue.segment.inspect()["extents"]
    return next((start, pages) for start, pages, holder in extents if holder == "free")


def dead_process() -> int:
    """Return the pid of a process that is gone."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


EVERYTHING = [message for pair in zip(SMALL, LARGE, strict=True) for message in pair]


def test_nothing_is_changed_where_nothing_is_wrong(queue):
    before = queue.segment.inspect()
    with words(queue.segment) as memory:
        memory.owner_died()
    after = queue.segment.inspect()
    assert after == {**before, "epoch": before["epoch"] + 1}
    assert drained(queue) == EVERYTHING


def test_recovery_can_be_interrupted_and_begun_again(queue):
    epochs = [0]
    for _ in range(4):
        with words(queue.segment) as memory:
            memory.owner_died()
        epochs.append(queue.segment.inspect()["epoch"])
    assert epochs == sorted(set(epochs))
    assert drained(queue) == EVERYTHING


def test_an_extent_linked_before_its_commit_is_freed(queue):
    start, pages = free_extent(queue)
    with words(queue.segment) as memory:
        memory.set64(start * PAGE, pages << 32 | LINKED)
        memory.owner_died()
    report = queue.segment.inspect()
    assert_tiled(report)
    assert linked_pages(report) <= 35


def test_an_extent_of_a_dead_process_is_freed(queue):
    pid = dead_process()
    start, pages = free_extent(queue)
    with words(queue.segment) as memory:
        memory.set64(start * PAGE, pages << 32 | pid)
        memory.owner_died()
    report = queue.segment.inspect()
    assert_tiled(report)
    assert {holder for _, _, holder in report["extents"]} == {"free", "linked"}


def test_a_descriptor_rung_for_a_message_that_never_came_is_quiet_after_a_poll(queue):
    """Killed between ringing and committing."""
    drained(queue)
    descriptor = queue._reader.fileno()  # asked for only once: asking repairs, too
    assert not select.select([descriptor], [], [], 0)[0]
    with words(queue.segment) as memory:
        with socket.socket(fileno=os.dup(queue._writer.fileno())) as bell:
            bell.send(b"\0")
        memory.owner_died()
    assert select.select([descriptor], [], [], 0)[0]
    assert not queue._reader.poll()
    assert not select.select([descriptor], [], [], 0)[0]
    queue.put(1)
    assert select.select([descriptor], [], [], 5)[0]
    assert queue.get() == 1


def test_a_lock_that_the_kernel_did_not_mark_is_taken_from_the_dead(queue):
    """After an out-of-memory kill the word may be left as it is, with the dead one's thread id."""
    pid = dead_process()
    with words(queue.segment) as memory:
        memory.set32(LOCK, pid)
    assert drained(queue) == EVERYTHING
    assert queue.segment.inspect()["epoch"] == 1


def test_an_extent_of_a_living_process_is_left_alone(queue):
    start, pages = free_extent(queue)
    parent = os.getppid()
    with open(f"/proc/{parent}/stat") as file:
        started = int(file.read().rpartition(")")[2].split()[19])
    bits = ((started * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 55) % 510 + 1
    tag = bits << 22 | parent
    with words(queue.segment) as memory:
        memory.set64(start * PAGE, pages << 32 | tag)
        memory.owner_died()
    assert (start, pages, parent) in queue.segment.inspect()["extents"]


def test_old_payload_in_an_extents_header_says_nothing(queue):
    """Where a header comes to lie on old payload, that may look like any recovery's number."""
    start, _pages = free_extent(queue)
    with words(queue.segment) as memory:
        memory.set32(start * PAGE + 8, queue.segment.inspect()["epoch"] + 1)
        memory.owner_died()
    report = queue.segment.inspect()
    assert report["extents"][-1][2] == "free"


def test_a_repair_that_failed_is_left_to_the_next(queue):
    with words(queue.segment) as memory:
        good = memory.get64(HEAD)
        memory.set64(HEAD, good ^ 1 << 60)
        memory.owner_died()
        for _ in range(2):
            with pytest.raises(mpipc.SegmentCorrupt):
                queue.get(timeout=5)
        memory.set64(HEAD, good)
    assert queue.segment.inspect()["epoch"] == 3
    assert drained(queue) == EVERYTHING


@pytest.mark.parametrize("offset", [READ_AT, WRITE_AT, SPARE])
def test_caches_of_the_header_are_computed_anew(queue, offset):
    with words(queue.segment) as memory:
        memory.set32(offset, 0xFFFF)
        memory.owner_died()
    assert_tiled(queue.segment.inspect())
    assert drained(queue) == EVERYTHING
    queue.put("on")
    assert queue.get() == "on"


def test_free_lists_are_made_anew(queue):
    drained(queue)
    before = queue.segment.inspect()
    with words(queue.segment) as memory:
        for i in range(FREE_LISTS):
            memory.set32(FREE_LIST + 4 * i, 0xABCDEF)
        memory.owner_died()
    for message in LARGE:
        queue.put(message)
    after = queue.segment.inspect()
    assert after["npages"] == before["npages"], "free extents were not found again"
    assert drained(queue) == LARGE


def test_a_child_killed_while_it_holds_messages_costs_no_memory():
    """Killed at any moment, again and again: what it held is found and freed."""
    context = mpipc.get_context("shm", start_method="fork")
    queue = context.Queue(4)

    def churn():
        while True:
            queue.put(b"x" * 100_000)
            queue.get()

    for delay in range(25):
        child = context.Process(target=churn)
        child.start()
        child.join(delay / 1000)
        child.kill()
        child.join()
        while queue.qsize():
            assert queue.get(timeout=5) == b"x" * 100_000
        queue.put("alive")
        assert queue.get(timeout=5) == "alive"
    with words(queue.segment) as memory:
        memory.owner_died()
    report = queue.segment.inspect()
    assert_tiled(report)
    assert linked_pages(report) <= 35
    assert {holder for _, _, holder in report["extents"]} <= {"free", "linked"}
