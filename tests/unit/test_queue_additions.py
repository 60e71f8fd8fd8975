"""What queues of mpipc-shm can beyond stock's: put_many, get_many, shutdown."""

from __future__ import annotations

import threading
from queue import Empty, Full

import pytest

import mpipc
from mpipc import ShutDown

CTX = mpipc.get_context("shm", start_method="fork")


class Explodes:
    def __reduce__(self):
        return int, ("not a number",)


@pytest.fixture(params=["Queue", "JoinableQueue", "SimpleQueue"])
def queue(request):
    return getattr(CTX, request.param)()


def test_many_are_put_and_taken_in_order(queue):
    queue.put_many(range(5))
    queue.put_many(iter("ab"))
    assert queue.get_many(4) == [0, 1, 2, 3]
    assert queue.get_many(max=100) == [4, "a", "b"]
    assert queue.empty()


@pytest.mark.parametrize("most", [0, -1])
def test_none_cannot_be_asked_for(queue, most):
    queue.put(1)
    with pytest.raises(ValueError, match="at least 1"):
        queue.get_many(most)
    assert queue.get_many(1) == [1]


def test_get_many_ends_at_its_timeout():
    with pytest.raises(Empty):
        CTX.Queue().get_many(3, timeout=0.01)


def test_an_iterator_that_raises_has_put_what_came_before(queue):
    def items():
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        queue.put_many(items())
    assert queue.get_many(9) == [1]


def test_what_cannot_be_unpickled_is_raised_by_the_next_call(queue):
    queue.put_many([1, 2, Explodes(), 3])
    assert queue.get_many(9) == [1, 2]
    with pytest.raises(ValueError, match="not a number"):
        queue.get_many(9)
    assert queue.get_many(9) == [3]
    queue.put_many([Explodes(), 4])
    with pytest.raises(ValueError, match="not a number"):
        queue.get_many(9)
    assert queue.get_many(9) == [4]


def test_put_many_waits_for_room():
    queue = CTX.Queue(2)
    thread = threading.Thread(target=queue.put_many, args=(range(50),))
    thread.start()
    taken = []
    while len(taken) < 50:
        taken += queue.get_many(7)
    assert taken == list(range(50))
    thread.join()


def test_a_closed_queue_refuses():
    queue = CTX.Queue()
    queue.close()
    for call in (lambda: queue.put_many([1]), lambda: queue.get_many(1), queue.shutdown):
        with pytest.raises(ValueError, match="is closed"):
            call()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
class TestShutdown:
    def test_what_waits_can_still_be_taken(self, kind):
        queue = getattr(CTX, kind)(3)
        queue.put_many([1, 2, 3])
        assert not queue.is_shutdown
        queue.shutdown()
        assert queue.is_shutdown
        for put in (queue.put, queue.put_nowait):
            with pytest.raises(ShutDown):
                put(4)
        assert [queue.get(), queue.get_nowait()] == [1, 2]
        assert queue.get_many(5) == [3]
        for get in (queue.get, queue.get_nowait, lambda: queue.get_many(1)):
            with pytest.raises(ShutDown):
                get()
        assert queue.empty() and queue.qsize() == 0
        queue.shutdown()

    def test_at_once(self, kind):
        queue = getattr(CTX, kind)()
        queue.put_many([b"x" * size for size in (1, 10_000, 100_000)])
        queue.shutdown(immediate=True)
        with pytest.raises(ShutDown):
            queue.get()
        if kind == "JoinableQueue":
            queue.join()
        assert {holder for _, _, holder in queue.segment.inspect()["extents"]} <= {"free", "linked"}

    @pytest.mark.parametrize("full", [False, True])
    def test_who_waits_is_woken(self, kind, full):
        queue = getattr(CTX, kind)(1)
        if full:
            queue.put(0)
        told = CTX.SimpleQueue()

        def wait():
            try:
                queue.put(1) if full else queue.get()
            except ShutDown:
                told.put("told")

        process = CTX.Process(target=wait)
        process.start()
        while not queue.segment.inspect()["put_tickets" if full else "get_tickets"]:
            pass
        queue.shutdown()
        assert told.get() == "told"
        process.join()
        process.close()

    def test_a_full_queue_that_was_shut_down_is_not_full(self, kind):
        queue = getattr(CTX, kind)(1)
        queue.put(1)
        with pytest.raises(Full):
            queue.put_nowait(2)
        queue.shutdown()
        with pytest.raises(ShutDown):
            queue.put_nowait(2)

    def test_polling_an_empty_one_does_not_wait(self, kind):
        queue = getattr(CTX, kind)()
        queue.shutdown()
        assert queue._reader.poll(None)
