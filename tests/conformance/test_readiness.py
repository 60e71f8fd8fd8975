"""Descriptors of readers are level-triggered for everything that waits for descriptors."""

from __future__ import annotations

import asyncio
import select
import selectors
import socket
from multiprocessing import connection

import pytest

import workers
from workers import A_WHILE, MIB, SOON, payload


def by_select(fd, timeout):
    return bool(select.select([fd], [], [], timeout)[0])


def by_poll(fd, timeout):
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR)
    return bool(poller.poll(timeout * 1000))


def by_epoll(fd, timeout):
    with select.epoll() as poller:
        poller.register(fd, select.EPOLLIN)
        return bool(poller.poll(timeout))


def by_selectors(fd, timeout):
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return bool(selector.select(timeout))


def by_wait(fd, timeout):
    return bool(connection.wait([fd], timeout))


@pytest.fixture(params=[by_select, by_poll, by_epoll, by_selectors, by_wait])
def ready(request):
    return request.param


class Endpoint:
    """A thing to read from, with its descriptor."""

    def __init__(self, ctx, kind):
        if kind.startswith("Pipe"):
            self.reader, self.writer = ctx.Pipe(kind == "Pipe-duplex")
            self.put, self.get, self.target = self.writer.send, self.reader.recv, self.writer
            self.parts = [self.reader, self.writer]
        else:
            self.target = queue = getattr(ctx, kind)()
            self.reader, self.put, self.get = queue._reader, queue.put, queue.get
            self.parts = [queue]

    def close(self):
        for part in self.parts:
            part.close()


QUEUES = ("Queue", "JoinableQueue", "SimpleQueue")


@pytest.fixture(params=["Pipe-duplex", "Pipe-simplex", *QUEUES])
def endpoint(ctx, request):
    endpoint = Endpoint(ctx, request.param)
    yield endpoint
    endpoint.close()


@pytest.fixture(params=QUEUES)
def queue(ctx, request):
    queue = Endpoint(ctx, request.param)
    yield queue
    queue.close()


def test_readable_until_drained(endpoint, ready):
    fd = endpoint.reader.fileno()
    assert not ready(fd, 0) and not ready(fd, 0.01)
    for lap in range(3):
        endpoint.put(lap)
        endpoint.put(b"x" * 100)
        for _ in range(3):
            assert ready(fd, SOON)
        assert endpoint.get() == lap
        assert ready(fd, SOON)
        assert endpoint.get() == b"x" * 100
        assert not ready(fd, 0) and not ready(fd, 0.01)


def test_readable_when_first_asked_with_messages_inside(endpoint, ready):
    for number in range(3):
        endpoint.put(number)
    assert endpoint.get() == 0
    fd = endpoint.reader.fileno()
    for number in (1, 2):
        assert ready(fd, SOON)
        assert endpoint.get() == number
    assert not ready(fd, 0)


def test_a_child_makes_it_readable(endpoint, ready, family):
    fd = endpoint.reader.fileno()
    family.start(workers.send_or_put, endpoint.target, ["small", payload(MIB)])
    for expected in ("small", payload(MIB)):
        assert ready(fd, SOON)
        assert endpoint.get() == expected
    assert not ready(fd, 0)


def test_one_message_wakes_whoever_waits(queue, family):
    # Readiness is no hand-over: all who look see it, in other processes too.
    waiting = [
        workers.Background(family.call, workers.wait_readable, queue.target, SOON) for _ in range(2)
    ] + [workers.Background(by_select, queue.reader.fileno(), SOON)]
    queue.put("seen by all")
    assert all(thread.result() for thread in waiting)
    assert queue.get() == "seen by all"
    assert family.call(workers.wait_readable, queue.target, 0) is False


def test_taken_by_another_process(queue, ready, family):
    fd = queue.reader.fileno()
    queue.put("gone")
    assert ready(fd, SOON)
    assert family.call(workers.method, queue.target, "get") == "gone"
    assert not ready(fd, 0)
    queue.put("back")
    assert ready(fd, SOON)
    assert queue.get() == "back"


@pytest.mark.without_feeder("the queue's feeder has not delivered yet")
def test_readable_at_once(endpoint, ready):
    fd = endpoint.reader.fileno()
    for number in range(50):
        endpoint.put(number)
        assert ready(fd, 0)
        assert endpoint.get() == number
        assert not ready(fd, 0)


@pytest.mark.parametrize("duplex", [True, False], ids=["duplex", "simplex"])
class TestPeer:
    def test_closing_makes_readable(self, ctx, ready, duplex):
        reader, writer = ctx.Pipe(duplex)
        with reader:
            assert not ready(reader.fileno(), 0)
            writer.send("last")
            writer.close()
            assert ready(reader.fileno(), 0)
            assert reader.recv() == "last"
            assert ready(reader.fileno(), 0)
            with pytest.raises(EOFError):
                reader.recv()
            assert ready(reader.fileno(), 0)

    def test_sigkill_makes_readable(self, ctx, ready, family, duplex):
        reader, writer = ctx.Pipe(duplex)
        with reader:
            peer = family.start(workers.forever_holding, writer, reader, exitcode=None)
            writer.close()
            assert not ready(reader.fileno(), A_WHILE)
            peer.kill()
            assert ready(reader.fileno(), SOON)
            with pytest.raises(EOFError):
                reader.recv()


def test_wait_mixes_kinds(ctx, family):
    pipe = Endpoint(ctx, "Pipe-duplex")
    queue = Endpoint(ctx, "Queue")
    left, right = socket.socketpair()
    own = ctx.SimpleQueue()
    sleeper = family.start(workers.method, own, "get")
    with left, right:
        objects = [pipe.reader, queue.reader, left, sleeper.sentinel]
        assert connection.wait(objects, 0) == []
        assert connection.wait(objects, A_WHILE) == []
        assert connection.wait(objects, -1) == []
        pipe.put(1)
        assert connection.wait(objects, SOON) == [pipe.reader]
        right.send(b"x")
        assert set(connection.wait(objects, SOON)) == {pipe.reader, left}
        queue.put(1)
        queue.target._poll(SOON)
        own.put(1)
        # Not join(): with forkserver it takes the exit code out of the sentinel.
        assert connection.wait([sleeper.sentinel], SOON)
        assert set(connection.wait(objects, SOON)) == set(objects)
        assert pipe.get() == queue.get() == 1
        assert set(connection.wait(objects, SOON)) == {left, sleeper.sentinel}
    for endpoint in (pipe, queue):
        endpoint.close()
    own.close()


def test_asyncio_reader(endpoint, family):
    count = 200

    async def drain():
        loop, taken, done = asyncio.get_running_loop(), [], asyncio.Event()

        def on_readable():
            taken.append(endpoint.get())
            if len(taken) == count:
                done.set()

        loop.add_reader(endpoint.reader.fileno(), on_readable)
        try:
            await asyncio.wait_for(done.wait(), SOON)
        finally:
            loop.remove_reader(endpoint.reader.fileno())
        return taken

    family.start(workers.send_or_put, endpoint.target, range(count))
    assert asyncio.run(drain()) == list(range(count))
