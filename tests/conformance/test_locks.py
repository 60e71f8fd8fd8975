"""Lock, RLock, Semaphore and BoundedSemaphore."""

from __future__ import annotations

import multiprocessing.synchronize
import sys
import threading
import time

import pytest

import workers
from workers import A_WHILE, SOON, Background

KINDS = ("Lock", "RLock", "Semaphore", "BoundedSemaphore")


@pytest.fixture(params=KINDS)
def lock(ctx, request):
    return getattr(ctx, request.param)()


def test_is_a_stock_lock(ctx):
    for kind in KINDS:
        assert isinstance(getattr(ctx, kind)(), getattr(multiprocessing.synchronize, kind))
    assert isinstance(ctx.BoundedSemaphore(), multiprocessing.synchronize.Semaphore)


def test_acquire_takes_its_arguments_in_every_form(lock):
    for args, kwargs in (
        ((), {}),
        ((True,), {}),
        ((False,), {}),
        ((True, None), {}),
        ((True, 0.01), {}),
        ((True, -1), {}),
        ((False, None), {}),
        ((), {"block": False}),
        ((), {"timeout": 1}),
        ((), {"block": True, "timeout": 0.5}),
    ):
        assert lock.acquire(*args, **kwargs) is True
        # In another thread, for an RLock is this one's to take again.
        for unavailable in ((False,), (True, 0), (True, -1), (True, 0.01), (False, None)):
            assert Background(lock.acquire, *unavailable).result() is False
        assert lock.release() is None


def test_as_a_context_manager(lock):
    with lock as entered:
        assert entered is True
        assert Background(lock.acquire, False).result() is False
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert Background(acquire_and_release, lock).result()


def acquire_and_release(lock):
    """Whether the lock is free."""
    if free := lock.acquire(False):
        lock.release()
    return free


def test_a_timeout_is_kept(lock):
    with lock:
        before = time.monotonic()
        assert Background(lock.acquire, True, A_WHILE).result() is False
        assert time.monotonic() - before >= A_WHILE * 0.95


def test_excludes(lock, ctx, family):
    value, times = ctx.RawValue("q", 0), 2000
    for _ in range(2):
        family.start(workers.increment, lock, value, times)
    workers.together(*[lambda: workers.increment(lock, value, times)] * 2)
    family.join()
    assert value.value == 4 * times


def test_held_by_a_child(lock, ctx, family):
    held, release = ctx.Event(), ctx.Event()
    family.start(workers.hold, lock, held, release)
    assert held.wait(SOON)
    assert lock.acquire(False) is False
    assert lock.acquire(timeout=0.01) is False
    waiting = Background(acquire_and_release_later, lock)
    assert waiting.blocked()
    release.set()
    assert waiting.result() is True


def acquire_and_release_later(lock):
    with lock:
        return True


def test_a_held_lock_is_held_in_children(lock, family):
    with lock:
        assert family.call(workers.method, lock, "acquire", False) is False


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_released_by_another(ctx, kind, family):
    lock = getattr(ctx, kind)()
    for release in (
        lock.release,
        lambda: Background(lock.release).result(),
        lambda: family.call(workers.method, lock, "release"),
    ):
        assert lock.acquire()
        release()
        assert lock.acquire(False)
        lock.release()


def test_acquired_by_a_process_that_ended_well(ctx, family):
    lock = ctx.Lock()
    family.start(workers.method, lock, "acquire")
    family.join()
    assert lock.acquire(timeout=A_WHILE) is False
    lock.release()
    assert lock.acquire(False)
    lock.release()


@pytest.mark.parametrize("kind", ["Lock", "BoundedSemaphore"])
def test_released_too_often(ctx, kind):
    lock = getattr(ctx, kind)()
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        lock.release()
    with lock:
        pass
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        lock.release()
    assert lock.acquire(False) and not lock.acquire(False)


def test_rlock_is_recursive(ctx, family):
    lock = ctx.RLock()
    for depth in range(1, 4):
        assert lock.acquire(depth % 2 == 0, None)
        assert lock._semlock._count() == depth
    for _ in range(3):
        assert family.call(workers.method, lock, "acquire", False) is False
        assert Background(lock.acquire, False).result() is False
        lock.release()
    assert family.call(workers.method, lock, "acquire", False) is True


def test_rlock_belongs_to_its_thread(ctx, family):
    lock = ctx.RLock()
    message = "attempt to release recursive lock not owned by thread"
    with pytest.raises(AssertionError, match=message):
        lock.release()
    with lock:
        with pytest.raises(AssertionError, match=message):
            Background(lock.release).result()
        with pytest.raises(AssertionError, match=message):
            family.call(workers.method, lock, "release")
    with pytest.raises(AssertionError, match=message):
        lock.release()
    assert acquire_and_release(lock)


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_semaphore_counts(ctx, kind, family):
    semaphore = getattr(ctx, kind)(3)
    for left in (2, 1, 0):
        assert semaphore.acquire(False)
        assert semaphore.get_value() == left
    assert not semaphore.acquire(False)
    waiting = Background(semaphore.acquire)
    assert waiting.blocked()
    semaphore.release()
    assert waiting.result() and semaphore.get_value() == 0
    family.call(workers.method, semaphore, "release")
    assert semaphore.get_value() == 1
    assert family.call(workers.method, semaphore, "get_value") == 1


def test_semaphore_limits(ctx):
    bounded = ctx.BoundedSemaphore(2)
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        bounded.release()
    assert bounded.get_value() == 2
    plain = ctx.Semaphore(2)
    plain.release()
    assert plain.get_value() == 3
    assert ctx.Semaphore(0).get_value() == 0
    largest = ctx.Semaphore(multiprocessing.synchronize.SEM_VALUE_MAX)
    with pytest.raises((ValueError, OverflowError)):
        largest.release()


def test_as_many_wake_as_units_come(ctx):
    semaphore = ctx.Semaphore(0)
    waiting = [Background(semaphore.acquire) for _ in range(4)]
    assert all(thread.blocked() for thread in waiting[:1])
    semaphore.release()
    semaphore.release()
    deadline = time.monotonic() + SOON
    while sum(not thread.is_alive() for thread in waiting) < 2:
        assert time.monotonic() < deadline
        waiting[0].join(0.01)
    assert sum(thread.blocked() for thread in waiting) == 2
    semaphore.release()
    semaphore.release()
    assert all(thread.result() for thread in waiting)
    assert semaphore.get_value() == 0


def test_the_semlock(ctx):
    lock, rlock = ctx.Lock(), ctx.RLock()
    for each in (lock, rlock):
        semlock = each._semlock
        assert (semlock._get_value(), semlock._is_zero(), semlock._count()) == (1, False, 0)
        assert semlock._is_mine() is False
        assert semlock.maxvalue == 1
        with each:
            assert (semlock._get_value(), semlock._is_zero(), semlock._count()) == (0, True, 1)
            assert semlock._is_mine() is True
            assert Background(semlock._is_mine).result() is False
    assert lock._semlock.kind == multiprocessing.synchronize.SEMAPHORE
    assert rlock._semlock.kind == multiprocessing.synchronize.RECURSIVE_MUTEX
    semaphore = ctx.BoundedSemaphore(5)
    assert semaphore._semlock.maxvalue == 5 and semaphore._semlock._get_value() == 5
    assert ctx.Semaphore()._semlock.maxvalue == multiprocessing.synchronize.SEM_VALUE_MAX
    assert semaphore._semlock.acquire(False) and semaphore.get_value() == 4
    semaphore._semlock.release()
    assert isinstance(lock._semlock.handle, int)
    assert hasattr(lock._semlock, "name")


def test_reprs(ctx, family):
    lock, rlock = ctx.Lock(), ctx.RLock()
    semaphore, bounded = ctx.Semaphore(2), ctx.BoundedSemaphore(3)
    assert repr(lock) == "<Lock(owner=None)>" and repr(rlock) == "<RLock(None, 0)>"
    assert repr(semaphore) == "<Semaphore(value=2)>"
    assert repr(bounded) == "<BoundedSemaphore(value=3, maxvalue=3)>"
    with lock, rlock, rlock:
        assert repr(lock) == "<Lock(owner=MainProcess)>"
        assert repr(rlock) == "<RLock(MainProcess, 2)>"
        assert Background(repr, lock).result() == "<Lock(owner=SomeOtherThread)>"
        assert Background(repr, rlock).result() == "<RLock(SomeOtherThread, nonzero)>"
    assert Background(named_repr, lock).result() == "<Lock(owner=MainProcess|T)>"
    assert Background(named_repr, rlock).result() == "<RLock(MainProcess|T, 1)>"
    held, release = ctx.Event(), ctx.Event()
    family.start(workers.hold, lock, held, release)
    assert held.wait(SOON)
    assert repr(lock) == "<Lock(owner=SomeOtherProcess)>"
    release.set()
    family.join()
    held.clear()
    release.clear()
    family.start(workers.hold_twice, rlock, held, release)
    assert held.wait(SOON)
    assert repr(rlock) == "<RLock(SomeOtherProcess, nonzero)>"
    release.set()


def named_repr(lock):
    threading.current_thread().name = "T"
    with lock:
        return repr(lock)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="locked() came with 3.14")
def test_locked(ctx, family):
    for lock in (ctx.Lock(), ctx.RLock()):
        assert lock.locked() is False
        with lock:
            assert lock.locked() is True
            assert family.call(workers.method, lock, "locked") is True
        assert lock.locked() is False


def test_waiting_lets_other_threads_run(lock):
    with lock:
        waiting = Background(lock.acquire, True, SOON)
        # Would not get here if the waiter kept the interpreter.
        assert waiting.blocked()
    assert waiting.result()


def test_survives_a_second_pickling(lock, family, ctx):
    held = ctx.Event()
    family.start(workers.pass_on, ctx, lock, held)
    assert held.wait(SOON)
    family.join()
    assert lock.acquire(timeout=SOON)
