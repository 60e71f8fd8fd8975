"""Locks over tokens, whose holder is killed."""

from __future__ import annotations

import os
import signal

import pytest

import mpipc
from workers import SOON, Background


@pytest.fixture(params=["pipe", "unix", "sysv"])
def ctx(request):
    return mpipc.get_context(request.param, start_method="fork")


def hold(lock, end):
    lock.acquire()
    if end is None:
        os.kill(os.getpid(), signal.SIGKILL)


def leave(ctx, lock, end):
    """Let a process end that holds the lock; its number."""
    child = ctx.Process(target=hold, args=(lock, end))
    child.start()
    child.join()
    return child.pid


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_passes_on(ctx, kind):
    lock = getattr(ctx, kind)()
    pid = leave(ctx, lock, None)
    with pytest.warns(mpipc.OwnerDiedWarning, match=str(pid)):
        assert lock.acquire(timeout=SOON)
    lock.release()
    assert lock.acquire(False)
    lock.release()


def test_stays_held_when_its_holder_ends_normally(ctx):
    lock = ctx.Lock()
    leave(ctx, lock, "normally")
    assert not lock.acquire(timeout=0.5)
    lock.release()
    assert lock.acquire(False)


def take_and_give(lock):
    with lock:
        return True


def test_waiters_take_turns(ctx):
    lock = ctx.Lock()
    lock.acquire()
    waiters = [Background(take_and_give, lock) for _ in range(3)]
    assert all(waiter.blocked() for waiter in waiters)
    lock.release()
    assert all(waiter.result() for waiter in waiters)
