"""Locks whose holder is gone, and the words behind semaphores, conditions and events."""

from __future__ import annotations

import os
import pickle
import warnings

import pytest

import mpipc
import workers
from mpipc import OwnerDied, OwnerDiedWarning
from mpipc.adapters.guards import Guard
from workers import SOON

KINDS = ["Lock", "RLock", "BoundedSemaphore"]


@pytest.fixture
def context():
    return mpipc.get_context("shm", start_method="fork")


def ended(context, target, *args):
    child = context.Process(target=target, args=args)
    child.start()
    child.join()
    return child


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_holder_hands_over_with_a_warning(context, kind):
    lock = getattr(context, kind)()
    child = ended(context, workers.then_die, lock.acquire)
    with pytest.warns(OwnerDiedWarning, match=f"process {child.pid} died holding") as caught:
        assert lock.acquire(timeout=SOON)
    assert caught[0].filename == __file__
    lock.release()
    assert lock.acquire(timeout=SOON)
    lock.release()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_killed_holder_can_be_an_error(method, kind):
    context = mpipc.get_context("shm", start_method=method)
    lock = getattr(context, kind)(on_owner_death="raise")
    child = ended(context, workers.then_die, lock.acquire)
    with pytest.raises(OwnerDied, match=f"process {child.pid} died holding") as caught:
        lock.acquire(timeout=SOON)
    assert caught.value.pid == lock.inherited_from == child.pid
    assert pickle.loads(pickle.dumps(caught.value)).pid == child.pid
    assert not ended(context, workers.method, lock, "acquire", False).exitcode
    lock.release()
    assert lock.inherited_from is None
    with lock:
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_holder_can_hold_for_ever(context, kind):
    lock = getattr(context, kind)(on_owner_death="hang")
    ended(context, workers.then_die, lock.acquire)
    assert not lock.acquire(timeout=0.5)


def test_a_context_decides_for_its_locks(context):
    context = mpipc.get_context("shm", start_method="fork", on_owner_death="raise")
    condition, warned = context.Condition(), context.RLock(on_owner_death="warn")
    for lock in (condition, warned, context.Value("i").get_lock()):
        ended(context, workers.then_die, lock.acquire)
        if lock is warned:
            with pytest.warns(OwnerDiedWarning):
                lock.acquire()
        else:
            with pytest.raises(OwnerDied):
                lock.acquire()
        lock.release()


def test_other_policies_are_refused(context):
    for make in (context.Lock, context.RLock, context.Condition, context.BoundedSemaphore):
        with pytest.raises(ValueError, match=r"'warn', 'raise' or 'hang', got 'ask'"):
            make(on_owner_death="ask")
    with pytest.raises(ValueError, match="got None"):
        mpipc.get_context("shm", on_owner_death=None)


def test_a_lock_of_ours_passes_on_without_a_word(context):
    guard = Guard()
    for die in (workers.then_die, workers.method):
        ended(context, die, *([guard.acquire] if die is workers.then_die else [guard, "acquire"]))
        assert guard.acquire(timeout=SOON)
        guard.release()


def test_the_warning_can_be_made_an_error_and_the_lock_is_given_back(context):
    lock = context.Lock()
    ended(context, workers.then_die, lock.acquire)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnerDiedWarning)
        with pytest.raises(OwnerDiedWarning):
            lock.acquire(timeout=SOON)
    assert lock.acquire(False)
    lock.release()


def test_who_only_tries_gets_a_dead_holders_lock_too(context):
    lock = context.Lock()
    ended(context, workers.then_die, lock.acquire)
    with pytest.warns(OwnerDiedWarning):
        assert lock.acquire(False)
    lock.release()


@pytest.mark.parametrize("kind", KINDS)
def test_a_holder_that_ended_normally_still_holds(context, kind):
    """As with stock: another process may be meant to release it."""
    lock = getattr(context, kind)()
    assert ended(context, workers.method, lock, "acquire").exitcode == 0
    assert not lock.acquire(timeout=0.5)
    if kind != "RLock":
        lock.release()
        assert lock.acquire(timeout=SOON)
        lock.release()


def test_a_living_holder_is_waited_for(context):
    lock, held, release = context.Lock(), context.Event(), context.Event()
    child = context.Process(target=workers.hold, args=(lock, held, release))
    child.start()
    assert held.wait(SOON)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not lock.acquire(timeout=0.6)
        release.set()
        assert lock.acquire(timeout=SOON)
    lock.release()
    child.join()


def test_units_of_a_killed_process_stay_taken(context):
    semaphore = context.Semaphore(2)
    ended(context, workers.then_die, semaphore.acquire)
    assert semaphore.get_value() == 1


UNDOING = ["Semaphore", "BoundedSemaphore"]


@pytest.mark.parametrize("kind", UNDOING)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_units_of_a_killed_process_come_back(method, kind):
    context = mpipc.get_context("shm", start_method=method)
    semaphore = getattr(context, kind)(3, undo=True)
    semaphore.acquire()
    child = ended(context, workers.then_die, workers.acquire_all, semaphore, 2)
    assert child.exitcode < 0
    assert semaphore.get_value() == 0
    assert semaphore.acquire(timeout=SOON)
    assert semaphore.acquire(timeout=SOON)
    assert not semaphore.acquire(False)
    for _ in range(3):
        semaphore.release()
    if kind == "BoundedSemaphore":
        with pytest.raises(ValueError, match="released too many times"):
            semaphore.release()
    assert semaphore.get_value() == 3


@pytest.mark.parametrize("kind", UNDOING)
def test_a_sleeper_gets_the_unit_of_who_is_killed(context, kind):
    semaphore = getattr(context, kind)(1, undo=True)
    held = context.Event()
    child = context.Process(target=workers.hold, args=(semaphore, held, context.Event()))
    child.start()
    assert held.wait(SOON)
    sleeper = workers.Background(semaphore.acquire)
    assert sleeper.blocked()
    child.kill()
    child.join()
    assert sleeper.result() is True
    assert semaphore.get_value() == 0


def test_who_only_tries_gets_a_dead_holders_unit_too(context):
    semaphore = context.Semaphore(1, undo=True)
    ended(context, workers.then_die, semaphore.acquire)
    assert semaphore.acquire(False)


def test_units_come_back_from_who_ends_normally_too(context):
    """As System V's SEM_UNDO does."""
    semaphore = context.Semaphore(1, undo=True)
    assert not ended(context, workers.method, semaphore, "acquire").exitcode
    assert semaphore.acquire(timeout=SOON)


def test_only_what_is_held_comes_back(context):
    semaphore = context.Semaphore(1, undo=True)
    for _ in range(3):
        ended(context, workers.then_die, workers.use_and_release, semaphore, 5)
    assert semaphore.acquire(False)
    assert not semaphore.acquire(timeout=0.3)


def test_a_unit_given_by_another_is_one_more(context):
    semaphore = context.Semaphore(1, undo=True)
    semaphore.acquire()
    assert not ended(context, workers.method, semaphore, "release").exitcode
    assert semaphore.acquire(timeout=SOON)
    assert not semaphore.acquire(timeout=0.3)
    semaphore.release()
    semaphore.release()
    assert semaphore.get_value() == 2


def test_a_forked_child_does_not_hold_its_parents_units(context):
    semaphore = context.Semaphore(1, undo=True)
    semaphore.acquire()
    ended(context, workers.then_die, int)
    assert not semaphore.acquire(timeout=0.3)


def test_many_take_and_give_at_once(context):
    semaphore, inside = context.Semaphore(2, undo=True), context.Semaphore(2)

    def work():
        for _ in range(500):
            with semaphore:
                assert inside.acquire(False)
                inside.release()

    children = [context.Process(target=work) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(SOON)
        assert child.exitcode == 0
    assert semaphore.get_value() == 2


def test_a_killed_waiter_takes_no_wake_up_with_it(context):
    condition = context.Condition()
    sleeping = context.Semaphore(0)

    def wait():
        with condition:
            sleeping.release()
            condition.wait()

    def killed_while_waiting():
        child = context.Process(target=wait)
        child.start()
        assert sleeping.acquire(timeout=SOON)
        with condition:  # the child waits once we get in here
            child.kill()
        child.join()

    for _ in range(3):
        killed_while_waiting()
    living = context.Process(target=wait)
    living.start()
    assert sleeping.acquire(timeout=SOON)
    with condition:
        condition.notify()
    living.join(SOON)
    assert living.exitcode == 0
    with condition:
        assert not condition.wait(0.01)


def test_more_wait_than_there_are_slots(context):
    condition = context.Condition()
    sleeping, woken = context.Semaphore(0), context.Semaphore(0)

    def wait():
        with condition:
            sleeping.release()
            condition.wait()
        woken.release()

    threads = [workers.Background(wait) for _ in range(70)]
    for _ in threads:
        assert sleeping.acquire(timeout=SOON)
    with condition:
        assert condition._sleeping_count.get_value() == 70
        condition.notify_all()
    for thread in threads:
        thread.result()
    assert woken.get_value() == 70


def test_a_waiter_sees_an_event_that_was_set_and_cleared(context):
    event = context.Event()
    waiter = workers.Background(event.wait, SOON)
    assert waiter.blocked()
    event.set()
    event.clear()
    assert waiter.result() is True
    assert not event.is_set()


def test_a_lock_dropped_while_held_leaves_nothing(context):
    for _ in range(100):
        lock = context.Lock()
        lock.acquire()
        del lock
    lock = context.Lock()
    assert lock.acquire(False)
    lock.release()


def test_a_forked_child_does_not_own_what_its_parent_holds(context):
    lock = context.RLock()
    lock.acquire()
    pid = os.fork()
    if not pid:
        os._exit(0 if not lock._is_mine() and lock._count() == 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert lock._is_mine()
    lock.release()
