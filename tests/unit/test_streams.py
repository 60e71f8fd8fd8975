"""Queues over byte streams: a kill in the middle of a message is told, others cost nothing."""

from __future__ import annotations

import select

import pytest

import mpipc
import workers
from mpipc import OwnerDied
from mpipc.adapters.streams import SENDING
from workers import A_WHILE, SOON, Background

pytestmark = pytest.mark.beyond_stock("it waits for ever, or reads what is no message")

LONG = bytes(1 << 24)


@pytest.fixture(params=["pipe", "fifo", "unix", "tcp"])
def queue(request):
    queue = mpipc.get_context(request.param, start_method="fork").SimpleQueue()
    yield queue
    queue.close()


@pytest.fixture
def start(queue, request):
    ctx = mpipc.get_context(request.node.callspec.params["queue"], start_method="fork")

    def start(*call):
        process = ctx.Process(target=workers.method, args=call)
        process.start()
        return process

    return start


def kill(process):
    process.kill()
    process.join()


def test_a_sender_killed_in_the_middle(queue, start):
    sender = start(queue, "put", LONG)
    assert queue._reader.poll(SOON)
    kill(sender)
    with pytest.raises(OwnerDied, match=f"process {sender.pid} died in the middle of sending to"):
        queue.get()
    with pytest.raises(OwnerDied, match="use mpipc-shm"):
        queue.put(1)


def test_a_receiver_killed_in_the_middle(queue, start):
    sending = Background(queue.put, LONG)
    assert queue._reader.poll(SOON)
    receiver = start(queue, "get")
    while not queue._reader._marks[1]:
        receiver.join(0.001)
    kill(receiver)
    # It may have taken all of it by now; then nothing was cut.
    if queue._reader._marks[1]:
        with pytest.raises(OwnerDied, match=f"process {receiver.pid} died in the middle of rec"):
            queue.get()
        with pytest.raises(OwnerDied):
            sending.result()


def test_a_sender_killed_while_it_waits_for_room(queue, start):
    small = bytes(1000)
    sender = start(Endless(queue), "put", small)
    assert queue._reader.poll(SOON)
    writer = queue._writer
    while select.select([], [writer], [], 0)[1] or writer._marks[SENDING]:
        sender.join(A_WHILE)
    kill(sender)
    while queue._reader.poll(0.1):
        assert queue.get() == small
    queue.put("of the living")
    assert queue.get() == "of the living"


class Endless:
    """Puts again and again."""

    def __init__(self, queue):
        self._queue = queue

    def put(self, item):
        while True:
            self._queue.put(item)


def test_messages_of_any_size_go_through(queue, start):
    for size in (0, 1, 4088, 4089, 16384, 16385, 1 << 20, len(LONG)):
        sender = start(queue, "put", LONG[:size])
        assert queue.get() == LONG[:size]
        sender.join()
