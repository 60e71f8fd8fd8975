"""What a pool makes of the words of its workers, written by hand as kills may leave them."""

from __future__ import annotations

import gc
import os
import signal
import time

import pytest

import mpipc
import workers
from workers import SOON


@pytest.fixture
def ctx():
    return mpipc.get_context("shm", start_method="fork")


def word_of(pool, worker):
    return pool._pool._words[worker]


def holder_of(pool, number):
    """Wait until a worker has the task of that number; return the worker."""
    deadline = time.monotonic() + SOON
    while True:
        for worker, word in list(pool._pool._words.items()):
            if word[0] == number:
                return worker
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_word_is_clear_when_the_result_has_come(ctx):
    with ctx.Pool(1) as pool:
        for _ in range(100):
            pool.apply(workers.square, (2,))
        pool.apply_async(workers.forever)
        holder_of(pool, 101)
        (result,) = pool._cache.values()
        assert (result.sent, result.function) == ({0: 101}, workers.forever)
    pool.join()


def test_killed_before_it_took_what_still_waits(ctx):
    with ctx.Pool(1) as pool:
        pool.apply_async(workers.forever)
        waiting = pool.apply_async(workers.square, (3,))
        worker = holder_of(pool, 1)
        word_of(pool, worker)[0] = 2
        os.kill(worker.pid, signal.SIGKILL)
        assert waiting.get(SOON) == 9
    pool.join()


def test_killed_before_it_took_what_another_took(ctx):
    go = ctx.Event()
    with ctx.Pool(2, workers.initialise_event_to_wait_for, (go,)) as pool:
        taken = pool.apply_async(workers.length_when_told, (b"abc",))
        holder = holder_of(pool, 1)
        (idle,) = (worker for worker in list(pool._pool) if worker is not holder)
        word_of(pool, idle)[0] = 1
        os.kill(idle.pid, signal.SIGKILL)
        # The new worker is there, so the old one has been looked at.
        assert pool.apply_async(workers.square, (3,)).get(SOON) == 9
        assert not taken.ready()
        go.set()
        assert taken.get(SOON) == 3
    pool.join()


def test_killed_between_its_result_and_clearing_its_word(ctx):
    with ctx.Pool(1) as pool:
        assert pool.apply(workers.square, (2,)) == 4
        (worker,) = pool._pool
        word_of(pool, worker)[0] = 1
        os.kill(worker.pid, signal.SIGKILL)
        assert pool.map(workers.square, range(5), 1) == [0, 1, 4, 9, 16]
    pool.join()


def test_words_are_used_again(ctx):
    with ctx.Pool(2, maxtasksperchild=1) as pool:
        pool.map(workers.square, range(30), 1)
        words = {id(word) for word in pool._pool._words.values()}
        assert len(words | set(map(id, pool._pool._free_words))) <= 4
    pool.join()


def test_a_task_that_cannot_be_sent_has_no_number(ctx):
    with ctx.Pool(1) as pool:
        for _ in range(2):
            with pytest.raises(NotImplementedError):
                pool.apply(workers.identity, (workers.ReduceRaises(),))
        assert not pool._cache and pool._inqueue._next_number() == 1
        with pytest.raises(mpipc.WorkerLost):
            pool.apply_async(workers.die).get(SOON)
    pool.join()


def test_others_send_while_the_task_of_a_lost_worker_is_looked_for(ctx):
    """Any new object may start a collection, in which other threads go on."""
    with ctx.Pool(1) as pool:
        assert pool.apply(workers.square, (2,)) == 4
        (worker,) = pool._pool
        sent = pool._pool._sent
        sent.update({(0, i): (7, workers.square) for i in range(1000)})

        def send(*_):
            sent[1, len(sent)] = 7, workers.square

        before = gc.get_threshold()
        gc.callbacks.append(send)
        gc.set_threshold(1)
        try:
            pool._pool._fail(worker, 1)
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(send)
        sent.clear()
    pool.join()


def test_no_room_for_the_answer_of_a_lost_task(ctx):
    """The queue of answers is full; what is taken from it makes room."""
    with ctx.Pool(1) as pool:
        answer, refused = pool._pool._answer, []

        def full(lost):
            if len(refused) < 3:
                refused.append(lost)
                raise MemoryError
            answer(lost)

        pool._pool._answer = full
        lost = pool.apply_async(workers.die)
        waiting = pool.apply_async(workers.square, (3,))
        assert waiting.get(SOON) == 9
        # Two tries for the task, one with each answer that came.
        assert pool.apply(workers.square, (4,)) == 16
        with pytest.raises(mpipc.WorkerLost):
            lost.get(SOON)
        assert len(refused) == 3
    pool.join()
