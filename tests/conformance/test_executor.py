"""concurrent.futures over our contexts."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import pytest

import workers
from workers import MIB, SOON, payload


@pytest.fixture
def executor(ctx):
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        yield executor


def test_submit_and_map(executor):
    assert executor.submit(workers.weighted, 6, weight=7).result(SOON) == 42
    assert list(executor.map(workers.square, range(100), chunksize=3)) == [
        value * value for value in range(100)
    ]
    futures = [executor.submit(workers.square, value) for value in range(30)]
    assert sorted(future.result() for future in as_completed(futures, SOON)) == sorted(
        value * value for value in range(30)
    )
    assert executor.submit(workers.pid).result(SOON) != os.getpid()


def test_errors(executor):
    with pytest.raises(KeyError, match="key"):
        executor.submit(workers.raise_for, "key").result(SOON)
    with pytest.raises(NotImplementedError, match="no pickling"):
        executor.submit(workers.identity, workers.ReduceRaises()).result(SOON)
    assert executor.submit(workers.square, 5).result(SOON) == 25


def test_large(executor):
    data = payload(4 * MIB)
    assert all(result == data for result in executor.map(workers.identity, [data] * 4))


def test_initializer(ctx):
    value = ctx.Value("i", 0)
    with ProcessPoolExecutor(
        1, mp_context=ctx, initializer=workers.initialise, initargs=(value, 5)
    ) as executor:
        list(executor.map(workers.add_to_kept, [1, 2]))
    assert value.value == 8


def test_a_killed_worker_breaks_the_pool(ctx):
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        future = executor.submit(workers.die, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            future.result(SOON)
        with pytest.raises(BrokenProcessPool):
            executor.submit(workers.pid)


def test_from_a_child(ctx, family):
    assert family.call(workers.executor_in_child, ctx, [1, 2, 3]) == [1, 4, 9]
