"""Queues and pipes whose receivers look into messages where they lie; beyond stock."""

from __future__ import annotations

import os
import signal

import pytest

import workers
from workers import SOON, viewed

numpy = pytest.importorskip("numpy", reason="arrays are optional")

pytestmark = pytest.mark.beyond_stock("views")

QUEUES = ("Queue", "JoinableQueue", "SimpleQueue")


@pytest.fixture(autouse=True)
def _has_views(ctx):
    if "views=True" not in ctx._spec.extras:
        pytest.skip("this context has no views, and says so")


@pytest.fixture(params=QUEUES)
def queue(ctx, request):
    queue = getattr(ctx, request.param)(views=True)
    yield queue
    queue.close()


def same(taken) -> bool:
    """Whether it is what was sent, looked into where it lies."""
    sent = viewed()
    return bool(
        (taken[0] == sent[0]).all()
        and taken[1] == sent[1]
        and type(taken[1]) is memoryview
        and (taken[2] == sent[2]).all()
        and taken[3] == sent[3]
        and taken[0].flags.writeable
        and not taken[0].flags.owndata
    )


def test_from_a_child(queue, family):
    family.start(workers.put_viewed, queue)
    assert same(queue.get())


def test_to_a_child_and_back(ctx, queue, family):
    back = ctx.SimpleQueue(views=True)
    family.start(workers.forward, queue, back, 3)
    for _ in range(3):
        queue.put(viewed())
        assert same(back.get())
    back.close()


def test_a_view_is_the_receivers_own(queue):
    array = numpy.zeros(50_000)
    queue.put(array)
    queue.put(array)
    first = queue.get()
    first[:] = 5
    assert not array.any() and not queue.get().any()


@pytest.mark.parametrize("duplex", [True, False])
def test_pipe(ctx, family, duplex):
    here, there = ctx.Pipe(duplex, views=True)
    if duplex:
        here.send(viewed())
        family.start(workers.forward_message, there)
    else:
        family.start(workers.send_viewed, there)
    assert same(here.recv())
    family.join()
    here.close()
    there.close()


def test_a_killed_holders_memory_is_used_again(queue, ctx, family):
    array = numpy.zeros(1 << 20, "u1")
    ready = ctx.Event()
    for _ in range(3):
        queue.put(array)
        holder = family.start(workers.hold_until_killed, queue, ready, exitcode=-signal.SIGKILL)
        assert ready.wait(SOON)
        ready.clear()
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    kept = []
    for _ in range(6):
        queue.put(array)
        kept.append(queue.get())
    holders = {holder for _, _, holder in queue._reader.segment.inspect()["extents"]}
    assert holders <= {"free", "linked", os.getpid()}
