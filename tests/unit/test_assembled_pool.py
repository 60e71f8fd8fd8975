"""Pools over a mechanism's own queues, whose workers are killed at bad moments."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import mpipc
import workers
from mpipc.objects.assembled_pool import CLAIMED
from workers import MIB, SOON


def until(true):
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def stream():
    return mpipc.get_context("pipe", start_method="fork")


@pytest.fixture
def packets():
    return mpipc.get_context("seqpacket", start_method="fork")


def hold_results(pool):
    """Receive no results of a pool until the event that is returned is set."""
    begun, go = threading.Event(), threading.Event()

    def hold(_):
        begun.set()
        go.wait(SOON)

    pool.apply_async(workers.square, (2,), callback=hold)
    assert begun.wait(SOON)
    return go


def cut_a_result(pool):
    """Kill the worker of a pool in the middle of a result."""
    go = hold_results(pool)
    cut = pool.apply_async(workers.payload, (2 * MIB,))
    until(lambda: not pool._pool._results.empty())
    (worker,) = pool._pool
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    go.set()
    return worker.pid, cut


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_cut_result_breaks_the_pool(stream, end):
    pool = stream.Pool(1)
    pid, cut = cut_a_result(pool)
    with pytest.raises((mpipc.OwnerDied, mpipc.WorkerLost)) as caught:
        cut.get(SOON)
    assert caught.value.pid == pid
    for _ in range(3):
        with pytest.raises(mpipc.OwnerDied, match=f"{pid} died .* message of this pool"):
            pool.apply_async(workers.square, (2,)).get(SOON)
    with pytest.raises(mpipc.OwnerDied):
        pool.map_async(workers.square, range(10), 3).get(SOON)
    results = pool.imap(workers.square, range(3))
    for _ in range(3):
        with pytest.raises(mpipc.OwnerDied):
            results.next(SOON)
    getattr(pool, end)()
    pool.join()


def test_what_waits_when_a_pool_breaks(stream):
    """More than its queue of tasks holds."""
    pool = stream.Pool(1)
    go = hold_results(pool)
    cut, *results = [pool.apply_async(workers.payload, (2 * MIB,)) for _ in range(2000)]
    until(lambda: not pool._pool._results.empty())
    os.kill(pool._pool[0].pid, signal.SIGKILL)
    go.set()
    with pytest.raises((mpipc.OwnerDied, mpipc.WorkerLost)):
        cut.get(SOON)
    for result in results:
        with pytest.raises(mpipc.OwnerDied):
            result.get(SOON)
    pool.terminate()
    pool.join()


def test_a_worker_that_finds_the_queue_cut(stream):
    """Nobody has written a byte of the message in which its sender died."""
    gone = stream.Process(target=int)
    gone.start()
    gone.join()
    with stream.Pool(1) as pool:
        pool._pool._results._writer._marks[0] = gone.pid << 40
        with pytest.raises(mpipc.OwnerDied) as caught:
            pool.apply_async(workers.square, (2,)).get(SOON)
        assert caught.value.pid == gone.pid
    pool.join()


def test_a_task_that_was_claimed_is_lost(packets):
    with packets.Pool(1) as pool:
        (worker,) = pool._pool
        assert pool.apply(workers.square, (2,)) == 4
        os.kill(worker.pid, signal.SIGSTOP)
        lost = [pool.apply_async(workers.square, (3,)) for _ in range(2)]
        pool._pool._words[worker][0] = CLAIMED | 2
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(mpipc.WorkerLost):
            lost[0].get(SOON)
        assert lost[1].get(SOON) == 9
    pool.join()


def test_a_task_is_claimed_twice(packets):
    """Two were killed in the place where each may have taken a task: two tasks are lost."""
    with packets.Pool(2) as pool:
        pair = list(pool._pool)
        for worker in pair:
            os.kill(worker.pid, signal.SIGSTOP)
        lost = [pool.apply_async(workers.square, (3,)) for _ in range(3)]
        for worker in pair:  # as if each had taken one, and not come to note which
            pool._pool._tasks._reader.recv_bytes()
            pool._pool._words[worker][0] = CLAIMED | 1
        for worker in pair:
            os.kill(worker.pid, signal.SIGKILL)
        for result in lost[:2]:
            with pytest.raises(mpipc.WorkerLost):
                result.get(SOON)
        assert lost[2].get(SOON) == 9
    pool.join()
