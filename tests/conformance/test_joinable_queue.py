"""What a JoinableQueue adds: counting the tasks that are not done."""

from __future__ import annotations

import pytest

import workers
from workers import SOON, Background


@pytest.fixture
def queue(ctx):
    queue = ctx.JoinableQueue()
    yield queue
    queue.cancel_join_thread()
    queue.close()


def test_join_waits_for_every_task(queue):
    queue.join()
    queue.put(1)
    queue.put(2)
    joined = Background(queue.join)
    assert joined.blocked()
    assert queue.get() == 1
    queue.task_done()
    assert queue.get() == 2
    assert joined.blocked()
    queue.task_done()
    joined.result()


def test_every_joiner_wakes(queue):
    queue.put(1)
    joined = [Background(queue.join) for _ in range(3)]
    assert all(thread.blocked() for thread in joined)
    workers.consume(queue, 1)
    for thread in joined:
        thread.result()


def test_tasks_done_by_children(queue, family):
    count = 60
    takers = [Background(family.call, workers.consume, queue, count // 2) for _ in range(2)]
    workers.put_all(queue, range(count))
    queue.join()
    assert sorted(takers[0].result() + takers[1].result()) == list(range(count))


def test_a_child_joins(queue, family):
    queue.put(1)
    joined = Background(family.call, workers.method, queue, "join")
    assert joined.blocked()
    workers.consume(queue, 1)
    joined.result()


def test_task_done_too_often(queue):
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()
    queue.put(1)
    assert workers.consume(queue, 1) == [1]
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()
    queue.join()


def test_a_put_counts_before_it_is_taken(queue, family):
    family.start(workers.put_all, queue, [1])
    family.join()
    joined = Background(queue.join)
    assert joined.blocked()
    assert queue.get(timeout=SOON) == 1
    queue.task_done()
    joined.result()
