"""JoinableQueues made with redeliver=True: what the dead had in hand comes again."""

from __future__ import annotations

import os
import queue as queue_errors
import signal
from multiprocessing import connection

import pytest
from core_memory import HAND, assert_tiled, words

import mpipc
import workers
from workers import SOON, Background

LARGE = b"x" * 300_000
MESSAGES = [0, b"", b"y" * 4096, LARGE, "five"]


@pytest.fixture(params=["fork", "spawn"])
def context(request):
    return mpipc.get_context("shm", start_method=request.param)


@pytest.fixture
def queue(context):
    return context.JoinableQueue(redeliver=True)


@pytest.fixture
def forking():
    return mpipc.get_context("shm", start_method="fork")


@pytest.fixture
def forked(forking):
    """A queue of processes that cost little to start."""
    return forking.JoinableQueue(redeliver=True)


def ended(context, target, *args):
    child = context.Process(target=target, args=args)
    child.start()
    child.join(SOON)
    assert child.exitcode is not None, f"{child} did not end by itself"
    return child


def holder(context, queue):
    """Return a process that has taken a message and goes on for ever."""
    taken = context.Event()
    child = context.Process(target=workers.take_and_stay, args=(queue, taken))
    child.start()
    assert taken.wait(SOON)
    return child


def kill(child) -> None:
    child.kill()
    child.join()


def finish_all(queue) -> list:
    """Take and finish what is there."""
    taken = []
    while True:
        try:
            taken.append(queue.get_nowait())
        except queue_errors.Empty:
            return taken
        queue.task_done()


def assert_at_rest(queue) -> None:
    """Nothing waits, nobody has anything in hand, no memory is kept for messages."""
    queue.join()
    report = queue.segment.inspect()
    assert_tiled(report)
    assert report["count"] == report["backlog"] == 0
    assert not report["takers"]
    assert sum(pages for _, pages, holder in report["extents"] if holder != "free") <= 35


def test_what_the_killed_had_in_hand_comes_again_in_order(context, queue):
    workers.put_all(queue, MESSAGES)
    child = ended(context, workers.then_die, workers.take, queue, len(MESSAGES))
    assert queue.segment.inspect()["takers"] == {child.pid: len(MESSAGES)}
    assert finish_all(queue) == MESSAGES
    assert_at_rest(queue)


def test_what_comes_again_comes_first_the_oldest_before_all(context, queue):
    workers.put_all(queue, MESSAGES)
    held = [holder(context, queue) for _ in MESSAGES]
    for child in reversed(held):
        kill(child)
    assert queue.qsize() == 0
    assert not queue.empty()
    assert queue.qsize() == queue._unfinished_tasks.get_value() == len(MESSAGES)
    assert queue.segment.inspect()["backlog"] > len(LARGE)
    workers.put_all(queue, ["late"])
    assert finish_all(queue) == [*MESSAGES, "late"]
    assert_at_rest(queue)


def test_what_waits_is_passed_by_what_comes_again(forking, forked):
    """The lane goes on where it was, from the front of it and from the middle."""
    workers.put_all(forked, range(300))
    child = holder(forking, forked)
    assert forked.get() == 1
    kill(child)
    found = [forked.get() for _ in range(299)]
    assert sorted(found) == sorted({*range(300)} - {1})
    assert [number for number in found if number] == list(range(2, 300))
    for _ in range(300):
        forked.task_done()
    assert_at_rest(forked)


def test_again_and_again(forking, forked):
    workers.put_all(forked, MESSAGES)
    for count in (5, 1, 3, 5, 2, 4, 5):
        ended(forking, workers.then_die, workers.take, forked, count)
    assert sorted(map(str, finish_all(forked))) == sorted(map(str, MESSAGES))
    assert_at_rest(forked)


def test_what_is_done_does_not_come_again(context, queue):
    workers.put_all(queue, range(5))
    ended(context, workers.then_die, workers.consume, queue, 2)
    ended(context, workers.take_then_finish_some_and_die, queue, 3, 2)
    assert finish_all(queue) == [4]
    assert_at_rest(queue)


def test_a_normal_end_leaves_messages_to_others_too(context, queue):
    workers.put_all(queue, range(3))
    assert not ended(context, workers.take, queue, 2).exitcode
    assert sorted(queue.get(timeout=SOON) for _ in range(3)) == [0, 1, 2]
    for _ in range(3):
        queue.task_done()
    assert_at_rest(queue)


def test_a_living_consumer_keeps_what_it_has(forking, forked):
    forked.put(1)
    child = holder(forking, forked)
    with pytest.raises(queue_errors.Empty):
        forked.get(timeout=0.3)
    joined = Background(forked.join)
    assert joined.blocked()
    assert forked.empty()
    os.kill(child.pid, signal.SIGSTOP)
    assert forked.empty()
    kill(child)
    assert forked.get(timeout=SOON) == 1
    forked.task_done()
    joined.result()


def test_who_waits_gets_it(context, queue):
    queue.put(LARGE)
    child = holder(context, queue)
    waiting = [Background(queue.get, True, SOON) for _ in range(2)]
    assert all(thread.blocked() for thread in waiting)
    kill(child)
    while all(thread.is_alive() for thread in waiting):
        waiting[0].join(0.01)
    queue.put("other")
    assert sorted(thread.result() == LARGE for thread in waiting) == [False, True]


def test_who_joins_hands_it_to_who_only_selects(context, queue):
    queue.put("again")
    child = holder(context, queue)
    assert not connection.wait([queue._reader], 0)
    joined = Background(queue.join)
    assert joined.blocked()
    kill(child)
    assert connection.wait([queue._reader], SOON)
    assert queue.get_nowait() == "again"
    assert not connection.wait([queue._reader], 0)
    queue.task_done()
    joined.result()


@pytest.mark.parametrize("look", ["empty", "poll", "get", "join"])
def test_who_looks_finds_it(forking, forked, look):
    forked.put(1)
    ended(forking, workers.then_die, workers.take, forked, 1)
    if look == "empty":
        assert not forked.empty()
    elif look == "poll":
        assert forked._reader.poll(SOON)
    elif look == "join":
        joined = Background(forked.join)
        while not forked.qsize():
            joined.join(0.01)
    assert finish_all(forked) == [1]


def test_a_bounded_queue_holds_more_for_a_while(forking):
    queue = forking.JoinableQueue(2, redeliver=True)
    for number in range(2):
        queue.put(number)
    child = holder(forking, queue)
    queue.put(2)
    kill(child)
    assert queue.full()
    joined = Background(queue.join)
    while queue.qsize() < 3:
        joined.join(0.01)
    assert queue.full()
    with pytest.raises(queue_errors.Full):
        queue.put(3, timeout=0.05)
    assert finish_all(queue) == [0, 1, 2]
    joined.result()
    queue.put(4, timeout=SOON)


def test_a_thread_finishes_what_it_took_itself(forking, forked):
    """Or the message of a thread that is still at work would be lost with the process."""
    workers.put_all(forked, ["slow", "quick"])
    ended(forking, workers.finish_in_another_thread_and_die, forked)
    assert finish_all(forked) == ["slow"]
    assert_at_rest(forked)


def test_a_thread_without_a_message_finishes_its_process_oldest(forking, forked):
    workers.put_all(forked, range(3))
    assert [forked.get() for _ in range(2)] == [0, 1]
    Background(forked.task_done).result()
    assert forked.segment.inspect()["takers"] == {os.getpid(): 1}
    forked.task_done()
    assert finish_all(forked) == [2]
    assert_at_rest(forked)


def test_only_the_taker_can_finish(context, queue):
    workers.put_all(queue, range(2))
    with pytest.raises(ValueError, match="only the process that took a message can finish it"):
        queue.task_done()
    child = holder(context, queue)
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    kill(child)
    assert sorted(finish_all(queue)) == [0, 1]
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times$"):
        queue.task_done()


def test_a_forked_child_has_nothing_of_its_parents_in_hand(forking, forked):
    forked.put(1)
    assert forked.get() == 1
    assert ended(forking, forked.task_done).exitcode == 1
    assert forked.empty()
    forked.task_done()
    assert_at_rest(forked)


def test_more_takers_than_a_joinable_queue_notes(forking, forked):
    count = 135
    workers.put_all(forked, range(count))
    for _ in range(count):
        process = forking.Process(target=workers.then_die, args=(forked.get,))
        process.start()
        process.join()
    assert sorted(finish_all(forked)) == list(range(count))
    assert_at_rest(forked)


def test_messages_in_hand_count_as_memory_and_can_always_be_taken():
    context = mpipc.get_context("shm", start_method="fork", max_bytes=1 << 20)
    queue = context.JoinableQueue(redeliver=True)
    count = 0
    with pytest.raises(MemoryError):
        while True:
            queue.put(count)
            count += 1
    assert count > 100
    assert [queue.get() for _ in range(count)] == list(range(count))
    with pytest.raises(MemoryError):
        while True:
            queue.put("more")
    more = queue.qsize()
    for _ in range(count):
        queue.task_done()
    assert finish_all(queue) == ["more"] * more
    queue.put(bytes(500_000))
    assert finish_all(queue) == [bytes(500_000)]


def test_a_message_that_cannot_be_unpickled_stays_in_hand(forking, forked):
    forked.put(workers.Unloadable())
    for _ in range(2):
        assert ended(forking, workers.fails_to_take, forked).exitcode == 0
    with pytest.raises(workers.CannotLoad):
        forked.get(timeout=SOON)
    forked.task_done()
    assert_at_rest(forked)


def test_recovery_keeps_what_is_in_hand_and_in_which_order(forking, forked):
    workers.put_all(forked, MESSAGES)
    taken = [forked.get() for _ in range(3)]
    for _ in range(2):
        with words(forked.segment) as memory:
            memory.owner_died()
            memory.set32(HAND, 0xFFFF)
        assert forked.segment.inspect()["takers"] == {os.getpid(): 3}
    forked.task_done()
    workers.put_all(forked, taken[:1])
    with words(forked.segment) as memory:
        memory.owner_died()
    assert [forked.get() for _ in range(3)] == [*MESSAGES[3:], MESSAGES[0]]
    for _ in range(5):
        forked.task_done()
    assert_at_rest(forked)


def test_recovery_keeps_what_was_handed_back(forking, forked):
    workers.put_all(forked, MESSAGES)
    ended(forking, workers.then_die, workers.take, forked, 5)
    assert not forked.empty()
    workers.put_all(forked, ["late"])
    for _ in range(2):
        with words(forked.segment) as memory:
            memory.owner_died()
        report = forked.segment.inspect()
        assert_tiled(report)
        assert report["count"] == 6
    assert finish_all(forked) == [*MESSAGES, "late"]
    assert_at_rest(forked)


def test_into_a_queue_that_was_rewound(forking, forked):
    """An empty queue begins anew at its chunk's start; what was handed back leads there."""
    for round_ in range(4):
        workers.put_all(forked, range(1500))
        assert [forked.get() for _ in range(1400)] == list(range(1400))
        for _ in range(1400):
            forked.task_done()
        ended(forking, workers.then_die, workers.take, forked, 100)
        if round_ % 2:
            assert not forked.empty()
            workers.put_all(forked, range(1500, 1510))
        assert finish_all(forked) == list(range(1400, 1510 if round_ % 2 else 1500))
    assert_at_rest(forked)


def test_other_mechanisms_say_which_can():
    for name in ("pipe", "signal"):
        context = mpipc.get_context(name)
        with pytest.raises(TypeError, match=r"has no redeliver=True; use .* mpipc-shm"):
            context.JoinableQueue(redeliver=True)
        context.JoinableQueue(redeliver=False).close()
