"""Pickling, forks beside busy threads, interplay with stock's classes, thousands of objects."""

from __future__ import annotations

import gc
import multiprocessing.queues
import multiprocessing.synchronize
import os
import pickle
import threading
from multiprocessing import reduction

import pytest

import workers
from mpipc.testing import settle, snapshot
from workers import SOON, Background, Point, payload

SPAWNING_ONLY = {
    "Queue": lambda ctx: ctx.Queue(),
    "bounded Queue": lambda ctx: ctx.Queue(2),
    "JoinableQueue": lambda ctx: ctx.JoinableQueue(),
    "SimpleQueue": lambda ctx: ctx.SimpleQueue(),
    "Lock": lambda ctx: ctx.Lock(),
    "RLock": lambda ctx: ctx.RLock(),
    "Semaphore": lambda ctx: ctx.Semaphore(),
    "BoundedSemaphore": lambda ctx: ctx.BoundedSemaphore(),
    "Condition": lambda ctx: ctx.Condition(),
    "Event": lambda ctx: ctx.Event(),
    "Barrier": lambda ctx: ctx.Barrier(2),
    "Value": lambda ctx: ctx.Value("i"),
    "Array": lambda ctx: ctx.Array("i", 3),
    "RawValue": lambda ctx: ctx.RawValue("d"),
    "RawArray": lambda ctx: ctx.RawArray("d", 3),
    "Structure": lambda ctx: ctx.Value(Point, 1, 2),
}


@pytest.fixture(params=SPAWNING_ONLY)
def made(ctx, request):
    made = SPAWNING_ONLY[request.param](ctx)
    yield made
    if hasattr(made, "close"):
        made.close()


def test_pickled_outside_spawning(made, ctx):
    message = "should only be shared between processes through inheritance"
    with pytest.raises(RuntimeError, match=message):
        reduction.ForkingPickler.dumps(made)
    a, b = ctx.Pipe()
    with a, b, pytest.raises(RuntimeError, match=message):
        a.send(made)


@pytest.mark.parametrize("kind", ["Lock", "Event", "Queue"])
def test_plain_pickle_refuses_too(ctx, kind):
    made = getattr(ctx, kind)()
    with pytest.raises(RuntimeError, match="through inheritance"):
        pickle.dumps(made)
    if kind == "Queue":
        made.close()


def test_a_queue_refuses_objects_that_only_processes_carry(ctx):
    queue = ctx.SimpleQueue()
    with pytest.raises(RuntimeError, match="through inheritance"):
        queue.put(ctx.Lock())
    queue.put("goes on")
    assert queue.get() == "goes on"
    queue.close()


@pytest.mark.parametrize("kind", SPAWNING_ONLY)
def test_objects_leave_nothing_behind(ctx, kind):
    make = SPAWNING_ONLY[kind]
    make(ctx)
    before = snapshot()
    for _ in range(300):
        made = make(ctx)
        if hasattr(made, "close"):
            made.close()
    del made
    assert settle(before) == []


def test_thousands_of_pipes_leave_nothing_behind(ctx):
    before = snapshot()
    for _ in range(2000):
        a, b = ctx.Pipe()
        a.send(1)
        assert b.recv() == 1
    del a, b
    assert settle(before) == []


def test_thousands_of_used_objects_leave_nothing_behind(ctx):
    # Each of stock's costs files, and a round trip to its tracker.
    laps = 20 if type(ctx).__module__.startswith("multiprocessing") else 200
    before = snapshot()
    for lap in range(laps):
        objects = workers.one_of_each(ctx)
        if lap % 10 == 0:
            workers.use_one_of_each(objects)
            assert objects["Queue"].get(timeout=SOON) == "from the child"
            assert objects["JoinableQueue"].get(timeout=SOON) == "from the child"
        workers.close_all(objects)
        del objects
    assert settle(before) == []


def test_many_alive_at_once(ctx):
    locks = [ctx.Lock() for _ in range(200)]
    values = [ctx.RawValue("i", number) for number in range(200)]
    for lock in locks[::2]:
        lock.acquire()
    assert [lock.acquire(False) for lock in locks] == [False, True] * 100
    assert [value.value for value in values] == list(range(200))
    del locks[::2], values[::2]
    gc.collect()
    assert [value.value for value in values] == list(range(1, 200, 2))
    assert not any(lock.acquire(False) for lock in locks)


def test_children_inherit_no_more_than_they_need(ctx, family):
    if ctx.get_start_method() == "fork":
        counts = None
    else:
        extra = [ctx.Queue() for _ in range(10)]
        event, queue = ctx.Event(), ctx.Queue()
        counts = {family.call(workers.descriptors, event, queue) for _ in range(3)}
        for each in (*extra, queue):
            each.close()
    assert counts is None or len(counts) == 1


def test_forks_beside_busy_threads(ctx, family):
    objects = workers.one_of_each(ctx)
    stop = threading.Event()

    def hammer(kind, use):
        while not stop.is_set():
            use(objects[kind])

    def use_lock(lock):
        with lock:
            pass

    def use_queue(queue):
        queue.put(payload(1000))
        queue.get()

    def use_pipe(pipe):
        pipe[0].send(1)
        pipe[1].recv()

    uses = {
        "Lock": use_lock,
        "RLock": use_lock,
        "Condition": use_lock,
        "Event": lambda event: (event.set(), event.is_set(), event.clear()),
        "Queue": use_queue,
        "SimpleQueue": use_queue,
        "Pipe": use_pipe,
        "Value": lambda value: setattr(value, "value", 1),
        "Semaphore": lambda semaphore: (semaphore.acquire(), semaphore.release()),
    }
    threads = [Background(hammer, kind, use) for kind, use in uses.items()]
    own = ctx.SimpleQueue()
    try:
        for _ in range(4):
            # It uses locks that the threads may hold at the moment it begins.
            family.start(workers.use_busy_objects, objects, own)
        for _ in range(4):
            assert own.get() == "done"
        family.join()
    finally:
        stop.set()
    for thread in threads:
        thread.result()
    own.close()
    workers.close_all(objects)


def test_stock_queue_over_our_primitives(ctx, family):
    queue = multiprocessing.queues.Queue(2, ctx=ctx)
    family.start(workers.put_all, queue, range(20))
    assert [queue.get(timeout=SOON) for _ in range(20)] == list(range(20))
    queue.put(1)
    queue.put(2)
    assert queue.full() and queue.qsize() == 2
    assert [queue.get(timeout=SOON), queue.get(timeout=SOON)] == [1, 2]
    queue.close()
    queue.join_thread()


def test_stock_joinable_and_simple_queue_over_our_primitives(ctx, family):
    joinable = multiprocessing.queues.JoinableQueue(ctx=ctx)
    simple = multiprocessing.queues.SimpleQueue(ctx=ctx)
    workers.put_all(joinable, range(10))
    assert family.call(workers.consume, joinable, 10) == list(range(10))
    joinable.join()
    family.start(workers.put_all, simple, [1])
    assert simple.get() == 1
    joinable.close()
    joinable.join_thread()
    simple.close()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_stock_condition_over_our_locks(ctx, kind, family):
    condition = multiprocessing.synchronize.Condition(getattr(ctx, kind)(), ctx=ctx)
    asleep, woken = ctx.Semaphore(0), ctx.Semaphore(0)
    sleeping = Background(family.call, workers.wait_on, condition, asleep, woken)
    here = Background(workers.wait_on, condition, asleep, woken)
    for _ in range(2):
        assert asleep.acquire(timeout=SOON)
    with condition:
        condition.notify_all()
    assert sleeping.result() is True and here.result() is True


def test_stock_event_and_barrier_over_our_primitives(ctx, family):
    event = multiprocessing.synchronize.Event(ctx=ctx)
    family.start(workers.method, event, "set")
    assert event.wait(SOON)
    barrier = multiprocessing.synchronize.Barrier(2, ctx=ctx)
    run = Background(family.call, workers.meet, barrier, 10)
    workers.meet(barrier, 10)
    assert len(run.result()) == 10


@pytest.mark.without_names("semaphores have names in /dev/shm")
def test_nothing_of_ours_lies_in_the_file_system(ctx):
    before = set(os.listdir("/dev/shm"))
    objects = workers.one_of_each(ctx)
    new = {name for name in set(os.listdir("/dev/shm")) - before if "mpipc" in name}
    assert not new
    workers.close_all(objects)
