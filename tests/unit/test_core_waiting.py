"""Waiting: it costs no processor time, and it ends on one processor too."""

from __future__ import annotations

import os
import queue as queue_errors
import time

import pytest

import mpipc


@pytest.fixture
def context():
    return mpipc.get_context("shm", start_method="fork")


def waits(context):
    queue, (reader, _writer) = context.Queue(), context.Pipe()
    lock, condition = context.Lock(), context.Condition()
    lock.acquire()
    condition.acquire()

    def get(timeout):
        with pytest.raises(queue_errors.Empty):
            queue.get(timeout=timeout)

    return {
        "get": get,
        "poll": reader.poll,
        "acquire": lambda timeout: lock.acquire(timeout=timeout),
        "condition": condition.wait,
        "event": context.Event().wait,
        "keep": _writer,
    }


@pytest.mark.parametrize("name", ["get", "poll", "acquire", "condition", "event"])
def test_a_sleeping_process_uses_no_processor(context, name):
    wait = waits(context)
    began = time.process_time()
    wait[name](1.0)
    assert time.process_time() - began < 0.2


def echo(connection) -> None:
    while (message := connection.recv()) is not None:
        connection.send(message)


def test_two_processes_on_one_processor(context):
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        here, there = context.Pipe()
        child = context.Process(target=echo, args=(there,))
        child.start()
        for i in range(2000):
            here.send(i)
            assert here.recv() == i
        here.send(None)
        child.join()
    finally:
        os.sched_setaffinity(0, usable)


@pytest.mark.parametrize("timeout", [float("nan")])
def test_not_a_number_is_no_timeout(context, timeout):
    with pytest.raises(ValueError, match="NaN"):
        context.Event().wait(timeout)


@pytest.mark.parametrize("timeout", [1e30, float("inf")])
def test_a_timeout_beyond_all_clocks_is_for_ever(context, timeout):
    queue = context.Queue()
    queue.put(1)
    assert queue.get(timeout=timeout) == 1
