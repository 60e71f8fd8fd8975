"""Barrier."""

from __future__ import annotations

import functools
import multiprocessing.synchronize
import threading

import pytest

import workers
from workers import SOON, Background

PARTIES = 4


def waiting(barrier, count):
    """Let `count` threads wait; return once all do."""
    threads = [Background(workers.broken, barrier) for _ in range(count)]
    while barrier.n_waiting < count:
        assert threads[0].blocked()
    return threads


@pytest.fixture
def barrier(ctx):
    return ctx.Barrier(PARTIES)


def test_is_a_stock_barrier(barrier):
    assert isinstance(barrier, multiprocessing.synchronize.Barrier)
    assert isinstance(barrier, threading.Barrier)
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (PARTIES, 0, False)


def test_processes_and_threads_pass_together(barrier, ctx, family):
    cycles, value = 30, ctx.Value("i", 0)
    runs = [Background(family.call, workers.meet, barrier, cycles, value) for _ in range(2)]
    runs += [Background(workers.meet, barrier, cycles, value) for _ in range(PARTIES - 2)]
    for indexes in zip(*[run.result() for run in runs], strict=True):
        assert sorted(indexes) == list(range(PARTIES))
    assert (barrier.n_waiting, barrier.broken) == (0, False)


def test_many_cycles(ctx, family):
    barrier = ctx.Barrier(3)
    runs = [Background(family.call, workers.meet, barrier, 500) for _ in range(2)]
    workers.meet(barrier, 500)
    assert all(len(run.result()) == 500 for run in runs)


def test_one_party_never_waits(ctx):
    assert [ctx.Barrier(1).wait(), ctx.Barrier(1).wait(0)] == [0, 0]


def test_n_waiting(barrier):
    threads = waiting(barrier, PARTIES - 1)
    assert barrier.n_waiting == PARTIES - 1
    barrier.wait(SOON)
    assert not any(thread.result() for thread in threads)
    assert barrier.n_waiting == 0


def test_action_runs_once_a_cycle(ctx, family):
    value = ctx.RawValue("i", 0)
    barrier = ctx.Barrier(3, functools.partial(workers.record, value))
    runs = [Background(family.call, workers.meet, barrier, 20) for _ in range(2)]
    workers.meet(barrier, 20)
    for run in runs:
        run.result()
    assert value.value == 20


def test_an_action_that_raises_breaks(ctx):
    barrier = ctx.Barrier(2, functools.partial(workers.fail, "action"))
    outcomes = []

    def wait():
        try:
            barrier.wait(SOON)
        except Exception as error:
            outcomes.append(type(error))

    workers.together(wait, wait)
    assert sorted(outcomes, key=str) == sorted([ValueError, threading.BrokenBarrierError], key=str)
    assert barrier.broken


def test_abort(barrier, family):
    threads = waiting(barrier, 2)
    family.call(workers.method, barrier, "abort")
    assert all(thread.result() for thread in threads)
    assert barrier.broken
    for timeout in (0, SOON):
        assert workers.broken(barrier, timeout)
    assert family.call(workers.broken, barrier)


def test_reset_breaks_who_waits_and_mends(barrier, family):
    threads = waiting(barrier, 2)
    barrier.reset()
    assert all(thread.result() for thread in threads)
    assert not barrier.broken and barrier.n_waiting == 0
    runs = [Background(family.call, workers.meet, barrier, 5)]
    runs += [Background(workers.meet, barrier, 5) for _ in range(PARTIES - 1)]
    assert sorted(run.result()[0] for run in runs) == list(range(PARTIES))


def test_abort_and_reset(barrier):
    barrier.abort()
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken
    runs = [Background(barrier.wait, SOON) for _ in range(PARTIES)]
    assert sorted(run.result() for run in runs) == list(range(PARTIES))


def test_a_timeout_breaks(barrier, family):
    threads = waiting(barrier, PARTIES - 2)
    assert workers.broken(barrier, 0.01)
    assert all(thread.result() for thread in threads)
    assert barrier.broken


def test_the_default_timeout(ctx):
    barrier = ctx.Barrier(2, timeout=0.01)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert barrier.broken
