"""Queues and pipes: how much goes through, and how long it takes there and back."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Any

from mpipc._context import MechanismContext

from .model import Sample
from .team import Places, Team, pinned

# What may wait in a queue, lest a producer that is faster than its consumer fills the memory.
WAITING_BYTES = 32 << 20
WAITING_ITEMS = 1 << 15


@functools.cache
def noise(size: int) -> bytes:
    """Real bytes: untouched zeros would all be read from one page that stays in the cache."""
    return random.Random(0).randbytes(size)


def noise_array(size: int) -> Any:
    """A NumPy array of so many bytes."""
    import numpy as np

    return np.frombuffer(noise(size), dtype=np.uint8).copy()


def room_for(size: int) -> int:
    """How many messages of a size may wait."""
    return max(4, min(WAITING_ITEMS, WAITING_BYTES // size))


def put_all(queue: Any, message: object, count: int) -> None:
    """Put a message so many times."""
    put = queue.put
    for _ in range(count):
        put(message)


def take_until_none(queue: Any) -> tuple[float, float, int]:
    """Take until None comes; return when the first came and the last, and how many they were."""
    get = queue.get
    taken = 0
    began = ended = time.perf_counter()
    while get() is not None:
        taken += 1
        if taken == 1:
            began = time.perf_counter()
        ended = time.perf_counter()
    return began, ended, taken


def drain(ctx: Any, count: int, message: object, size: int, views: bool = False) -> Sample:
    """Time how long messages take from one producer to one consumer.

    Parameters
    ----------
    ctx : context
        The side.
    count : int
        How many messages are timed; a tenth as many go before, to warm both sides up.
    message : object
        What is sent.
    size : int
        About how many bytes that has.
    views : bool
        Whether to ask for views instead of copies, of a side that has them.
    """
    options = {"views": True} if views and isinstance(ctx, MechanismContext) else {}
    queue = ctx.Queue(room_for(size), **options)
    warm = 1 + count // 10
    with Team(ctx) as team:
        team.add(put_all, queue, message, warm + count)
        team.go()
        get = queue.get
        for _ in range(warm):
            get()
        began = time.perf_counter()
        for _ in range(count):
            get()
        sample = Sample.since(began, count)
        team.results()
        queue.close()
    return sample


def drain_by_many(ctx: Any, count: int, producers: int, consumers: int) -> Sample:
    """Time how long small tuples take from some producers to some consumers."""
    queue = ctx.Queue(WAITING_ITEMS)
    with Team(ctx) as takers:
        for _ in range(consumers):
            takers.add(take_until_none, queue)
        with Team(ctx) as putters:
            for _ in range(producers):
                putters.add(put_all, queue, (1, "two"), 1 + count // producers)
            takers.go()
            putters.go()
            putters.results()
        # Their processes have ended, and with them the threads by which stock's put() sends.
        for _ in range(consumers):
            queue.put(None)
        found = [result for result in takers.results() if result[2]]
    queue.close()
    elapsed = max(ended for _, ended, _ in found) - min(began for began, _, _ in found)
    return Sample(elapsed / max(1, sum(taken for _, _, taken in found) - 1))


def warming(count: int) -> int:
    """How many round trips go before those that are timed."""
    return 10 + count // 10


def time_trips(count: int, trip: Callable[[], object]) -> Sample:
    """Time round trips one by one, after some that are not timed."""
    clock = time.perf_counter_ns
    for _ in range(warming(count)):
        trip()
    times = [0] * count
    for index in range(count):
        began = clock()
        trip()
        times[index] = clock() - began
    times.sort()
    return Sample(seconds=times[count // 2] * 1e-9, p99=times[count * 99 // 100] * 1e-9)


def echo(get: Callable[[], object], put: Callable[[object], object]) -> None:
    """Send back what comes, until None."""
    while (message := get()) is not None:
        put(message)


def echo_queue(there: Any, back: Any) -> None:
    """Echo from a queue to another."""
    echo(there.get, back.put)


def echo_pipe(link: Any) -> None:
    """Echo on a pipe."""
    echo(link.recv, link.send)


def queue_trips(ctx: Any, count: int, message: object, places: Callable[[], Places]) -> Sample:
    """There by a queue and back by another."""
    ours, theirs = places()
    with pinned(ours), Team(ctx) as team:
        there, back = ctx.Queue(), ctx.Queue()
        team.add(echo_queue, there, back, core=theirs)
        team.go()
        put, get = there.put, back.get

        def trip() -> None:
            put(message)
            get()

        sample = time_trips(count, trip)
        put(None)
        team.results()
        there.close()
        back.close()
    return sample


def pipe_trips(ctx: Any, count: int, message: object, places: Callable[[], Places]) -> Sample:
    """There and back by a pipe."""
    ours, theirs = places()
    with pinned(ours), Team(ctx) as team:
        link, other_end = ctx.Pipe()
        team.add(echo_pipe, other_end, core=theirs)
        other_end.close()
        team.go()
        send, recv = link.send, link.recv

        def trip() -> None:
            send(message)
            recv()

        sample = time_trips(count, trip)
        send(None)
        team.results()
        link.close()
    return sample
