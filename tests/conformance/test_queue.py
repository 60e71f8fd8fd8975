"""Queue, and what JoinableQueue and SimpleQueue have in common with it."""

from __future__ import annotations

import collections
import itertools
import multiprocessing.queues
import os
import queue as queue_errors
import threading
import time
from multiprocessing import reduction

import pytest

import workers
from workers import A_WHILE, MIB, SIZES, SOON, Background, payload

BUFFERED = ("Queue", "JoinableQueue")


def closed(queue):
    """Close a queue, also one that a failed test left full, which a stock feeder waits for."""
    if hasattr(queue, "cancel_join_thread"):
        queue.cancel_join_thread()
    queue.close()


@pytest.fixture(params=[*BUFFERED, "SimpleQueue"])
def queue(ctx, request):
    queue = getattr(ctx, request.param)()
    yield queue
    closed(queue)


@pytest.fixture(params=BUFFERED)
def make(ctx, request):
    """Make Queues and JoinableQueues, closed after the test."""
    made = []

    def make(*args, **kwargs):
        made.append(getattr(ctx, request.param)(*args, **kwargs))
        return made[-1]

    yield make
    for queue in made:
        closed(queue)


def test_is_a_stock_queue(ctx):
    for name in (*BUFFERED, "SimpleQueue"):
        queue = getattr(ctx, name)()
        assert isinstance(queue, getattr(multiprocessing.queues, name))
        closed(queue)
    assert issubclass(type(ctx.JoinableQueue()), multiprocessing.queues.Queue)


def test_keeps_order(queue):
    items = [1, "two", b"three", None, {"four": [4.0]}, (5,) * 50]
    workers.put_all(queue, items)
    assert [queue.get() for _ in items] == items


def test_gives_copies(queue):
    item = [1]
    queue.put(item)
    taken = queue.get()
    assert taken == item and taken is not item


@pytest.mark.parametrize("sizes", [SIZES, [64 * MIB]], ids=["edges", "64MiB"])
def test_messages_of_any_size(queue, family, sizes):
    family.start(workers.put_payloads, queue, sizes)
    for size in sizes:
        taken = queue.get()
        assert len(taken) == size and taken == payload(size)


def test_messages_of_any_size_to_a_child(queue, family):
    total = Background(family.call, workers.get_until_none, queue)
    workers.put_payloads(queue, SIZES)
    queue.put(None)
    assert total.result() == [payload(size) for size in SIZES]


def test_numpy_arrays(queue):
    numpy = pytest.importorskip("numpy", reason="arrays are optional")
    base = numpy.arange(24, dtype=numpy.float64).reshape(4, 6)
    arrays = [
        base,
        numpy.asfortranarray(base),
        base[::2, ::-1],
        numpy.zeros((0, 3), dtype=numpy.int8),
        numpy.array(7, dtype=numpy.uint32),
        numpy.zeros(3, dtype=[("x", "i4"), ("y", "f8")]),
        numpy.array([1, "two", None], dtype=object),
        (numpy.arange(3 * MIB) % 251).astype(numpy.uint8).reshape(3, -1),
    ]
    sender = Background(workers.put_all, queue, arrays)
    for array in arrays:
        taken = queue.get()
        assert (taken.dtype, taken.shape) == (array.dtype, array.shape)
        numpy.testing.assert_array_equal(taken, array)
        assert taken.flags.writeable and not numpy.shares_memory(taken, array)
        taken.fill(1)
    sender.result()


@pytest.mark.watchdog(300)  # some mechanisms take a millisecond for a message
@pytest.mark.parametrize(("count", "size"), [(100_000, 10), (200, MIB)])
def test_unbounded_put_never_blocks(make, count, size):
    queue, item = make(), payload(size)
    for _ in range(count):
        queue.put(item)
    assert queue.qsize() == count and not queue.full()
    assert all(queue.get() == item for _ in range(count))
    assert queue.qsize() == 0


@pytest.mark.parametrize("maxsize", [1, 3, 100])  # with much to take, a put waits otherwise
def test_bounded(make, maxsize):
    queue = make(maxsize)
    for number in range(maxsize):
        assert not queue.full()
        queue.put(number)
        assert queue.qsize() == number + 1
    assert queue.full()
    for full in (
        lambda: queue.put_nowait(9),
        lambda: queue.put(9, False),
        lambda: queue.put(9, True, 0.01),
        lambda: queue.put(9, timeout=0),
        lambda: queue.put(9, timeout=-1),
    ):
        with pytest.raises(queue_errors.Full):
            full()
    blocked = Background(queue.put, maxsize)
    assert blocked.blocked()
    assert queue.get() == 0
    blocked.result()
    assert queue.full()
    assert [queue.get() for _ in range(maxsize)] == list(range(1, maxsize + 1))
    assert not queue.full() and queue.qsize() == 0


def test_empty_raises(make):
    queue = make()
    for empty in (
        queue.get_nowait,
        lambda: queue.get(False),
        lambda: queue.get(True, 0.01),
        lambda: queue.get(timeout=0),
        lambda: queue.get(timeout=-1),
        lambda: queue.get(block=False, timeout=SOON),
    ):
        with pytest.raises(queue_errors.Empty):
            empty()
    assert queue.empty()


def test_timeouts_are_kept(make):
    queue = make(1)
    before = time.monotonic()
    with pytest.raises(queue_errors.Empty):
        queue.get(timeout=A_WHILE)
    queue.put(1)
    with pytest.raises(queue_errors.Full):
        queue.put(2, timeout=A_WHILE)
    assert time.monotonic() - before >= 2 * A_WHILE * 0.95
    assert queue.get(timeout=SOON) == 1


@pytest.mark.without_feeder("a put is over only when the message can be taken")
def test_what_was_put_can_be_taken_at_once(make):
    queue = make()
    for size in SIZES:
        queue.put(payload(size))
        assert not queue.empty() and queue.qsize() == 1
        assert queue.get_nowait() == payload(size)
        assert queue.empty() and queue.qsize() == 0


def test_a_blocked_get_wakes(queue, ctx, family):
    ready = ctx.Event()
    taken = Background(family.call, workers.get_blocked, queue, ready)
    assert ready.wait(SOON) and taken.blocked()
    queue.put("awake")
    assert taken.result() == "awake"
    taken = Background(queue.get)
    assert taken.blocked()
    family.start(workers.put_all, queue, ["awake too"])
    assert taken.result() == "awake too"


def test_a_blocked_get_leaves_others_their_timeout(make):
    queue = make()
    waiting = Background(queue.get)
    assert waiting.blocked()
    with pytest.raises(queue_errors.Empty):
        queue.get(timeout=A_WHILE)
    queue.put("late")
    assert waiting.result() == "late"


@pytest.mark.parametrize(("producers", "consumers"), [(1, 3), (3, 1), (3, 2)])
def test_every_message_arrives_once(queue, family, producers, consumers):
    count = 400
    # The last producer is this thread, the last consumer another one of this process.
    takers = [
        Background(family.call, workers.get_until_none, queue) for _ in range(consumers - 1)
    ] + [Background(workers.get_until_none, queue)]
    senders = [
        family.start(workers.put_numbered, queue, sender, count) for sender in range(producers - 1)
    ]
    workers.put_numbered(queue, producers - 1, count)
    for sender in senders:
        sender.join(SOON)
    for _ in takers:
        queue.put(None)
    taken = [taker.result() for taker in takers]
    for messages in taken:
        for _, group in itertools.groupby(sorted(messages, key=lambda m: m[0]), lambda m: m[0]):
            numbers = [number for _, number, _ in group]
            assert numbers == sorted(numbers), "a producer's messages changed their order"
    everything = collections.Counter(message for messages in taken for message in messages)
    assert everything == collections.Counter(
        (sender, number, payload(number % 300))
        for sender in range(producers)
        for number in range(count)
    )


def test_producers_ahead_of_their_consumer(make, family):
    queue, count = make(80), 400
    for sender in range(3):
        family.start(workers.put_numbered, queue, sender, count)
    taken = [queue.get(timeout=SOON) for _ in range(3 * count)]
    for sender in range(3):
        numbers = [number for who, number, _ in taken if who == sender]
        assert numbers == list(range(count))
    assert queue.qsize() == 0


def test_nested_children(queue, ctx, family):
    family.start(workers.put_in_grandchild, ctx, queue, "from below")
    assert queue.get() == "from below"


def test_a_chain_of_processes(make, family):
    first, second, third = make(), make(2), make()
    family.start(workers.relay, first, second)
    family.start(workers.relay, second, third)
    workers.put_all(first, [*range(50), None])
    assert workers.get_until_none(third) == list(range(50))


def test_what_was_put_before_a_child_began_comes_once(make, family):
    queue = make()
    workers.put_all(queue, range(10))
    family.start(workers.put_all, queue, range(10, 20))
    family.join()
    assert sorted(queue.get() for _ in range(20)) == list(range(20))
    assert queue.empty() and queue.qsize() == 0


@pytest.mark.parametrize("size", [100, MIB])
def test_an_exiting_child_loses_nothing(make, family, size):
    queue = make()
    family.start(workers.put_payloads, queue, [size] * 20)
    assert [len(queue.get()) for _ in range(20)] == [size] * 20


@pytest.mark.without_feeder("a put is over only when the message is out of the process")
def test_a_killed_child_loses_nothing_it_has_put(make, family):
    queue = make()
    family.start(workers.then_die, workers.put_payloads, queue, SIZES, exitcode=-9)
    family.join()
    assert [len(queue.get(timeout=SOON)) for _ in SIZES] == SIZES


class Hooked:
    """Mixed into a queue class: keeps what the feeder's hook was told."""

    def _on_queue_feeder_error(self, error, obj):
        self.errors.put((error, obj))


@pytest.fixture
def hooked(ctx, make):
    queue = type("HookedQueue", (Hooked, type(make())), {})(1, ctx=ctx)
    queue.errors = queue_errors.SimpleQueue()
    yield queue
    closed(queue)


@pytest.mark.parametrize("bad", [workers.ReduceRaises(), lambda: 0, threading.Lock()])
def test_unpicklable_goes_to_the_hook_and_gives_its_slot_back(hooked, bad):
    hooked.put(bad)
    error, obj = hooked.errors.get(timeout=SOON)
    assert isinstance(error, Exception) and obj is bad
    hooked.put(True, timeout=SOON)
    assert hooked.qsize() == 1 and hooked.full()
    assert hooked.get(timeout=SOON) is True
    assert hooked.empty() and hooked.qsize() == 0


def test_unpicklable_prints_by_default(make, capfd):
    queue = make(1)
    queue.put(workers.ReduceRaises())
    queue.put(True, timeout=SOON)
    assert queue.get(timeout=SOON) is True
    assert "NotImplementedError: no pickling" in capfd.readouterr().err


def test_unpicklable_raises_in_simple_queue(ctx):
    queue = ctx.SimpleQueue()
    with pytest.raises(NotImplementedError, match="no pickling"):
        queue.put(workers.ReduceRaises())
    assert queue.empty()
    queue.put(1)
    assert queue.get() == 1
    queue.close()


def test_an_error_in_unpickling_uses_the_message_up(queue):
    queue.put(workers.LoadRaises())
    queue.put("next")
    with pytest.raises(ValueError, match="no unpickling"):
        queue.get()
    assert queue.get() == "next"
    assert queue.empty()


def test_an_error_in_unpickling_gives_the_slot_back(make):
    queue = make(1)
    queue.put(workers.LoadRaises())
    with pytest.raises(ValueError, match="no unpickling"):
        queue.get(timeout=SOON)
    assert queue.qsize() == 0
    queue.put_nowait(1)
    assert queue.get(timeout=SOON) == 1


def test_a_put_within_pickling(queue):
    queue.put(workers.PutsAnother(queue))
    assert sorted([queue.get(), queue.get()]) == ["inner", "outer"]


def test_registered_reducers_are_asked(queue):
    queue.put("a pickler made before the registration must not stay in use")
    queue.get()
    reduction.register(workers.Registered, workers.reduce_registered)
    try:
        queue.put([workers.Registered(5)])
        assert queue.get()[0].value == 5
    finally:
        del reduction.ForkingPickler._extra_reducers[workers.Registered]


def test_put_and_get_after_close_raise(make):
    queue = make()
    queue.put(1)
    assert queue.get() == 1
    queue.close()
    queue.close()
    for call in (lambda: queue.put(1), queue.get, queue.get_nowait, lambda: queue.put_nowait(1)):
        with pytest.raises(ValueError, match="is closed"):
            call()
    queue.join_thread()
    queue.join_thread()


def test_join_thread_needs_close(make):
    queue = make()
    with pytest.raises(AssertionError, match="not closed"):
        queue.join_thread()


def test_close_here_leaves_the_others_theirs(make, family):
    queue, back = make(), make()
    workers.put_all(queue, [1, 2, None])
    family.start(workers.relay, queue, back)
    closed(queue)
    assert workers.get_until_none(back) == [1, 2]


def test_cancel_join_thread_lets_a_process_end(make, family):
    family.start(workers.put_unwanted, make())
    family.join()


def test_simple_queue_close(ctx):
    queue = ctx.SimpleQueue()
    queue.put(1)
    queue.close()
    queue.close()
    assert queue._reader.closed and queue._writer.closed
    with pytest.raises(OSError, match="closed"):
        queue.put(1)
    with pytest.raises(OSError, match="closed"):
        queue.get()
    with pytest.raises(OSError, match="closed"):
        queue.empty()


def test_parts_that_libraries_use(make):
    queue = make(2)
    assert queue._maxsize == 2
    assert make()._maxsize == multiprocessing.synchronize.SEM_VALUE_MAX
    assert queue._opid == os.getpid()
    assert queue._closed is False and queue._ignore_epipe is False
    assert queue._joincancelled is False
    assert len(queue._buffer) == 0
    with queue._notempty:
        queue._notempty.notify()
    assert queue._reader.readable and not queue._reader.writable
    assert queue._writer.writable and not queue._writer.readable
    assert os.fstat(queue._reader.fileno()) and os.fstat(queue._writer.fileno())
    for lock in (queue._rlock, queue._wlock):
        assert lock.acquire(False)
        lock.release()
    assert queue._poll() is False and queue._poll(0.01) is False
    assert queue._sem._semlock._get_value() == 2
    queue.put(1)
    queue.put(2)
    assert queue._sem._semlock._is_zero()
    assert queue._poll(SOON) is True
    assert not queue._reader.closed
    assert queue.get() == 1
    assert queue._sem._semlock._get_value() == 1
    queue.close()
    assert queue._closed is True


def test_thread_and_buffer_after_use(make):
    queue = make()
    queue.put(1)
    assert queue._thread is None or isinstance(queue._thread, threading.Thread)
    assert queue.get() == 1
    assert len(queue._buffer) == 0


def test_parts_of_a_simple_queue_that_libraries_use(ctx):
    queue = ctx.SimpleQueue()
    assert not queue._poll() and not queue._reader.poll()
    queue._writer.send([1])
    assert queue._poll() and queue.get() == [1]
    queue.put([2])
    assert queue._reader.recv() == [2]
    queue._writer.send_bytes(b"three")
    assert queue._reader.recv_bytes() == b"three"
    queue.put([4])
    assert reduction.ForkingPickler.loads(queue._reader.recv_bytes()) == [4]
    assert queue.empty()
    for lock in (queue._rlock, queue._wlock):
        with lock:
            assert not lock.acquire(False)
    queue.close()


def test_items_do_not_outlive_their_queue(ctx, family):
    # Made anew, a queue must not show what the memory held before.
    for _ in range(3):
        queue = ctx.Queue()
        assert queue.empty() and queue.qsize() == 0
        queue.put(payload(MIB))
        assert queue.get() == payload(MIB)
        closed(queue)


def test_generic_alias(ctx):
    assert type(ctx.SimpleQueue())[int].__args__ == (int,)
