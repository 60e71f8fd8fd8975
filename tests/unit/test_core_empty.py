"""Arrays that are allocated where they are sent, and so sent without a copy."""

from __future__ import annotations

import os
import queue as stock_queue
import signal

import pytest
from core_memory import assert_tiled

import mpipc
import workers
from workers import SOON

numpy = pytest.importorskip("numpy", reason="arrays are optional")

SIZE = 20_000
ctx = mpipc.get_context("shm", start_method="fork")


@pytest.fixture(params=["Queue", "JoinableQueue", "SimpleQueue", "Pipe", "duplex Pipe"])
def ends(request):
    """Where to allocate and send, and how to receive, with views."""
    if "Pipe" in request.param:
        reader, writer = ctx.Pipe(request.param == "duplex Pipe", views=True)
        return writer, writer.send, reader.recv, reader
    made = getattr(ctx, request.param)(views=True)
    return made, made.put, made.get, made


@pytest.fixture
def queue():
    return ctx.Queue(views=True)


def holders(queue) -> set[object]:
    report = queue.segment.inspect()
    assert_tiled(report)
    return {holder for _, _, holder in report["extents"]} - {"free", "linked", "empty"}


def address(array) -> int:
    return array.__array_interface__["data"][0]


def filled(to, value=1.5, shape=SIZE):
    array = ctx.empty(shape, to=to)
    array[...] = value
    return array


def test_it_arrives_where_it_was_filled(ends):
    to, send, receive, keep = ends
    array = filled(to, shape=(100, 200))
    send(array)
    came = receive()
    assert came.shape == (100, 200) and came.dtype == float and (came == 1.5).all()
    assert address(came) == address(array)
    array[3, 4] = 7
    assert came[3, 4] == 7
    del keep


@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_its_memory_is_free_when_both_are_done(queue, first):
    array = filled(queue)
    assert holders(queue) == {os.getpid()}
    queue.put(array)
    assert not holders(queue)
    came = queue.get()
    kept = [came] if first == "sender" else [array]
    del came, array
    assert holders(queue) == {os.getpid()} and (kept[0] == 1.5).all()
    kept.clear()
    assert not holders(queue)


def test_dropped_before_it_is_sent_or_taken(queue):
    filled(queue)
    assert not holders(queue)
    queue.put(filled(queue))
    assert not holders(queue)
    assert (queue.get() == 1.5).all()
    assert not holders(queue)


def test_sent_again_while_it_waits_it_is_copied(queue):
    array = filled(queue)
    queue.put(array)
    array[0] = 3
    queue.put(array)
    array[0] = 4
    first, second = queue.get(), queue.get()
    assert first[0] == 4 and second[0] == 3
    assert address(first) == address(array) != address(second)
    del first, second, array
    assert not holders(queue)


def test_used_again_once_the_receiver_is_done(queue):
    array = filled(queue)
    for value in range(20):
        array[0] = value
        queue.put(array)
        came = queue.get()
        assert came[0] == value and address(came) == address(array)
        del came
    assert len([holder for _, _, holder in queue.segment.inspect()["extents"]]) < 8


def test_sent_again_while_it_is_received_it_is_copied(queue):
    array = filled(queue)
    queue.put(array)
    first = queue.get()
    queue.put(array)
    second = queue.get()
    first[:] = 5
    assert (array == 5).all() and (second == 1.5).all()
    del first
    queue.put(array)
    assert address(queue.get()) == address(array)


def test_other_views_of_the_whole(queue):
    array = ctx.empty((100, 200), "i4", to=queue)
    array[:] = numpy.arange(SIZE).reshape(100, 200)
    for view in (array.T, array.reshape(-1), array.view("f4"), array.T.reshape(2, -1, order="F")):
        queue.put(view)
        came = queue.get()
        assert (came.dtype, came.shape, came.strides) == (view.dtype, view.shape, view.strides)
        assert address(came) == address(array) and came.tobytes() == view.tobytes()
        del came


@pytest.mark.parametrize("part", [slice(1, None), slice(None, None, 2), slice(0, 0)])
def test_a_part_is_copied(queue, part):
    array = filled(queue)
    queue.put(array[part])
    came = queue.get()
    assert came.tolist() == array[part].tolist()
    assert not len(came) or address(came) != address(array[part])


def test_another_shape_of_it(queue):
    array = filled(queue)
    array.shape = (4, SIZE // 4)
    queue.put(array)
    assert queue.get().shape == (4, SIZE // 4)


def test_for_another_queue_it_is_copied(queue):
    array, other = filled(queue), ctx.Queue(views=True)
    other.put(array)
    came = other.get()
    assert (came == 1.5).all()
    assert address(came) != address(array) and holders(queue) == {os.getpid()}


def test_without_views_the_receiver_has_its_own():
    plain = ctx.Queue()
    array = filled(plain)
    plain.put(array)
    came = plain.get()
    array[0] = 2
    assert came[0] == 1.5
    del array
    assert not holders(plain)


def test_no_room_leaves_it_as_it_was():
    bounded = ctx.Queue(1, views=True)
    bounded.put(0)
    array = filled(bounded)
    with pytest.raises(stock_queue.Full):
        bounded.put(array, timeout=0.01)
    assert bounded.get() == 0
    bounded.put(array)
    assert address(bounded.get()) == address(array)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "c16", "?", "f2", "g"])
@pytest.mark.parametrize("shape", [(), 0, 3, (2, 0, 5), (1, 2, 3, 4, 1, 2, 3)])
def test_types_and_shapes(queue, dtype, shape):
    array = ctx.empty(shape, dtype, to=queue)
    assert array.flags.c_contiguous and array.flags.writeable
    array[...] = 1
    queue.put(array)
    came = queue.get()
    assert came.dtype == array.dtype and came.shape == array.shape and (came == 1).all()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((3, "O"), TypeError, "numbers in native byte order"),
        ((3, ">i4"), TypeError, "numbers in native byte order"),
        ((3, "U5"), TypeError, "numbers in native byte order"),
        ((-1,), ValueError, "negative"),
        (((1,) * 8,), ValueError, "at most 7"),
        (("x",), TypeError, "x|int"),
        (((1 << 40, 1 << 20),), ValueError, "too big|large"),
        ((1 << 50,), MemoryError, "no shared memory"),
    ],
)
def test_what_cannot_be(queue, arguments, error, match):
    with pytest.raises(error, match=match):
        ctx.empty(*arguments, to=queue)
    assert not holders(queue)


def test_where_it_cannot_be():
    with pytest.raises(TypeError, match="to must be a queue or connection of mpipc-shm"):
        ctx.empty(3, to=[])
    with pytest.raises(TypeError, match="mpipc-pipe has no empty"):
        mpipc.get_context("pipe").empty(3, to=[])
    closed = ctx.Queue()
    closed.close()
    with pytest.raises(ValueError, match="is closed"):
        ctx.empty(3, to=closed)
    with pytest.raises(ValueError, match="redeliver=True"):
        ctx.empty(3, to=ctx.JoinableQueue(redeliver=True))
    reader, writer = ctx.Pipe(False)
    with pytest.raises(OSError, match="read-only"):
        ctx.empty(3, to=reader)
    small = mpipc.get_context("shm", start_method="fork", max_bytes=1 << 20)
    with pytest.raises(MemoryError):
        small.empty(1 << 20, to=small.Queue())
    writer.close()


class Child:
    """A forked process that goes on when it is told to; its status says whether all was right."""

    def __init__(self, act) -> None:
        here, self.go = os.pipe()
        ready, tell = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self.go)
                right = act(lambda: (os.write(tell, b"x"), os.read(here, 1)))
            except BaseException:
                right = False
            os._exit(0 if right else 1)
        os.close(here)
        os.close(tell)
        assert os.read(ready, 1)
        os.close(ready)

    def end(self) -> int:
        os.close(self.go)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.end() == -signal.SIGKILL


def reuse(queue) -> None:
    """Fill all memory that is free with something else."""
    for _ in range(20):
        queue.put(numpy.full(SIZE, 77.0))
        queue.get()


def test_the_receiver_keeps_it_when_the_sender_is_killed(queue):
    def send(pause):
        array = filled(queue)
        queue.put(array)
        pause()

    child = Child(send)
    came = queue.get(timeout=SOON)
    child.kill()
    reuse(queue)
    assert (came == 1.5).all()
    del came
    assert not holders(queue)


def test_the_sender_keeps_it_when_the_receiver_is_killed(queue):
    array = filled(queue)

    def receive(pause):
        nonlocal array
        del array
        came = queue.get(timeout=SOON)
        pause()
        return came

    queue.put(array)
    child = Child(receive)
    child.kill()
    queue.put(numpy.zeros(1 << 20))  # grows, and so looks for what the dead held
    queue.get()
    reuse(queue)
    assert (array == 1.5).all()
    del array
    queue.put(numpy.zeros(1 << 22))
    queue.get()
    assert not holders(queue)


def test_killed_with_one_that_was_not_sent(queue):
    def allocate(pause):
        array = filled(queue)
        pause()
        return array

    Child(allocate).kill()
    queue.put(numpy.zeros(1 << 20))
    queue.get()
    assert not holders(queue)


@pytest.mark.parametrize("sent", [False, True])
def test_a_forked_child_keeps_what_its_parent_sends(queue, sent):
    arrays = [filled(queue)]
    if sent:
        queue.put(arrays[0])

    def look(pause):
        pause()
        return (arrays[0] == 1.5).all()

    child = Child(look)
    if not sent:
        queue.put(arrays[0])
    arrays.clear()
    queue.get()
    reuse(queue)
    assert child.end() == 0


def test_a_receiver_that_has_inherited_it_gives_it_back(queue):
    """So that its sender can go on sending it without a copy."""
    array = filled(queue)
    done = ctx.SimpleQueue()

    def receive():
        for number in range(5):
            came = queue.get(timeout=SOON)
            assert (came == number).all() and address(came) == address(array)
            del came
            done.put(number)
        assert (array == 4).all()

    child = ctx.Process(target=receive)
    child.start()
    for number in range(5):
        array[:] = number
        queue.put(array)
        assert done.get() == number and holders(queue) == {os.getpid()}
    child.join(SOON)
    assert child.exitcode == 0


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_between_processes_of_other_start_methods(method):
    other = mpipc.get_context("shm", start_method=method)
    there, back = other.Queue(views=True), other.Queue(views=True)
    process = other.Process(target=workers.send_back_double, args=(there, back))
    process.start()
    array = other.empty(SIZE, to=there)
    array[:] = 2
    there.put(array)
    came = back.get(timeout=SOON)
    assert (came == 4).all() and (array == 3).all()
    process.join()
    assert process.exitcode == 0
