"""What waiting costs: the processor time of a process that is blocked for a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .model import Sample
from .team import Team

SECONDS = 1.0


def cpu_seconds(pid: int) -> float:
    """How long the threads of a process have run so far: its clock, as the kernel numbers them."""
    return time.clock_gettime((~pid << 3) | 2)


def blocked(ctx: Any, wait: Callable[..., Any], wake: Callable[..., Any], parts: Any) -> Sample:
    """Let a process wait for a second, then wake it."""
    with Team(ctx) as team:
        pid = team.add(wait, parts)
        before = cpu_seconds(pid)
        team.go()
        time.sleep(SECONDS)
        sample = Sample(cpu_seconds(pid) - before)
        wake(parts)
        team.results()
    return sample


def wait_queue(queue: Any) -> None:
    """Wait for a message."""
    queue.get()


def wait_pipe(ends: Any) -> None:
    """Wait for a message."""
    ends[0].recv()


def wait_lock(lock: Any) -> None:
    """Wait for a lock that another process holds, and for as long as it does."""
    lock.acquire()
    lock.release()


def wait_event(event: Any) -> None:
    """Wait for an event."""
    event.wait()


def idle_get(ctx: Any, count: int) -> Sample:
    """Blocked in ``Queue.get``."""
    queue = ctx.Queue()
    return blocked(ctx, wait_queue, lambda queue: queue.put(None), queue)


def idle_recv(ctx: Any, count: int) -> Sample:
    """Blocked in ``Connection.recv``."""
    return blocked(ctx, wait_pipe, lambda ends: ends[1].send(None), ctx.Pipe())


def idle_acquire(ctx: Any, count: int) -> Sample:
    """Blocked in ``Lock.acquire``."""
    lock = ctx.Lock()
    lock.acquire()
    return blocked(ctx, wait_lock, lambda lock: lock.release(), lock)


def idle_wait(ctx: Any, count: int) -> Sample:
    """Blocked in ``Event.wait``."""
    return blocked(ctx, wait_event, lambda event: event.set(), ctx.Event())
