"""Pool."""

from __future__ import annotations

import itertools
import multiprocessing.pool
import os
import pickle
import threading

import pytest

import workers
from workers import KIB, MIB, SOON, Background, payload


@pytest.fixture
def pool(ctx):
    with ctx.Pool(2) as pool:
        yield pool
    pool.join()


def test_is_a_stock_pool(pool):
    assert isinstance(pool, multiprocessing.pool.Pool)


def test_apply(pool):
    assert pool.apply(workers.square, (5,)) == 25
    assert pool.apply(workers.weighted, (5,), {"weight": 3}) == 15
    result = pool.apply_async(workers.square, (6,))
    assert result.get(SOON) == 36 and result.ready() and result.successful()
    assert pool.apply(workers.pid) != os.getpid()


def test_maps(pool):
    values = list(range(100))
    squares = [value * value for value in values]
    assert pool.map(workers.square, values) == squares
    assert pool.map(workers.square, values, chunksize=7) == squares
    assert pool.map(workers.square, []) == []
    assert pool.map_async(workers.square, iter(values)).get(SOON) == squares
    assert pool.starmap(workers.weighted, [(v, v) for v in values]) == squares
    pairs = zip(values, values, strict=True)
    assert pool.starmap_async(workers.weighted, pairs).get(SOON) == squares
    assert list(pool.imap(workers.square, values)) == squares
    assert list(pool.imap(workers.square, values, chunksize=9)) == squares
    assert sorted(pool.imap_unordered(workers.square, values)) == squares
    assert sorted(pool.imap_unordered(workers.square, iter(values), 9)) == squares


def test_large_arguments_and_results(pool):
    sizes = [0, 1, 64 * 1024, MIB, 8 * MIB]
    assert pool.map(workers.identity, map(payload, sizes), 1) == list(map(payload, sizes))


def test_callbacks(pool):
    called, done = [], threading.Event()

    def on(value):
        called.append(value)
        done.set()

    pool.apply_async(workers.square, (3,), callback=on)
    assert done.wait(SOON) and called == [9]
    done.clear()
    pool.apply_async(workers.raise_for, (4,), error_callback=on)
    assert done.wait(SOON) and isinstance(called[1], KeyError) and called[1].args == (4,)


def test_errors_come_back_with_their_traceback(pool):
    with pytest.raises(KeyError) as caught:
        pool.apply(workers.raise_for, ("key",))
    assert caught.value.args == ("key",)
    assert "in raise_for" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="three"):
        pool.map(workers.fail_on_three, range(10))
    results = pool.imap(workers.fail_on_three, range(5))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert next(results) == 4
    assert pool.apply(workers.square, (5,)) == 25


def test_what_cannot_be_pickled(pool):
    with pytest.raises(multiprocessing.pool.MaybeEncodingError):
        pool.apply(workers.unpicklable_result)
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        pool.apply(lambda: None)
    with pytest.raises(NotImplementedError, match="no pickling"):
        pool.apply(workers.identity, (workers.ReduceRaises(),))
    assert pool.apply(workers.square, (5,)) == 25


def test_an_iterable_that_raises(pool):
    def two_then_raise():
        yield from (1, 2)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        pool.map(workers.square, two_then_raise())
    results = pool.imap(workers.square, two_then_raise())
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(LookupError, match="no more"):
        next(results)
    assert pool.apply(workers.square, (5,)) == 25


def test_timeouts(ctx, pool):
    with ctx.Manager() as manager:
        event = manager.Event()
        result = pool.apply_async(workers.method, (event, "wait"))
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(0.01)
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        assert not result.ready()
        event.set()
        assert result.get(SOON) is True


def test_imap_takes_the_iterable_as_it_goes(pool):
    # Stock's only brake is the pipe to the workers: results must come before the input ends.
    drawn = itertools.count()
    numbers = itertools.takewhile(lambda number: number < 100_000, drawn)
    results = pool.imap(workers.square, numbers)
    assert [next(results) for _ in range(50)] == [n * n for n in range(50)]
    pool.terminate()


def test_imap_over_an_infinite_generator_does_not_run_away(ctx):
    go, drawn = ctx.Event(), itertools.count()
    with ctx.Pool(1, workers.initialise_event_to_wait_for, (go,)) as pool:
        results = pool.imap(workers.length_when_told, (payload(64 * KIB) for _ in drawn))
        # While the worker works, only so much is drawn as the pipe to it holds.
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(1)
        assert next(drawn) < 1000
        go.set()
        assert [next(results) for _ in range(20)] == [64 * KIB] * 20
    pool.join()


def test_initializer(ctx):
    value = ctx.Value("i", 0)
    with ctx.Pool(2, initializer=workers.initialise, initargs=(value, 100)) as pool:
        pool.map(workers.add_to_kept, [1, 2, 3])
        pool.close()
        pool.join()
    assert value.value == 206


def test_maxtasksperchild(ctx):
    with ctx.Pool(2, maxtasksperchild=3) as pool:
        pids = pool.map(workers.pid, range(18), chunksize=1)
        pool.close()
        pool.join()
    assert len(set(pids)) >= 6
    assert all(pids.count(pid) <= 3 for pid in pids)


def test_close_and_join(ctx):
    pool = ctx.Pool(2)
    with pytest.raises(ValueError, match="Pool is still running"):
        pool.join()
    result = pool.map_async(workers.square, range(50))
    pool.close()
    with pytest.raises(ValueError, match="Pool not running"):
        pool.apply(workers.square, (1,))
    pool.join()
    assert result.get(SOON) == [value * value for value in range(50)]


def test_terminate_with_much_to_do(ctx):
    pool = ctx.Pool(2)
    pool.map_async(workers.square, range(10_000), chunksize=1)
    pool.terminate()
    pool.join()
    assert all(not process.is_alive() for process in pool._pool)


def test_terminate_ends_idle_and_busy_workers(ctx):
    event = ctx.Event()
    with ctx.Pool(2, workers.initialise_event, (event,)) as pool:
        pool.apply_async(workers.forever)
        assert event.wait(SOON)
    pool.join()


@pytest.mark.parametrize("size", [0, -1])
def test_needs_a_worker(ctx, size):
    with pytest.raises(ValueError, match="Number of processes must be at least 1"):
        ctx.Pool(size)


def test_within_a_child(ctx, family):
    assert family.call(workers.pool_in_child, ctx, [1, 2, 3]) == [1, 4, 9]


def test_from_several_threads(pool):
    calls = [
        Background(pool.map, workers.square, range(start, start + 50)) for start in (0, 50, 100)
    ]
    squares = [square for call in calls for square in call.result()]
    assert squares == [value * value for value in range(150)]


def test_a_worker_that_leaves_is_replaced(pool):
    # Only an Exception of a task is a result; SystemExit ends the worker, as anywhere.
    for _ in range(2):
        pool.apply_async(workers.raise_for, (3, SystemExit))
    assert pool.map(workers.square, range(20)) == [value * value for value in range(20)]


def test_repr(pool):
    assert "state=RUN" in repr(pool) and "pool_size=2" in repr(pool)
