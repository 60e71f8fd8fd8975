"""Pool."""

from __future__ import annotations

import itertools
import multiprocessing.pool
import os
import pickle
import signal
import threading
import time

import pytest

import mpipc
import workers
from mpipc.adapters.streams import StreamEnd
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


# Workers that are killed. Other mechanisms than shm do the same but for the instant of a take.

beyond_stock = pytest.mark.beyond_stock("waits for ever for the task of a killed worker")


def kill(*processes):
    """Kill workers of a pool; they are gone afterwards."""
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    multiprocessing.connection.wait([process.sentinel for process in processes], SOON)


class Held:
    """A callback that keeps a pool from receiving more until it is told to go on."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, _):
        self.begun.set()
        self.go.wait(SOON)


def eventually(condition):
    """Wait for something that nothing tells of."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@beyond_stock
@pytest.mark.parametrize(
    "task, argument, exitcode, ending",
    [
        (workers.die, signal.SIGKILL, -signal.SIGKILL, "was killed by SIGKILL"),
        (workers.die, signal.SIGTERM, -signal.SIGTERM, "was killed by SIGTERM"),
        (workers.die, signal.SIGRTMIN + 1, -signal.SIGRTMIN - 1, "was killed by signal"),
        (os._exit, 7, 7, "ended with exit status 7"),
        (workers.exit_with, 0, 0, "ended with exit status 0"),
    ],
)
def test_the_task_of_a_killed_worker_is_lost(pool, task, argument, exitcode, ending):
    pids = {process.pid for process in pool._pool}
    with pytest.raises(mpipc.WorkerLost, match=ending) as caught:
        pool.apply_async(task, (argument,)).get(SOON)
    error = caught.value
    assert isinstance(error, RuntimeError) and error.pid in pids
    assert (error.exitcode, error.task) == (exitcode, task.__name__)
    assert str(error.pid) in str(error) and f"{task.__name__}()" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))
    assert pool.map(workers.square, range(20)) == [value * value for value in range(20)]
    eventually(lambda: len(pool._pool) == 2)


@beyond_stock
def test_maps_raise_and_the_other_tasks_finish(pool):
    values = range(10)
    lost = pytest.raises(mpipc.WorkerLost, match="square_or_die")
    other = pool.map_async(workers.square, range(100), 1)
    with lost:
        pool.map(workers.square_or_die, values, 1)
    with lost:
        pool.map(workers.square_or_die, values)
    with lost:
        pool.starmap_async(workers.square_or_die, [(v,) for v in values]).get(SOON)
    assert other.get(SOON) == [value * value for value in range(100)]
    results = pool.imap(workers.square_or_die, values)
    assert [results.next(SOON) for _ in range(3)] == [0, 1, 4]
    with lost:
        results.next(SOON)
    assert list(results) == [value * value for value in values[4:]]
    results, squares = pool.imap_unordered(workers.square_or_die, values), []
    with lost:
        while True:
            squares.append(results.next(SOON))
    assert sorted([*squares, *results]) == [v * v for v in values if v != 3]
    with lost:
        list(pool.imap(workers.square_or_die, values, chunksize=5))


@beyond_stock
def test_callbacks_are_told(pool):
    called, done = [], threading.Event()

    def on_error(error):
        called.append(error)
        done.set()

    pool.apply_async(workers.die, error_callback=on_error)
    assert done.wait(SOON) and isinstance(called[0], mpipc.WorkerLost)


@beyond_stock
def test_a_task_that_kills_who_unpickles_it(pool):
    with pytest.raises(mpipc.WorkerLost, match="identity"):
        pool.apply_async(workers.identity, (workers.LoadDies(),)).get(SOON)


@beyond_stock
def test_idle_workers_take_nothing_with_them(pool):
    for _ in range(3):
        assert pool.map(workers.square, range(20), 1) == [value * value for value in range(20)]
        kill(*pool._pool)
    assert pool.apply_async(workers.square, (5,)).get(SOON) == 25


@beyond_stock
def test_a_result_that_was_sent_counts(ctx):
    # So large that its sender waits until it is taken; meanwhile nothing is taken.
    size, held = 9 * MIB, Held()
    with ctx.Pool(1) as pool:
        first = pool.apply_async(workers.square, (2,), callback=held)
        assert held.begun.wait(SOON)
        results = pool.map_async(workers.payload, [size, size], 1)
        if not hasattr(pool._outqueue, "_put_at_once"):
            pytest.skip("elsewhere a message is sent when it has been received")
        eventually(lambda: not pool._outqueue.empty())
        kill(*pool._pool)
        held.go.set()
        assert results.get(SOON) == [payload(size), payload(size)]
        assert first.get(SOON) == 4
    pool.join()


@beyond_stock
def test_all_workers_are_killed_at_once(ctx):
    started = ctx.Semaphore(0)
    with ctx.Pool(3, workers.initialise_counts, (started,)) as pool:
        for _ in range(3):
            lost = [pool.apply_async(workers.announce_and_stay) for _ in range(3)]
            after = [pool.apply_async(workers.square, (value,)) for value in range(5)]
            for _ in lost:
                assert started.acquire(timeout=SOON)
            eventually(lambda: len(pool._pool) == 3)  # a new one may have begun before it is there
            kill(*pool._pool)
            for result in lost:
                with pytest.raises(mpipc.WorkerLost, match="announce_and_stay"):
                    result.get(SOON)
            assert [result.get(SOON) for result in after] == [0, 1, 4, 9, 16]
    pool.join()


@beyond_stock
def test_each_task_is_done_once_or_lost(ctx):
    if isinstance(ctx.SimpleQueue()._reader, StreamEnd):
        pytest.skip("a kill in the middle of a message breaks the pool")
    number = 400
    counts = ctx.RawArray("i", number)
    with ctx.Pool(3, workers.initialise_counts, (counts,), maxtasksperchild=50) as pool:
        results = [pool.apply_async(workers.count_and_square, (n,)) for n in range(number)]
        lost = killed = 0
        for n, result in enumerate(results):
            if n % 100 == 50:
                try:
                    os.kill(pool._pool[0].pid, signal.SIGKILL)
                    killed += 1
                except (ProcessLookupError, IndexError):
                    pass
            try:
                assert result.get(SOON) == n * n and counts[n] == 1
            except mpipc.WorkerLost:
                lost += 1
                assert counts[n] <= 1
        assert lost <= killed
        pool.close()
        pool.join()


@beyond_stock
@pytest.mark.parametrize("end", ["close", "terminate"])
def test_ends_after_kills(ctx, end):
    pool = ctx.Pool(2)
    lost = pool.map_async(workers.square_or_die, range(10), 1)
    getattr(pool, end)()
    pool.join()
    if end == "close":
        with pytest.raises(mpipc.WorkerLost):
            lost.get(SOON)


@beyond_stock
def test_ends_while_results_wait_and_workers_are_gone(ctx):
    held = Held()
    pool = ctx.Pool(2)
    answers = getattr(pool._pool, "_results", pool._outqueue)
    pool.apply_async(workers.square, (2,), callback=held)
    assert held.begun.wait(SOON)
    for _ in range(2):
        pool.apply_async(workers.payload, (2 * MIB,))
    eventually(lambda: not answers.empty())
    pool.apply_async(workers.forever)
    kill(*pool._pool)
    threading.Timer(0.1, held.go.set).start()
    pool.terminate()
    pool.join()
