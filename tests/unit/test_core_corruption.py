"""Damaged shared memory: an exception or a right answer, never a crash or a hang."""

from __future__ import annotations

import multiprocessing
import os
import queue as queue_errors
import random

import pytest
from core_memory import (
    FIRST_RECORD,
    HEAD,
    LINKED,
    NPAGES,
    PAGE,
    READ_AT,
    SHUT,
    TAIL,
    WRITE_AT,
    words,
)

import mpipc
from mpipc import SegmentCorrupt, ShutDown

RECORD_KIND = FIRST_RECORD + 8
RECORD_PAGE = FIRST_RECORD + 12


@pytest.fixture
def queue():
    queue = mpipc.get_context("shm", start_method="fork").Queue()
    queue.put(b"x" * 20_000)
    queue.put(b"small")
    return queue


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("npages", 0),
        ("npages", 0x7FFFFFFF),
        ("npages", 1 << 20),
        ("head", 0xFFFFFFFF_00000000),
        ("head", 1 << 28),
        ("kind", 77),
        ("page", 0),
        ("page", 0x7FFFFFFF),
        ("size", 1 << 50),
        ("extent", 0),
        ("extent", 0x7FFFFFFF << 32 | LINKED),
    ],
)
def test_a_damaged_word_is_reported(queue, what, value):
    with words(queue.segment) as memory:
        where = {
            "npages": NPAGES,
            "head": HEAD,
            "kind": RECORD_KIND,
            "page": RECORD_PAGE,
            "size": FIRST_RECORD,
            "extent": memory.get32(RECORD_PAGE) * PAGE,
        }[what]
        good = memory.get64(where)
        if what in ("npages", "kind", "page"):
            memory.set32(where, value)
        elif what == "head":
            memory.set64(where, value | good & 0xFFFFFFF)
        else:
            memory.set64(where, value)
        with pytest.raises(SegmentCorrupt, match="damaged"):
            queue.get(timeout=5)
        memory.set64(where, good)
    assert queue.get(timeout=5) == b"x" * 20_000
    assert queue.get(timeout=5) == b"small"


@pytest.mark.parametrize("where", [WRITE_AT, READ_AT])
def test_a_damaged_chunk_number_is_reported_or_harmless(queue, where):
    with words(queue.segment) as memory:
        memory.set32(where, 0x7FFFFFFF)
        if where == WRITE_AT:
            with pytest.raises(SegmentCorrupt):
                queue.put(1)
    assert queue.get(timeout=5) == b"x" * 20_000


def test_a_pipe_cannot_be_shut_down():
    reader, writer = mpipc.get_context("shm", start_method="fork").Pipe(duplex=False)
    with words(writer.segment) as memory:
        memory.set32(SHUT, 1)
    for call in (lambda: writer.send(1), reader.recv):
        with pytest.raises(SegmentCorrupt, match="damaged"):
            call()
    with words(writer.segment) as memory:
        memory.set32(SHUT, 0)
    writer.send(1)
    assert reader.recv() == 1


def test_damage_is_found_by_recovery_too(queue):
    with words(queue.segment) as memory:
        memory.set32(RECORD_KIND, 9)
        memory.owner_died()
    with pytest.raises(SegmentCorrupt):
        queue.get(timeout=5)


def use(queue) -> None:
    """Everything that reads shared memory; only these exceptions may come out."""
    for call in (
        lambda: queue.put(b"y" * 9000, timeout=0.05),
        lambda: queue.put(1, timeout=0.05),
        queue.segment.inspect,
        queue.qsize,
        queue.full,
        queue.empty,
        lambda: queue.get(timeout=0.05),
        lambda: queue.get(timeout=0.05),
        lambda: queue.get(timeout=0.05),
        getattr(queue, "task_done", queue.full),
    ):
        try:
            call()
        except (OSError, MemoryError, OverflowError, queue_errors.Empty, queue_errors.Full):
            continue
        except ShutDown:  # the word that says so was hit
            continue
        except Exception as error:  # a message whose bytes were hit
            assert type(error).__module__ in ("builtins", "_pickle", "pickle"), error


def leave_in_the_hand_of_a_dead_process(queue) -> None:
    pid = os.fork()
    if not pid:
        queue.get()
        queue.get()
        os._exit(0)
    os.waitpid(pid, 0)


def fuzz(seed: int) -> None:
    dice = random.Random(seed)
    context = mpipc.get_context("shm", start_method="fork", max_bytes=8 << 20)
    for turn in range(150):
        bound = dice.choice([0, 5])
        queue = context.JoinableQueue(bound, redeliver=True) if turn % 3 else context.Queue(bound)
        for _ in range(3):
            queue.put(b"x" * dice.choice([3, 900, 20_000, 90_000]))
        if turn % 3 == 1:
            leave_in_the_hand_of_a_dead_process(queue)
        elif turn % 3 == 2:
            queue.get()
        pages = queue.segment.inspect()["npages"]
        with words(queue.segment) as memory:
            for _ in range(dice.randrange(1, 4)):
                page = dice.randrange(pages)
                # The lock word is the kernel's and ours alone: a wrong owner there is a live one.
                where = page * PAGE + dice.choice([*range(0, 64, 4), *range(68, 300, 4)])
                memory.set32(
                    where, dice.choice([0, 1, 2, 0x7FFFFFFF, LINKED, dice.getrandbits(32)])
                )
            if dice.random() < 0.3:
                memory.owner_died()
        use(queue)


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_never_crashes_or_hangs(seed):
    child = multiprocessing.get_context("fork").Process(target=fuzz, args=(seed,))
    child.start()
    child.join(50)
    hung = child.is_alive()
    child.kill()
    child.join()
    assert not hung, f"seed {seed} hangs"
    assert child.exitcode == 0, f"seed {seed} ended with {child.exitcode}"


def test_tail_that_runs_ahead_is_reported(queue):
    with words(queue.segment) as memory:
        memory.set64(TAIL, memory.get64(TAIL) + 1)
    assert queue.get(timeout=5) == b"x" * 20_000
    assert queue.get(timeout=5) == b"small"
    with pytest.raises(SegmentCorrupt):
        queue.get(timeout=5)
