"""Process: stock's behaviour, and the objects as its arguments."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.process
import os
import signal
import weakref

import pytest

import subclasses
import workers
from workers import A_WHILE, SOON, Background


def test_is_a_stock_process(ctx):
    process = ctx.Process(target=workers.nothing, name="named", daemon=True)
    assert isinstance(process, multiprocessing.process.BaseProcess)
    assert (process.name, process.daemon, process.exitcode, process.pid) == (
        "named",
        True,
        None,
        None,
    )
    assert not process.is_alive()
    with pytest.raises(AssertionError, match="can only join a started process"):
        process.join()
    process.start()
    assert process in multiprocessing.active_children()
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    process.join()
    assert (process.exitcode, process.is_alive()) == (0, False)
    process.close()
    with pytest.raises(ValueError, match="process object is closed"):
        process.join()


def test_runs_in_another_process(ctx, family):
    pid, parent, name = family.call(workers.identities)
    assert pid != os.getpid() and "Process-" in name
    # A fork server stands between.
    if ctx.get_start_method() != "forkserver":
        assert parent == os.getpid()


@pytest.mark.parametrize(
    ("target", "args", "exitcode"),
    [
        (workers.nothing, (), 0),
        (workers.exit_with, (None,), 0),
        (workers.exit_with, (7,), 7),
        (workers.exit_with, ("a message",), 1),
        (workers.raise_for, (1,), 1),
        (workers.die, (), -signal.SIGKILL),
        (workers.die, (signal.SIGTERM,), -signal.SIGTERM),
    ],
)
def test_exit_codes(ctx, family, target, args, exitcode, capfd):
    family.start(target, *args, exitcode=exitcode)
    family.join()
    # A fork server's children write where it does, which is not captured here.
    if target is workers.raise_for and ctx.get_start_method() != "forkserver":
        assert "KeyError: 1" in capfd.readouterr().err


def test_ends_silently(ctx, family, capfd):
    objects = [ctx.Queue(), ctx.Lock(), ctx.Value("i"), ctx.Event(), ctx.Pipe()[0]]
    family.start(workers.read_attributes, *objects)
    family.join()
    objects[0].close()
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_terminate_and_kill(ctx, family, how):
    ready = ctx.Event()
    process = family.start(workers.hold_event, ready, exitcode=None)
    assert ready.wait(SOON)
    process.join(A_WHILE)
    assert process.is_alive() and process.exitcode is None
    getattr(process, how)()
    process.join(SOON)
    assert process.exitcode == -(signal.SIGTERM if how == "terminate" else signal.SIGKILL)


def test_join_from_a_thread(ctx, family):
    event = ctx.Event()
    process = family.start(workers.method, event, "wait")
    waiting = Background(process.join)
    assert waiting.blocked()
    event.set()
    waiting.result()
    assert process.exitcode == 0


def test_a_subclass_of_module_level(ctx):
    reader, writer = ctx.Pipe(False)
    process = subclasses.OF[ctx.get_start_method()](writer, 21)
    process.start()
    assert reader.recv() == 42
    process.join()
    assert process.exitcode == 0
    process.close()
    reader.close()
    writer.close()


def test_all_objects_as_arguments(ctx, family):
    objects = workers.one_of_each(ctx)
    assert family.call(workers.use_one_of_each, objects) == "used"
    assert objects["Queue"].get() == objects["SimpleQueue"].get() == "from the child"
    assert objects["Pipe"][0].recv() == "from the child"
    assert objects["Value"].value == objects["Array"][0] == 1
    assert objects["Semaphore"].get_value() == 2 and objects["Event"].is_set()
    assert objects["JoinableQueue"].get() == "from the child"
    objects["JoinableQueue"].task_done()
    objects["JoinableQueue"].join()
    workers.close_all(objects)


def test_objects_in_containers_and_keywords(ctx, family):
    queue, value = ctx.Queue(), ctx.Value("i", 5)
    family.start(workers.put_keyword, queue=queue, parts={"list": [value], "same": (value,)})
    assert queue.get() == (5, True)
    queue.close()


def test_parent_process_and_grandchildren(ctx, family):
    value = ctx.Value("i", 0)
    family.start(workers.recurse, ctx, value, 3)
    family.join()
    assert value.value == 4


def test_many_at_once(ctx, family):
    semaphore = ctx.Semaphore(0)
    for _ in range(8):
        family.start(workers.method, semaphore, "release")
    family.join()
    assert semaphore.get_value() == 8


def test_a_stock_process_carries_our_objects(ctx):
    objects = workers.one_of_each(ctx)
    process = multiprocessing.get_context(ctx.get_start_method()).Process(
        target=workers.use_one_of_each, args=(objects,)
    )
    process.start()
    assert objects["Queue"].get() == objects["Pipe"][0].recv() == "from the child"
    process.join(SOON)
    assert process.exitcode == 0
    process.close()
    assert objects["JoinableQueue"].get() == objects["SimpleQueue"].get() == "from the child"
    workers.close_all(objects)


@pytest.mark.beyond_stock("its semaphores made for fork have no name to be found by")
@pytest.mark.parametrize("other", ["fork", "spawn", "forkserver"])
def test_objects_cross_start_methods(ctx, other):
    objects = workers.one_of_each(ctx)
    process = multiprocessing.get_context(other).Process(
        target=workers.use_one_of_each, args=(objects,)
    )
    process.start()
    assert objects["Queue"].get(timeout=SOON) == "from the child"
    process.join(SOON)
    assert process.exitcode == 0
    process.close()
    workers.close_all(objects)


def test_target_and_arguments_are_freed(ctx):
    payload = workers.Payload()
    reference = weakref.ref(payload)
    process = ctx.Process(target=workers.identity, args=(payload,))
    process.start()
    del payload
    process.join()
    gc.collect()
    assert reference() is None
    process.close()
