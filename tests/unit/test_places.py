"""Places in bounded queues over other mechanisms, whose holders are killed."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import time

import pytest

import mpipc
from mpipc._context import mechanism_of
from workers import A_WHILE, SOON, Background

PLACES, KILLS = 3, 20


@pytest.fixture(
    params=[
        "pipe",
        "posix",
        *(
            pytest.param(name, marks=pytest.mark.thorough)
            for name in (
                "fifo",
                "unix",
                "seqpacket",
                "dgram",
                "tcp",
                "udp",
                "sysv",
                "file",
                "signal",
            )
        ),
    ]
)
def ctx(request):
    return mpipc.get_context(request.param, start_method="fork")


def run(ctx, target, *args):
    child = ctx.Process(target=target, args=args)
    child.start()
    child.join(SOON)
    assert child.exitcode is not None
    return child.exitcode


def check(box):
    """All places are there, and no more."""
    for _ in range(2):
        for number in range(PLACES):
            box.put(number, timeout=SOON)
        assert box.full() and box.qsize() == PLACES
        with pytest.raises(queue.Full):
            box.put(None, timeout=0.02)
        assert [box.get(timeout=SOON) for _ in range(PLACES)] == list(range(PLACES))
        with pytest.raises(queue.Empty):
            box.get(timeout=0.02)
        assert not box.full() and box.qsize() == 0


def check_after_all_free(box, surplus):
    """The same, but before all have been free there may be so many too many."""
    count = 0
    with contextlib.suppress(queue.Full):
        for count in range(PLACES + surplus + 1):
            box.put(count, timeout=A_WHILE)
    assert PLACES <= count <= PLACES + surplus
    assert [box.get(timeout=SOON) for _ in range(count)] == list(range(count))
    check(box)


class Dying:
    """Something in whose method the process is killed, before or after it is called."""

    def __init__(self, thing, method, called):
        self._thing = thing

        def call_and_die(*args):
            if called:
                getattr(thing, method)(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(self, method, call_and_die)

    def __getattr__(self, name):
        return getattr(self._thing, name)


def put_and_die(box, part, method, called):
    places = box._sem.places
    setattr(places, part, Dying(getattr(places, part), method, called))
    box.put("from the dead")
    time.sleep(SOON)


def get_and_die(box, part, method, called):
    places = box._sem.places
    setattr(places, part, Dying(getattr(places, part), method, called))
    box.get()


kinds = pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])


@kinds
def test_killed_before_sending(ctx, kind):
    box = getattr(ctx, kind)(PLACES)
    for _ in range(PLACES + 1):
        assert run(ctx, put_and_die, box, "writer", "send_bytes", False) == -signal.SIGKILL
    check(box)


@pytest.mark.parametrize("called", [False, True])
def test_killed_after_sending(ctx, called):
    box = ctx.Queue(PLACES)
    for _ in range(PLACES):
        assert run(ctx, put_and_die, box, "word", "_disown", called) == -signal.SIGKILL
    assert [box.get(timeout=SOON) for _ in range(PLACES)] == ["from the dead"] * PLACES
    check(box)


@kinds
@pytest.mark.parametrize(
    "part, method, called",
    [
        ("reader", "recv_bytes", True),
        ("word", "release", False),
        ("word", "release", True),
    ],
)
def test_killed_after_receiving(ctx, kind, part, method, called):
    box = getattr(ctx, kind)(PLACES)
    for number in range(PLACES + 2):
        box.put(number, timeout=SOON)
        assert run(ctx, get_and_die, box, part, method, called) == -signal.SIGKILL
    check(box)


def test_killed_before_receiving(ctx):
    """There may be places too many then, until all are free."""
    box = ctx.Queue(PLACES)
    for number in range(PLACES):
        box.put(number)
        assert run(ctx, get_and_die, box, "reader", "recv_bytes", False) == -signal.SIGKILL
    assert [box.get(timeout=SOON) for _ in range(PLACES)] == list(range(PLACES))
    check_after_all_free(box, PLACES)


def test_killed_while_waiting_to_receive(ctx):
    box = ctx.Queue(PLACES)
    for _ in range(PLACES):
        child = ctx.Process(target=box.get)
        child.start()
        time.sleep(A_WHILE)
        child.kill()
        child.join()
        check(box)


def test_interrupted_while_waiting_to_receive(ctx):
    class Interrupt(Exception):
        pass

    def interrupt(*_):
        raise Interrupt

    box = ctx.Queue(PLACES)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(PLACES + 1):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Interrupt):
                box.get()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    check(box)


def test_all_places_given_back_while_a_consumer_waits(ctx):
    box = ctx.Queue(1)
    box.put("lost")
    assert run(ctx, get_and_die, box, "reader", "recv_bytes", True) == -signal.SIGKILL
    consumer = Background(box.get)
    assert consumer.blocked()
    box.put("found", timeout=SOON)
    assert consumer.result() == "found"


def produce(box):
    while True:
        box.put(os.urandom(100))


def consume(box):
    while True:
        box.get()


def test_random_kills(ctx):
    # A byte stream may be cut by a kill; the feeder thread tells, and nothing arrives.
    cut = (
        [mpipc.OwnerDied, queue.Empty, queue.Full] if hasattr(mechanism_of(ctx), "at_once") else []
    )
    chance = random.Random(7)
    box = ctx.Queue(PLACES)
    children = []
    for target in (produce, produce, consume, consume) + (produce, consume) * (KILLS // 2):
        child = ctx.Process(target=target, args=(box,))
        child.start()
        children.append(child)
        if len(children) > 4:
            time.sleep(chance.uniform(0, 0.02))
            victim = children.pop(chance.randrange(len(children)))
            victim.kill()
            victim.join()
    for child in children:
        child.kill()
        child.join()
    with contextlib.suppress(*cut):
        with contextlib.suppress(queue.Empty):
            while True:
                box.get(timeout=0.5)
        check_after_all_free(box, len(children) + KILLS)


def test_waiters_all_get_a_place(ctx):
    box = ctx.Queue(2)
    for number in range(2):
        box.put(number)
    waiters = [Background(box.put, number) for number in range(2, 5)]
    assert all(waiter.blocked() for waiter in waiters)
    assert sorted(box.get(timeout=SOON) for _ in range(5)) == list(range(5))
    for waiter in waiters:
        waiter.result()
    for number in range(2):
        box.put(number, timeout=SOON)
    assert [box.get(timeout=SOON) for _ in range(2)] == [0, 1]


def test_unbounded_stays_so(ctx):
    box = ctx.Queue()
    for number in range(200):
        box.put(number)
    assert box.qsize() == 200
    assert [box.get(timeout=SOON) for _ in range(200)] == list(range(200))
