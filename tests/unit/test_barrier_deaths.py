"""Barriers, one of whose parties is killed."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time

import pytest

import mpipc
import workers
from mpipc import _core
from workers import SOON, Background

MET, BROKE = 0, 3  # see workers.end_met_or_broken


@pytest.fixture(params=["fork", "spawn"])
def context(request):
    return mpipc.get_context("shm", start_method=request.param)


def waiting(context, barrier, count):
    """Let a process wait, as the one that makes it `count`; return it once it does."""
    child = context.Process(target=workers.end_met_or_broken, args=(barrier, 10 * SOON))
    child.start()
    until(lambda: barrier.n_waiting == count)
    with barrier._cond:  # so it sleeps
        return child


def until(true):
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


@contextlib.contextmanager
def stopped(*children):
    """They do not run in here."""
    for child in children:
        os.kill(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            if child.is_alive():
                os.kill(child.pid, signal.SIGCONT)


def killed(child):
    child.kill()
    child.join()


def mended(barrier):
    barrier.reset()
    assert not barrier.broken
    runs = [Background(barrier.wait, SOON) for _ in range(barrier.parties)]
    assert sorted(run.result() for run in runs) == list(range(barrier.parties))


def test_a_killed_party_breaks_it_for_who_waits(context):
    barrier = context.Barrier(4)
    child = waiting(context, barrier, 1)
    others = [Background(workers.broken, barrier, 10 * SOON) for _ in range(2)]
    until(lambda: barrier.n_waiting == 3)
    killed(child)
    assert all(other.result() for other in others)
    assert barrier.broken
    mended(barrier)


def test_a_killed_party_breaks_it_for_the_last_that_comes(context):
    barrier = context.Barrier(3)
    children = [waiting(context, barrier, 1), waiting(context, barrier, 2)]
    killed(children[0])
    assert workers.broken(barrier, SOON)
    children[1].join(SOON)
    assert children[1].exitcode == BROKE and barrier.broken
    mended(barrier)


def test_all_who_waited_are_killed(context):
    barrier = context.Barrier(3)
    for child in [waiting(context, barrier, 1), waiting(context, barrier, 2)]:
        killed(child)
    assert workers.broken(barrier, SOON)
    mended(barrier)


def act_and_die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_in_the_action(context):
    barrier = context.Barrier(2, act_and_die)
    waiter = Background(workers.broken, barrier, 10 * SOON)
    until(lambda: barrier.n_waiting == 1)
    child = context.Process(target=barrier.wait)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert waiter.result() and barrier.broken


class Dying(type(mpipc.get_context("shm").Barrier(1))):
    """Ends by SIGKILL where it is told to."""

    where = ""

    def _act(self, name):
        if self.where == name:
            act_and_die()

    def _enter(self):
        self._act("come")
        place = super()._enter()
        self._act("entered")
        return place

    def _release(self):
        super()._release()
        self._act("released")


@pytest.mark.parametrize("where", ["come", "entered", "released"])
def test_killed_with_the_lock(where):
    context = mpipc.get_context("shm", start_method="fork")
    barrier = Dying(2, ctx=context)

    def die():
        Dying.where = where
        barrier.wait()

    waiter = Background(workers.broken, barrier, 10 * SOON)
    until(lambda: barrier.n_waiting == 1)
    child = context.Process(target=die)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    broken = waiter.result()
    assert broken == (where in ("come", "entered"))
    mended(barrier)


def test_killed_while_others_wait_for_the_next_round():
    """Who was released and has yet to leave does not hold up who comes next."""
    context = mpipc.get_context("shm", start_method="fork")
    barrier = context.Barrier(2)
    child = waiting(context, barrier, 1)
    with stopped(child):
        barrier.wait(SOON)
        for _ in range(3):
            runs = [Background(barrier.wait, SOON) for _ in range(2)]
            assert sorted(run.result() for run in runs) == [0, 1]
        killed(child)
    mended(barrier)


def test_many_parties(context):
    barrier = context.Barrier(140)
    runs = [Background(barrier.wait, SOON) for _ in range(140)]
    assert sorted(run.result() for run in runs) == list(range(140))
    assert barrier.n_waiting == 0 and barrier._seats.inside() == []


def test_more_callers_than_seats(context):
    """Released ones that were stopped keep their seats; once these run out, others wait for one."""
    barrier = context.Barrier(2)
    with contextlib.ExitStack() as stack:
        children = []
        for rounds in range(16):
            if rounds:
                barrier.wait(SOON)
            children.append(waiting(context, barrier, 1))
            stack.enter_context(stopped(children[-1]))
        late = Background(barrier.wait, SOON)
        assert late.blocked()
        killed(children[0])
        assert late.result() == 1
    for child in children[1:]:
        child.join(SOON)
        assert child.exitcode == MET
    mended(barrier)


def test_reset_reaches_those_who_wake_late(context):
    """Who was asleep when the barrier was reset is not counted in the rounds that follow."""
    barrier = context.Barrier(2)
    child = waiting(context, barrier, 1)
    with stopped(child):
        barrier.reset()
        assert barrier.n_waiting == 0
        mended(barrier)
    child.join(SOON)
    assert child.exitcode == BROKE


def test_tags_tell_the_living_from_the_dead(context):
    assert not _core.owner_dead(_core.own_tag())
    # Without a start time, as of a process that had no descriptor left to look for its own.
    assert not _core.owner_dead(os.getppid())
    gone = context.Process(target=int)
    gone.start()
    gone.join()
    assert _core.owner_dead(gone.pid)


def test_a_broken_barrier_can_be_sent(context):
    barrier = context.Barrier(2)
    barrier.abort()
    child = context.Process(target=workers.broken, args=(barrier,))
    child.start()
    child.join(SOON)
    assert child.exitcode == 0
    with pytest.raises(RuntimeError):
        pickle.dumps(barrier)
