"""What users get wrong: the error that stock raises, and an object that still works."""

from __future__ import annotations

import queue as queue_errors
from multiprocessing import reduction

import pytest

import mpipc
import workers
from workers import KIB, MIB, SOON, Background, payload

QUEUES = ("Queue", "JoinableQueue")


def works(queue):
    """Whether a queue still passes messages."""
    queue.put("still")
    return queue.get() == "still"


@pytest.fixture(params=QUEUES)
def make(ctx, request):
    made = []

    def make(*args):
        made.append(getattr(ctx, request.param)(*args))
        return made[-1]

    yield make
    for queue in made:
        queue.cancel_join_thread()
        queue.close()


@pytest.fixture(params=["Queue", "JoinableQueue", "SimpleQueue"])
def queue(ctx, request):
    queue = getattr(ctx, request.param)()
    yield queue
    queue.close()


@pytest.mark.parametrize("maxsize", [0, -1, -(2**70)])
def test_a_maxsize_that_is_not_positive_means_unbounded(make, maxsize):
    queue = make(maxsize)
    for number in range(1000):
        queue.put_nowait(number)
    assert not queue.full() and queue.qsize() == 1000
    assert [queue.get(timeout=SOON) for _ in range(1000)] == list(range(1000))


@pytest.mark.parametrize("maxsize", ["3", 1.5, None, [1]])
def test_a_maxsize_that_is_no_integer(make, maxsize):
    with pytest.raises(TypeError):
        make(maxsize)
    assert works(make(1))


@pytest.mark.parametrize("timeout", ["1", [1], b"1"])
def test_a_bad_timeout_of_a_queue(make, timeout):
    queue = make(1)
    with pytest.raises(TypeError):
        queue.get(timeout=timeout)
    with pytest.raises(TypeError):
        queue.put(1, timeout=timeout)
    assert queue.qsize() == 0
    assert works(queue)


@pytest.mark.parametrize("timeout", ["1", [1], b"1"])
@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_a_bad_timeout_of_a_lock(ctx, kind, timeout):
    lock = getattr(ctx, kind)()
    with pytest.raises(TypeError):
        lock.acquire(True, timeout)
    assert Background(lock.acquire, False).result() is True


@pytest.mark.parametrize("timeout", ["1", [1], b"1"])
def test_a_bad_timeout_of_a_wait(ctx, timeout):
    event, condition, (a, b) = ctx.Event(), ctx.Condition(), ctx.Pipe()
    with a, b:
        with pytest.raises(TypeError):
            event.wait(timeout)
        with condition, pytest.raises(TypeError):
            condition.wait(timeout)
        with pytest.raises(TypeError):
            a.poll(timeout)
        with condition:
            condition.notify()
            assert condition.wait(0) is False
        event.set()
        assert event.wait(0) is True
        b.send(1)
        assert a.poll(0) is True and a.recv() == 1


def test_an_unpicklable_object(queue, capfd):
    if hasattr(queue, "join_thread"):
        # To the hook, which prints; put itself never raises.
        queue.put(workers.ReduceRaises())
        assert works(queue)
        assert "no pickling" in capfd.readouterr().err
    else:
        with pytest.raises(NotImplementedError, match="no pickling"):
            queue.put(workers.ReduceRaises())
        assert works(queue)


def test_an_unpicklable_object_in_a_pipe(ctx):
    a, b = ctx.Pipe()
    with a, b:
        with pytest.raises(NotImplementedError, match="no pickling"):
            a.send(workers.ReduceRaises())
        assert not b.poll()
        a.send("still")
        assert b.recv() == "still"


@pytest.mark.parametrize("kind", ["Lock", "BoundedSemaphore"])
def test_a_lock_released_too_often(ctx, kind):
    lock = getattr(ctx, kind)()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^semaphore or lock released too many times$"):
            lock.release()
    with lock:
        assert not lock.acquire(False)


def test_an_rlock_released_without_being_held(ctx):
    lock = ctx.RLock()
    with pytest.raises(AssertionError, match="not owned by thread"):
        lock.release()
    with lock:
        assert not Background(lock.acquire, False).result()


def test_a_closed_queue(make):
    queue, other = make(), make()
    queue.close()
    for call in (lambda: queue.put(1), lambda: queue.get(timeout=0), queue.get_nowait):
        with pytest.raises(ValueError, match="is closed"):
            call()
    assert works(other)


def test_a_closed_connection(ctx):
    a, b = ctx.Pipe()
    a.close()
    for call in (a.recv, a.poll, a.fileno, lambda: a.send(1)):
        with pytest.raises(OSError, match="handle is closed"):
            call()
    with pytest.raises(BrokenPipeError):
        b.send(1)
    with pytest.raises(EOFError):
        b.recv()
    b.close()


@pytest.mark.parametrize("code", ["x", "", "ii", None, 5, object])
def test_an_unknown_type_code(ctx, code):
    for call in (
        lambda: ctx.Value(code),
        lambda: ctx.RawValue(code),
        lambda: ctx.Array(code, 3),
        lambda: ctx.RawArray(code, 3),
    ):
        with pytest.raises((TypeError, AttributeError) if code == 5 else TypeError):
            call()
    assert ctx.Value("i", 5).value == 5


def test_a_bad_initial_value(ctx):
    with pytest.raises(TypeError):
        ctx.Value("i", "text")
    with pytest.raises(TypeError):
        ctx.Array("i", ["text"])
    with pytest.raises((ValueError, MemoryError)):
        ctx.Array("i", -1)
    assert ctx.Array("i", [1, 2])[:] == [1, 2]


def test_pickled_outside_spawning(ctx):
    objects = workers.one_of_each(ctx)
    for kind, obj in objects.items():
        if kind != "Pipe":
            with pytest.raises(RuntimeError, match="through inheritance"):
                reduction.ForkingPickler.dumps(obj)
    assert workers.use_one_of_each(objects) == "used"
    assert objects["Queue"].get(timeout=SOON) == "from the child"
    assert objects["JoinableQueue"].get(timeout=SOON) == "from the child"
    workers.close_all(objects)


@pytest.fixture
def capped(ctx):
    """A context whose segments may not grow beyond 1 MiB."""
    return mpipc.get_context("shm", start_method=ctx.get_start_method(), max_bytes=MIB)


@pytest.mark.beyond_stock("it has no cap")
class TestCap:
    @pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
    def test_a_message_beyond_the_cap(self, capped, kind):
        queue = getattr(capped, kind)()
        for _ in range(3):
            with pytest.raises(MemoryError):
                queue.put(payload(2 * MIB))
            assert queue.empty()
            queue.put(payload(100 * KIB))
            assert queue.get() == payload(100 * KIB)
        queue.close()

    @pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
    def test_a_queue_that_fills_up(self, capped, kind):
        queue, count = getattr(capped, kind)(), 0
        with pytest.raises(MemoryError):
            while True:
                queue.put(payload(10 * KIB))
                count += 1
        assert 0 < count < 110
        assert queue.qsize() == count
        assert [queue.get(timeout=SOON) for _ in range(count)] == [payload(10 * KIB)] * count
        with pytest.raises(queue_errors.Empty):
            queue.get_nowait()
        assert works(queue)
        queue.close()

    def test_a_refused_put_gives_its_slot_back(self, capped):
        queue = capped.Queue(1)
        with pytest.raises(MemoryError):
            queue.put(payload(2 * MIB))
        assert queue.qsize() == 0 and not queue.full()
        queue.put_nowait("still")
        assert queue.get(timeout=SOON) == "still"
        queue.close()

    def test_a_refused_put_is_no_task(self, capped):
        queue = capped.JoinableQueue()
        with pytest.raises(MemoryError):
            queue.put(payload(2 * MIB))
        queue.join()
        queue.close()

    def test_large_arrays(self, capped):
        for make in (capped.Array, capped.RawArray):
            with pytest.raises(MemoryError):
                make("b", 10 * MIB)
        assert capped.Array("b", 100)[:] == [0] * 100
        assert capped.Value("i", 3).value == 3

    def test_in_a_child(self, capped):
        queue = capped.Queue()
        with workers.Family(capped) as family:
            with pytest.raises(MemoryError):
                family.call(workers.method, queue, "put", payload(2 * MIB))
            family.call(workers.method, queue, "put", "still")
        assert queue.get(timeout=SOON) == "still"
        queue.close()

    def test_a_pipe(self, capped):
        reader, writer = capped.Pipe(False)
        with reader, writer:
            with pytest.raises(MemoryError):
                writer.send_bytes(payload(4 * MIB))
            assert not reader.poll()
            writer.send("still")
            assert reader.recv() == "still"

    @pytest.mark.parametrize("cap", [-1, "1", 1.5])
    def test_a_bad_cap(self, cap):
        with pytest.raises((TypeError, ValueError)):
            mpipc.get_context("shm", max_bytes=cap)


@pytest.mark.beyond_stock("its feeder thread dies of it, or the message stays in the parent")
class TestAddressSpace:
    """Under RLIMIT_AS, in a child: a limit cannot be raised again."""

    def test_queue(self, ctx, family):
        assert family.call(workers.put_under_limit, ctx) == ["refused", "still"]

    def test_array(self, ctx, family):
        assert family.call(workers.array_under_limit, ctx) == ["refused", 5]


def test_get_from_an_empty_queue_after_errors(make):
    queue = make()
    queue.put(workers.LoadRaises())
    with pytest.raises(ValueError, match="no unpickling"):
        queue.get(timeout=SOON)
    with pytest.raises(queue_errors.Empty):
        queue.get_nowait()
    assert works(queue)


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(-1, OSError), (1 << 31, OverflowError), (1.5, TypeError), ("1", TypeError)],
)
def test_a_bad_first_value_of_a_semaphore(ctx, kind, value, error):
    with pytest.raises(error):
        getattr(ctx, kind)(value)
