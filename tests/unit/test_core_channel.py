"""The message queue of the core: records, chunks, extents, tickets."""

from __future__ import annotations

import os
import queue as queue_errors
import random
import resource
from types import SimpleNamespace

import pytest
from core_memory import GET_CALLED, GET_GIVEN, assert_tiled, linked_pages, words
from hypothesis import given, settings
from hypothesis import strategies as st

import mpipc
import workers
from mpipc.mechanisms import shm
from workers import Background

CHUNKS = 3 + 2 * 16  # pages of the first chunk, of the one in use and of the spare one
INLINE = 4096


@pytest.fixture
def channel():
    return mpipc.get_context("shm", start_method="fork").Pipe(duplex=False)


def sizes_around(*edges: int) -> list[int]:
    return [size for edge in edges for size in (edge - 1, edge, edge + 1)]


@pytest.mark.parametrize(
    "size", [0, 1, *sizes_around(16, INLINE, 2 * 4096 - 128, 65536, 1 << 20, 64 << 20)]
)
def test_a_message_comes_back_as_it_was(channel, size):
    reader, writer = channel
    message = random.Random(size).randbytes(size)
    # A huge one holds its sender until it is taken.
    sending = Background(writer.send_bytes, message)
    assert reader.recv_bytes() == message
    sending.result()
    report = reader.segment.inspect()
    assert_tiled(report)
    assert report["count"] == report["backlog"] == 0
    assert linked_pages(report) <= CHUNKS


def test_small_messages_stay_in_the_first_chunk_while_the_reader_keeps_up(channel):
    reader, writer = channel
    for i in range(10_000):
        writer.send_bytes(b"x" * (i % 100))
        assert len(reader.recv_bytes()) == i % 100
    assert reader.segment.inspect()["npages"] == 4


def test_chunks_are_linked_and_recycled(channel):
    reader, writer = channel
    for _ in range(3):
        for i in range(2000):
            writer.send_bytes(i.to_bytes(2, "little") * 100)
        assert linked_pages(reader.segment.inspect()) > CHUNKS
        for i in range(2000):
            assert reader.recv_bytes() == i.to_bytes(2, "little") * 100
    report = reader.segment.inspect()
    assert_tiled(report)
    assert linked_pages(report) <= CHUNKS


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(0, 2 * INLINE), st.integers(0, 300_000), st.none(), st.none()),
        max_size=120,
    )
)
def test_any_sequence_of_puts_and_takes(steps):
    """A number puts a message of that size, None takes one."""
    queue = mpipc.get_context("shm", start_method="fork").SimpleQueue()
    reader, writer = queue._reader, queue._writer
    expected: list[bytes] = []
    for number, step in enumerate(steps):
        waiting = sum(map(len, expected))
        room = (1 << 20) - waiting - 16 * len(expected)
        if step is not None and (not expected or step <= room):
            expected.append(number.to_bytes(4, "little") * (step // 4))
            writer.send_bytes(expected[-1])
        elif expected:
            assert reader.recv_bytes() == expected.pop(0)
        report = queue.segment.inspect()
        assert_tiled(report)
        assert report["count"] == len(expected)
        assert report["backlog"] == sum(map(len, expected))
    for message in expected:
        assert reader.recv_bytes() == message
    assert linked_pages(queue.segment.inspect()) <= CHUNKS


def test_memory_is_used_again():
    """Filling and draining with ever other sizes settles at some size of the segment."""
    queue = mpipc.get_context("shm", start_method="fork").Queue()
    dice = random.Random(7)
    pages = []
    for _ in range(60):
        for _ in range(50):
            queue.put(b"x" * dice.choice([10, 5_000, 40_000, 200_000]))
        for _ in range(50):
            queue.get()
        pages.append(queue.segment.inspect()["npages"])
    assert pages[-1] <= 2 * pages[10]


def test_empty_messages_fill_a_pipe_too(channel):
    reader, writer = channel
    sender = workers.Background(lambda: [writer.send_bytes(b"") for _ in range(100_000)])
    assert sender.blocked()
    assert sum(len(reader.recv_bytes()) for _ in range(100_000)) == 0
    sender.result()


@pytest.mark.parametrize("forget", [True, False])
def test_an_end_that_is_gone_has_no_descriptor(forget):
    class Mine(shm.Connection):
        def __del__(self):
            if not forget:
                super().__del__()

    reader, writer = mpipc._core.open_pipe(Mine, False, 1 << 20, 0)
    descriptor = reader.fileno()
    del reader
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with pytest.raises(BrokenPipeError):
        writer.send(1)


def test_a_wait_that_times_out_gives_its_ticket_back():
    context = mpipc.get_context("shm", start_method="fork")
    queue = context.Queue(1)
    for _ in range(3):
        with pytest.raises(queue_errors.Empty):
            queue.get(timeout=0.01)
    queue.put(1)
    for _ in range(3):
        with pytest.raises(queue_errors.Full):
            queue.put(2, timeout=0.01)
    report = queue.segment.inspect()
    assert report["get_tickets"] == report["put_tickets"] == 0


def test_no_ticket_is_given_twice():
    """Else a wake-up that found nobody counts a ticket as called whose holder came later."""
    queue = mpipc.get_context("shm", start_method="fork").Queue()
    for number in range(1, 4):
        with pytest.raises(queue_errors.Empty):
            queue.get(timeout=0.01)
        with words(queue.segment) as memory:
            assert memory.get32(GET_GIVEN) == memory.get32(GET_CALLED) == number


def test_a_full_segment_is_a_memory_error_and_nothing_is_lost():
    queue = mpipc.get_context("shm", start_method="fork", max_bytes=1 << 20).Queue()
    held = 0
    with pytest.raises(MemoryError, match="max_bytes"):
        while True:
            queue.put(bytes([held]) * 100_000)
            held += 1
    assert held > 5
    assert_tiled(queue.segment.inspect())
    assert [queue.get() for _ in range(held)] == [bytes([i]) * 100_000 for i in range(held)]
    queue.put("room again")
    assert queue.get() == "room again"


def test_a_segment_at_its_cap_joins_its_free_pages_to_the_last_it_may_have():
    queue = mpipc.get_context("shm", start_method="fork", max_bytes=1 << 20).Queue()
    for size in (100_000, 400_000, 900_000):
        queue.put(b"x" * size)
        assert len(queue.get()) == size


def test_the_descriptor_is_rung_once_until_somebody_asks_for_it(channel):
    reader, writer = channel
    for i in range(100):
        writer.send(i)
    report = reader.segment.inspect()
    assert report["bells"] == 1 and not report["exposed"]
    assert [reader.recv() for _ in range(100)] == list(range(100))
    reader.fileno()
    report = reader.segment.inspect()
    assert report["exposed"] and report["bells"] == 0
    for _ in range(3):
        writer.send(1)
        assert reader.segment.inspect()["bells"] == 1
        reader.recv()
        assert reader.segment.inspect()["bells"] == 0


def test_both_directions_work_under_a_limit_on_file_sizes():
    """``ulimit -f`` counts what lies in a memfd, too."""
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))
        a, b = mpipc.get_context("shm", start_method="fork").Pipe()
        for sender, receiver in ((a, b), (b, a)):
            sender.send_bytes(b"x" * (1 << 20))
            if len(receiver.recv_bytes()) != 1 << 20:
                os._exit(1)
            try:
                sender.send_bytes(b"x" * (16 << 20))
            except MemoryError:
                sender.send_bytes(b"small")
            if receiver.recv_bytes() != b"small":
                os._exit(2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_stale_tickets_are_called_together():
    """Sleepers that give up in another order than they came leave tickets; one put ends that."""
    queue = mpipc.get_context("shm", start_method="fork").Queue()

    def give_up(timeout: float) -> None:
        with pytest.raises(queue_errors.Empty):
            queue.get(timeout=timeout)

    for waiting in [workers.Background(give_up, 0.05 * (i % 5)) for i in range(20)]:
        waiting.result()
    queue.put(1)
    assert queue.segment.inspect()["get_tickets"] == 0
    assert queue.get() == 1


def test_a_refused_message_leaves_no_memory_taken():
    queue = mpipc.get_context("shm", start_method="fork").Queue()
    queue.put(1)
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20, 32 << 20))
        try:
            queue.put(b"x" * (64 << 20))
        except MemoryError:
            os._exit(0 if os.fstat(queue.segment.fd).st_blocks * 512 < 1 << 20 else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert queue.get() == 1


def test_a_take_notes_which_message_it_takes():
    context = mpipc.get_context("shm", start_method="fork")
    queue, word = context.SimpleQueue(), context.RawArray("Q", 1)
    for item in "abc":
        queue.put(item)
    assert not queue._has_left(1)
    queue._claim(word)
    for number, item in enumerate("abc", 1):
        assert queue.get() == item and word[0] == number
        assert queue._has_left(number) and not queue._has_left(number + 1)


@pytest.mark.parametrize("word", [bytearray(7), bytes(8), memoryview(bytearray(24))[1:10]])
def test_a_word_for_notes_must_be_one(word):
    with pytest.raises(ValueError, match="word must be 8 bytes, aligned and writable"):
        mpipc.get_context("shm", start_method="fork").SimpleQueue()._claim(word)


class TakenByOthers(shm.Connection):
    """Of a queue whose messages are always taken by somebody else, between a look and a take."""

    def poll(self, timeout=0.0):
        return True


def test_who_takes_at_once_does_not_wait_for_what_another_has_taken():
    queue = mpipc.get_context("shm", start_method="fork").SimpleQueue()
    queue._attach(*mpipc._core.open_queue(TakenByOthers, 0, 1 << 20, 0))
    assert queue._take_some([], 1, 0) == queue._take_some([], 1, 0.01) == 0
    # Nor does a pool that ends.
    alive = iter([True, False])
    handler = SimpleNamespace(is_alive=lambda: next(alive))
    shm.Pool._help_stuff_finish(queue, handler, 2)


def test_a_put_that_waits_for_nobody():
    queue = mpipc.get_context("shm", start_method="fork").SimpleQueue()
    queue.put(bytes(1 << 20))
    queue._put_at_once(bytes(9 << 20))
    full = Background(queue.put, b"x")
    assert full.blocked()
    assert [len(queue.get()) for _ in range(3)] == [1 << 20, 9 << 20, 1]
    full.result()
