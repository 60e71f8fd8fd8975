"""Signals while a call blocks: Ctrl-C ends it, any other handler runs and the wait goes on."""

from __future__ import annotations

import os
import queue as queue_errors
import signal
import time

import pytest

import workers
from workers import A_WHILE, MIB, SOON, Background, handler, signalled

# Each makes an object that blocks: the call, what ends its wait, and what the call then
# returns. The call takes a timeout where stock's does.


def lock(ctx):
    lock = ctx.Lock()
    lock.acquire()
    return lock.acquire, lock.release, True


def rlock(ctx):
    lock, held, release = ctx.RLock(), ctx.Event(), ctx.Event()
    Background(workers.hold, lock, held, release)
    assert held.wait(SOON)
    return lock.acquire, release.set, True


def semaphore(ctx):
    semaphore = ctx.Semaphore(0)
    return semaphore.acquire, semaphore.release, True


def condition(ctx):
    condition, told = ctx.Condition(), ctx.RawValue("i", 0)

    def wait(timeout=None):
        with condition:
            return condition.wait_for(lambda: told.value == 1, timeout)

    return wait, lambda: workers.set_value(condition, told, 1), True


def event(ctx):
    event = ctx.Event()
    return event.wait, event.set, True


def barrier(ctx):
    barrier = ctx.Barrier(2)
    return lambda: barrier.wait() in (0, 1), barrier.wait, True


def queue_get(ctx):
    queue = ctx.Queue()
    return queue.get, lambda: queue.put(5), 5


def simple_queue_get(ctx):
    queue = ctx.SimpleQueue()
    return queue.get, lambda: queue.put(5), 5


def queue_put(ctx):
    queue = ctx.Queue(1)
    queue.put(1)
    return lambda timeout=None: queue.put(2, timeout=timeout), queue.get, None


def queue_join(ctx):
    queue = ctx.JoinableQueue()
    queue.put(1)
    return queue.join, lambda: (queue.get(), queue.task_done()), None


def pipe_recv(ctx):
    a, b = ctx.Pipe()
    return a.recv, lambda: b.send(5), 5


def pipe_recv_bytes(ctx):
    a, b = ctx.Pipe(False)
    return a.recv_bytes, lambda: b.send_bytes(b"5"), b"5"


def pipe_poll(ctx):
    a, b = ctx.Pipe()
    return lambda timeout=None: a.poll(timeout), lambda: b.send(5), True


def pipe_send(ctx):
    a, b = ctx.Pipe()
    count = 128

    def drain():
        for _ in range(count):
            b.recv_bytes()

    return lambda: workers.send_payloads(a, MIB, count), drain, None


def process_join(ctx):
    event = ctx.Event()
    process = ctx.Process(target=workers.method, args=(event, "wait"))
    process.start()
    return process.join, event.set, None


BLOCKING = [
    lock, rlock, semaphore, condition, event, barrier, queue_get, simple_queue_get, queue_put,
    queue_join, pipe_recv, pipe_recv_bytes, pipe_poll, pipe_send, process_join,
]  # fmt: skip
TIMED = [lock, rlock, semaphore, condition, event, queue_get, queue_put, pipe_poll]


@pytest.mark.parametrize("make", BLOCKING)
def test_ctrl_c_interrupts(ctx, make):
    call, unblock, expected = make(ctx)
    with (
        handler(signal.SIGINT, signal.default_int_handler),
        pytest.raises(KeyboardInterrupt),
        signalled(signal.SIGINT),
    ):
        call()
    if make is pipe_send:
        # Half a message is in the pipe now: nothing that stock could go on with either.
        return
    unblocked = Background(unblock)
    assert call() == expected
    unblocked.result()


@pytest.mark.parametrize("make", BLOCKING)
def test_another_signal_is_handled_while_the_wait_goes_on(ctx, make):
    call, unblock, expected = make(ctx)
    reader, writer = os.pipe()
    # Nothing ends the wait but what the handler sets off, so it has to run during the wait.
    unblocked = Background(lambda: (os.read(reader, 1), unblock()))
    with (
        handler(signal.SIGUSR1, lambda *_: os.write(writer, b"x")),
        signalled(signal.SIGUSR1),
    ):
        assert call() == expected
    unblocked.result()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("make", TIMED)
def test_a_timed_wait_is_not_cut_short(ctx, make):
    call, unblock, _ = make(ctx)
    calls, before = [], time.monotonic()
    with (
        handler(signal.SIGUSR1, lambda *_: calls.append(time.monotonic())),
        signalled(signal.SIGUSR1, A_WHILE / 2),
    ):
        try:
            assert call(timeout=2 * A_WHILE) is False
        except (queue_errors.Empty, queue_errors.Full):
            assert make in (queue_get, queue_put)
    assert time.monotonic() - before >= 2 * A_WHILE * 0.95
    assert len(calls) == 1
    unblock()


@pytest.mark.parametrize("make", [lock, queue_get, event, pipe_recv])
def test_a_handler_that_raises_ends_the_wait(ctx, make):
    call, unblock, expected = make(ctx)

    def on_signal(*_):
        raise LookupError("from the handler")

    with (
        handler(signal.SIGUSR1, on_signal),
        pytest.raises(LookupError, match="from the handler"),
        signalled(signal.SIGUSR1),
    ):
        call()
    unblocked = Background(unblock)
    assert call() == expected
    unblocked.result()


def test_ctrl_c_in_a_child(ctx, family):
    ready, event = ctx.Event(), ctx.Event()
    process = family.start(workers.wait_interrupted, ready, event, exitcode=3)
    assert ready.wait(SOON)
    process.join(A_WHILE)
    os.kill(process.pid, signal.SIGINT)


def test_ctrl_c_by_a_child(ctx, family):
    event = ctx.Event()
    with handler(signal.SIGINT, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        family.start(workers.interrupt, os.getpid())
        event.wait()


def test_a_signal_while_another_thread_waits(ctx):
    event = ctx.Event()
    waiting = Background(event.wait)
    assert waiting.blocked()
    with (
        handler(signal.SIGINT, signal.default_int_handler),
        pytest.raises(KeyboardInterrupt),
        signalled(signal.SIGINT),
    ):
        ctx.Event().wait()
    assert waiting.blocked()
    event.set()
    assert waiting.result() is True
