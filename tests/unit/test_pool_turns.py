"""Who of a pool's threads receives, and what a signal handler that raises leaves behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

import mpipc
import workers
from workers import KIB, SOON, Background, payload


@pytest.fixture
def ctx():
    return mpipc.get_context("shm", start_method="fork")


@pytest.fixture
def pool(ctx):
    with ctx.Pool(2) as pool:
        yield pool
    pool.join()


def test_results_come_while_nobody_waits(pool):
    results = [pool.apply_async(workers.payload, (64 * KIB,)) for _ in range(500)]
    deadline = time.monotonic() + SOON
    while not all(result.ready() for result in results):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not pool._cache


def test_threads_take_turns(pool):
    calls = [
        Background(lambda: [pool.apply(workers.square, (v,)) for v in range(200)]) for _ in range(4)
    ]
    for call in calls:
        assert call.result() == [value * value for value in range(200)]


def test_who_waits_with_a_timeout_leaves_the_lead(ctx):
    go = ctx.Event()
    with ctx.Pool(2, workers.initialise_event_to_wait_for, (go,)) as pool:
        late = pool.apply_async(workers.length_when_told, (b"abc",))
        other = Background(late.get, SOON)
        for timeout in (0, 0.01, 0.05):
            with pytest.raises(multiprocessing.TimeoutError):
                late.get(timeout)
        go.set()
        assert other.result() == 3 and late.get(0) == 3
    pool.join()


def test_callbacks_run_in_one_thread_and_before_the_result_is_there(pool):
    names, seen = set(), []

    def callback(value):
        names.add(threading.current_thread())
        seen.append(value)

    for value in range(100):
        assert pool.apply_async(workers.square, (value,), callback=callback).get(SOON) == value**2
        assert seen[-1] == value**2
        assert pool.apply(workers.square, (value,)) == value**2
    pool.map_async(workers.square, range(10), 1, callback).get(SOON)
    pool.apply_async(lambda: None, error_callback=callback).wait(SOON)
    assert len(seen) == 102 and names == {pool._result_handler}


def test_tasks_are_begun_in_the_order_of_their_submission(ctx):
    with ctx.Pool(1) as pool:

        def three():
            yield from range(3)

        begun = [
            pool.map_async(workers.stamp, range(2000), 1),
            pool.imap(workers.stamp, three()),
            pool.apply_async(workers.stamp, (0,)),
            pool.imap_unordered(workers.stamp, [1, 2]),
            pool.map_async(workers.stamp, set(range(3))),
        ]
        times = [*begun[0].get(SOON), *begun[1], begun[2].get(SOON), *begun[3], *begun[4].get(SOON)]
    pool.join()
    assert times == sorted(times)


def test_a_function_with_a_state_is_sent_as_it_is_then(pool):
    counter = workers.Counting()
    assert pool.map(counter, range(5), 1) == [1] * 5
    assert [pool.apply(counter) for _ in range(3)] == [1] * 3
    counter(), counter()
    assert pool.apply(counter) == 3
    assert pool.map(len, ["a", "bc"], 1) == [1, 2] and pool.apply(str, (5,)) == "5"
    assert pool.apply([3, 1, 2].index, (2,)) == 2


class Alarm(Exception):
    pass


def test_handlers_that_raise_lose_no_answer(pool):
    def ring(*_):
        raise Alarm

    others = [pool.map_async(workers.square, range(300), 1) for _ in range(20)]
    iterators = [pool.imap_unordered(workers.square, range(300)) for _ in range(3)]
    interrupted = 0
    previous = signal.signal(signal.SIGALRM, ring)
    remaining = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        for round_ in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.00001 * (round_ % 50))
                try:
                    pool.map(workers.square, range(200), 1)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                interrupted += 1
    finally:
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *remaining)
    assert interrupted
    for other in others:
        assert other.get(SOON) == [value * value for value in range(300)]
    for iterator in iterators:
        assert sorted(iterator) == [value * value for value in range(300)]
    pool.close()
    pool.join()
    assert not pool._cache


def test_killed_workers_while_many_threads_wait(ctx):
    number = 200
    with ctx.Pool(3) as pool:

        def calls():
            lost = 0
            for value in range(number):
                try:
                    assert pool.apply(workers.square, (value,)) == value * value
                except mpipc.WorkerLost:
                    lost += 1
            return lost

        users, kills = [Background(calls) for _ in range(3)], 0
        for _ in range(30):
            time.sleep(0.005)
            try:
                os.kill(pool._pool[0].pid, signal.SIGKILL)
                kills += 1
            except (IndexError, ProcessLookupError, TypeError):
                continue  # it is being replaced
        assert sum(user.result() for user in users) <= kills
    pool.join()


def test_looking_for_a_lost_task_while_others_are_answered(pool):
    sent = dict.fromkeys(range(5000), 7)

    def answer(*_):
        if sent:
            sent.popitem()

    pool._cache[-1] = SimpleNamespace(sent=sent, function=len)
    thresholds = gc.get_threshold()
    gc.callbacks.append(answer)
    gc.set_threshold(1)
    try:
        assert (-1, 0, len) in pool._pool._tasks_of(7)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(answer)
        del pool._cache[-1]


def test_items_in_runs(ctx):
    queue = ctx.SimpleQueue()
    numbers = {}
    items = iter([("a", n, payload(10)) for n in range(100)])
    assert queue._put_some(items, numbers, 40) is False
    assert list(numbers.items()) == [(n, n + 1) for n in range(40)] and queue._next_number() == 41
    got = []
    assert queue._take_some(got, 30) == 30 and [item[1] for item in got] == list(range(30))
    assert queue._put_some(items, numbers, 1000) is True
    assert queue._take_some(got, 1000) == 70 and [item[1] for item in got] == list(range(100))
    assert queue._take_some(got, 10, 0) == 0


def test_what_has_no_room_or_cannot_be_pickled_stays_the_next(ctx):
    queue = ctx.SimpleQueue()
    items = iter([(0, n, payload(700 * KIB)) for n in range(3)])
    got = []
    for n in range(2):
        assert queue._put_some(items, {}, 1000) is False
        assert queue._take_some(got, 1000) == 1 and got[-1][1] == n
    assert queue._put_some(items, {}, 1000) is True
    items = iter([(0, 5, workers.ReduceRaises()), (0, 6)])
    for _ in range(2):
        assert isinstance(queue._put_some(items, {}, 1000), NotImplementedError)
        assert queue._held()[1] == 5
    queue._drop()
    assert queue._put_some(items, {}, 1000) is True
    queue._take_some(got, 1000)
    queue._take_some(got, 1000)
    assert [item[1] for item in got] == [0, 1, 2, 6]
