"""Condition, over each kind of lock."""

from __future__ import annotations

import multiprocessing.synchronize
import time

import pytest

import workers
from workers import A_WHILE, SOON, Background


@pytest.fixture(params=["own", "Lock", "RLock"])
def condition(ctx, request):
    return (
        ctx.Condition() if request.param == "own" else ctx.Condition(getattr(ctx, request.param)())
    )


@pytest.fixture
def counts(ctx):
    """How many fell asleep, how many woke."""
    return ctx.Semaphore(0), ctx.Semaphore(0)


def taken(semaphore, count):
    """Wait for `count` units, no more and no less."""
    for _ in range(count):
        assert semaphore.acquire(timeout=SOON)
    assert semaphore.acquire(timeout=A_WHILE) is False


def sleepers(condition, counts, family, processes=2, threads=2):
    """Put processes and threads to sleep; return once all are."""
    asleep, woken = counts
    for _ in range(processes):
        family.start(workers.wait_on, condition, asleep, woken)
    found = [Background(workers.wait_on, condition, asleep, woken) for _ in range(threads)]
    for _ in range(processes + threads):
        assert asleep.acquire(timeout=SOON)
    # Whoever counted still held the lock: now all have let go of it and are asleep.
    with condition:
        return found


def notify(condition, *args):
    with condition:
        condition.notify(*args)


def notify_all(condition):
    with condition:
        condition.notify_all()


def test_is_a_stock_condition(condition):
    assert isinstance(condition, multiprocessing.synchronize.Condition)


def test_passes_acquire_and_release_on(condition):
    assert condition.acquire() is True
    assert Background(condition.acquire, False).result() is False
    condition.release()
    assert condition.acquire(False) is True
    condition.release()
    assert condition.acquire(timeout=1) is True
    condition.release()
    with condition as entered:
        assert entered is True


def test_over_the_lock_that_was_given(ctx):
    lock = ctx.Lock()
    condition = ctx.Condition(lock)
    with condition:
        assert lock.acquire(False) is False
    with lock:
        condition.notify()


def test_needs_its_lock(condition):
    with pytest.raises(AssertionError, match=r"must acquire\(\) condition before using wait\(\)"):
        condition.wait(0)
    for call in (condition.notify, condition.notify_all, lambda: condition.notify(2)):
        with pytest.raises(AssertionError, match="lock is not owned"):
            call()
    with condition:
        with pytest.raises(AssertionError):
            Background(condition.wait, 0).result()
        with pytest.raises(AssertionError):
            Background(condition.notify).result()


def test_notify_wakes_one_by_one(condition, counts, family):
    _, woken = counts
    threads = sleepers(condition, counts, family)
    for _ in range(4):
        notify(condition)
        taken(woken, 1)
    assert [thread.result() for thread in threads] == [True, True]


def test_notify_n(condition, counts, family):
    _, woken = counts
    sleepers(condition, counts, family, processes=3, threads=3)
    notify(condition, 2)
    taken(woken, 2)
    notify(condition, 3)
    taken(woken, 3)
    notify(condition, 9)
    taken(woken, 1)


def test_notify_all(condition, counts, family):
    _, woken = counts
    sleepers(condition, counts, family, processes=3, threads=3)
    notify_all(condition)
    taken(woken, 6)


def test_notify_without_sleepers_is_forgotten(condition):
    notify(condition)
    notify_all(condition)
    with condition:
        assert condition.wait(0.01) is False


def test_who_timed_out_is_not_counted(condition, counts, family):
    asleep, woken = counts
    for _ in range(3):
        family.start(workers.wait_on, condition, asleep, woken, 0.01)
    assert workers.wait_on(condition, asleep, woken, 0.01) is False
    for _ in range(4):
        assert woken.acquire(timeout=SOON) and asleep.acquire(timeout=SOON)
    sleepers(condition, counts, family, processes=1, threads=1)
    notify(condition)
    taken(woken, 1)
    notify(condition)
    taken(woken, 1)


def test_wait_times_out(condition):
    with condition:
        assert condition.wait(0) is False
        assert condition.wait(-1) is False
        before = time.monotonic()
        assert condition.wait(A_WHILE) is False
        assert time.monotonic() - before >= A_WHILE * 0.95
        # And holds the lock again.
        assert Background(condition.acquire, False).result() is False


def test_wait_gives_a_recursive_lock_up_entirely(ctx, counts):
    condition = ctx.Condition()
    asleep, woken = counts

    def sleep():
        with condition, condition:
            result = workers.wait_on(condition, asleep, woken)
            assert condition._lock._semlock._count() == 2
            return result

    sleeping = Background(sleep)
    assert asleep.acquire(timeout=SOON)
    notify(condition)
    assert sleeping.result() is True


def test_wait_for(condition, ctx, family):
    value = ctx.RawValue("i", 0)
    waiting = Background(family.call, workers.wait_for_value, condition, value, 4)
    here = Background(workers.wait_for_value, condition, value, 4)
    for number in range(4):
        workers.set_value(condition, value, number)
    assert waiting.blocked() and here.blocked()
    family.start(workers.set_value, condition, value, 4)
    assert waiting.result() is True and here.result() is True


def test_wait_for_times_out(condition, ctx):
    value = ctx.RawValue("i", 0)
    before = time.monotonic()
    assert workers.wait_for_value(condition, value, 1, A_WHILE) is False
    assert time.monotonic() - before >= A_WHILE * 0.95
    with condition:
        assert condition.wait_for(lambda: "truth") == "truth"
        assert condition.wait_for(list, 0) == []


def test_counters(ctx, counts, family):
    condition = ctx.Condition()
    assert condition._sleeping_count.get_value() == 0
    sleepers(condition, counts, family)
    assert condition._sleeping_count.get_value() - condition._woken_count.get_value() == 4
    assert repr(condition) == f"<Condition({condition._lock!r}, 4)>"
    notify_all(condition)
    taken(counts[1], 4)
    with condition:
        # Once all have woken, whatever the two counters are.
        assert condition._sleeping_count.get_value() == condition._woken_count.get_value()
    assert condition._wait_semaphore.get_value() == 0


def test_ping_pong(condition, ctx, family):
    value, rounds = ctx.RawValue("i", 0), 200
    family.start(workers.alternate, condition, value, 1, rounds)
    workers.alternate(condition, value, 0, rounds)
    family.join()
    assert value.value == 2 * rounds
