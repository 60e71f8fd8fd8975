"""Event."""

from __future__ import annotations

import multiprocessing.synchronize
import sys
import time

import pytest

import workers
from workers import A_WHILE, SOON, Background


@pytest.fixture
def event(ctx):
    return ctx.Event()


def test_is_a_stock_event(event):
    assert isinstance(event, multiprocessing.synchronize.Event)


def test_set_and_clear(event):
    assert event.is_set() is False
    assert event.wait(0) is False and event.wait(-1) is False and event.wait(0.01) is False
    for _ in range(3):
        event.set()
        event.set()
        assert event.is_set() is True
        assert event.wait() is True and event.wait(0) is True and event.wait(timeout=1) is True
        event.clear()
        event.clear()
        assert event.is_set() is False and event.wait(0) is False


def test_a_timeout_is_kept(event):
    before = time.monotonic()
    assert event.wait(A_WHILE) is False
    assert time.monotonic() - before >= A_WHILE * 0.95


def test_wakes_all(event, family):
    waiting = [Background(family.call, workers.method, event, "wait") for _ in range(2)]
    waiting += [Background(event.wait) for _ in range(3)]
    waiting += [Background(event.wait, SOON) for _ in range(3)]
    assert all(thread.is_alive() for thread in waiting) and waiting[-1].blocked()
    event.set()
    assert all(thread.result() is True for thread in waiting)


def test_set_by_a_child(event, family):
    waiting = Background(event.wait)
    assert waiting.blocked()
    family.start(workers.method, event, "set")
    assert waiting.result() is True
    family.join()
    assert event.is_set()
    assert family.call(workers.method, event, "is_set") is True
    family.call(workers.method, event, "clear")
    assert not event.is_set()


def test_set_and_cleared_at_once_wakes_who_waits(event):
    waiting = [Background(event.wait) for _ in range(3)]
    assert all(thread.blocked() for thread in waiting)
    event.set()
    event.clear()
    # Whether they find it set is a race, in stock too; that they wake is not.
    assert {thread.result() for thread in waiting} <= {True, False}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the repr came with 3.11")
def test_repr(event):
    assert repr(event) == f"<Event at {id(event):#x} unset>"
    event.set()
    assert repr(event) == f"<Event at {id(event):#x} set>"
