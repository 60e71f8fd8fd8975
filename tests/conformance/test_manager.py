"""Manager, and its objects beside ours."""

from __future__ import annotations

import pytest

import workers
from workers import SOON, Background


@pytest.fixture
def manager(ctx):
    with ctx.Manager() as manager:
        yield manager


def test_containers(manager, family):
    shared = manager.dict(a=1), manager.list([1, 2])
    family.start(workers.fill, *shared)
    family.join()
    assert dict(shared[0]) == {"a": 1, "b": [2]} and list(shared[1]) == [1, 2, 3]
    assert manager.Namespace(x=5).x == 5


def test_queue_and_synchronisation(manager, family):
    queue, event, value = manager.Queue(2), manager.Event(), manager.Value("i", 7)
    waiting = Background(family.call, workers.method, event, "wait")
    family.start(workers.put_all, queue, [1, 2])
    assert queue.get(timeout=SOON) == 1 and queue.get(timeout=SOON) == 2
    event.set()
    assert waiting.result() is True
    assert value.value == 7
    with manager.Lock(), manager.RLock(), manager.Semaphore(1):
        assert queue.empty()
    assert manager.Pool(1).map(workers.square, [3]) == [9]


def test_our_objects_travel_with_proxies(manager, ctx, family):
    queue, shared = ctx.Queue(), manager.list()
    family.start(workers.put_length, queue, shared)
    assert queue.get() == 0
    queue.close()
