"""What tests run in children and threads. Imports no pytest: every spawned child loads this."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

# How long to wait for what must come, and how long for what must not.
SOON = 30.0
A_WHILE = 0.2


class Family:
    """The processes a test starts, all joined at its end."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._members: list[tuple[Any, int | None]] = []

    def start(
        self, target: Callable[..., Any], *args: Any, exitcode: int | None = 0, **kwargs: Any
    ):
        """Start a process that must end with `exitcode` (None: any)."""
        process = self._ctx.Process(target=target, args=args, kwargs=kwargs)
        process.start()
        self._members.append((process, exitcode))
        return process

    def call(self, target: Callable[..., Any], *args: Any) -> Any:
        """Run the target in a child; return its value or raise its exception."""
        # Stock's pipe, for what is tested must not carry the verdict.
        reader, writer = multiprocessing.connection.Pipe(duplex=False)
        with reader:
            with writer:
                self.start(answer, writer, target, *args)
            ok, value = reader.recv()
        if not ok:
            raise value
        return value

    def join(self) -> None:
        """Wait for all; check how they ended."""
        while self._members:
            process, exitcode = self._members.pop()
            process.join(SOON)
            ended = process.exitcode
            if ended is None:
                process.kill()
                process.join()
            process.close()
            assert ended is not None, f"{process} did not end by itself"
            assert exitcode in (ended, None), f"{process} ended with {ended}"

    def __enter__(self) -> Family:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind:
            for process, _ in self._members:
                process.kill()
            self._members = [(process, None) for process, _ in self._members]
        self.join()


class Background(threading.Thread):
    """A call in a thread of its own, which keeps the result or the exception."""

    def __init__(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(daemon=True)
        self._call = lambda: target(*args, **kwargs)
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def blocked(self) -> bool:
        """Whether the call is still going on after a while."""
        self.join(A_WHILE)
        return self.is_alive()

    def result(self) -> Any:
        """Wait for the call; return its value or raise its exception."""
        self.join(SOON)
        assert not self.is_alive(), "the call still blocks"
        if self._error:
            raise self._error
        return self._result


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls at the same time in threads; return their results."""
    return [thread.result() for thread in [Background(call) for call in calls]]


def answer(writer: Any, target: Callable[..., Any], *args: Any) -> None:
    """Run the target and send (True, its value) or (False, its exception)."""
    with writer:
        try:
            reply = True, target(*args)
        except Exception as error:
            reply = False, error
        writer.send(reply)


@contextlib.contextmanager
def handler(signum: int, call: Callable[..., Any]):
    """Install a signal handler for the length of a block."""
    previous = signal.signal(signum, call)
    try:
        yield
    finally:
        signal.signal(signum, previous)


@contextlib.contextmanager
def signalled(signum: int, after: float = A_WHILE):
    """Send this process a signal, from another thread, a while into the block."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signum))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def environment() -> dict[str, str]:
    """Return an environment in which any script finds the package under test."""
    import mpipc.testing

    root = os.path.dirname(os.path.dirname(os.path.dirname(mpipc.testing.__file__)))
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


# Targets


def nothing() -> None:
    """End at once."""


def forever() -> None:
    """Wait for a signal that ends the process."""
    while True:
        signal.pause()


def exit_with(code: Any) -> None:
    """Leave by SystemExit."""
    raise SystemExit(code)


def die(signum: int = signal.SIGKILL) -> None:
    """End this process by a signal, with nothing cleaned up."""
    os.kill(os.getpid(), signum)


def then_die(call: Callable[..., Any], *args: Any) -> None:
    """Make a call, then end by SIGKILL."""
    call(*args)
    die()


def apply(call: Callable[..., Any], *args: Any) -> Any:
    """Make a call."""
    return call(*args)


def method(obj: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a shared object; methods themselves do not pickle."""
    return getattr(obj, name)(*args, **kwargs)


def attribute(obj: Any, name: str) -> Any:
    """Return an attribute of a shared object."""
    return getattr(obj, name)


# Payloads

PATTERN = bytes(range(251))
KIB, MIB = 1 << 10, 1 << 20
# Around the sizes where buffers of pages, chunks and pipes end.
SIZES = [0, 1, *(edge + step for edge in (4 * KIB, 64 * KIB, MIB) for step in (-1, 0, 1))]


def payload(size: int) -> bytes:
    """Return `size` bytes in which a shifted or repeated part shows."""
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


class ReduceRaises:
    """Does not pickle."""

    def __reduce__(self) -> Any:
        raise NotImplementedError("no pickling")


class LoadRaises:
    """Pickles, but does not unpickle."""

    def __reduce__(self) -> Any:
        return fail, ("no unpickling",)


class PutsAnother:
    """Puts into the queue it is being put into."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def __reduce__(self) -> Any:
        self.queue.put("inner")
        return str, ("outer",)


class Registered:
    """Pickles only by the reducer that a test registers."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        raise NotImplementedError("the registered reducer was not asked")


def reduce_registered(obj: Registered) -> Any:
    """Reduce a `Registered`."""
    return Registered, (obj.value,)


def fail(message: str) -> None:
    """Raise."""
    raise ValueError(message)


# Targets for queues


def put_all(queue: Any, items: Any) -> None:
    """Put each of the items."""
    for item in items:
        queue.put(item)


def put_payloads(queue: Any, sizes: Any) -> None:
    """Put a payload of each size."""
    for size in sizes:
        queue.put(payload(size))


def put_numbered(queue: Any, producer: Any, count: int) -> None:
    """Put `count` messages that say who sent them and in what order."""
    for number in range(count):
        queue.put((producer, number, payload(number % 300)))


def viewed() -> list[Any]:
    """What queues and pipes with views are tried with."""
    import numpy

    return [numpy.arange(50_000.0), memoryview(b"bytes" * 5000), numpy.arange(3), "text"]


def put_viewed(queue: Any) -> None:
    """Put it."""
    queue.put(viewed())


def send_viewed(connection: Any) -> None:
    """Send it."""
    connection.send(viewed())


def forward(source: Any, target: Any, count: int) -> None:
    """Take items and put each into another queue."""
    for _ in range(count):
        target.put(source.get())


def forward_message(connection: Any) -> None:
    """Send back what comes."""
    connection.send(connection.recv())


def hold_until_killed(queue: Any, ready: Any) -> None:
    """Hold what is taken, and never end."""
    taken = queue.get()
    ready.set()
    while taken is not None:
        signal.pause()


def get_until_none(queue: Any) -> list[Any]:
    """Take messages up to a None."""
    return list(iter(queue.get, None))


def consume(queue: Any, count: int) -> list[Any]:
    """Take `count` messages, marking each as done."""
    taken = []
    for _ in range(count):
        taken.append(queue.get())
        queue.task_done()
    return taken


def take(queue: Any, count: int) -> None:
    """Take `count` messages, and leave them undone."""
    for _ in range(count):
        queue.get()


def take_and_stay(queue: Any, taken: Any) -> None:
    """Take a message, say so, and go on for ever."""
    queue.get()
    hold_event(taken)


def take_then_finish_some_and_die(queue: Any, taken: int, finished: int) -> None:
    """Take messages, mark the first of them as done, and end by SIGKILL."""
    take(queue, taken)
    tasks_done(queue, finished)
    die()


def finish_in_another_thread_and_die(queue: Any) -> None:
    """Take a message; have a thread take and finish another; end by SIGKILL with the first."""
    queue.get()
    Background(consume, queue, 1).result()
    die()


class CannotLoad(Exception):
    """What unpickling an Unloadable ends with."""


def cannot_load() -> None:
    raise CannotLoad


class Unloadable:
    """It can be pickled, and that is all."""

    def __reduce__(self) -> Any:
        return cannot_load, ()


def fails_to_take(queue: Any) -> None:
    """Meet a message that cannot be unpickled."""
    try:
        queue.get(timeout=SOON)
    except CannotLoad:
        return
    raise AssertionError("it could be unpickled")


def tasks_done(queue: Any, count: int) -> None:
    """Mark tasks as done that somebody else may have taken."""
    for _ in range(count):
        queue.task_done()


def get_blocked(queue: Any, ready: Any) -> Any:
    """Take one message, saying first that the wait begins."""
    ready.set()
    return queue.get()


def put_unwanted(queue: Any) -> None:
    """Put what nobody takes and end without waiting for that."""
    queue.put(payload(10 * MIB))
    queue.cancel_join_thread()


def put_in_grandchild(ctx: Any, queue: Any, item: Any) -> None:
    """Let a child of this process put the item."""
    with Family(ctx) as family:
        family.start(put_all, queue, [item])


def relay(source: Any, sink: Any) -> None:
    """Pass messages on up to a None, and that too."""
    for item in iter(source.get, None):
        sink.put(item)
    sink.put(None)


# Targets for connections


def echo(connection: Any, *others: Any) -> None:
    """Send back what comes, up to EOF; close the other ends first, which fork left open."""
    for other in others:
        other.close()
    with connection, contextlib.suppress(EOFError):
        while True:
            connection.send(connection.recv())


def recv_slowly(connection: Any, *others: Any) -> int:
    """Take one message, late; return its length."""
    for other in others:
        other.close()
    time.sleep(A_WHILE)
    return len(connection.recv_bytes())


def send_all(connection: Any, items: Any) -> None:
    """Send each of the items."""
    for item in items:
        connection.send(item)


def send_payloads(connection: Any, size: int, count: int) -> None:
    """Send `count` payloads."""
    data = payload(size)
    for _ in range(count):
        connection.send_bytes(data)


def send_locked(lock: Any, connection: Any, items: Any) -> None:
    """Send each of the items, one writer at a time."""
    for item in items:
        with lock:
            connection.send(item)


def recv_locked(lock: Any, connection: Any) -> list[Any]:
    """Receive up to a None, one reader at a time."""
    taken = []
    while True:
        with lock:
            item = connection.recv()
        if item is None:
            return taken
        taken.append(item)


def send_through(carrier: Any, item: Any) -> None:
    """Receive a connection through another, send something through it."""
    with carrier.recv() as connection:
        connection.send(item)


def recv_fd(connection: Any) -> bytes:
    """Receive a descriptor, read what it holds."""
    from multiprocessing.reduction import recv_handle

    with os.fdopen(recv_handle(connection), "rb") as file:
        return file.read()


def forever_holding(kept: Any, *others: Any) -> None:
    """Hold an end until killed; close the others, which fork left open."""
    for other in others:
        other.close()
    forever()


def send_or_put(target: Any, items: Any) -> None:
    """Put into a queue, or send through a connection."""
    put = target.send if hasattr(target, "send") else target.put
    for item in items:
        put(item)


def wait_readable(queue: Any, timeout: float) -> bool:
    """Wait for the descriptor of a queue."""
    return bool(multiprocessing.connection.wait([queue._reader], timeout))


# Targets for synchronisation


def increment(lock: Any, value: Any, times: int) -> None:
    """Add to an unlocked value under a lock, in two steps that a race would show."""
    for _ in range(times):
        with lock:
            value.value = value.value + 1


def hold(lock: Any, held: Any, release: Any) -> None:
    """Acquire, say so, and keep the lock until told."""
    with lock:
        held.set()
        assert release.wait(SOON)


def hold_twice(lock: Any, held: Any, release: Any) -> None:
    """Acquire a recursive lock twice, say so, and keep it until told."""
    with lock:
        hold(lock, held, release)


def wait_on(condition: Any, asleep: Any, woken: Any, timeout: float | None = None) -> bool:
    """Sleep on a condition; count before and after."""
    with condition:
        asleep.release()
        notified = condition.wait(timeout)
        woken.release()
        return notified


def wait_for_value(condition: Any, value: Any, expected: int, timeout: float = SOON) -> bool:
    """Sleep until the value is as expected."""
    with condition:
        return condition.wait_for(lambda: value.value == expected, timeout)


def set_value(condition: Any, value: Any, new: int) -> None:
    """Change the value and tell all."""
    with condition:
        value.value = new
        condition.notify_all()


def meet(barrier: Any, cycles: int, value: Any = None) -> list[int]:
    """Pass a barrier `cycles` times; return the indexes."""
    indexes = []
    for cycle in range(cycles):
        if value is not None:
            with value.get_lock():
                value.value += 1
        indexes.append(barrier.wait(SOON))
        if value is not None:
            # All have counted this cycle, and nobody the one after the next.
            parties = barrier.parties
            assert parties * (cycle + 1) <= value.value < parties * (cycle + 2)
    return indexes


def broken(barrier: Any, timeout: float = SOON) -> bool:
    """Whether waiting at the barrier ends with it broken."""
    try:
        barrier.wait(timeout)
    except threading.BrokenBarrierError:
        return True
    return False


def send_back_double(there: Any, back: Any) -> None:
    """Change an array that comes where it lies; send the double of what it was without a copy."""
    came = there.get(timeout=SOON)
    array = multiprocessing.get_context("mpipc-shm").empty(came.shape, to=back)
    array[:] = came * 2
    came[:] = 3
    back.put(array)


def end_met_or_broken(barrier: Any, timeout: float = SOON) -> None:
    """Wait at the barrier and end with status 0 if all met, 3 if it broke."""
    sys.exit(3 if broken(barrier, timeout) else 0)


def record(value: Any) -> None:
    """Count a call; an action of barriers."""
    value.value += 1


def acquire_all(semaphore: Any, count: int) -> None:
    """Take `count` units."""
    for _ in range(count):
        semaphore.acquire()


def use_and_release(semaphore: Any, count: int) -> None:
    """Take a unit and give it back, `count` times."""
    for _ in range(count):
        with semaphore:
            pass


def acquire_and_set(lock: Any, event: Any) -> None:
    """Use a lock, then set an event."""
    with lock:
        event.set()


def pass_on(ctx: Any, lock: Any, event: Any) -> None:
    """Let a child of this process use them."""
    with Family(ctx) as family:
        family.start(acquire_and_set, lock, event)


def alternate(condition: Any, value: Any, parity: int, rounds: int) -> None:
    """Add one whenever it is this party's turn."""
    for _ in range(rounds):
        with condition:
            assert condition.wait_for(lambda: value.value % 2 == parity, SOON)
            value.value += 1
            condition.notify()


# Targets for shared values


class Point(ctypes.Structure):
    """A structure for Value."""

    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_int)]


def add(value: Any, times: int) -> None:
    """Add one, under the value's own lock."""
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def add_each(array: Any, times: int) -> None:
    """Add one to each element, under the array's own lock."""
    for _ in range(times):
        with array.get_lock():
            for index in range(len(array)):
                array[index] += 1


def store(obj: Any, name: Any, value: Any) -> None:
    """Set an attribute, or an element."""
    if isinstance(name, str):
        setattr(obj, name, value)
    else:
        obj[name] = value


def elements(array: Any) -> list[Any]:
    """Return all elements."""
    return array[:]


def double_all(*shared: Any) -> None:
    """Double values and the elements of arrays."""
    for obj in shared:
        if hasattr(obj, "value"):
            obj.value *= 2
        elif hasattr(obj, "x"):
            obj.x *= 2
            obj.y *= 2
        else:
            obj[:] = [element * 2 for element in obj]


def read_when(value: Any, ready: Any, go: Any) -> Any:
    """Say that it runs, wait, return the value of that time."""
    ready.set()
    assert go.wait(SOON)
    return value.value


def total(values: Any) -> Any:
    """Sum shared values."""
    return sum(value.value for value in values)


# Targets for processes and pools


def identity(value: Any) -> Any:
    """Return the argument."""
    return value


def square(value: int) -> int:
    """Return its square."""
    return value * value


def weighted(value: int, weight: int = 1) -> int:
    """Return their product."""
    return value * weight


def pid(_: Any = None) -> int:
    """Return this process's id."""
    return os.getpid()


def raise_for(value: Any, error: type[BaseException] = KeyError) -> Any:
    """Raise with the value."""
    raise error(value)


def fail_on_three(value: int) -> int:
    """Raise for 3 alone."""
    if value == 3:
        raise ValueError("three")
    return value


def unpicklable_result(_: Any = None) -> Any:
    """Return what does not pickle."""
    return threading.Lock()


def initialise(value: Any, start: int) -> None:
    """Keep a shared value where the tasks of a pool find it."""
    global kept
    kept = value
    with value.get_lock():
        value.value += start


def add_to_kept(amount: int) -> None:
    """Add to what `initialise` kept."""
    with kept.get_lock():
        kept.value += amount


def name_of_start_method() -> Any:
    """Return this process's default start method, and whether it is a stock context's."""
    context = multiprocessing.get_context()
    return context.get_start_method(), type(context).__module__


def identities() -> tuple[int, int, str]:
    """Return this process's id, its parent's and its name."""
    return os.getpid(), os.getppid(), multiprocessing.current_process().name


def pool_in_child(ctx: Any, values: list[int]) -> list[int]:
    """Run a pool of this process's own."""
    with ctx.Pool(2) as pool:
        return pool.map(square, values)


def hold_event(event: Any) -> None:
    """Say that it runs, and go on for ever."""
    event.set()
    forever()


class Payload:
    """Something that can be referred to weakly, and pickled."""


def read_attributes(*objects: Any) -> None:
    """Use objects a little."""
    for obj in objects:
        repr(obj)


# All objects at once


def one_of_each(ctx: Any) -> dict[str, Any]:
    """Make an object of every kind."""
    return {
        "Queue": ctx.Queue(),
        "JoinableQueue": ctx.JoinableQueue(),
        "SimpleQueue": ctx.SimpleQueue(),
        "Pipe": ctx.Pipe(),
        "Value": ctx.Value("i"),
        "Array": ctx.Array("i", 3),
        "RawValue": ctx.RawValue("i"),
        "RawArray": ctx.RawArray("i", 3),
        "Lock": ctx.Lock(),
        "RLock": ctx.RLock(),
        "Semaphore": ctx.Semaphore(),
        "BoundedSemaphore": ctx.BoundedSemaphore(),
        "Condition": ctx.Condition(),
        "Event": ctx.Event(),
        "Barrier": ctx.Barrier(1),
    }


def use_one_of_each(objects: dict[str, Any]) -> str:
    """Do something to each that the other side can see."""
    for kind in ("Queue", "JoinableQueue", "SimpleQueue"):
        objects[kind].put("from the child")
    objects["Pipe"][1].send("from the child")
    objects["Value"].value += 1
    objects["Array"][0] += 1
    objects["RawValue"].value += 1
    objects["RawArray"][0] += 1
    for kind in ("Lock", "RLock", "BoundedSemaphore"):
        with objects[kind]:
            pass
    objects["Semaphore"].release()
    with objects["Condition"] as condition:
        assert condition is True
        objects["Condition"].notify_all()
    objects["Event"].set()
    assert objects["Barrier"].wait() == 0
    return "used"


def close_all(objects: dict[str, Any]) -> None:
    """Close what has a close."""
    for obj in objects.values():
        for part in obj if isinstance(obj, tuple) else [obj]:
            if hasattr(part, "close"):
                part.close()


def put_keyword(*, queue: Any, parts: dict[str, Any]) -> None:
    """Put what is found inside containers: a value, and whether it is one and the same."""
    (first,), (second,) = parts["list"], parts["same"]
    queue.put((first.value, first is second))


def recurse(ctx: Any, value: Any, depth: int) -> None:
    """Count, and let a child do so; its parent must be this process."""
    with value.get_lock():
        value.value += 1
    if depth:
        with Family(ctx) as family:
            assert family.call(parent_pid) == os.getpid()
            family.start(recurse, ctx, value, depth - 1)


def parent_pid() -> int:
    """Return the id of the process that started this one."""
    return multiprocessing.parent_process().pid


def initialise_event(event: Any) -> None:
    """Say that a worker of a pool runs."""
    event.set()


def fill(mapping: Any, sequence: Any) -> None:
    """Add to a manager's containers."""
    mapping["b"] = [2]
    sequence.append(3)


def put_length(queue: Any, sequence: Any) -> None:
    """Put the length of a manager's list."""
    queue.put(len(sequence))


def initialise_event_to_wait_for(event: Any) -> None:
    """Keep an event for `length_when_told`."""
    global kept
    kept = event


def length_when_told(data: bytes) -> int:
    """Wait for the event that the pool's initializer kept; return the length."""
    assert kept.wait(SOON)
    return len(data)


def interrupt(pid: int) -> None:
    """Press Ctrl-C for another process, a while later."""
    time.sleep(A_WHILE)
    os.kill(pid, signal.SIGINT)


def wait_interrupted(ready: Any, event: Any) -> None:
    """Leave with 3 when Ctrl-C ends the wait."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ready.set()
    try:
        event.wait()
    except KeyboardInterrupt:
        raise SystemExit(3) from None


def executor_in_child(ctx: Any, values: list[int]) -> list[int]:
    """Run an executor of this process's own."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        return list(executor.map(square, values))


def descriptors(*_: Any) -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def use_busy_objects(objects: dict[str, Any], done: Any) -> None:
    """Use objects that the parent's threads are using too."""
    for _ in range(20):
        for kind in ("Lock", "RLock", "Condition"):
            with objects[kind]:
                pass
        objects["Queue"].put(b"from a child")
        objects["Queue"].get()
        objects["SimpleQueue"].put(b"from a child")
        objects["SimpleQueue"].get()
        objects["Value"].value = 2
        objects["Event"].is_set()
    done.put("done")


def start_method_of(ctx: Any) -> str:
    """Return the start method of a context that came as an argument."""
    return ctx.get_start_method()


# Under limits


def limit_address_space(spare: int) -> None:
    """Let this process map only so much more than it has now."""
    import resource

    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + spare, mapped + spare))


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """Make a call; return its result, or that it was refused for want of memory."""
    try:
        return call(*args)
    except MemoryError:
        return "refused"


def put_under_limit(ctx: Any) -> list[Any]:
    """Put more than memory can be had for, then what it can."""
    queue, large = ctx.Queue(), payload(64 * MIB)
    queue.put("mapped")
    queue.get()
    limit_address_space(32 * MIB)
    found = [outcome(queue.put, large)]
    queue.put("still")
    found.append(queue.get(timeout=SOON))
    queue.close()
    return found


def array_under_limit(ctx: Any) -> list[Any]:
    """Make an array that cannot be mapped, then a value that can."""
    kept = ctx.Value("i", 5)
    limit_address_space(32 * MIB)
    return [outcome(ctx.RawArray, "b", 128 * MIB), kept.value]


def square_or_die(value: int, signum: int = signal.SIGKILL) -> int:
    """The square, but three kills."""
    if value == 3:
        os.kill(os.getpid(), signum)
    return value * value


def count_and_square(value: int) -> int:
    """The square; the array that the worker was initialised with counts the calls."""
    kept[value] += 1
    return value * value


def initialise_counts(counts: Any) -> None:
    """What `count_and_square` counts in, and `announce_and_stay` releases."""
    global kept
    kept = counts


def announce_and_stay() -> None:
    """Say so, in what `initialise_counts` was given, and wait for the end."""
    kept.release()
    forever()


class LoadDies:
    """Kills who unpickles it."""

    def __reduce__(self) -> Any:
        return die, ()


def stamp(_: object) -> float:
    """When it is called."""
    return time.monotonic()


class Counting:
    """A function that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_: object) -> int:
        self.calls += 1
        return self.calls
