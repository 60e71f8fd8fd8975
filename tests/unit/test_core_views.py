"""Messages that receivers look into where they lie: their form, their memory, and forks."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time

import pytest
from core_memory import EXTENT_HEADER, HEIR, LOCK, PAGE, TID, assert_tiled, words

import mpipc
from mpipc import SegmentCorrupt

numpy = pytest.importorskip("numpy", reason="arrays are optional")

SIZE = 20_000


@pytest.fixture
def queue():
    return mpipc.get_context("shm", start_method="fork").SimpleQueue(views=True)


def through(queue, obj):
    queue.put(obj)
    return queue.get()


def holders(queue) -> set[object]:
    """All that hold extents."""
    report = queue.segment.inspect()
    assert_tiled(report)
    return {holder for _, _, holder in report["extents"]} - {"free", "linked"}


def shares_memory(queue, array) -> bool:
    """Whether a change of the array is one of the queue's memory."""
    array.reshape(-1, order="A").view("u1")[:8] = list(b"markmark")
    size = queue.segment.inspect()["npages"] * 4096
    return b"markmark" in os.pread(queue.segment.fd, size, 0)


ARRAYS = {
    "float": numpy.arange(SIZE, dtype="f8"),
    "bool": numpy.arange(SIZE) % 3 == 0,
    "complex": numpy.arange(SIZE) * 1j,
    "matrix": numpy.arange(SIZE).reshape(100, -1),
    "fortran": numpy.asfortranarray(numpy.arange(SIZE).reshape(100, -1)),
    "strided": numpy.arange(SIZE * 2)[::2],
    "reversed": numpy.arange(SIZE)[::-1],
    "corner": numpy.arange(SIZE * 4).reshape(400, -1)[3:, 5:],
    "three dimensions": numpy.arange(SIZE).reshape(10, 20, -1).transpose(2, 0, 1),
    "structured": numpy.zeros(SIZE, dtype=[("a", "i4"), ("b", "f8", 3)]),
    "text": numpy.array(["a", "bc"] * SIZE),
    "bytes": numpy.array([b"a", b"bc"] * SIZE),
    "foreign byte order": numpy.arange(SIZE).astype(numpy.dtype("i4").newbyteorder()),
}
SMALL = {
    "no dimension": numpy.array(5.0),
    "no element": numpy.zeros((0, 3)),
    "few elements": numpy.arange(5),
}
COPIES = {
    "objects": numpy.array([{}, [], None] * 10, dtype=object),
    "times": numpy.arange(SIZE).astype("M8[s]"),
    "a subclass": numpy.arange(SIZE).view(type("Mine", (numpy.ndarray,), {"__module__": "?"})),
}


@pytest.mark.parametrize("name", [*ARRAYS, *SMALL])
def test_arrays_arrive_as_they_are(queue, name):
    sent = {**ARRAYS, **SMALL}[name]
    taken = through(queue, sent)
    assert type(taken) is numpy.ndarray and (taken == sent).all()
    assert taken.dtype == sent.dtype and taken.shape == sent.shape
    assert taken.flags.writeable and taken.flags.aligned
    # What is not contiguous arrives as stock's copy of it would be.
    assert taken.flags.f_contiguous >= (sent.flags.f_contiguous and not sent.flags.c_contiguous)
    if name in ARRAYS:
        assert taken.ctypes.data % 64 == 0
        assert shares_memory(queue, taken)


def test_what_arrives_as_a_copy_is_as_with_stock(queue):
    for name in ("objects", "times"):
        sent = COPIES[name]
        taken = through(queue, sent)
        assert (taken == sent).all() and taken.dtype == sent.dtype
        assert not holders(queue)


def test_a_subclass_stays_one(queue):
    sent = numpy.arange(SIZE).view(numpy.recarray)
    taken = through(queue, sent)
    assert type(taken) is numpy.recarray and (taken == sent).all()
    masked = numpy.ma.masked_less(numpy.arange(SIZE), 5)
    taken = through(queue, masked)
    assert type(taken) is type(masked) and (taken.mask == masked.mask).all()


def test_what_was_read_only_stays_so(queue):
    for name in ("float", "strided", "foreign byte order"):
        sent = ARRAYS[name].copy() if name == "float" else ARRAYS[name][:]
        sent.flags.writeable = False
        taken = through(queue, sent)
        assert (taken == sent).all() and not taken.flags.writeable


def test_many_in_one_message(queue):
    message = {name: (array, array[:5].copy()) for name, array in ARRAYS.items()}
    same = numpy.arange(SIZE)
    taken = through(queue, [message, same, same, "end"])
    for name, (large, small) in message.items():
        assert (taken[0][name][0] == large).all() and (taken[0][name][1] == small).all()
    assert taken[1] is taken[2] and taken[3] == "end"
    taken[1][:] = -1
    assert all((taken[0][name][0] == large).all() for name, large in ARRAYS.items())


@pytest.mark.parametrize("size", [0, 10, SIZE])
def test_bytes_like_objects(queue, size):
    content = bytes(range(256)) * (size // 256 + 1)
    taken = through(
        queue,
        [
            content,
            bytearray(content),
            memoryview(content),
            memoryview(bytearray(content)),
            pickle.PickleBuffer(content),
            pickle.PickleBuffer(bytearray(content)),
        ],
    )
    assert [type(x) for x in taken] == [bytes, bytearray] + [memoryview] * 4
    assert all(x == content for x in taken)
    assert [x.readonly for x in taken[2:]] == [True, False, True, False]


def test_memoryviews_keep_format_and_shape(queue):
    sent = memoryview(bytearray(SIZE * 8)).cast("d", (100, SIZE // 100))
    for view in (sent, memoryview(bytearray(8)).cast("q", ()), memoryview(b"").cast("i")):
        taken = through(queue, view)
        assert (taken.format, taken.shape) == (view.format, view.shape) and taken == view
    for array in (numpy.zeros((3, 4)).T, numpy.zeros(3, dtype=[("a", "i4")])):
        with pytest.raises(TypeError, match="cannot send a memoryview that is not C-contiguous"):
            queue.put(memoryview(array))


def test_without_buffers_messages_are_plain(queue):
    for sent in (1, "x", b"x" * SIZE, ["x" * SIZE], None, {"a": [1.0]}):
        assert through(queue, sent) == sent
    queue._writer.send_bytes(pickle.dumps([1, 2], 0))
    assert queue.get() == [1, 2]
    queue._writer.send(numpy.arange(SIZE))
    assert shares_memory(queue, queue.get())


def test_the_others_copy():
    queue = mpipc.get_context("shm", start_method="fork").SimpleQueue()
    taken = through(queue, ARRAYS["float"])
    assert not holders(queue) and not shares_memory(queue, taken)
    with pytest.raises(TypeError, match="pickle"):
        queue.put(memoryview(b"x"))


def test_a_message_is_free_with_its_last_view(queue):
    taken = through(queue, [numpy.arange(SIZE), numpy.arange(SIZE), "text"])
    text = taken.pop()
    part = taken[0][5:10]
    del taken
    gc.collect()
    assert holders(queue) == {os.getpid()} and list(part) == [5, 6, 7, 8, 9]
    del part
    assert not holders(queue) and text == "text"


def test_memory_is_used_again(queue):
    for _ in range(300):
        through(queue, numpy.arange(SIZE))
    assert queue.segment.inspect()["npages"] < 200


def test_a_view_outlives_the_queue(queue):
    taken = through(queue, numpy.arange(SIZE))
    queue.close()
    del queue
    gc.collect()
    assert (taken == numpy.arange(SIZE)).all()


def test_views_count_against_the_cap():
    ctx = mpipc.get_context("shm", start_method="fork", max_bytes=1 << 20)
    queue = ctx.SimpleQueue(views=True)
    kept = []
    with pytest.raises(MemoryError, match="max_bytes"):
        while True:
            kept.append(through(queue, numpy.zeros(100_000, "u1")))
    assert len(kept) >= 8
    del kept[3]
    assert through(queue, numpy.zeros(100_000, "u1")).size == 100_000


def test_an_error_in_unpickling_frees_the_message(queue):
    for _ in range(3):
        queue.put([numpy.arange(SIZE), Explodes()])
        with pytest.raises(LookupError):
            queue.get()
    gc.collect()
    assert not holders(queue)


def test_an_error_in_pickling_leaves_the_next_message_whole(queue):
    for _ in range(3):
        with pytest.raises((AttributeError, pickle.PicklingError)):  # which, depends on the version
            queue.put([numpy.arange(SIZE), lambda: 0])
        assert (through(queue, numpy.arange(SIZE)) == numpy.arange(SIZE)).all()


class Explodes:
    def __reduce__(self):
        return explode, ()


def explode():
    raise LookupError("will not be unpickled")


@pytest.mark.parametrize("which", [1, 2, 3])
@pytest.mark.parametrize("value", [5, 1 << 32, (1 << 64) - 8])
def test_damaged_numbers(queue, which, value):
    """The last words of a message: a buffer's size, the pickle's size, how many buffers."""
    queue.put([numpy.arange(SIZE)])
    report = queue.segment.inspect()
    page = next(page for page, _, holder in report["extents"][1:] if holder == "linked")
    end = page * PAGE + EXTENT_HEADER + report["backlog"]
    with words(queue.segment) as memory:
        assert memory.get64(end - 8) == 1 and memory.get64(end - 24) == SIZE * 8
        memory.set64(end - 8 * which, value)
    with pytest.raises((SegmentCorrupt, pickle.UnpicklingError, ValueError)):
        queue.get()
    gc.collect()
    assert not holders(queue)


def test_bytes_received_are_a_pickle(queue):
    for sent in (numpy.arange(SIZE), [numpy.arange(SIZE)]):
        queue.put(sent)
        taken = pickle.loads(queue._reader.recv_bytes())
        assert (numpy.array(taken) == numpy.array(sent)).all()
    assert not holders(queue)


# -- forks ---------------------------------------------------------------------------------------


class Child:
    """A forked child that holds on to what it inherited until it is told to check it."""

    def __init__(self, check) -> None:
        go, self._go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.close(self._go)
                os.read(go, 1)
                status = 0 if check() else 2
            finally:
                os._exit(status)
        os.close(go)

    def end(self) -> int:
        """Let it check; its exit status."""
        os.write(self._go, b"x")
        os.close(self._go)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._go)
        assert os.waitpid(self.pid, 0)[1] == signal.SIGKILL


def grow(queue) -> None:
    """Have so much memory that the dead are looked for."""
    for _ in range(3):
        queue.put(bytes(300_000))
    for _ in range(3):
        queue.get()


def intact(views) -> bool:
    return bool((views[0] == numpy.arange(SIZE)).all())


def reuse(queue) -> None:
    """Fill all memory that is free with something else."""
    for _ in range(20):
        through(queue, numpy.full(SIZE, 77))


@pytest.mark.parametrize("children", [1, 3, 20])
def test_a_forked_child_keeps_its_view(queue, children):
    views = [through(queue, numpy.arange(SIZE))]
    forked = [Child(lambda: intact(views)) for _ in range(children)]
    views.clear()
    reuse(queue)
    assert [child.end() for child in forked] == [0] * children
    # With more heirs than there is room for the memory stays until the queue goes.
    grow(queue)
    assert len(holders(queue)) == (children > 16)


def test_the_parent_keeps_its_view_of_a_forked_childs(queue):
    views = [through(queue, numpy.arange(SIZE))]

    def check() -> bool:
        views.clear()
        reuse(queue)
        return True

    child = Child(check)
    assert child.end() == 0
    reuse(queue)
    assert intact(views)
    views.clear()
    assert not holders(queue)


def test_grandchildren_hold_too(queue):
    views = [through(queue, numpy.arange(SIZE))]

    def check() -> bool:
        grandchild = Child(lambda: intact(views))
        views.clear()
        reuse(queue)
        return grandchild.end() == 0

    child = Child(check)
    views.clear()
    reuse(queue)
    assert child.end() == 0


def test_a_killed_heir_holds_nothing(queue):
    views = [through(queue, numpy.arange(SIZE))]
    first, second = Child(bool), Child(lambda: intact(views))
    first.kill()
    views.clear()
    assert holders(queue) == {second.pid}
    reuse(queue)
    assert second.end() == 0
    grow(queue)
    assert not holders(queue)


def test_the_child_of_a_killed_holder_keeps_its_view(queue):
    """Parent and child hold; the parent is killed; who sweeps leaves it to the child."""
    ready, tell = os.pipe()
    verdict, judge = os.pipe()
    go, let_go = os.pipe()
    queue.put(numpy.arange(SIZE))
    parent = os.fork()
    if not parent:
        view = queue.get()
        if not os.fork():
            os.close(let_go)
            os.write(tell, b"x")
            os.read(go, 1)
            os.write(judge, b"good" if (view == numpy.arange(SIZE)).all() else b"bad")
            os._exit(0)
        signal.pause()
    os.read(ready, 1)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    with words(queue.segment) as memory:
        memory.owner_died()  # recovery
    grow(queue)  # and a sweep
    reuse(queue)
    assert len(holders(queue)) == 1 and parent not in holders(queue)
    for fd in (let_go, judge, tell):
        os.close(fd)
    assert os.read(verdict, 10) == b"good"
    for fd in (ready, verdict, go):
        os.close(fd)


def test_a_signal_does_not_end_the_wait_for_a_forked_child(queue):
    """A child that is kept from the queue's lock inherits later; its parent waits until then."""
    through(queue, numpy.arange(SIZE))
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    with words(queue.segment) as memory:
        locker = os.fork()
        if not locker:
            while memory.get32(LOCK) & TID != os.getpid():
                time.sleep(0.001)
            time.sleep(0.1)
            memory.set32(LOCK, 0)
            os._exit(0)
        view = through(queue, numpy.arange(SIZE))
        extents = queue.segment.inspect()["extents"]
        (held,) = [page * PAGE for page, _, holder in extents if holder == os.getpid()]
        memory.set32(LOCK, locker)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        child = os.fork()
        if not child:
            os._exit(0 if intact([view]) else 1)
        assert memory.get32(held + HEIR), "the parent went on before its child held the message"
    signal.signal(signal.SIGALRM, before)
    assert os.waitpid(child, 0)[1] == os.waitpid(locker, 0)[1] == 0


def test_forking_without_descriptors(queue):
    """Where no pipe can be had the memory stays as it is until the queue goes."""
    view = through(queue, numpy.arange(SIZE))
    taken = []
    while True:
        try:
            taken.append(os.dup(0))
        except OSError:
            break
    pid = os.fork()
    if not pid:
        os._exit(0 if (view == numpy.arange(SIZE)).all() else 1)
    for fd in taken:
        os.close(fd)
    assert os.waitpid(pid, 0)[1] == 0
    del view
    reuse(queue)
    assert len(holders(queue)) == 1


def test_a_fork_while_a_message_is_unpickled(queue):
    plain = mpipc.get_context("shm", start_method="fork").SimpleQueue()
    for target in (queue, plain):
        target.put([b"x" * SIZE, Forks(), numpy.arange(SIZE)])
        content, status, array = target.get()
        assert status == 0 and content == b"x" * SIZE and (array == numpy.arange(SIZE)).all()
        del array
        assert not holders(target)


@pytest.mark.parametrize("finished_first", [True, False])
def test_a_fork_while_a_message_that_stays_in_hand_is_unpickled(finished_first):
    """The child reads on, also when its parent has finished the message meanwhile."""
    target = mpipc.get_context("shm", start_method="fork").JoinableQueue(redeliver=True)
    here, there = os.pipe()
    target.put([ForksAndWaits(here, there), b"x" * SIZE])
    pid, content = target.get()
    if not pid:
        os._exit(content != b"x" * SIZE)
    assert content == b"x" * SIZE
    if finished_first:
        target.task_done()
        for _ in range(5):
            target.put(b"y" * SIZE)
    os.close(here)
    os.close(there)
    assert os.waitpid(pid, 0)[1] == 0
    if not finished_first:
        target.task_done()
    for _ in range(3):
        target.put(bytes(300_000))  # grows, and so looks for what the dead held
    while target.qsize():
        target.get()
        target.task_done()
    target.join()
    assert not holders(target)


class ForksAndWaits:
    def __init__(self, here, there) -> None:
        self.pipe = here, there

    def __reduce__(self):
        return fork_here, self.pipe


def fork_here(here: int, there: int) -> int:
    pid = os.fork()
    if not pid:
        os.close(there)
        os.read(here, 1)
    return pid


class Forks:
    def __reduce__(self):
        return fork_and_wait, ()


def fork_and_wait() -> int:
    pid = os.fork()
    if not pid:
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue", "Pipe"])
def test_other_contexts_say_who_has_views(name):
    make = getattr(mpipc.get_context("pipe"), name)
    with pytest.raises(TypeError, match=r"mpipc-pipe has no views=True; use .* mpipc-shm"):
        make(views=True)
    made = make(views=False)
    for end in made if name == "Pipe" else (made._reader, made._writer):
        end.close()
