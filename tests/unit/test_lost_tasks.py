"""JoinableQueues, tasks of which were taken by processes that are no more."""

from __future__ import annotations

import pytest

import mpipc
import workers
from mpipc import OwnerDied
from workers import SOON, Background


@pytest.fixture(params=["fork", "spawn"])
def context(request):
    return mpipc.get_context("shm", start_method=request.param)


@pytest.fixture
def queue(context):
    queue = context.JoinableQueue()
    workers.put_all(queue, range(3))
    return queue


def ended(context, target, *args):
    child = context.Process(target=target, args=args)
    child.start()
    child.join()
    return child


def test_join_names_the_dead_until_its_tasks_are_settled(context, queue):
    child = ended(context, workers.then_die, workers.take, queue, 2)
    for _ in range(2):
        with pytest.raises(OwnerDied, match=f"process {child.pid} died with 2 tasks") as caught:
            queue.join()
        assert caught.value.pid == child.pid
    queue.task_done()
    with pytest.raises(OwnerDied, match=r"died with 1 task that"):
        queue.join()
    queue.task_done()
    workers.consume(queue, 1)
    queue.join()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


def test_what_was_settled_does_not_excuse_the_next(context, queue):
    for _ in range(3):
        child = ended(context, workers.then_die, workers.take, queue, 1)
        with pytest.raises(OwnerDied, match=f"process {child.pid} died with 1 task that"):
            queue.join()
        queue.task_done()
    queue.join()


def test_who_waits_already_is_told(context, queue):
    taken = context.Event()
    child = context.Process(target=workers.take_and_stay, args=(queue, taken))
    child.start()
    assert taken.wait(SOON)
    joined = Background(queue.join)
    assert joined.blocked()
    child.kill()
    child.join()
    with pytest.raises(OwnerDied, match=f"process {child.pid} died with 1 task"):
        joined.result()


def test_who_finished_all_is_not_blamed(context, queue):
    ended(context, workers.then_die, workers.consume, queue, 2)
    joined = Background(queue.join)
    assert joined.blocked()
    workers.consume(queue, 1)
    joined.result()


def test_nobody_is_blamed_for_what_another_may_have_finished(context, queue):
    ended(context, workers.then_die, workers.take, queue, 2)
    assert not ended(context, workers.tasks_done, queue, 2).exitcode
    joined = Background(queue.join)
    assert joined.blocked()
    workers.consume(queue, 1)
    joined.result()
    assert not queue.segment.inspect()["takers"]


def test_more_were_taken_than_others_can_have_finished(context, queue):
    child = ended(context, workers.then_die, workers.take, queue, 3)
    assert not ended(context, workers.tasks_done, queue, 2).exitcode
    with pytest.raises(OwnerDied, match=f"process {child.pid} died with 1 task that"):
        queue.join()


def test_tasks_of_who_ended_normally_are_waited_for(context, queue):
    """As with stock: another may be meant to finish them."""
    assert not ended(context, workers.take, queue, 3).exitcode
    joined = Background(queue.join)
    assert joined.blocked()
    workers.tasks_done(queue, 3)
    joined.result()


def test_more_takers_than_can_be_noted():
    context = mpipc.get_context("shm", start_method="fork")
    queue = context.JoinableQueue()
    count = 135
    workers.put_all(queue, range(count))
    for _ in range(count):
        ended(context, workers.then_die, queue.get)
    with pytest.raises(OwnerDied, match="died with 1 task"):
        queue.join()
    workers.tasks_done(queue, count)
    queue.join()
    assert not queue.segment.inspect()["takers"]


def test_other_queues_note_nothing(context):
    queue = context.Queue()
    queue.put(1)
    queue.get()
    assert not queue.segment.inspect()["takers"]
