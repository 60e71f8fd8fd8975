"""Locks that two want, and signals between two."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .messages import time_trips, warming
from .model import Sample
from .team import Places, Team, pinned


def hammer(lock: Any, count: int) -> tuple[float, float]:
    """Take and leave a lock so often; return when that began and ended."""
    acquire, release = lock.acquire, lock.release
    began = time.perf_counter()
    for _ in range(count):
        acquire()
        release()
    return began, time.perf_counter()


def contended_lock(ctx: Any, count: int, places: Callable[[], Places]) -> Sample:
    """Two processes that want the same lock all the time: of both together, the mean."""
    lock = ctx.Lock()
    each = max(1, count // 2)
    with Team(ctx) as team:
        for core in places():
            team.add(hammer, lock, each, core=core)
        team.go()
        found = team.results()
    elapsed = max(ended for _, ended in found) - min(began for began, _ in found)
    return Sample(elapsed / (2 * each))


class Semaphores:
    """There and back by two semaphores."""

    def __init__(self, ctx: Any) -> None:
        self.there, self.back = ctx.Semaphore(0), ctx.Semaphore(0)

    def trip(self) -> None:
        """There and back."""
        self.there.release()
        self.back.acquire()

    def answer(self) -> None:
        """Wait for one, and answer."""
        self.there.acquire()
        self.back.release()


class Events:
    """There and back by two events."""

    def __init__(self, ctx: Any) -> None:
        self.there, self.back = ctx.Event(), ctx.Event()

    def trip(self) -> None:
        """There and back."""
        self.there.set()
        self.back.wait()
        self.back.clear()

    def answer(self) -> None:
        """Wait for one, and answer."""
        self.there.wait()
        self.there.clear()
        self.back.set()


class Turns:
    """There and back by a condition."""

    def __init__(self, ctx: Any) -> None:
        self.condition, self.turn = ctx.Condition(), ctx.RawValue("i", 0)

    def _pass_on(self, ours: int, theirs: int, answered: bool) -> None:
        with self.condition:
            if not answered:
                while self.turn.value != ours:
                    self.condition.wait()
            self.turn.value = theirs
            self.condition.notify()
            if answered:
                while self.turn.value != ours:
                    self.condition.wait()

    def trip(self) -> None:
        """There and back."""
        self._pass_on(0, 1, answered=True)

    def answer(self) -> None:
        """Wait for one, and answer."""
        self._pass_on(1, 0, answered=False)


class Rounds:
    """A barrier of two."""

    def __init__(self, ctx: Any) -> None:
        self.barrier = ctx.Barrier(2)

    def trip(self) -> None:
        """A round."""
        self.barrier.wait()

    answer = trip


def answer_all(signals: Any, count: int) -> None:
    """Answer so many times."""
    for _ in range(count):
        signals.answer()


def signal_trips(
    ctx: Any, count: int, kind: Callable[[Any], Any], places: Callable[[], Places]
) -> Sample:
    """There and back by one of the classes above."""
    ours, theirs = places()
    with pinned(ours), Team(ctx) as team:
        signals = kind(ctx)
        team.add(answer_all, signals, count + warming(count), core=theirs)
        team.go()
        sample = time_trips(count, signals.trip)
        team.results()
    return sample
