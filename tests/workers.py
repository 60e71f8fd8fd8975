"""What tests run in children and threads. Imports no pytest: every spawned child loads this."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import signal
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

    def start(self, target: Callable[..., Any], *args: Any, exitcode: int | None = 0, **kwargs: Any):
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


def record(value: Any) -> None:
    """Count a call; an action of barriers."""
    value.value += 1


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
