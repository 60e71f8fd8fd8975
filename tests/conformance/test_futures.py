"""mpipc.futures.ProcessPoolExecutor; the checks of test_executor.py hold for it, too."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import signal
import sys
import threading
import time

import pytest
from test_executor import (  # noqa: F401
    test_errors,
    test_submit_and_map,
)

import mpipc
import workers
from mpipc.futures import BrokenProcessPool, ProcessPoolExecutor
from workers import SOON, Background


@pytest.fixture
def executor(ctx):
    with ProcessPoolExecutor(2, ctx) as executor:
        yield executor


def test_is_stocks(executor):
    assert isinstance(executor, concurrent.futures.ProcessPoolExecutor)
    assert type(executor.submit(workers.square, 2)) is concurrent.futures.Future


def test_without_a_context_it_is_shared_memory():
    with ProcessPoolExecutor(1) as executor:
        assert executor._mp_context == mpipc.get_context("shm")
        assert executor.submit(workers.square, 3).result(SOON) == 9


def test_many_short_calls_keep_their_order(executor):
    values = range(3000)
    assert list(executor.map(workers.square, values)) == [value * value for value in values]
    assert list(executor.map(workers.square, values, chunksize=7)) == [v * v for v in values]


def test_from_several_threads(executor):
    calls = [
        Background(lambda: [executor.submit(workers.square, v).result(SOON) for v in range(50)])
        for _ in range(3)
    ]
    for call in calls:
        assert call.result() == [value * value for value in range(50)]


def test_few_calls_are_beyond_cancelling(executor):
    event = threading.Event()
    futures = [executor.submit(time.sleep, 0.2) for _ in range(20)]
    futures[0].add_done_callback(lambda _: event.set())
    assert event.wait(SOON)
    cancelled = [future.cancel() for future in futures]
    assert sum(cancelled) >= 10
    for future, is_cancelled in zip(futures, cancelled, strict=True):
        assert is_cancelled or future.result(SOON) is None


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_cancels(ctx, wait):
    executor = ProcessPoolExecutor(1, ctx)
    futures = [executor.submit(time.sleep, 0.1) for _ in range(20)]
    futures[0].result(SOON)
    manager = executor._executor_manager_thread
    executor.shutdown(wait=wait, cancel_futures=True)
    manager.join(SOON)
    assert all(future.done() for future in futures)
    assert sum(future.cancelled() for future in futures) >= 10
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(workers.square, 2)


def test_a_killed_worker_breaks_it(ctx):
    with ProcessPoolExecutor(2, ctx) as executor:
        executor.submit(workers.square, 2).result(SOON)
        futures = [executor.submit(workers.forever) for _ in range(3)]
        os.kill(next(iter(executor._processes)), signal.SIGKILL)
        for future in futures:
            with pytest.raises(BrokenProcessPool):
                future.result(SOON)
        with pytest.raises(BrokenProcessPool):
            executor.submit(workers.square, 2)


def test_an_initializer_that_fails_breaks_it(ctx):
    with (
        ProcessPoolExecutor(1, ctx, workers.raise_for, ("no start",)) as executor,
        pytest.raises(BrokenProcessPool),
    ):
        executor.submit(workers.square, 2).result(SOON)


def test_what_cannot_be_sent_is_one_calls_failure(executor):
    before = [executor.submit(workers.square, value) for value in range(5)]
    bad = executor.submit(workers.identity, workers.ReduceRaises())
    nameless = executor.submit(lambda: None)
    result = executor.submit(workers.unpicklable_result)
    after = [executor.submit(workers.square, value) for value in range(5)]
    assert [future.result(SOON) for future in before + after] == [0, 1, 4, 9, 16] * 2
    with pytest.raises(NotImplementedError, match="no pickling"):
        bad.result(SOON)
    for future in nameless, result:
        with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
            future.result(SOON)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="max_tasks_per_child came with 3.11")
def test_max_tasks_per_child():
    with ProcessPoolExecutor(2, max_tasks_per_child=3) as executor:
        assert executor._mp_context.get_start_method() == "spawn"
        pids = [executor.submit(workers.pid) for _ in range(20)]
        pids = [future.result(SOON) for future in pids]
    assert all(pids.count(pid) <= 3 for pid in pids)


def test_processes_are_started_when_they_are_needed(ctx):
    with ProcessPoolExecutor(4, ctx) as executor:
        for _ in range(5):
            executor.submit(workers.square, 2).result(SOON)
        expected = 4 if ctx.get_start_method() == "fork" else 1
        assert len(executor._processes) == expected


def test_an_executor_that_is_dropped_ends(ctx):
    executor = ProcessPoolExecutor(1, ctx)
    assert executor.submit(workers.square, 2).result(SOON) == 4
    manager, processes = executor._executor_manager_thread, list(executor._processes.values())
    del executor
    manager.join(SOON)
    assert not manager.is_alive() and all(process.exitcode == 0 for process in processes)


def test_over_another_context_it_is_stocks():
    with ProcessPoolExecutor(1, mpipc.get_context("pipe")) as executor:
        assert executor.submit(workers.square, 5).result(SOON) == 25
